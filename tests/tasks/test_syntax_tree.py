import pytest
import torch
from diffcontrol.tasks.syntax_tree import SyntaxTree

from diffcontrol.data.corpus import Corpus, Example
from diffcontrol.syntax import trees
from tests.gold_parser import GoldParser

CHEAP = "(TOP (S (NP (DT the) (NN pub)) (VP (VBZ is) (ADJP (JJ cheap))) (. .)))"
VERY = "(TOP (S (NP (DT the) (NN pub)) (VP (VBZ is) (ADJP (RB very) (JJ cheap))) (. .)))"
OTHERS = [
    VERY,
    "(TOP (S (NP (DT the) (NN pub)) (VP (VBZ is) (ADJP (RB very) (JJ cheap)))))",
    "(TOP (S (NP (DT the) (JJ old) (NN pub)) (VP (VBZ is) (ADJP (JJ cheap))) (. .)))",
    "(TOP (S (NP (DT the) (NN pub)) (VP (VBZ is))) (. .) (. .))",
]
BARE = "(TOP (S (NP * *) (VP * (ADJP *)) *))"


class Few(Corpus):
    length, digest = 8, "few"

    def read(self, split):
        found = [trees.read(tree) for tree in (CHEAP, VERY, "(TOP (FRAG (NP (NN fish))))")]
        few = [
            Example(f.leaves, tree=t) for f, t in zip(found, (CHEAP, VERY, "(TOP (FRAG (NP (NN fish))))"), strict=True)
        ]
        return [*few, Example(("fish",))]


@pytest.fixture(scope="module")
def task() -> SyntaxTree:
    return SyntaxTree(Few(), min_count=1)


def scores(task, text: str) -> dict[str, float]:
    judge = GoldParser(more=[CHEAP, *OTHERS])
    return {k: v[0] for k, v in task.success([text.split()], [BARE], {"parser": judge}).items()}


@pytest.mark.parametrize(("text", "strict", "exact", "released"), [
    ("the pub is cheap .", 1, 1, 1),
    ("the pub is very cheap .", 2 / 8, 0, 4 / 8),  # the NP is in place; cut to five words, S is too
    ("the old pub is cheap .", 0, 0, 0),  # every constituent ends elsewhere; cut, the parser finds none
    ("the pub is", 0, 0, 2 / 7),  # filled up: "the pub is . .", whose NP is in place
    ("", 0, 0, 0),
])  # fmt: skip
def test_what_is_written_is_parsed_and_compared(task, text, strict, exact, released):
    assert scores(task, text) == pytest.approx({"strict": strict, "exact": exact, "released": released})


def test_a_flat_text_of_the_right_length_has_no_exact_tree(task):
    assert scores(task, "a b c d e") == {"strict": 0, "exact": 0, "released": 0}


def test_scoring_needs_a_parser(task):
    with pytest.raises(ValueError, match="syntax_tree: scoring needs the judge `parser`"):
        task.success([["fish"]], [BARE])


@pytest.mark.parametrize("given", [
    BARE, CHEAP, "(ROOT (S (NP * *) (VP * (ADJP *)) *))", "(S (NP * *)\n   (VP * (ADJP *)) *)",
    "(S (NP (X pub) (X inn)) (VP * (ADJP *)) *)",
])  # fmt: skip
def test_a_target_is_a_tree_with_or_without_preterminals(task, given):
    assert task.parse(given) == BARE


@pytest.mark.parametrize(("given", "said"), [
    ("(S (NP * *", "is not a tree in brackets such as .*: 2 of its brackets stay open"),
    ("S NP VP", "is not a tree in brackets .*: it does not begin with a bracket"),
    ("(S (NP * *) (PP *))", "no text is known to have a constituent PP; known are ADJP, FRAG::NP, NP, S, VP"),
    ("(S (NP * (NP *)) (S (VP *)))", "a constituent S::VP; known are"),  # each is known, but not the chain
    ("(S (NP * * * * * * *))", "it has 7 words, the model's texts at most 6"),
    ("(TOP * *)", "it has no constituents"),
    ("(S the (NP pub *))", "the word 'the' has no part of speech above it; write \\* for a word, or \\(NN the\\)"),
    ("(S (NP Sorrel) (VP *))", "NP stands over a single word as if it were a part of speech; write \\(NP \\*\\)"),
    ([BARE], "is not a target; write a tree in brackets"), (None, "None is not a target"),
])  # fmt: skip
def test_what_cannot_be_asked_for_is_refused_with_the_reason(task, given, said):
    with pytest.raises(ValueError, match=f"syntax_tree: .*{said}"):
        task.parse(given)


def test_an_annotation_is_the_bare_tree(task):
    annotations = [task.annotate(example) for example in task.corpus.splits["train"]]
    assert annotations[0] == BARE and annotations[-1] == ""  # a text without tree
    assert [len(task.targets(a)) for a in annotations] == [1, 1, 1, 0]


def test_rare_labels_cannot_be_asked_for():
    task = SyntaxTree(Few(), min_count=2)
    assert task.labels == ["ADJP", "NP", "S", "VP"]
    assert task.targets("(TOP (FRAG (NP *)))") == [] and task.targets(BARE) == [BARE]
    loss = task.head(6).loss(torch.randn(2, 8, 6), ["(TOP (FRAG (NP *)))", ""])  # and count nothing in training
    assert loss.isfinite()


def test_data_without_trees_is_refused():
    class Bare(Few):
        def read(self, split):
            return [Example(("fish",))]

    with pytest.raises(ValueError, match="syntax_tree: the training data has no trees; .* treebank"):
        SyntaxTree(Bare()).head(6)


def test_a_prompt_has_one_word_for_each_word_of_the_text(task):
    assert task.serialize(BARE) == ["(S(NP*", "*)", "(VP*", "(ADJP*))", "*)"]
    assert task.serialize("(TOP (S (NP *) (VP *)) (FRAG (NP *)))") == ["(S(NP*)", "(VP*))", "(FRAG(NP*))"]


def test_the_head_is_the_chart_and_the_length(task):
    """Against its definition: every cell's own softmax, and one over the positions of END."""
    torch.manual_seed(0)
    head, hidden = task.head(6), torch.randn(1, 8, 6)
    cells = {(i, j): k for k, (i, j) in enumerate(torch.triu_indices(8, 8).T.tolist())}
    expected = head.end(hidden)[0, :, 0].log_softmax(0)[6]  # START, five words, END
    constituents = {(1, 5): "S", (1, 2): "NP", (3, 4): "VP", (4, 4): "ADJP"}
    for pair, k in cells.items():
        label = head.scorer.numbers.get(constituents.get(pair, ""), 0)
        expected = expected + head.scorer(hidden)[0, k, label]
    torch.testing.assert_close(head.log_prob(hidden, [BARE])[0], expected)


def test_the_head_prefers_the_tree_it_learnt_and_its_length(task):
    torch.manual_seed(0)
    known = ["(TOP (S (NP * *) (VP * (ADJP *)) *))", "(TOP (S (NP * *) (VP * (ADJP * *)) *))", "(TOP (FRAG (NP *)))"]
    head, hidden = task.head(16), torch.randn(3, 8, 16)
    optimiser = torch.optim.Adam(head.parameters(), lr=0.02)
    for _ in range(80):
        optimiser.zero_grad()
        head.loss(hidden, known).backward()
        optimiser.step()
    log_probs = torch.stack([head.log_prob(hidden, [tree] * 3) for tree in known])
    assert (log_probs.argmax(0) == torch.arange(3)).all()
    longer = head.log_prob(hidden[:1], ["(TOP (S (NP * *) (VP * (ADJP *)) * *))"])
    assert longer < log_probs[0, 0] - 1
