"""Table: what is read from CSV files, what is refused, and what a reading is known by."""

import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from diffcontrol.data import meaning
from diffcontrol.data.corpus import SPLITS
from diffcontrol.data.table import Table
from diffcontrol.refused import Refused

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared/data"
FILES = {split: f"{split}.csv" for split in SPLITS}
RENAME = {"eatType": "Type", "priceRange": "price", "familyFriendly": "family friendly"}
ROW = '"name[The Vaults], eatType[pub], priceRange[£20-25]",The Vaults is a family-friendly pub.\n'


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


@pytest.fixture
def write(tmp_path):
    def write(train: str, header: str = "mr,ref\n", folder: str = "data", rest: str = ROW) -> str:
        (tmp_path / folder).mkdir(exist_ok=True)
        for split, body in {"train": train, "dev": rest, "test": rest}.items():
            (tmp_path / folder / FILES[split]).write_text(header + body, encoding="utf-8")
        return str(tmp_path / folder)

    return write


def e2e(folder: str | None, **kwargs) -> Table:
    return Table(folder, FILES, {"text": "ref", "meaning": "mr"}, rename=RENAME, **kwargs)


def shipped(folder: Path) -> Table:
    conf = OmegaConf.load(ROOT / "conf/data/e2e.yaml")
    conf.pop("defaults")  # Hydra's
    return instantiate(OmegaConf.merge({"paths": {"e2e": str(folder)}}, {"data": conf}).data)


def test_importing_it_imports_neither_datasets_nor_spacy():
    code = "import sys, diffcontrol.data.table as t; sys.exit(any(m in sys.modules for m in ('datasets', 'spacy')))"
    paths = {"PYTHONPATH": str(ROOT / "src"), "PATH": "/usr/bin"}
    assert subprocess.run([sys.executable, "-c", code], env=paths, check=False).returncode == 0


def test_fields_are_renamed_and_spelled_as_tokens(write):
    (example,) = e2e(write(ROW), labels_from_fields=["price", "area"]).splits["train"]
    assert example.fields == {"name": "The Vaults", "Type": "pub", "price": "£ 20 - 25"}
    assert example.labels == {"price": "£ 20 - 25"}
    assert example.words == ("The", "Vaults", "is", "a", "family", "-", "friendly", "pub", ".")


def test_a_path_is_no_pattern(write, tmp_path, monkeypatch):
    folder = write(ROW, folder="data [1] (of *)")
    assert len(e2e(folder).splits["train"]) == 1
    monkeypatch.chdir(folder)
    assert len(Table(None, FILES, {"text": "ref"}, file="train.csv", delimiter=",").paths) == 1
    assert len(e2e(".").splits["dev"]) == 1


def test_space_is_no_word_and_none_is_one(write):
    corpus = e2e(write('name[A],"  Two  bars,\n\none street. \n"\n\nname[B],None\n'))
    words = [example.words for example in corpus.splits["train"]]
    assert words == [("Two", "bars", ",", "one", "street", "."), ("None",)]


def test_vocabulary_holds_words_seen_more_often_than_asked(write):
    folder = write("name[A],thrice thrice thrice twice twice once\n", rest="name[A],rare rare rare\n")
    assert e2e(folder, more_than=2).vocabulary.words[4:] == ("thrice",)
    assert e2e(folder, more_than=1).vocabulary.words[4:] == ("thrice", "twice")


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ("name[A],\n", "text"),
        ("name[A],  \n", "text"),
        ("name[A]\n", "1 values for 2 columns"),
        ("name[A],a bar, really\n", "3 values for 2 columns"),
        (",A bar.\n", "empty"),
        ('"name[The Vaults, food[",A bar.\n', "name[The Vaults, food["),
        ('"name[A], name[B]",A bar.\n', "'name' stands twice"),
        ('"eatType[pub], Type[bar]",A bar.\n', "'Type' stands twice"),
        ('"name[A] and area[b]",A bar.\n', "stray text"),
        ('"name[A], food[]",A bar.\n', "food[]"),
        ('"name[A],",A bar.\n', "does not parse"),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_malformed_row_is_named_by_its_line_or_skipped(write, caplog, row, fault, first):
    before = "" if first else ROW + '"name[A]","Two\nlines,\nor three."\n\n'  # lines 2 to 6, the last one empty
    folder = write(before + row + ROW)
    line = 2 if first else 7
    with pytest.raises(ValueError) as error:
        _ = e2e(folder).splits
    message = str(error.value)
    assert f"train.csv line {line}: " in message and fault in message and "data.malformed=skip" in message
    corpus = e2e(folder, malformed="skip")
    with caplog.at_level(logging.WARNING):
        assert len(corpus.splits["train"]) == (1 if first else 3)
    assert corpus.skipped == {"train": 1, "dev": 0, "test": 0}
    assert f"lines {line}" in caplog.text


def test_quote_that_never_closes_is_an_error(write):
    with pytest.raises(ValueError, match=r"train\.csv.* line 3"):
        _ = e2e(write(ROW + 'name[A],"A bar.\nname[B],A pub.\n'), malformed="skip").splits


def test_texts_that_are_cut_are_counted(write, caplog):
    corpus = e2e(write("name[A],one two three\nname[B],one two three four\nname[C],one\n"), more_than=0, length=5)
    assert corpus.ids["train"].shape == (3, 5)
    said = "data.length=5: 1 of 3 texts (train) are longer and are cut; data.length=6 reads all of them whole"
    assert said in caplog.text


def test_users_own_columns(write):
    folder = write(
        "7;Nice pasta, really!;Italian;;good\n8;Meh.;;no;bad\n",
        header="id;review;cuisine;kids;tone\n",
        rest="9;Fine.;;;good\n",
    )
    columns = {"text": "review", "fields": {"food": "cuisine", "kids": "kids"}, "labels": {"sentiment": "tone"}}
    first, second = Table(folder, FILES, columns, delimiter=";").splits["train"]
    assert first.words == ("Nice", "pasta", ",", "really", "!")
    assert (first.fields, first.labels) == ({"food": "Italian"}, {"sentiment": "good"})
    assert (second.fields, second.labels) == ({"kids": "no"}, {"sentiment": "bad"})


def test_a_column_without_a_name_is_read_over(write):
    folder = write("0,Nice.,good\n1,Meh.,bad\n", header=",review,tone\n", rest="0,Fine.,good\n")  # as pandas writes it
    columns = {"text": "review", "labels": {"sentiment": "tone"}}
    texts = [(example.words, example.labels) for example in Table(folder, FILES, columns).splits["train"]]
    assert texts == [(("Nice", "."), {"sentiment": "good"}), (("Meh", "."), {"sentiment": "bad"})]


def test_missing_column_names_column_file_and_what_there_is(write):
    folder = write(ROW)
    with pytest.raises(ValueError, match=r"dev\.csv has no column 'tone'; it has 'mr', 'ref'"):
        Table(folder, FILES, {"text": "ref", "labels": {"sentiment": "tone"}}).read("dev")


@pytest.mark.parametrize("folder", ["nowhere", None])
def test_missing_file_says_how_to_get_it(folder):
    urls = {split: f"http://127.0.0.1:9/{split}.csv" for split in SPLITS}
    with pytest.raises(Refused, match=r"paths\.e2e=<folder>"):
        _ = e2e(folder, urls=urls).splits


def test_wrong_arguments(write):
    with pytest.raises(ValueError, match="malformed=.maybe.: allowed is error, or skip"):
        e2e("x", malformed="maybe")
    with pytest.raises(ValueError, match="'txt'"):
        Table("x", FILES, {"txt": "ref"})
    with pytest.raises(ValueError, match="test has none"):
        Table("x", {"train": "a.csv", "dev": "b.csv"}, {"text": "ref"})


def test_digest_is_of_content_not_of_place(write, tmp_path):
    corpus = e2e(write(ROW))
    moved = tmp_path / "elsewhere"
    shutil.copytree(corpus.folder, moved)
    digest = e2e(str(moved)).digest
    assert digest == corpus.digest and len(digest) == 16
    file = moved / FILES["train"]
    file.write_bytes(file.read_bytes().replace(b"pub.", b"pub!"))
    assert e2e(str(moved)).digest != digest


def test_a_model_is_found_by_whoever_tests_on_other_texts(write):
    corpus = e2e(write(ROW, folder="one"))
    other = e2e(write(ROW, folder="other", rest=ROW.replace("pub", "bar")))
    assert other.splits["test"] != corpus.splits["test"]
    assert other.digest == corpus.digest


def test_digest_tells_where_a_split_ends(write):
    """Else a model that was trained on a text would be found for data that hold it out."""
    first, second = ROW, ROW.replace("pub", "bar")
    one = e2e(write(first + second + second, folder="one", rest=second))
    other = e2e(write(first, folder="other", rest=second + second))
    texts = [[e.words for split in SPLITS for e in corpus.splits[split]] for corpus in (one, other)]
    assert texts[0] == texts[1] and len(one.splits["train"]) != len(other.splits["train"])
    assert one.digest != other.digest


def test_digest_depends_on_how_the_files_are_read(write, tmp_path, monkeypatch):
    import datasets

    corpus = e2e(write(ROW))
    digest = corpus.digest
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "other")
    monkeypatch.setattr("diffcontrol.data.meaning.tokens", str.split)  # another tokeniser
    meaning.spelled.cache_clear()
    try:
        again = e2e(corpus.folder)
        assert again.splits["train"][0].words != corpus.splits["train"][0].words
        assert again.digest != digest
    finally:
        meaning.spelled.cache_clear()


def test_second_reading_equals_the_first_and_tokenises_nothing(write, monkeypatch):
    folder = write(ROW)
    first = e2e(folder).splits
    monkeypatch.setattr("diffcontrol.data.meaning.tokens", lambda text: pytest.fail("tokenised again"))
    assert e2e(folder).splits == first


def test_forms_are_spelled_as_tokens(write):
    corpus = e2e(write(ROW), forms={"price": {"£20-25": ["20-25 pounds"]}})
    assert corpus.forms == {"price": {"£ 20 - 25": ["20 - 25 pounds"]}}


def test_meaning_keeps_order_and_spelling():
    assert list(meaning.parse(" near[Café X],name[The A]").items()) == [("near", "Café X"), ("name", "The A")]


@pytest.mark.skipif(not (SHARED / "e2e").is_dir(), reason=f"E2E does not lie in {SHARED / 'e2e'}")
def test_e2e_as_shipped():
    corpus = shipped(SHARED / "e2e")
    assert [len(corpus.splits[split]) for split in SPLITS] == [42061, 4672, 2304]  # shared/data/README.md
    assert len(corpus.vocabulary) == 816  # counted independently, shared/data/README.md
    known = {pair for example in corpus.splits["train"] for pair in example.fields.items()}
    for line in (SHARED / "control_targets/target_attribute.json").read_text(encoding="utf-8").splitlines():
        words = json.loads(line)
        colon = words.index(":")
        assert (" ".join(words[:colon]), " ".join(words[colon + 1 :])) in known
    for field, values in corpus.forms.items():
        assert {(field, value) for value in values} <= known
        said = [form for forms in values.values() for form in forms]
        assert len(said) == len(set(said))  # no form of two values
