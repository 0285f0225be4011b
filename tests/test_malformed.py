"""Values and files that are not allowed end in one sentence, before anything is trained."""

import json

import pytest

from benchmarks.common import Untrained
from diffcontrol import allowed
from diffcontrol.preparing import prepare, resolved
from diffcontrol.refused import Refused
from diffcontrol.requests import choose
from diffcontrol.store import Store
from tests.composing import composed, job

VALUES = [
    "decoding.temperature=0", "decoding.temperature=-1", "decoding.clamp=2", "decoding.clamp=-1",
    "method.guided_diffusion.clean=abc", "sampler.eta=-1", "sampler.eta=5", "sampler.noise=inf",
    "guidance.distance=-1", "guidance.start=-1", "guidance.stop=2", "guidance.stop=0.6 guidance.start=0.3",
    "guidance=langevin guidance.inner=0",
    "guidance=langevin guidance.inner=-1", "guidance=langevin guidance.inner=1.5", "strength.one_pass.length=inf",
    "strength.one_pass.length=abc", "strength.one_pass=abc", "strength=abc", "strength.scale=inf",
    "strength.scale=abc", "targets.n=-1", "targets.n=1.5", "lm.window=-1", "model.depth=0", "model.depth=-1",
    "schedule.margin=-1", "objective.self_conditioning=2", "method.fudge.post_top_k=-1", "trainer.compile=maybe",
    "+trainer.max_steps=5", "+trainer.max_time=1h", "+trainer.max_time=5", "+trainer.profiler=foo",
    "+trainer.deterministic=maybe", "trainer.enable_progress_bar=3", "sampler.steps=0", "sampler.steps=2.5",
    "lm.optim.lr=abc", "lm.optim.batch_size=-4",
    "lm.optim.batch_size=1.5", "num_samples=1.5", "num_samples=0", "chunk=0", "chunk=1.5", "seed=1.5",
    "targets.from=null", "targets.from=5", "task=[]", "data.length=1", "trainer.devices=99999", "trainer.devices=two",
    "limit.train=abc", "limit.test=0", "on_unsupported=x", "targets.on_invalid=x",
    "task=first_word task.first_word.min_count=0",
    "guidance.strength=5", "method.fudge.strength=5", "strength.fudge.length=-1",
    f"decoding.temperature={10**400}",
    "+lm.foo=1", "+lm.optim.foo=1", "task=attribute +classifier_optim.foo=1", "+model.foo=1", "model.heads=3",
    "+sampler.foo=1", "task=attribute encoder=noisy encoder.heads=3", "method.fudge._target_=foo.Bar",
    "method.fudge._target_=diffcontrol.methods.Bar",
]  # fmt: skip
METHODS = "method=[guided_diffusion,fudge,masked]"


@pytest.fixture(autouse=True)
def trains_nothing(monkeypatch):
    monkeypatch.setattr(Store, "fit", lambda self, recipe: pytest.fail(f"trained {recipe['_target_']}"))


def start(tmp_path, *overrides: str) -> None:
    """A run up to where its first model would be trained."""
    tiny = ["experiment=tiny", f"paths.store={tmp_path / 'store'}", "paths.pretrained=null", "trainer.accelerator=cpu"]
    prepare(resolved(job(*tiny, *overrides)))


@pytest.mark.parametrize("given", VALUES)
def test_a_value_that_is_not_allowed_is_named(tmp_path, given):
    task = [] if "task=" in given else ["task=length"]
    with pytest.raises(Refused) as error:
        start(tmp_path, *task, METHODS, *given.split(" "))
    key, _, value = given.split(" ")[-1].lstrip("+").partition("=")
    said = str(error.value)
    assert "\n" not in said
    assert key.split(".")[-1] in said or key in said
    assert value in said or (value == "null" and "None" in said)


def targets(tmp_path, content: bytes) -> str:
    (tmp_path / "targets.jsonl").write_bytes(content)
    return f"targets.from={tmp_path / 'targets.jsonl'}"


TARGETS = {  # what a file of targets for syntax_tree holds, and what is said of it
    "deep": (b"[" * 100_000 + b"]" * 100_000, "line 1"),
    "latin-1": ('"caf\xe9"'.encode("latin-1"), "not in UTF-8"),
    "no JSON": (b"{", "is not JSON"),
    ")": (b'")"', "closes"),
    "))((": (b'"))(("', "closes"),
    "(S": (b'"(S"', "no words|stay open"),
}


def test_a_target_without_the_brackets_of_the_list_is_named(tmp_path):
    said = r"targets.from=\[food,Italian\]: this is one target, .* targets.from=\[\[food,Italian\]\]"
    with pytest.raises(Refused, match=said):
        start(tmp_path, "task=semantic_content", "targets.from=[food,Italian]")


def test_a_table_without_files_says_how_to_name_them(tmp_path):
    with pytest.raises(Refused, match=r"data\.folder=<folder> .* or with data\.file=<file>"):
        start(tmp_path, "data=table")


@pytest.mark.parametrize(("content", "said"), TARGETS.values(), ids=TARGETS)
def test_a_target_file_that_is_not_allowed_is_named(tmp_path, content, said):
    with pytest.raises(Refused, match=said) as error:
        start(tmp_path, "task=syntax_tree", targets(tmp_path, content))
    assert "targets.jsonl" in str(error.value)


def test_targets_that_are_no_json_are_skipped_like_others(tmp_path):
    store = Store(tmp_path / "store")
    cfg = composed("experiment=tiny", "task=length")
    tasks, corpus = {"length": store.build(cfg["task"]["length"])}, store.build(cfg["data"])
    path = tmp_path / "targets.jsonl"
    path.write_bytes(b"\xef\xbb\xbf8\n{\n" + b"[" * 100_000 + b"\n12\n")  # with a byte order mark
    found = choose(tasks, corpus, str(path), None, 0, "skip")
    assert [request.targets["length"] for request in found] == [8, 12]


CONTRADICTIONS = {  # targets of a request, and what is said of them
    '{"first_word": "the", "infilling": "it is a [3] ."}': "ask for different words at the same place",
    '{"syntax_spans": [20, 25, "NP"], "infilling": "it is [1-3] ."}': "spans needs 26 words .* infilling allows 6",
}


@pytest.mark.parametrize(("targets", "said"), CONTRADICTIONS.items())
def test_targets_that_no_text_meets_together_are_refused(targets, said):
    given = json.loads(targets)
    cfg, store = composed("experiment=tiny", f"task=[{','.join(given)}]"), Untrained()
    tasks = {name: store.build(cfg["task"][name]) for name in given}
    with pytest.raises(Refused, match=f"entry 1: .*{said}"):
        choose(tasks, store.build(cfg["data"]), [given], None, 0)


@pytest.mark.parametrize("task", ["length", "syntax_spans", "infilling", "semantic_content", "attribute"])
@pytest.mark.parametrize("line", ["9" * 5000, '"%s"' % ("9" * 5000), f'"a [{"9" * 5000}] ."', r'["food", "\ud800"]'])
def test_no_number_is_too_long_and_no_letter_too_odd_to_be_skipped(tmp_path, task, line):
    cfg, store = composed("experiment=tiny", f"task={task}"), Untrained()
    path = tmp_path / "targets.jsonl"
    path.write_text(line, encoding="utf-8")
    tasks, corpus = {task: store.build(cfg["task"][task])}, store.build(cfg["data"])
    with pytest.raises(Refused, match="there is no target for"):
        choose(tasks, corpus, str(path), None, 0, "skip")


def test_a_line_separator_within_json_ends_no_line(tmp_path):
    store = Store(tmp_path / "store")
    cfg = composed("experiment=tiny", "task=infilling")
    tasks, corpus = {"infilling": store.build(cfg["task"]["infilling"])}, store.build(cfg["data"])
    path = tmp_path / "targets.jsonl"
    path.write_text(json.dumps("it\u2028is a [2] pub .", ensure_ascii=False), encoding="utf-8")
    assert len(choose(tasks, corpus, str(path), None, 0)) == 1


ROW = b"review,stars\na b,good\n"


TABLES = {  # a CSV file, one more override, and what is said
    "empty": (b"", "", "empty"),
    "header": (b"review,stars\n", "", "no text"),
    "latin-1": ("review,stars\ncaf\xe9,good\n".encode("latin-1"), "", "UTF-8"),
    "late latin-1": (
        ROW * 40 + "caf\xe9,good\n".encode("latin-1"),
        "",
        r"line 81: not in UTF-8 .*; save the file as UTF-8",
    ),
    "no header": (b"\n" + ROW, "", "its first line is empty"),
    "NUL": (b"review,stars\na b\0c,good\n", "", "NUL"),
    "more_than": (ROW + b"b c,bad\nc d,bad\n", "data.more_than=100000", "more_than=100000"),
    "one text": (ROW, "", "1 different texts"),
    "0 characters": (ROW, "data.delimiter=''", "delimiter"),
    "2 characters": (ROW, "data.delimiter=ab", "delimiter"),
    "column": (ROW, "data.text=txt", "no column 'txt'"),
    "file": (ROW, "data.file=nowhere.csv", "nowhere.csv"),
    "forms": (ROW, "data.forms.food.English=english", "data.forms.food.English='english': allowed is a list of texts"),
    "both": (ROW, "data.folder=/tmp", "data.folder=/tmp"),
}


def table(tmp_path, content: bytes, more: str) -> list[str]:
    """The overrides that read this table."""
    (tmp_path / "reviews.csv").write_bytes(content)
    given = [f"data.file={tmp_path / 'reviews.csv'}", "data.text=review", "data.labels.sentiment=stars"]
    return ["data=table", *given, *filter(None, [more])]


@pytest.mark.parametrize(("content", "more", "said"), TABLES.values(), ids=TABLES)
def test_a_table_that_is_not_allowed_is_named(tmp_path, monkeypatch, content, more, said):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    with pytest.raises(Refused, match=said):
        start(tmp_path, *table(tmp_path, content, more))


@pytest.mark.parametrize("task", ["length", "attribute"])
def test_what_conf_says_is_allowed(task):
    cfg = composed(f"task={task}", "method=[guided_diffusion,fudge,finetuned,masked,pplm,lookahead,smc,mbr,paper]")
    allowed.check({part: cfg[part] for part in ("data", "task", "judge", "method")})
