import pytest

from diffcontrol.metrics import brackets

GOLD = "(TOP (S (NP * *) (VP * (ADJP *)) *))"


@pytest.mark.parametrize(("predicted", "score"), [
    (GOLD, 1),
    ("(ROOT (S (NP * *) (VP * (ADJP *)) *))", 1),  # the root's name does not count
    ("(TOP (S (NP *) (VP * * (ADJP *)) *))", 4 / 8),  # S and ADJP of four each
    ("(TOP (FRAG (NP * *) (VP * (ADJP *)) *))", 6 / 8),  # labels count
    ("(TOP (S (NP * *) (VP * *) *))", 6 / 7),  # one missing: recall 3/4, precision 3/3
    ("(TOP (S (NP (NP * *)) (VP * (ADJP *)) *))", 8 / 9),  # a second NP on the same words matches nothing
    ("(TOP * * * * *)", 0),
    ("(TOP (S (NP * *) (VP * (ADJP *))))", 0),  # another length
])  # fmt: skip
def test_hand_worked(predicted, score):
    assert brackets.f1(GOLD, predicted) == pytest.approx(score)
    assert brackets.f1(predicted, GOLD) == pytest.approx(score)
    assert brackets.exact(GOLD, predicted) == (score == 1)


def test_every_bracket_of_a_unary_chain_counts():
    chain = "(TOP (S (VP * (S (NP *)))))"
    assert brackets.f1(chain, "(TOP (S (VP * (NP *))))") == pytest.approx(2 * 3 / (4 + 3))
    assert brackets.f1("(TOP (NP (NP *)))", "(TOP (NP (NP *)))") == 1
    assert brackets.f1("(TOP (NP (NP *)))", "(TOP (NP *))") == pytest.approx(2 / 3)


def test_trees_of_any_length_are_compared_by_position_where_asked():
    longer = "(TOP (S (NP * *) (VP * (ADJP *)) * *))"  # S is one word longer, the others match
    assert brackets.f1(GOLD, longer, any_length=True) == pytest.approx(6 / 8)
    assert not brackets.exact(GOLD, longer)
    assert brackets.f1("(TOP *)", "(TOP * *)", any_length=True) == 0


def test_punctuation_is_deleted_where_tags_are_known():
    gold = "(TOP (S (NP (NNP Aromi) (, ,) (NP (DT a) (NN pub)) (, ,)) (VP (VBZ shuts)) (. .)))"
    moved = "(TOP (S (NP (NNP Aromi) (, ,) (NP (DT a) (NN pub))) (, ,) (VP (VBZ shuts) (. .))))"
    assert brackets.f1(gold, moved) == 1 and brackets.exact(gold, moved)
    bare = "(TOP (S (NP * * (NP * *)) * (VP * *)))"
    assert brackets.f1(gold, bare) == pytest.approx(2 * 2 / 8)  # unknown tags: S and the inner NP match
    assert brackets.f1("(TOP (S (NP (NN fish)) (X (. .))))", "(TOP (S (NP (NN fish)) (. .)))") == 1


def test_a_missing_full_stop_is_no_other_length_where_tags_are_known():
    assert brackets.f1("(TOP (S (NP (NN fish)) (. .)))", "(TOP (S (NP (NN fish))))") == 1


def test_particles_are_adverbs():
    assert brackets.f1("(TOP (VP (VB eat) (PRT (RP up))))", "(TOP (VP (VB eat) (ADVP (RP up))))") == 1


def test_what_is_no_tree_is_refused():
    with pytest.raises(ValueError, match="is not a tree in brackets"):
        brackets.f1(GOLD, "(TOP")
