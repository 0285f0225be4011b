"""The live page of `diffcontrol demo`: what it shows while a sentence settles, and the page in a browser."""

import re
import shutil
import sys

import pytest

import diffcontrol
from diffcontrol import cli, demo
from diffcontrol.report.page import settling_style
from tests.test_api import TINY

SIZES = {"wide": (1280, 900), "narrow": (400, 800)}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return diffcontrol.load(*TINY, "sampler.steps=6", store=tmp_path_factory.mktemp("store"))


def test_a_sentence_settles_step_by_step_guided_beside_unguided(model):
    pages = list(demo.pages(model, {"length": 7, "semantic_content": ["food", "Italian"]}, seed=1, pause=0))
    shown = [re.findall(r'data-run="(\w+)"( data-finished)?', page) for page in pages]
    assert len(pages) == 7 and all([name for name, _ in runs] == ["guided", "unguided"] for runs in shown)
    assert [any(finished for _, finished in runs) for runs in shown] == [False] * 6 + [True]
    assert "t = 1.00" in pages[0] and re.search("length (not )?met", pages[-1]) and "script" not in pages[-1]


def test_what_is_offered_is_short_and_accepted(model):
    offered = demo.offers(model)
    assert {"length", "semantic_content", "attribute"} <= set(offered)
    assert all(len(said) <= demo.LONGEST for targets in offered.values() for said in targets)


@pytest.mark.parametrize(("argument", "said"), [
    ("method=masked", "the page writes with guided diffusion, and its tasks are chosen there"),
    ("--help", "it takes overrides, .*, and no options"),
])  # fmt: skip
def test_what_the_page_does_not_take_is_said_in_its_own_words(argument, said):
    with pytest.raises(diffcontrol.Refused, match=rf"diffcontrol demo {argument}: {said}"):
        demo.main([argument])


def test_nothing_chosen_is_refused(model):
    with pytest.raises(diffcontrol.Refused, match="choose what the sentence is to say"):
        next(demo.pages(model, {}, seed=0))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["sampler.step=3"], r"sampler\.step"), (["data=nosuch"], "nosuch")],
)
def test_the_command_refuses_what_there_is_not(monkeypatch, arguments, said):
    monkeypatch.setattr(sys, "argv", ["diffcontrol", "demo", *arguments])
    with pytest.raises(SystemExit, match=f"diffcontrol: .*{said}"):
        cli.main()


def test_data_that_cannot_be_read_are_named_before_the_page_is_served():
    with pytest.raises(diffcontrol.Refused, match=r"data\.file=nowhere\.csv"):
        demo.offers(diffcontrol.load("data=table", "data.file=nowhere.csv", "data.text=text"))


def test_without_gradio_the_command_says_how_to_install_it(monkeypatch, model):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(diffcontrol.Refused, match=re.escape("pip install -e '.[demo]'")):
        demo.app(model)


@pytest.fixture(scope="module")
def address(model):
    gradio = pytest.importorskip("gradio", reason="pip install 'diffcontrol[demo]'")
    app = demo.app(model, pause=0)
    _, url, _ = app.launch(css=settling_style(), prevent_thread_lock=True, quiet=True)
    yield url
    gradio.close_all()


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("there is no Chromium here")
    with playwright.sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_the_page_in_a_browser(address, browser, size):
    width, height = SIZES[size]
    page = browser.new_page(viewport={"width": width, "height": height})
    page.set_default_timeout(120_000)
    page.goto(address)
    page.get_by_label("semantic content").click()
    page.get_by_role("option", name="food : Italian", exact=True).click()
    page.get_by_role("button", name="Write a sentence").click()
    page.locator("[data-run=guided][data-finished]").wait_for()
    texts = [page.locator(f"[data-run={run}]").inner_text() for run in ("guided", "unguided")]
    assert all("semantic_content" in text and "met" in text for text in texts)
    assert page.evaluate("document.documentElement.scrollWidth") <= width  # nothing sticks out
    page.close()
