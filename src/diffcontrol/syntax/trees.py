"""Constituency trees in brackets, and their labelled spans.

    (TOP (S (NP (DT the) (NN pub)) (VP (VBZ is) (ADJP (JJ cheap))) (. .)))      a parser's, with preterminals and words
    (TOP (S (NP * *) (VP * (ADJP *)) *))                                        bare: one `*` a word
    spans (0, 4, S) (0, 1, NP) (2, 3, VP) (3, 3, ADJP)                          inclusive, 0-based

Constituents over the same words are a unary chain: one cell of a chart, labels joined by "::" from the outside in
(benepar). The root (TOP, ROOT, S1 or no label) is no constituent. Read in one pass: `nltk.Tree.fromstring` takes 30
times as long, minutes for a training set.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from diffcontrol.refused import Refused

ROOTS = ("TOP", "ROOT", "S1", "")
CHAIN = "::"
Span = tuple[int, int, str]  # first word, last word, label

_TOKEN = re.compile(r"[()]|[^\s()]+")


@dataclass(frozen=True)
class Bracketing:
    """A tree taken apart: `leaves`, their preterminals (`tags`, "" where there is none), and `nodes`, the constituents
    (first, last, label) without the root, parents before children."""

    leaves: tuple[str, ...]
    tags: tuple[str, ...]
    nodes: tuple[Span, ...]


def read(tree: str) -> Bracketing:
    """Takes a bracketed tree apart. A node over one word alone is the word's preterminal; over one `*`, a constituent.

    Raises:
        Refused: what is wrong with the brackets, in one sentence.
    """
    leaves: list[str] = []
    tags: list[str] = []
    nodes: list[Span | None] = []  # None: still open, or no constituent
    stack: list[tuple[str, int, int]] = []  # label, its place in nodes, first word
    tokens = _TOKEN.findall(tree)
    for k, token in enumerate(tokens):
        before = tokens[k - 1] if k else ""
        if k and not stack:
            raise _unreadable(tree, f"{token!r} stands after the last bracket")
        if token == "(":
            label = tokens[k + 1] if k + 1 < len(tokens) and tokens[k + 1] not in "()" else ""
            if stack and not label:
                raise _unreadable(tree, f"a bracket after {before!r} has no label")
            stack.append((label, len(nodes), len(leaves)))
            nodes.append(None)
        elif token == ")" and not stack:
            raise _unreadable(tree, "a bracket closes that none has opened")
        elif token == ")":
            label, place, first = stack.pop()
            if len(leaves) == first:
                raise _unreadable(tree, f"{label or 'a bracket'} has no words")
            if tokens[k - 3 : k - 1] == ["(", label] and before not in "()*":
                tags[-1] = label
            elif stack or label not in ROOTS:
                nodes[place] = (first, len(leaves) - 1, label)
        elif before != "(":  # else it is a label
            if not stack:
                raise _unreadable(tree, "it does not begin with a bracket")
            leaves.append(token)
            tags.append("")
    if stack or not tokens:
        raise _unreadable(tree, f"{len(stack)} of its brackets stay open" if stack else "it is empty")
    return Bracketing(tuple(leaves), tuple(tags), tuple(node for node in nodes if node is not None))


def _unreadable(tree: str, why: str) -> Refused:
    shown = tree if len(tree) <= 80 else tree[:77] + "..."
    return Refused(f"{shown!r} is not a tree in brackets such as (TOP (S (NP * *) (VP *))): {why}")


@lru_cache(maxsize=2**16)  # a training set's trees are asked for at every step
def spans(tree: str) -> tuple[int, tuple[Span, ...]]:
    """Number of words, and the labelled spans, each once, unary chains joined."""
    found = read(tree)
    return len(found.leaves), chained(found.nodes)


def chained(nodes: Iterable[Span]) -> tuple[Span, ...]:
    """Constituents, parents before children → one span for each unary chain."""
    cells: dict[tuple[int, int], str] = {}
    for first, last, label in nodes:
        above = cells.get((first, last))
        cells[first, last] = f"{above}{CHAIN}{label}" if above else label
    return tuple((first, last, label) for (first, last), label in cells.items())


def bare(tree: str) -> str:
    """The tree without preterminals and words, rooted in TOP."""
    found = read(tree)
    return assemble(len(found.leaves), found.nodes)


def assemble(length: int, found: Sequence[Span]) -> str:
    """The bare tree of these spans over `length` words; labels of chains are taken apart.

    Raises:
        ValueError: two spans cross, or one is outside the words.
    """
    opening, closing = [""] * length, [0] * length
    ends = [length - 1]  # of the constituents open at the word
    for first, last, label in sorted(found, key=lambda span: (span[0], -span[1])):
        ends = [end for end in ends if end >= first]
        if not 0 <= first <= last < length or last > ends[-1]:
            raise ValueError(f"the span {[first, last, label]} crosses another one or the ends of {length} words")
        ends.append(last)
        labels = label.split(CHAIN)
        opening[first] += "".join(f"({each} " for each in labels)
        closing[last] += len(labels)
    words = (f"{opened}*{')' * closed}" for opened, closed in zip(opening, closing, strict=True))
    return f"(TOP {' '.join(words)})"
