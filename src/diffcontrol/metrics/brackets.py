"""Labelled bracketing F1 of two constituency trees, by the conventions of EVALB (Sekine & Collins, COLLINS.prm).

    gold       (TOP (S (NP * *) (VP * (ADJP *)) *))         S 0–4, NP 0–1, VP 2–3, ADJP 3–3
    predicted  (TOP (S (NP *) (VP * * (ADJP *)) *))         S 0–4, NP 0–0, VP 1–3, ADJP 3–3      F1 = 2·2 / (4 + 4)

The root does not count; every bracket of a unary chain does; equal brackets match one for one. Where both trees have
preterminals, punctuation is deleted first and PRT counts as ADVP. Trees of different lengths are an error to EVALB:
0 here, unless they are to be compared by position all the same.
"""

from collections import Counter

from diffcontrol.syntax import trees

PUNCTUATION = frozenset((",", ":", "``", "''", "."))  # DELETE_LABEL of COLLINS.prm
EQUAL = {"PRT": "ADVP"}  # EQ_LABEL


def f1(gold: str, predicted: str, any_length: bool = False) -> float:
    """Labelled F1 in [0, 1] of two bracketed trees; 1 if neither has a bracket."""
    (one, length), (other, written) = _both(gold, predicted)
    if length != written and not any_length:
        return 0.0
    total = one.total() + other.total()
    return 2 * (one & other).total() / total if total else float(length == written)


def exact(gold: str, predicted: str) -> bool:
    """Whether the trees have the same length and the same brackets."""
    one, other = _both(gold, predicted)
    return one == other


Brackets = tuple[Counter[trees.Span], int]


def _both(gold: str, predicted: str) -> tuple[Brackets, Brackets]:
    read = trees.read(gold), trees.read(predicted)
    tagged = all(all(tree.tags) for tree in read)
    return _brackets(read[0], tagged), _brackets(read[1], tagged)


def _brackets(tree: trees.Bracketing, tagged: bool) -> Brackets:
    """Brackets of the words that count, and how many these are."""
    counts = [not tagged or tag not in PUNCTUATION for tag in tree.tags]
    before = [0]  # words that count before the i-th
    for kept in counts:
        before.append(before[-1] + kept)
    found = Counter(
        (before[first], before[last + 1] - 1, EQUAL.get(label, label))
        for first, last, label in tree.nodes
        if before[last + 1] > before[first]
    )
    return found, before[-1]
