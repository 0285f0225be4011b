"""Is a text one that the data's grammar can write? An exact recogniser, made from the very rules that write the data.

Any field may be mentioned, with any value and in words of any tone, as often as the rules have room for it: that a text
says each thing once is a matter of what it says and is judged elsewhere. Whether it is "a" or "an" belongs to grammar.

The rules are compiled to openings: with which words an expansion of a symbol can begin, and what may follow each of
them. Reading a word takes what may still follow (a set of stacks of symbols) to what may follow then. Such sets are
states of an automaton, built when a text first gets there, so that a text soon costs a look-up a word.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from diffcontrol.data.grammar import AN, LEAF, Grammar, Option

Stack = tuple[str, ...]  # what is still to come, the next first: words, and symbols as <symbol>
WRONG = ""  # a word of no rule


@dataclass
class Opening:
    """How the expansions of a symbol begin: word → stacks that may follow it; and whether one of them is empty."""

    steps: dict[str, set[Stack]] = field(default_factory=dict)
    empty: bool = False


@dataclass
class State:
    """What may follow the words read; `after` holds the states reached so far."""

    steps: Mapping[str, set[Stack]]
    ends: bool
    after: dict[str, "State"] = field(default_factory=dict)


class GrammarJudge:
    """Tells which texts `grammar` derives from `start`."""

    def __init__(self, grammar: Grammar, start: str = "TEXT"):
        self.rules = rules(grammar)
        self.openings: dict[str, Opening | None] = {}
        self.states: dict[frozenset[Stack], State] = {}
        self.start = self._state(frozenset([(f"<{start}>",)]))

    def accepts(self, texts: Sequence[Sequence[str]]) -> list[float]:
        """1 for every text that is grammatical, else 0; a text of no words is not."""
        return [float(self._derives(words)) for words in texts]

    def _derives(self, words: Sequence[str]) -> bool:
        state = self.start
        for word in articles(words):
            if word not in state.after:
                if word not in state.steps:
                    return False
                state.after[word] = self._state(frozenset(state.steps[word]))
            state = state.after[word]
        return state.ends

    def _state(self, stacks: frozenset[Stack]) -> State:
        if stacks not in self.states:
            opening = Opening()
            for stack in stacks:
                self._extend(opening, stack)
            self.states[stacks] = State(opening.steps, opening.empty)
        return self.states[stacks]

    def _extend(self, opening: Opening, stack: Stack) -> None:
        """Adds to an opening how the expansions of a stack begin."""
        for place, symbol in enumerate(stack):
            own, rest = self._opening(symbol), stack[place + 1 :]
            for word, follows in own.steps.items():
                opening.steps.setdefault(word, set()).update(follow + rest for follow in follows)
            if not own.empty:
                return
        opening.empty = True

    def _opening(self, symbol: str) -> Opening:
        """Of a word or a symbol.

        Raises:
            ValueError: an expansion of the symbol begins with the symbol, so it has no end of openings.
        """
        if symbol not in self.rules:
            return Opening({symbol: {()}})
        if symbol not in self.openings:
            self.openings[symbol] = None  # under way
            opening = Opening()
            for sequence in self.rules[symbol]:
                self._extend(opening, sequence)
            self.openings[symbol] = opening
        found = self.openings[symbol]
        if found is None:
            raise ValueError(
                f"grammar: an expansion of {symbol} begins with {symbol}, which no judge of texts can read"
            )
        return found


def rules(grammar: Grammar) -> dict[str, list[Stack]]:
    """Symbol, as <symbol> → its expansions, those for all values of a field together; of `thing'.role` as of
    `thing.role`."""
    found: dict[str, list[Stack]] = {}
    for symbol in grammar.symbols:
        if symbol in grammar.rules:
            options = grammar.rules[symbol]
        else:
            options = [option for ways in grammar.values[symbol.replace("'", "")].values() for option in ways]
        found[f"<{symbol}>"] = list(dict.fromkeys(map(sequence, options)))
    return found


def sequence(option: Option) -> Stack:
    """An option without its brackets."""
    found = [*_words(option.texts[0])]
    for symbol, text in zip(option.symbols, option.texts[1:], strict=True):
        found += [f"<{symbol}>", *_words(text)]
    return tuple(found)


def _words(text: str) -> Iterator[str]:
    """Words of the leaves in a piece of brackets.

    Raises:
        ValueError: a word of it stands in no leaf of its own, or an article in one that the generator does not inflect.
    """
    if re.sub(r"\(\S+(?=\s|$)|\)", "", LEAF.sub("", text)).strip():
        raise ValueError(f"grammar: a leaf is not whole in {text!r}; a symbol stands for leaves, not for words")
    for tag, _, word in LEAF.findall(text):
        if word == "an" or (word == "a" and tag != "DT"):
            raise ValueError(f"grammar: {text!r} has an article that is not (DT a), which becomes a or an by itself")
        yield word


def articles(words: Sequence[str]) -> Iterator[str]:
    """The words with "a" for every article that agrees with the word after it, and WRONG for every other one."""
    for place, word in enumerate(words):
        if word in ("a", "an"):
            vowel = place + 1 < len(words) and AN.match(words[place + 1]) is not None
            yield "a" if (word == "an") == vowel else WRONG
        else:
            yield word
