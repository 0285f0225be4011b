"""Every word is to have this part of speech (paper §6.1, "parts-of-speech").

    target ["DET", "NOUN", "AUX", "ADJ", "PUNCT"]

    "the pub is cheap ."          DET NOUN AUX ADJ PUNCT            strict 1, released 1, edit 1
    "the pub sells fish ."        DET NOUN VERB NOUN PUNCT          strict 3/5, released 3/5, edit 3/5
    "the pub is cheap"            DET NOUN AUX ADJ                  strict 0, released 4/5, edit 4/5

The seventeen tags of Universal Dependencies. *strict*: share of words with their tag, 0 where the number of words is
another one. *released*: tags are cut, or filled up, to the target's length first (eval_control.py). *edit*:
1 − edit distance / the longer length. The tagger is the judge parser's, its Penn tags mapped, or a spaCy model
(`task.parts_of_speech.tagger=en_core_web_sm`), which then also makes the targets.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from diffcontrol.automaton import Automaton, Some, pattern
from diffcontrol.data.corpus import Corpus, Example
from diffcontrol.refused import Refused
from diffcontrol.rules import Labelled, Lexicon, Rule
from diffcontrol.syntax.judging import fitted, parses
from diffcontrol.syntax.tagger import SpacyTagger
from diffcontrol.syntax.tags import UNIVERSAL, universal
from diffcontrol.task import ControlTask, Head, Mark
from diffcontrol.text import Vocabulary

CLASSES = ("START", "END", "PAD", *UNIVERSAL)
log = logging.getLogger(__name__)


class PartsOfSpeech(ControlTask):
    """Targets and annotations are lists of one universal tag a word."""

    def __init__(self, data: Corpus, tagger: str | None = None):
        self.corpus = data
        self.spacy = SpacyTagger(tagger) if tagger else None
        self._told = False

    @cached_property
    def tagged(self) -> bool:
        """Whether there is something to learn tags from."""
        return self.spacy is not None or any(example.universal for example in self.corpus.splits["train"])

    def annotate(self, example: Example) -> list[str]:
        return list(self.spacy([example.words])[0] if self.spacy else example.universal)

    def targets(self, annotation: list[str]) -> list[list[str]]:
        return [annotation] if 0 < len(annotation) <= self.corpus.length - 2 else []

    def parse(self, target: Any) -> list[str]:
        """A list of tags, the tags in one string, or a line of the released file."""
        if not self.tagged:
            raise Refused("parts_of_speech: the training data has no tags; let task.parts_of_speech.data be a "
                          "treebank, or name a tagger with task.parts_of_speech.tagger")  # fmt: skip
        tags: Any = target
        if isinstance(target, Mapping):
            tags = self._released(target)
        if isinstance(tags, str):
            tags = tags.replace(",", " ").split()
        if not isinstance(tags, list | tuple) or not tags:
            raise Refused(f"parts_of_speech: {target!r} is not a target; write a list of tags, one for each word")
        unknown = [tag for tag in tags if tag not in UNIVERSAL]
        if unknown:
            raise Refused(f"parts_of_speech: no tag {unknown[0]!r}; known are {', '.join(UNIVERSAL)}")
        if len(tags) > self.corpus.length - 2:
            raise Refused(
                f"parts_of_speech: {len(tags)} tags are asked for, and a text of this model has at most "
                f"{self.corpus.length - 2} words"
            )
        return list(tags)

    def _released(self, line: Mapping[str, Any]) -> Any:
        """Tags of a line {"pos": [START, …, END], "words_": …}, without START, END and the newline's."""
        tags, words = line.get("pos"), line.get("words_")
        if not isinstance(tags, list) or tags[:1] != ["START"] or tags[-1:] != ["END"]:
            return tags
        if isinstance(words, list) and len(words) == len(tags):
            if "\n" in words and not self._told:
                log.warning("parts_of_speech: released targets tag a newline at the end of each text; it is dropped")
                self._told = True
            return [tag for tag, word in zip(tags[1:-1], words[1:-1], strict=True) if word != "\n"]
        return tags[1:-1]

    def head(self, width: int) -> "TagHead":
        return TagHead(width)

    def words(self, target: Sequence[str]) -> int:
        return len(target)

    def serialize(self, target: Sequence[str]) -> list[str]:
        return list(target)

    @cached_property
    def lexicon(self) -> Lexicon:
        return Lexicon((example.words, self.annotate(example)) for example in self.corpus.splits["train"])

    def rule(self, vocabulary: Vocabulary) -> Callable[[Sequence[str]], Rule]:
        """Words that have the tag in training texts, by how often they have it, and END after the last tag."""
        return lambda target: Labelled(self.lexicon, target, vocabulary)

    def automaton(self, vocabulary: Vocabulary) -> Callable[[Sequence[str]], Automaton]:
        """Words that have the tag in training texts, and END after the last tag: texts that may have the tags."""

        def make(target: Sequence[str]) -> Automaton:
            possible = [self.lexicon.possible(tag, vocabulary) for tag in target]
            return pattern([Some(words) for words in possible], len(vocabulary))

        return make

    def success(self, texts: Sequence[Sequence[str]], targets: Sequence[Sequence[str]],
                judges: Mapping[str, Any] = {}) -> Mapping[str, list[float]]:  # fmt: skip
        from nltk.metrics.distance import edit_distance  # slow to import

        rows = list(zip(self._tags(texts, judges), targets, strict=True))
        return {
            "strict": [_agreement(tags, target) if len(tags) == len(target) else 0.0 for tags, target in rows],
            "released": [_agreement(fitted(tags, len(target), "PAD"), target) for tags, target in rows],
            "edit": [1 - edit_distance(tags, target) / max(len(tags), len(target)) for tags, target in rows],
        }

    def marks(self, texts: Sequence[Sequence[str]], targets: Sequence[Sequence[str]],
              judges: Mapping[str, Any] = {}) -> list[list[Mark]]:  # fmt: skip
        rows = zip(self._tags(texts, judges), targets, strict=True)
        return [
            [Mark(i, i + 1, i < len(target) and tag == target[i], tag) for i, tag in enumerate(tags)]
            for tags, target in rows
        ]

    def _tags(self, texts: Sequence[Sequence[str]], judges: Mapping[str, Any]) -> list[Sequence[str]]:
        """Universal tags of each text, spaCy's or the judge parser's."""
        if self.spacy:
            return list(self.spacy(texts))
        parsed = parses(judges, texts, "parts_of_speech")
        return [universal(parse.tags, words) for parse, words in zip(parsed, texts, strict=True)]


def _agreement(tags: Sequence[str], target: Sequence[str]) -> float:
    return sum(one == other for one, other in zip(tags, target, strict=True)) / len(target)


class TagHead(Head):
    """Σ over positions of log p(tag), START, END and PAD among the tags, so that the length is fixed too (as released:
    all 64 positions are labelled)."""

    def __init__(self, width: int):
        super().__init__()
        self.numbers = {name: i for i, name in enumerate(CLASSES)}
        self.score = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, len(CLASSES)))

    def _numbered(self, rows: Sequence[Sequence[str]], length: int) -> Tensor:
        """Class of every position, [B L]; a longer text is cut."""
        laid = (["START", *tags, "END"] for tags in rows)
        return torch.tensor([[self.numbers[name] for name in fitted(row, length, "PAD")] for row in laid])

    def log_prob(self, hidden: Tensor, targets: Sequence[Sequence[str]]) -> Tensor:
        wanted = self._numbered(targets, hidden.shape[1]).to(hidden.device)
        log_probs = self.score(hidden).float().log_softmax(-1)
        return log_probs.gather(-1, wanted[..., None])[..., 0].sum(1)

    def loss(self, hidden: Tensor, annotations: Sequence[Sequence[str]]) -> Tensor:
        return -self.log_prob(hidden, annotations).mean()
