import pytest
from nltk import Tree

from diffcontrol.data.restaurants import Restaurants
from diffcontrol.syntax import trees

PARSED = "(TOP (S (NP (DT the) (NN pub)) (VP (VBZ is) (ADJP (JJ cheap))) (. .)))"
BARE = "(TOP (S (NP * *) (VP * (ADJP *)) *))"


def test_a_tree_is_taken_apart():
    found = trees.read(PARSED)
    assert found.leaves == ("the", "pub", "is", "cheap", ".") and found.tags == ("DT", "NN", "VBZ", "JJ", ".")
    assert found.nodes == ((0, 4, "S"), (0, 1, "NP"), (2, 3, "VP"), (3, 3, "ADJP"))
    assert trees.read(BARE).nodes == found.nodes and trees.read(BARE).tags == ("",) * 5
    assert trees.bare(PARSED) == BARE == trees.bare(BARE)


def test_unary_chains_are_one_span():
    chain = "(TOP (S (VP (VB go) (S (ADJP (RB there)))) (. .)) (FRAG (NP (NN fish))))"
    assert trees.spans(chain) == (4, ((0, 2, "S"), (0, 1, "VP"), (1, 1, "S::ADJP"), (3, 3, "FRAG::NP")))
    length, spans = trees.spans(chain)
    assert trees.assemble(length, spans) == trees.bare(chain) == "(TOP (S (VP * (S (ADJP *))) *) (FRAG (NP *)))"


@pytest.mark.parametrize("root", ["(TOP {})", "(ROOT {})", "(S1 {})", "( {})", "({})", "{}"])
def test_any_root_will_do(root):
    assert trees.bare(root.format("(S (NP (NN fish)) (VP (VBZ sells)))")) == "(TOP (S (NP *) (VP *)))"


def test_it_reads_what_nltk_reads():
    for example in Restaurants(size=200, dev=0, test=0).splits["train"]:
        tree = Tree.fromstring(example.tree)
        found = trees.read(example.tree)
        assert found.leaves == tuple(tree.leaves()) == example.words
        assert found.tags == tuple(tag for _, tag in tree.pos()) == example.tags
        labels = [t.label() for t in tree.subtrees(lambda t: t.height() > 2)]
        assert [label for *_, label in found.nodes] == labels[1:]
        assert trees.assemble(*trees.spans(example.tree)) == trees.bare(example.tree)


@pytest.mark.parametrize(("tree", "why"), [
    ("", "it is empty"), ("no tree", "does not begin with a bracket"), ("*", "does not begin"),
    ("(TOP (S (NP * *)", "2 of its brackets stay open"), ("(TOP (S *)) )", "stands after the last bracket"),
    ("(TOP (S *)) (S *)", "stands after the last bracket"), ("(TOP (S (NP) *))", "NP has no words"),
    ("(TOP)", "TOP has no words"), ("()", "a bracket has no words"), ("(TOP (S ((NP *)) *))", "has no label"),
])  # fmt: skip
def test_what_is_no_tree_is_refused_with_the_reason(tree, why):
    with pytest.raises(ValueError, match=f"is not a tree in brackets such as .*{why}"):
        trees.read(tree)


@pytest.mark.parametrize("spans", [[(0, 2, "NP"), (1, 3, "VP")], [(0, 4, "S")], [(2, 1, "S")], [(-1, 1, "S")]])
def test_spans_that_make_no_tree_are_refused(spans):
    with pytest.raises(ValueError, match="crosses another one or the ends of 4 words"):
        trees.assemble(4, spans)
