"""Probabilistic grammars whose sentences come with their trees: rules, weighted expansion, and reading the result.

A constituent is written in brackets, `(NP (DT the) <type.n>)`; `<symbol>` stands for one of the symbol's options.
A dotted symbol `thing.role` mentions a *thing* (a field of the meaning representation or an aspect such as the
service). A text mentions a thing at most once, so it cannot contradict itself and recursion always ends;
`thing'.role` mentions one again that was mentioned before.
"""

import random
import re
from bisect import bisect
from collections.abc import Mapping, Sequence
from functools import reduce
from itertools import accumulate
from operator import and_, or_
from typing import NamedTuple

#: Penn tag → universal tag
UNIVERSAL = {
    "CC": "CCONJ", "CD": "NUM", "DT": "DET", "EX": "PRON", "IN": "ADP", "JJ": "ADJ", "MD": "AUX", "NN": "NOUN",
    "NNS": "NOUN", "NNP": "PROPN", "NNPS": "PROPN", "PDT": "DET", "POS": "PART", "PRP": "PRON", "PRP$": "PRON",
    "RB": "ADV", "RP": "ADP", "TO": "PART", "VB": "VERB", "VBD": "VERB", "VBG": "VERB", "VBN": "VERB", "VBP": "VERB",
    "VBZ": "VERB", "WDT": "PRON", "WP": "PRON", "WRB": "ADV", ",": "PUNCT", ".": "PUNCT",
}  # fmt: skip
#: what the Penn tag alone does not tell; `(VBZ=AUX does)` in a rule overrides both tables
UNIVERSAL_OF_WORD = {
    **{(tag, word): "AUX" for tag, word in (("VBZ", "is"), ("VBP", "are"), ("VB", "be"), ("VBN", "been"))},
    **{("RB", word): "PART" for word in ("not", "n't")},
    **{("IN", word): "SCONJ" for word in ("although", "though", "while", "if")},
}

_SYMBOL = re.compile(r"<([^<>]+)>")
LEAF = re.compile(r"\(([^\s()=]+)=?(\w*) ([^\s()]+)\)")  # tag, universal tag of its own, word
_OVERRIDE = re.compile(r"=\w+")
AN = re.compile(r"(?!one\b|uni|use)[aeioAEIOu]")  # begins a word before which "a" becomes "an"
_A = re.compile(rf"\(DT a\)(?=(?: \(\S+)* {AN.pattern})")


class DeadEndError(Exception):
    """Nothing is left that could be said at this place: the text is dropped, another one is drawn."""


class Sentence(NamedTuple):
    """A bracketed text, read."""

    words: tuple[str, ...]
    tags: tuple[str, ...]
    universal: tuple[str, ...]
    tree: str


def read(brackets: str) -> Sentence:
    """Words, tags and tree of an expanded constituent; chooses between a and an, which depends on the next word."""
    tree = _A.sub("(DT an)", " ".join(brackets.split()))  # empty options leave double blanks
    leaves = LEAF.findall(tree)
    return Sentence(
        words=tuple(word for _, _, word in leaves),
        tags=tuple(tag for tag, _, _ in leaves),
        universal=tuple(own or UNIVERSAL_OF_WORD.get((tag, word)) or UNIVERSAL[tag] for tag, own, word in leaves),
        tree=_OVERRIDE.sub("", tree) if "=" in tree else tree,
    )


class Option(NamedTuple):
    """One expansion: literal text around symbols, and its weight under each condition (each tone)."""

    weights: tuple[float, ...]
    texts: tuple[str, ...]
    symbols: tuple[str, ...]


def option(template: str, weights: Sequence[float]) -> Option:
    parts = _SYMBOL.split(template)
    return Option(tuple(weights), tuple(parts[::2]), tuple(parts[1::2]))


def parse_rules(text: str, conditions: int) -> dict[str, list[Option]]:
    """Rules from lines `symbol` with options below it, or `symbol: option | option`.

    An option is `weight template` or, with a weight for every condition, `weight,weight,… template`.
    """
    rules: dict[str, list[Option]] = {}
    symbol = ""
    for line in filter(str.strip, text.splitlines()):
        options = line
        if not line[0].isspace():
            symbol, _, options = line.partition(":")
            rules[symbol] = []
        for item in filter(str.strip, options.split("|")):
            weights, _, template = item.strip().partition(" ")
            numbers = [float(w) for w in weights.split(",")]
            rules[symbol].append(option(template, numbers * conditions if len(numbers) == 1 else numbers))
    return rules


def ranked(items: str, tag: str = "") -> list[tuple[str, float]]:
    """Items separated by "/" with falling weights: language is not uniform, and is learnt the faster for it."""
    texts = [item.strip() for item in items.split("/") if item.strip()]
    weights = [0.45**i for i in range(len(texts))]
    return [(f"({tag} {t})" if tag else t, w / sum(weights)) for t, w in zip(texts, weights, strict=True)]


def leaning(tag: str, groups: Sequence[str], odds: float) -> list[Option]:
    """Options in one group a condition, each `odds` times likelier under its own condition than under the others."""
    return [
        option(text, [weight * (odds if i == own else 1) for i in range(len(groups))])
        for own, group in enumerate(groups)
        for text, weight in ranked(group, tag)
    ]


class Symbol(NamedTuple):
    """What expanding a symbol does to the marks of what may be mentioned."""

    field: str  # the field whose value selects the options, if any
    takes: int  # mark of the thing mentioned, no longer free afterwards
    gives: int  # mark of the thing as mentioned before
    needs: int  # marks no expansion can do without
    asks: int  # marks on which the choice depends


Menu = tuple[list[float], list[Option], list[tuple[int, ...]]]


class Grammar:
    """Rules, with what each symbol cannot do without worked out, so that expansion rarely runs into a dead end.

    `values` holds the symbols whose options depend on the value of a field: symbol → value → options.
    """

    def __init__(self, rules: Mapping[str, list[Option]], values: Mapping[str, Mapping[str, list[Option]]]):
        self.rules, self.values = rules, values
        used = dict.fromkeys(s for options in rules.values() for o in options for s in o.symbols)
        for symbol in used:
            if symbol not in rules and symbol.replace("'", "") not in values:
                raise ValueError(f"grammar: no rule for the symbol {symbol!r}")
        things = dict.fromkeys(s.partition(".")[0] for s in (*values, *rules) if "." in s)
        self.bit = {mark: 1 << i for i, mark in enumerate(m for t in things for m in (t, t + "'"))}
        self.fields = {symbol.partition(".")[0] for symbol in values}
        self.aspects = sum(self.bit[t] for t in things if t not in self.fields)
        self.needs = self._needs(dict.fromkeys((*used, *rules, *values)))
        self.symbols = {symbol: self._symbol(symbol) for symbol in self.needs}
        self.menus: dict[tuple[str, str, int, int], Menu] = {}

    def _needs(self, symbols: Mapping[str, None]) -> dict[str, int]:
        """The marks that every expansion of a symbol needs: the greatest solution, by iteration from above."""
        own = {s: self.bit[s.partition(".")[0]] if "." in s else 0 for s in symbols}
        needs = {s: -1 if s in self.rules else own[s] for s in symbols}
        before: dict[str, int] = {}
        while before != needs:
            before = dict(needs)
            for symbol in self.rules:
                needs[symbol] = own[symbol] | reduce(and_, (_union(needs, o.symbols) for o in self.rules[symbol]))
        return needs

    def _symbol(self, symbol: str) -> Symbol:
        thing, dot, _ = symbol.partition(".")
        field = thing.rstrip("'") if thing.rstrip("'") in self.fields else ""
        takes = self.bit[thing] if dot and thing[-1] != "'" else 0
        asks = reduce(or_, (_union(self.needs, o.symbols) for o in self.rules.get(symbol, ())), 0)
        return Symbol(field, takes, self.bit[thing + "'"] if takes else 0, self.needs[symbol], asks)

    def menu(self, symbol: str, value: str, free: int, condition: int) -> Menu:
        """Cumulated weights of the options possible, the options, and what each of their symbols leaves to the next."""
        key = (symbol, value, free, condition)
        if key not in self.menus:
            options = self.values[symbol.replace("'", "")][value] if value else self.rules[symbol]
            options = [o for o in options if not _union(self.needs, o.symbols) & ~free]
            later = [tuple(_union(self.needs, o.symbols[i + 1 :]) for i in range(len(o.symbols))) for o in options]
            self.menus[key] = list(accumulate(o.weights[condition] for o in options)), options, later
        return self.menus[key]


def _union(needs: Mapping[str, int], symbols: Sequence[str]) -> int:
    return reduce(or_, (needs[symbol] for symbol in symbols), 0)


class Derivation:
    """One text in the making: what it is about, and what it has mentioned so far."""

    def __init__(self, grammar: Grammar, rng: random.Random, condition: int, fields: Mapping[str, str]):
        self.grammar, self.draw, self.condition, self.fields = grammar, rng.random, condition, fields
        self.free = grammar.aspects + sum(grammar.bit[f] for f in fields)

    @property
    def mentioned(self) -> frozenset[str]:
        """The fields mentioned."""
        return frozenset(f for f in self.fields if not self.free & self.grammar.bit[f])

    def expand(self, symbol: str, held: int = 0) -> str:
        """The symbol as brackets; `held` is what constituents to its right cannot do without."""
        field, takes, gives, _, asks = self.grammar.symbols[symbol]
        if takes:
            self.free = self.free & ~takes | gives
        value = self.fields[field] if field else ""
        weights, options, later = self.grammar.menu(symbol, value, self.free & ~held & asks, self.condition)
        if not options:
            raise DeadEndError(symbol)
        index = bisect(weights, self.draw() * weights[-1])
        chosen = options[index]
        text = chosen.texts[0]
        for inner, needed, literal in zip(chosen.symbols, later[index], chosen.texts[1:], strict=True):
            text += self.expand(inner, held | needed) + literal
        return text
