"""The text is to have this constituency tree (paper §6.1, "syntax tree").

    target  "(TOP (S (NP * *) (VP * (ADJP *)) *))"      one `*` a word, no preterminals, one string on one line

    "the pub is cheap ."         (S (NP * *) (VP * (ADJP *)) *)      strict 1, exact 1, released 1
    "the pub is very cheap ."    (S (NP * *) (VP * (ADJP * *)) *)    strict 1/4: of four spans the NP is in place
    "the pub is very cheap"      (S (NP * *) (VP * (ADJP * *)))      released 1/2: so it is cut, and S in place, too

*strict*: labelled F1 of the target and the parse of what was written, spans compared by position whatever the lengths.
*exact*: all spans and the length agree. *released*: the text is cut to the target's length, or filled up with ".", then
parsed; labelled F1. Preterminals count in none of them, and so punctuation is a word like any other
(eval_control.py renames them all).
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from diffcontrol.automaton import Automaton, Some, pattern
from diffcontrol.data.corpus import Corpus, Example
from diffcontrol.metrics import brackets
from diffcontrol.refused import Refused
from diffcontrol.rules import Labelled, Lexicon, Rule
from diffcontrol.steering.spans import SpanScorer, gathered
from diffcontrol.syntax import trees
from diffcontrol.syntax.judging import constituents, fitted, parses
from diffcontrol.task import ControlTask, Head, Mark
from diffcontrol.text import Vocabulary

EXAMPLE = "(TOP (S (NP * *) (VP * (ADJP *)) *))"
_WORD = re.compile(r"((?:\([^\s()]+ )*\*\)*)")  # a word with the brackets that open before and close after it


class SyntaxTree(ControlTask):
    """Targets and annotations are bare trees. Labels (unary chains joined by "::") are those of at least `min_count`
    constituents of the training data; trees with others cannot be asked for."""

    def __init__(self, data: Corpus, min_count: int = 5):
        self.corpus, self.min_count = data, min_count

    @cached_property
    def labels(self) -> list[str]:
        seen: Counter[str] = Counter()
        for example in self.corpus.splits["train"]:
            if example.tree:
                seen.update(label for *_, label in trees.spans(trees.bare(example.tree))[1])
        if not seen:
            raise Refused("syntax_tree: the training data has no trees; let task.syntax_tree.data be a treebank")
        return sorted(label for label, n in seen.items() if n >= self.min_count)

    def annotate(self, example: Example) -> str:
        return trees.bare(example.tree) if example.tree else ""

    def targets(self, annotation: str) -> list[str]:
        return [annotation] if annotation and not self._refusal(annotation) else []

    def _refusal(self, bare: str) -> str:
        """Why a bare tree cannot be asked for, empty if it can."""
        length, spans = trees.spans(bare)
        if length > self.corpus.length - 2:
            return f"it has {length} words, the model's texts at most {self.corpus.length - 2}"
        unknown = [label for *_, label in spans if label not in self.labels]
        if unknown:
            return f"no text is known to have a constituent {unknown[0]}; known are {', '.join(self.labels)}"
        return "" if spans else "it has no constituents"

    def parse(self, target: Any) -> str:
        """A tree in brackets, bare or with preterminals over its words, whatever its root is called."""
        if not isinstance(target, str):
            raise Refused(f"syntax_tree: {target!r} is not a target; write a tree in brackets, as {EXAMPLE!r}")
        try:
            found = trees.read(target)
        except Refused as error:
            raise Refused(f"syntax_tree: {error}") from error
        bare = trees.assemble(len(found.leaves), found.nodes)
        loose = [leaf for leaf, tag in zip(found.leaves, found.tags, strict=True) if leaf != "*" and not tag]
        taken = [tag for tag in found.tags if tag in self.labels]
        why = self._refusal(bare)
        if loose:
            why = f"the word {loose[0]!r} has no part of speech above it; write * for a word, or (NN {loose[0]})"
        elif taken:
            why = f"{taken[0]} stands over a single word as if it were a part of speech; write ({taken[0]} *)"
        if why:
            raise Refused(f"syntax_tree: {target!r} cannot be asked for: {why}")
        return bare

    def head(self, width: int) -> "TreeHead":
        return TreeHead(width, self.corpus.length, self.labels)

    def words(self, target: str) -> int:
        return trees.spans(target)[0]

    def serialize(self, target: str) -> list[str]:
        """One word of the prompt for each word of the text, with its brackets: (S(NP* *) (VP* (ADJP*)) *)."""
        return [word.replace(" ", "") for word in _WORD.findall(target[len("(TOP ") : -1])]

    @cached_property
    def lexicon(self) -> Lexicon:
        """Words by the brackets that open before and close after them, as `serialize` writes them."""
        parsed = [example for example in self.corpus.splits["train"] if example.tree]
        return Lexicon((example.words, self.serialize(trees.bare(example.tree))) for example in parsed)

    def rule(self, vocabulary: Vocabulary) -> Callable[[str], Rule]:
        """Words that stand within such brackets in training texts, by how often they do, and END after the last."""
        return lambda target: Labelled(self.lexicon, self.serialize(target), vocabulary)

    def automaton(self, vocabulary: Vocabulary) -> Callable[[str], Automaton]:
        """Words that stand within such brackets in training texts, then END: texts that may have the tree."""

        def make(target: str) -> Automaton:
            possible = [self.lexicon.possible(brackets, vocabulary) for brackets in self.serialize(target)]
            return pattern([Some(words) for words in possible], len(vocabulary))

        return make

    def success(self, texts: Sequence[Sequence[str]], targets: Sequence[str],
                judges: Mapping[str, Any] = {}) -> Mapping[str, list[float]]:  # fmt: skip
        lengths = [trees.spans(target)[0] for target in targets]
        cut = [fitted(words, length, ".") for words, length in zip(texts, lengths, strict=True)]
        pairs = [(t, parse.tree) for t, parse in zip(targets, parses(judges, texts, "syntax_tree"), strict=True)]
        refit = [(t, parse.tree) for t, parse in zip(targets, parses(judges, cut, "syntax_tree"), strict=True)]
        return {  # a text of no words has no tree
            "strict": [brackets.f1(t, trees.bare(tree), any_length=True) if tree else 0.0 for t, tree in pairs],
            "exact": [float(bool(tree) and brackets.exact(t, trees.bare(tree))) for t, tree in pairs],
            "released": [brackets.f1(t, trees.bare(tree)) for t, tree in refit],
        }

    def marks(self, texts: Sequence[Sequence[str]], targets: Sequence[str],
              judges: Mapping[str, Any] = {}) -> list[list[Mark]]:  # fmt: skip
        """The constituents of each text, met where the target has them too."""
        found = constituents(judges, texts, "syntax_tree")
        wanted = [set(trees.spans(target)[1]) for target in targets]
        return [
            [Mark(first, last + 1, (first, last, label) in asked, label) for first, last, label in spans]
            for spans, asked in zip(found, wanted, strict=True)
        ]


class TreeHead(Head):
    """log p(tree) = log p(END stands after the last word) + Σ over all cells of the chart, the empty ones too."""

    def __init__(self, width: int, length: int, labels: Sequence[str]):
        super().__init__()
        self.scorer, self.end = SpanScorer(width, length, labels), nn.Linear(width, 1)

    def _log_prob(self, hidden: Tensor, rows: Sequence[str]) -> Tensor:
        positions = hidden.shape[1]
        read = [trees.spans(tree) if tree else (0, ()) for tree in rows]
        shifted = [[(i + 1, j + 1, label) for i, j, label in spans] for _, spans in read]  # START stands first
        tree = gathered(self.scorer(hidden), self.scorer.chart(shifted, positions, hidden.device))
        ends = torch.tensor([min(length + 1, positions - 1) for length, _ in read], device=hidden.device)
        return tree + self.end(hidden)[..., 0].float().log_softmax(-1).gather(1, ends[:, None])[:, 0]

    def loss(self, hidden: Tensor, annotations: Sequence[str]) -> Tensor:
        return -self._log_prob(hidden, annotations).mean()

    def log_prob(self, hidden: Tensor, targets: Sequence[str]) -> Tensor:
        return self._log_prob(hidden, targets)
