import shutil
from pathlib import Path

import pytest

from diffcontrol.refused import Refused
from diffcontrol.store import Store
from diffcontrol.syntax import trees
from diffcontrol.syntax.parser import (
    BATCH,
    BeneparParser,
    FolderParser,
    Parse,
    PublishedParser,
    batches,
    leaf,
    sentence,
)

LOCAL = Path(__file__).parents[2].parent / "shared" / "models" / "benepar_wsj_minilm"
TEXT = ["the", "bar", "(", "by", "the", "river", ")", "serves", "coffee", "."]


@pytest.fixture(scope="module")
def local() -> FolderParser:
    if not (LOCAL / "benepar_model.bin").is_file():
        pytest.skip(f"there is no parser in {LOCAL}")
    return FolderParser(str(LOCAL))


@pytest.mark.parametrize(("word", "expected"), [
    ("(", "-LRB-"), (")", "-RRB-"), ("[", "-LSB-"), ("}", "-RCB-"), ("a(b)", "a-LRB-b-RRB-"), ("", "_"), (" ", "_"),
    ("a\xa0b", "a_b"), ("café", "café"), ("-", "-"), ("*", r"\*"),
])  # fmt: skip
def test_any_word_can_be_a_leaf(word, expected):
    assert leaf(word) == expected


def test_a_star_is_a_word_and_no_constituent():
    assert trees.read(f"(TOP (NP (CD 5) (SYM {leaf('*')}) (NN hotel)))").nodes == ((0, 2, "NP"),)


def test_words_are_read_plain_and_escaped_only_in_trees():
    given = sentence(["a", "(", ""])
    assert given.words == ["a", "(", "_"] and given.escaped_words == ["a", "-LRB-", "_"]
    assert len(given.space_after) == 3


def test_batches_hold_every_text_once_in_order_and_no_more_than_fits():
    texts = [("w",) * length for length in (1, 1, 3, 40, 40, 500, 900, 2000)]
    cut = list(batches(texts))
    assert [text for batch in cut for text in batch] == texts
    assert all(len(batch) == 1 or len(batch) * len(batch[-1]) <= BATCH for batch in cut)
    assert len(cut) == 4 and list(batches([])) == []


class Echo(BeneparParser):
    """Keeps what it was asked to parse."""

    def __init__(self):
        self.seen = []

    def _parse(self, texts):
        self.seen += texts
        return [Parse(f"(TOP {len(text)})", ("X",) * len(text)) for text in texts]


def test_a_text_is_parsed_once_however_often_it_is_asked_for():
    parser = Echo()
    first = parser.parse([["a", "b"], ["c"], [], ["a", "b"]])
    assert [parse.tree for parse in first] == ["(TOP 2)", "(TOP 1)", "", "(TOP 2)"]
    assert first[2] == Parse("", ())
    parser.parse([["c"], ["d"]], title="again")
    assert parser.seen == [("c",), ("a", "b"), ("d",)]  # shortest first
    assert parser.parse([]) == []


# --- a folder in benepar's format


def test_a_parse_is_a_tree_on_one_line_with_a_tag_a_word(local):
    parse, empty, odd = local.parse([TEXT, [], ["", "\xa0", "😀", "UNK"]])
    assert parse.tree.startswith("(TOP (") and "\n" not in parse.tree and "(-LRB- -LRB-)" in parse.tree
    assert len(parse.tags) == len(TEXT) and parse.tags[0] == "DT" and parse.tags[-1] == "."
    assert tuple(trees.read(parse.tree).tags) == parse.tags
    assert empty == Parse("", ()) and len(odd.tags) == 4


def test_a_parse_does_not_depend_on_what_else_is_parsed(local):
    texts = [TEXT[:n] for n in range(2, len(TEXT) + 1)]
    alone = [FolderParser.parse(local, [text])[0] for text in texts]
    local.parsed.clear()
    assert local.parse(list(reversed(texts)) + [["x"]])[:-1] == alone[::-1]


def test_a_text_too_long_for_the_model_is_refused_in_a_sentence(local):
    with pytest.raises(ValueError, match=r"a text of 600 words is too long .*512"):
        local.parse([["word"] * 600])


def test_a_moved_folder_is_the_same_parser_and_a_changed_file_is_not(local, tmp_path):
    moved = tmp_path / "elsewhere"
    shutil.copytree(LOCAL, moved)
    nodes = [{"_target_": "diffcontrol.syntax.parser.FolderParser", "model": str(folder)} for folder in (LOCAL, moved)]
    assert Store(tmp_path / "s").canonical(nodes[0]) == Store(tmp_path / "s").canonical(nodes[1])
    (moved / "vocab.txt").write_text("other")
    assert Store(tmp_path / "s").canonical(nodes[0]) != Store(tmp_path / "s").canonical(nodes[1])


# --- missing models


@pytest.mark.parametrize(("model", "said"), [(None, "none is given"), ("/no/such", "no benepar_model.bin in /no/such")])
def test_a_missing_folder_says_how_to_get_one(model, said):
    with pytest.raises(Refused, match=f"{said}; set parser.model=<folder>"):
        FolderParser(model)


def test_a_published_model_is_downloaded_if_missing(monkeypatch, tmp_path):
    import benepar
    import nltk

    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    folder, asked = tmp_path / "models" / "benepar_xx", []

    def download(name, **_):
        asked.append(name)
        folder.mkdir(parents=True)

    monkeypatch.setattr(benepar, "download", download)
    assert PublishedParser("benepar_xx").folder == folder
    assert PublishedParser("benepar_xx").folder == folder and asked == ["benepar_xx"]


@pytest.mark.parametrize("outcome", [False, ConnectionError("no network")])
def test_a_published_model_out_of_reach_says_how_to_get_it(monkeypatch, tmp_path, outcome):
    import benepar
    import nltk

    def download(*_, **__):
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    monkeypatch.setattr(benepar, "download", download)
    with pytest.raises(Refused, match=r"benepar_en3 .* python -c .*benepar.download\('benepar_en3'\)"):
        PublishedParser("benepar_en3")
