import pytest
from diffcontrol.tasks.infilling import Infilling, pieces

from diffcontrol.data.corpus import Corpus, Example, Gapped

PUB = {"left": ["the", "pub", "is"], "right": ["."], "length": 2}


class Pubs(Corpus):
    length, digest = 10, "pubs"

    def read(self, split):
        tree = "(TOP (S (NP (DT the) (NN pub)) (VP (VBZ is) (ADJP (RB very) (JJ cheap))) (. .)))"
        return [
            Example(("the", "pub", "is", "very", "cheap", "."), tree=tree),
            Example(("Sorrel", "is", "a", "pub", "near", "the", "river", ".")),
        ]


@pytest.fixture(scope="module")
def task() -> Infilling:
    return Infilling(Pubs())


@pytest.mark.parametrize(("text", "strict", "released"), [
    ("the pub is very cheap .", 1, 1), ("the pub is cheap .", 0, 1), ("the inn is very cheap .", 0, 0),
    ("the pub is very UNK .", 0, 1), ("the pub is very PAD .", 0, 1), ("the pub is very cheap", 0, 0),
    ("the pub is .", 0, 0), ("the pub is", 0, 0), ("", 0, 0), ("the pub is very cheap . .", 0, 1),
])  # fmt: skip
def test_both_contexts_and_a_whole_middle(task, text, strict, released):
    assert task.success([text.split()], [PUB]) == {"strict": [strict], "released": [released]}


@pytest.mark.parametrize(("asked", "right"), [(2, [2]), ([2, 3], [2, 3]), (None, [1, 2, 3, 4])])
def test_a_length_a_range_or_any(task, asked, right):
    texts = [["the", "pub", "is", *["so"] * n, "."] for n in range(5)]
    found = task.success(texts, [PUB | {"length": asked}] * 5)["strict"]
    assert [n for n, score in enumerate(found) if score] == right


def test_contexts_do_not_overlap(task):
    target = {"left": ["a", "b"], "right": ["b", "c"], "length": None}
    assert task.success([["a", "b", "c"]], [target])["released"] == [0]


@pytest.mark.parametrize(("given", "length"), [
    ("the pub is [2] .", 2), ("the pub is [2-3] .", [2, 3]), ("the pub is [] .", None), (PUB, 2),
    ({"left": "the pub is", "right": ".", "length": 2}, 2), ({"left": "the pub is", "right": "."}, None),
])  # fmt: skip
def test_a_target_is_a_text_with_a_gap_or_its_parts(task, given, length):
    assert task.parse(given) == PUB | {"length": length}


@pytest.mark.parametrize("length", [2, [2, 3], None])
def test_a_prompt_is_the_text_with_a_gap(task, length):
    target = PUB | {"length": length}
    assert task.parse(" ".join(task.serialize(target))) == target


@pytest.mark.parametrize(("given", "said"), [
    ("the pub is cheap", "write .words to the left"), ("the [2] pub [3] .", "write .words to the left"),
    (PUB | {"length": 5}, "asks for a middle of 5 words; with 4 words around it, .* room for 1 to 4"),
    (PUB | {"length": [3, 2]}, "asks for a middle of"), (PUB | {"length": 0}, "asks for a middle of 0"),
    (PUB | {"length": "2"}, "a number of words, two of them, or null"), (PUB | {"length": True}, "a number of words"),
    ({"left": ["a b"], "right": ["c"]}, "lists of words"), ({"left": ["PAD"], "right": ["c"]}, "lists of words"),
    (PUB | {"gold": "x"}, "is not a target"), ({"left": ["a"] * 8, "right": []}, "has no room: it has 8 at most"),
])  # fmt: skip
def test_what_cannot_be_asked_for_is_refused_with_what_can(task, given, said):
    with pytest.raises(ValueError, match=f"infilling: .*{said}"):
        task.parse(given)


def test_constituents_are_cut_out_of_a_tree_and_pieces_of_a_text_without(task):
    cheap, river = (task.annotate(example) for example in task.corpus.splits["train"])
    assert [" ".join(task.serialize(t)) for t in task.targets(cheap)] == ["the pub [3] .", "the pub is [2] ."]
    assert [" ".join(task.serialize(t)) for t in task.targets(river)] == [
        "Sorrel [3] near the river .", "Sorrel is a pub [3] .",
    ]  # fmt: skip
    words = ["cheap", ",", "and", "it", "is", "near", "the", "river", "in", "town", "."]
    assert [" ".join(words[a:b]) for a, b in pieces(words)] == ["", "and it", "is", "near the river", "in town", ""]


def test_a_text_in_which_nothing_begins_has_no_pieces():
    assert pieces(("Aromi", "rocks")) == [] == pieces(())


def test_a_text_that_holds_a_special_word_is_asked_for_no_gap(task):
    assert task.targets({"words": ["THE", "END", "is", "near", "the", "pub", "."], "gaps": [[2, 4]]}) == []


@pytest.mark.parametrize(("asks", "length"), [("exact", 2), ("range", [1, 4]), ("free", None), (3, 3)])
def test_what_is_asked_of_a_cut_out_middle(asks, length):
    task = Infilling(Pubs(), length=asks)
    assert task.targets(task.annotate(task.corpus.splits["train"][0]))[1]["length"] == length
    with pytest.raises(ValueError, match="length=short is neither one of exact, range, free nor a number"):
        Infilling(Pubs(), length="short")


def test_a_free_middle_is_as_long_as_training_texts_make_it(task):
    (only,) = task.layouts(PUB)
    assert only.words == dict(enumerate(["START", "the", "pub", "is"])) | {6: ".", 7: "END", 8: "PAD", 9: "PAD"}
    free = task.layouts(PUB | {"length": None})
    assert [layout.end for layout in free] == [6, 7, 8, 9]
    assert max(free, key=lambda layout: layout.weight).end in (7, 9)  # texts of six and of eight words


def test_where_texts_have_a_gap_of_their_own_a_free_middle_is_as_long_as_theirs():
    class Stories(Pubs):
        def read(self, split):
            return [Gapped(("a", "b", "c", "d", "e"), gap=(1, 4))]

    free = Infilling(Stories()).layouts(PUB | {"length": None})
    assert max(free, key=lambda layout: layout.weight).end == 1 + len(["the", "pub", "is", "."]) + 3


def test_the_middle_is_compared_with_what_was_cut_out_or_with_what_people_wrote(task):
    source = task.corpus.splits["train"][0]
    texts = [["the", "pub", "is", "very", "cheap", "."], ["the", "inn", "is", "so", "cheap", "."]]
    found = task.compared(texts, [PUB, PUB], [source, source])
    assert found["bleu_4"][0] == pytest.approx(1) and found["rouge_l"] == pytest.approx([1, 0.5])
    several = Gapped(source.words, gap=(3, 5), references=(("so", "nice"), ("so", "cheap")))
    assert task.annotate(several)["gaps"] == [[3, 5]]
    assert task.compared([texts[1]], [PUB], [several])["rouge_l"] == pytest.approx([1])
