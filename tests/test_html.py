"""What a reader sees of a run: texts in the terminal, report.html, and the page of many runs."""

import copy
import io
import json
import re
import sys
from html.parser import HTMLParser

import pytest
from rich.console import Console

from diffcontrol import report
from diffcontrol.evaluation import annotated
from diffcontrol.report import texts
from diffcontrol.report.__main__ import main
from diffcontrol.report.page import run_page
from diffcontrol.report.terminal import drawn
from diffcontrol.task import Mark
from tests.fakes import FakeTask
from tests.test_report import lay, made_up

VOID = {"meta", "img", "br", "link"}
METHODS = ("gold", "unguided", "fudge", "guided_diffusion")


def lines(words: str = "the pub sells Crêpes .", n: int = 6, marks: tuple = ((3, 4, True, "food"),)) -> list[dict]:
    """Two texts of every method for n targets; every text is numbered, the later targets are met."""
    return [
        {
            "method": method, "row": row, "tasks": {"semantic_content": ["food", "Crêpes"]}, "sample": k,
            "words": [*words.split(), f"{method}-{row}-{k}"], "asked": {"semantic_content": "food : Crêpes"},
            "marks": {"semantic_content": [list(mark) for mark in marks]},
            "scores": {"semantic_content": {"strict": float(row > 1), "released": 1.0}}, "nll": 1.5 + row,
        }
        for method in METHODS for row in range(n) for k in range(1 if method == "gold" else 2)
    ]  # fmt: skip


class Page(HTMLParser):
    """The text a reader sees, whether all tags are closed, and what a page would load or link to."""

    def __init__(self, page: str):
        super().__init__()
        self.open, self.seen, self.loaded, self.links, self.images = [], "", [], [], []
        self.feed(page)
        self.close()
        assert not self.open
        self.seen = " ".join(self.seen.replace("\u200a", "").split())

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.loaded += [given[name] for name in ("src", "srcset", "data") if name in given]
        self.loaded += [given["href"]] if tag == "link" else []
        self.links += [given["href"]] if tag == "a" else []
        assert not any(name.startswith("on") for name in given) and tag != "script"
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.seen += data


def page_of(results: dict, samples: list[dict]) -> Page:
    return Page(run_page(results, samples, b"\x89PNG"))


def printed(results: dict, samples: list[dict], **how) -> str:
    console = Console(file=io.StringIO(), width=200, **how)
    console.print(report.excerpt(results, samples))
    return console.file.getvalue()


# --- marks


def test_marks_nest_and_a_text_is_drawn_with_them():
    words = ["the", "pub", "is", "cheap", "."]
    marks = [(0, 5, True, "S"), (0, 2, True, "NP"), (2, 4, False, "VP"), (3, 4, True, "ADJP")]
    assert drawn(texts.pieces(words, marks)).plain == "[S: [NP: the pub] [!VP: is cheap/ADJP] .]"
    assert drawn(texts.pieces(words, [])).plain == "the pub is cheap ."
    assert drawn(texts.pieces([], [])).plain == ""


@pytest.mark.parametrize("marks", [[(0, 2, True, "a"), (1, 3, True, "b")], [(2, 9, True, "a")], [(1, 1, True, "a")],
                                   [(7, 8, True, "a")]])  # fmt: skip
def test_marks_that_cross_or_lie_outside_are_a_fault(marks):
    with pytest.raises(ValueError, match="the mark"):
        texts.pieces(["a", "b", "c"], marks)


class Marks(FakeTask):
    def marks(self, texts, targets, judges={}):  # noqa: B006  (the interface)
        return [
            [Mark(i, i + 1, word == target, "word") for i, word in enumerate(words)]
            for words, target in zip(texts, targets, strict=True)
        ]


def test_samples_hold_the_target_in_words_and_the_marks_of_every_task():
    samples = [{"words": ["red", "cat"], "tasks": {"colour": "red", "animal": "cat"}}]
    (line,) = annotated(samples, {"colour": Marks(), "animal": FakeTask(["cat"])}, {})
    assert line["asked"] == {"colour": "red", "animal": "cat"} and line["words"] == ["red", "cat"]
    assert json.loads(json.dumps(line["marks"])) == {
        "colour": [[0, 1, True, "word"], [1, 2, False, "word"]],
        "animal": [],
    }


# --- the terminal


def test_the_first_texts_of_the_first_targets_are_printed_for_every_method():
    text = printed(made_up(), lines())
    shown = re.findall(r"(\w+)-(\d)-(\d)", text)
    assert shown == [(name, str(row), "0") for name in METHODS[1:] for row in range(3)]
    assert text.count("(food : Crêpes): not met") == 6 and text.count("(food : Crêpes): met") == 3
    assert "the pub sells Crêpes/food . fudge-0-0" in text and "\x1b[" not in text


def test_all_texts_of_a_users_own_targets_are_printed_up_to_a_limit():
    results, samples = made_up(), [line for line in lines(n=30) if line["method"] != "gold"]
    del results["methods"]["gold"]
    assert printed(results, samples).count("fudge-") == texts.OWN
    few = [line for line in samples if line["row"] < 4]
    assert printed(results, few).count("fudge-") == 8


def test_a_terminal_has_colours_and_markup_in_texts_is_text():
    samples = lines("[red] [/] [link=x] :smile: \\[bold]", marks=((0, 1, False, "[/b]"),))
    assert "[red]/![/b] [/] [link=x] :smile: \\[bold]" in printed(made_up(), samples)
    coloured = printed(made_up(), samples, force_terminal=True, color_system="standard")
    assert "\x1b[31m[red]" in coloured


def test_an_output_that_knows_ascii_alone_gets_a_question_mark(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    report.console().print(report.table(made_up()), report.excerpt(made_up(), lines()))
    sys.stdout.flush()
    assert b"Cr?pes/food" in raw.getvalue()


# --- report.html


def test_the_page_says_what_was_run_and_shows_table_and_texts():
    results = made_up(command=["task=semantic_content", "targets.from=[[food, Crêpes]]"], settings={"sampler.steps": 9})
    page = page_of(results, lines())
    for part in ("python run.py task=semantic_content 'targets.from=[[food, Crêpes]]'", "sampler.steps=9",
                 "0123456789abcdef", "heldout, 20 × 3", "97.3 [95.3, 99.3]", "the pub sells Crêpesfood .",
                 "guided_diffusion-5-0", "Best and worst"):  # fmt: skip
        assert part in page.seen, part
    assert {"results.json", "samples.jsonl"} <= set(page.links)


def test_the_page_loads_nothing_from_elsewhere():
    page = page_of(made_up(), lines())
    assert page.loaded and all(source.startswith("data:") for source in page.loaded)
    style = re.search(r"<style>(.*?)</style>", run_page(made_up(), lines(), b""), re.S)[1]
    assert "url(" not in style and "@import" not in style and "prefers-color-scheme: dark" in style


HOSTILE = "<script>alert(1)</script> <b &amp; \"x\" 'y' {{ 7 * 7 }} {% raw %}"


def test_whatever_stands_in_a_text_a_target_or_a_name_is_shown_and_not_obeyed():
    results = made_up(command=[f"x={HOSTILE}"], settings={HOSTILE: HOSTILE})
    results["targets"]["from"] = results["data"] = HOSTILE
    results["methods"][HOSTILE] = copy.deepcopy(results["methods"]["fudge"])
    samples = lines(HOSTILE, marks=((0, 1, False, HOSTILE),))
    for sample in samples:
        sample["asked"] = {"semantic_content": HOSTILE}
    page = page_of(results, samples)  # which asserts that no tag is a script and that all are closed
    assert page.seen.count(HOSTILE) > 10


def test_the_page_shows_how_a_text_comes_about():
    names = ("unguided", "fudge")
    texts_of_one = [line for line in lines(n=1) if line["method"] in names and line["sample"] == 0]
    steps = [
        {**line, "t": 1 - k / 2, "words": ["word", f"{line['method']}:{k}"]} for k in range(3) for line in texts_of_one
    ]
    for step in steps:
        step["marks"] = {"semantic_content": [[0, 1, False, "food"]]}
        del step["scores"], step["nll"]
    seen = Page(run_page(made_up(), lines(), b"", steps)).seen
    places = [seen.index(f"t = {1 - k / 2:.2f} word✗food {name}:{k}") for name in names for k in range(3)]
    assert places == sorted(places)
    assert "How a text comes about" not in page_of(made_up(), lines()).seen


def test_best_and_worst_targets_are_different_ones():
    best, worst = texts.extremes(lines(), "fudge")
    assert [group[0]["row"] for group in best] == [2, 3, 4] and [group[0]["row"] for group in worst] == [1, 0, 5]
    best, worst = texts.extremes(lines(n=1), "fudge")
    assert len(best) == 1 and not worst


def test_runs_that_wrote_no_marks_and_texts_of_no_words_have_a_page():
    samples = [{key: value for key, value in line.items() if key not in ("asked", "marks")} for line in lines()]
    samples[0]["words"] = []
    page = page_of(made_up(), samples)
    assert "['food', 'Crêpes']" in page.seen and "(a text of no words)" in page.seen


def test_results_are_saved_before_anything_is_made_of_them(tmp_path, monkeypatch):
    def steps():
        assert (tmp_path / "samples.jsonl").exists() and (tmp_path / "results.json").exists()
        raise ValueError("no steps")

    def page(*_):
        raise ValueError("no page")

    with pytest.raises(ValueError, match="no steps"):
        report.write(tmp_path, made_up(), lines(), steps)
    monkeypatch.setattr(report, "run_page", page)
    with pytest.raises(ValueError, match="no page"):
        report.write(tmp_path, made_up(), lines())
    assert json.loads((tmp_path / "results.json").read_text()) == made_up()
    assert len((tmp_path / "samples.jsonl").read_text().splitlines()) == len(lines())
    assert not list(tmp_path.glob("*.part"))


def test_a_score_in_part_is_said():
    sample = lines()[0]
    sample["scores"]["semantic_content"]["strict"] = 0.75
    assert texts.verdict(sample, "semantic_content") == "met to 75 %"
    sample["scores"]["semantic_content"]["strict"] = 0.999  # not what rounding makes of it
    assert texts.verdict(sample, "semantic_content") == "met to 99.9 %"


# --- many runs


def test_the_page_of_many_runs_links_to_each_runs_own(tmp_path):
    report.write(tmp_path / "a run", made_up(), lines())
    lay(tmp_path / "old", made_up(("length",), settings={}))
    assert main([str(tmp_path)]) == 0
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert set(page.links) == {"a%20run/report.html", "old/results.json"}
    assert len(page.loaded) == 1 and page.loaded[0].startswith("data:image/png;base64,")
    assert "97.3" in page.seen and "Strict success at perplexity" in page.seen


def test_a_run_keeps_its_own_page(tmp_path):
    report.write(tmp_path, made_up(), lines())
    own = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert main([str(tmp_path)]) == 0
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == own
