"""The embedded data set: descriptions of restaurants from a probabilistic grammar of our own, with gold everything.

A restaurant has a meaning representation and a tone; the grammar writes one or two sentences about it. The tone
shifts many choices of words at once (`lexicon.ODDS`) and values of some fields, and settles none of them.
"""

import random
from bisect import bisect
from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import accumulate
from typing import ClassVar

from diffcontrol.allowed import Rules, optional, whole
from diffcontrol.data import lexicon
from diffcontrol.data.corpus import SPLITS, Corpus, Example, content_digest, spaced
from diffcontrol.data.grammar import DeadEndError, Derivation, Grammar, parse_rules, read
from diffcontrol.judges.grammar import GrammarJudge
from diffcontrol.refused import Refused

#: how to read them: `grammar.parse_rules`; three weights are those under lexicon.TONES
RULES = """
TEXT
  10 (TOP <FIRST>)
  8 (TOP <FIRST> <SECOND>)
FIRST
  26 (S <HEAD> (. .))
  7 (S <SUBJECT> (VP <ACT> <AND> <ACT>) (. .))
  4 (S <NAMED> (VP (VP (VBZ is) <PLAIN>) <AND> <ACT>) (. .))
  7 (S (S <HEAD>) (, ,) <CC> (S <CLAUSE>) (. .))
  3 (S <HEAD> (, ,) (SBAR <THOUGH> (S <FACT>)) (. .))
  3 (S (SBAR <THOUGH> (S <FACT>)) (, ,) <HEAD> (. .))
  2 (S (ADVP <sentence.rb>) (, ,) <HEAD> (. .))
  4 (S <FRONT> (, ,) <HEAD> (. .))
  4 (S (S <PARTICIPIAL>) (, ,) <NAMED> <VP> (. .))
  6 (S (NP (EX there)) (VP (VBZ is) <CALLED>) (. .))
  2 (SINV <INPLACE> (VP <sit.vbz>) <NAMED> (. .))
  2 (S (SBAR (IN if) (S (NP (PRP you)) (VP <want> <WISH>))) (, ,) (VP <try> <NAMED>) (. .))
  2 (S (PP (IN for) <WISH>) (, ,) (VP <try> <NAMED>) (. .))
HEAD: 5 <NAMED> <VP> | 2 <SUBJECT> <ACT>
SECOND
  8 (S <IT> <ACT> (. .))
  4 (S (NP (PRP it)) (VP (VBZ is) <DESCRIPTION>) (. .))
  3 (S <IT> (ADVP (RB also)) <DO> (. .))
  3 (S <IT> (VP <ACT> <AND> <ACT>) (. .))
  3 (S (ADVP <sentence.rb>) (, ,) <CLAUSE> (. .))
  5 (S <FACT> (. .))
  3 (S (S <FACT>) (, ,) <CC> (S <CLAUSE>) (. .))
  2 (S <advice.vp> (. .))
  1 (S <IT> <ACT> (, ,) (SBAR <THOUGH> (S <FACT>)) (. .))
CLAUSE: 5 <IT> <ACT> | 4 <FACT>
VP: 10 (VP (VBZ is) <DESCRIPTION>) | 24 <ACT>
ACT: 10 <DO> | 8 <BE> | 1 <verdict.vp>
DO
  9 (VP <serve> <MEAL>)
  3 (VP <serve> <MEAL> (PP (IN at) <price.np>))
  2 (VP <serve> <MEAL> <PLACE>)
  2 (VP <sell> <SPREAD>)
  4 (VP <sit.vbz> <PLACE>)
  5 (VP <earn> <rating.np>)
  2 (VP <earn> (NP (NP (DT a) (NN rating)) (PP (IN of) <rating.np>)))
  2 (VP (VBZ=VERB has) <ASSET>)
BE
  3 (VP (VBZ is) (VP <set.vbn> <PLACE>))
  2 (VP (VBZ is) (VP (ADVP <how.rb>) <set.vbn> <PLACE>))
  3 (VP (VBZ is) (VP <award> <rating.np>))
  4 <family.vp>
  3 (VP (VBZ is) <OFTEN> <price.pred>)
  2 (VP (VBZ is) (ADJP <price.pred> <family.tail>))
  3 <crowd.be>
crowd.be
  4 (VP (VBZ is) (VP <praise> (PP (IN by) <PEOPLE>)))
  1 (VP (VBZ is) <OFTEN> (VP <praise> (PP (IN by) <PEOPLE>)))
  1 (VP (VBZ=AUX has) (VP (VBN been) (VP <praise> (PP (IN by) <PEOPLE>))))
crowd.that: 1 (SBAR (WHNP (WDT that)) (S <PEOPLE> (VP <love>)))
crowd.by: 1 (VP <praise> (PP (IN by) <PEOPLE>))
crowd.s
  1 <PEOPLE> (VP <love> (NP (PRP it)))
  1 <PEOPLE> (VP <love> (NP (DT the) <spot>))
PEOPLE: 5 (NP <people>) | 1 (NP (JJ many) <people>)
OFTEN: 1 | 1 (ADVP <freq>)
AND: 4,4,2 (CC and) | 1,1,2 (CC but)
CC: 4,4,2 (CC and) | 1,1.5,2.5 (CC but)
THOUGH: 1,3,1 (IN while) | 1,1,2 (IN although) | 1,1,2 (IN though)
SUBJECT
  14 <NAME>
  3 (NP (DT this) <LOOK> <type.n>)
  1 (NP (DT this) <look.adj> <spot>)
  2 (NP (NP (DT the) <FOOD> <type.n>) <INPLACE>)
NAME
  8 <NAMED>
  2 (NP <NAMED> (, ,) <BASE> (, ,))
  1 (NP <NAMED> (, ,) (SBAR (WHNP (WDT which)) (S <ACT>)) (, ,))
  1 (NP <NAMED> (, ,) (VP <set.vbn> <PLACE>) (, ,))
NAMED: 1 <name.np>
IT
  8 (NP (PRP it))
  2 (NP (DT the) <spot>)
  3 (NP (DT the) <type.n>)
  2 (NP (DT the) <type'.n>)
PLAIN: 3 <BASE> | 2 (NP <BASE> <INPLACE>)
DESCRIPTION: 5 <BASE> | 6 (NP <BASE> <POST>) | 1 (NP <BASE> <INPLACE> <RELATIVE>)
CALLED
  3 (NP <BASE> (VP <named> <name.np>))
  3 (NP <BASE> (VP <named> <name.np>) <INPLACE>)
  1 (NP <BASE> <INPLACE> (VP <named> <name.np>))
BASE
  5 (NP (DT a) <look.adj> <type.n>)
  5 (NP (DT a) <LOOK> <food.adj> <type.n>)
  5 (NP (DT a) <price.adj> <FOOD> <type.n>)
  2 (NP (DT a) <LOOK> <rating.adj> <type.n>)
  2 (NP (DT a) <LOOK> <area.mod> <type.n>)
  2 (NP (DT a) <family.adj> <FOOD> <type.n>)
  1 (NP (DT a) <price.adj> (, ,) <family.adj> <type.n>)
  1 (NP (DT a) <price.adj> <spot>)
  1 (NP (DT a) <look.adj> <spot>)
LOOK: 2 | 3 <look.adj>
FOOD: 2 | 3 <food.adj>
POST
  3 <INPLACE>
  2 (VP <set.vbn> <PLACE>)
  6 (VP <serving> <MEAL>)
  2 (PP (IN with) <rating.np>)
  2 (PP (IN with) <ASSET>)
  4 <RELATIVE>
RELATIVE
  4 (SBAR (WHNP (WDT that)) (S <ACT>))
  2 (SBAR (WHADVP (WRB where)) (S <HERE>))
  1 <crowd.that>
PLACE: 4 <INPLACE> | 2 <area.pp> <beside>
INPLACE: 4 <area.pp> | 5 <beside>
FRONT
  4 <INPLACE>
  1 (PP (IN with) <rating.np>)
  1 (PP (IN with) (NP (DT a) <mood.adj> <room>))
PARTICIPIAL: 3 (VP <set.vbn> <PLACE>) | 1 (VP <award> <rating.np>) | 1 <crowd.by>
MEAL
  6 (NP <TASTE> <food.adj> <meal>)
  4 (NP <price.adj> <food.adj> <meal>)
  3 (NP <TASTE> <food.dish>)
WISH: 3 (NP <food.adj> <meal>) | 4 (NP <price.adj> <food.adj> <meal>) | 2 (NP <food.dish>)
SPREAD
  1 (NP (NP <TASTE> <food.adj> <meal>) (CC and) <drink.np>)
  1 (NP (NP <food.dish>) (CC and) <drink.np>)
TASTE: 1 | 2 <taste.adj>
ASSET
  2 (NP (DT a) <mood.adj> <room>)
  2 (NP <service.adj> (NNS waiters))
  2 (NP <portion.adj> (NNS portions))
  2 <drink.np>
HERE
  1 (NP (DT the) (NN service)) (VP (VBZ is) (ADJP <service.adj>))
  2 <family.s>
  2 <price.s>
  4 (NP <people>) (VP <modal> (VP <enjoy> <MEAL>))
FACT
  3 (NP (DT the) (NN service)) (VP (VBZ is) (ADJP <DEGREE> <service.adj>))
  2 (NP (DT the) (NNS waiters)) (VP (VBP are) (ADJP <DEGREE> <service.adj>))
  2 (NP (DT the) <room>) (VP (VBZ is) (ADJP <DEGREE> <mood.adj>))
  2 (NP (DT the) (NNS portions)) (VP (VBP are) (ADJP <portion.adj>))
  3 <price.s>
  3 <family.s>
  2 <crowd.s>
  3 (NP <people>) (VP <modal> (VP <enjoy> <MEAL>))
DEGREE: 1 | 1 <deg>
"""
GRAMMAR = Grammar(parse_rules(RULES, len(lexicon.TONES)) | lexicon.leanings(), lexicon.mentions())
#: how likely a field is in a meaning representation; with what stays unsaid most of them end up in the text
KNOWN = {"name": 1.0, "type": 0.9, "food": 0.85, "area": 0.6, "price": 0.65, "rating": 0.55, "near": 0.6, "family": 0.5}
UNSAID = 0.15  # share of the fields left unsaid that stay in the meaning representation
MOST_SAID = 6  # fields in one text
_PRIORS = {
    (field, tone): (tuple(values), list(accumulate(weights[tone] for weights in values.values())))
    for field, values in lexicon.PRIORS.items()
    for tone in range(len(lexicon.TONES))
}


def describe(rng: random.Random) -> Iterator[tuple[Example, frozenset[str]]]:
    """Endless examples, each with the fields that its text mentions; texts may repeat."""
    while True:
        tone = int(rng.random() * len(lexicon.TONES))
        fields = {}
        for field, known in KNOWN.items():
            if rng.random() < known:
                values, weights = _PRIORS[field, tone]
                fields[field] = values[bisect(weights, rng.random() * weights[-1])]
        derivation = Derivation(GRAMMAR, rng, tone, fields)
        try:
            sentence = read(derivation.expand("TEXT"))
        except DeadEndError:
            continue
        said = derivation.mentioned
        if 1 <= len(said) <= MOST_SAID:
            kept = {f: v for f, v in fields.items() if f in said or rng.random() < UNSAID}
            labels = {"tone": lexicon.TONES[tone]}
            yield Example(sentence.words, kept, labels, sentence.tree, sentence.tags, sentence.universal), said


class Restaurants(Corpus):
    """`size` training texts, `dev` and `test` ones, all different; a function of the arguments alone.

    `limit`: dev or test → texts of it at most, evenly spaced; none or null: all. No model depends on it; on `dev` and
    `test` all do, as these settle which texts are left for training.
    """

    location_arguments = ("limit",)

    allowed: ClassVar[Rules] = {
        "size": whole(1), "dev": whole(1), "test": whole(1), "seed": whole(), "limit.*": optional(whole(1)),
    }  # fmt: skip
    forms = lexicon.forms()

    def __init__(self, size: int = 24000, seed: int = 0, dev: int = 1000, test: int = 1000, length: int = 42,
                 limit: Mapping[str, int | None] | None = None):  # fmt: skip
        if min(size, dev, test) < 0:
            raise Refused(f"restaurants: size, dev and test count texts, got {size}, {dev}, {test}")
        self.sizes = {"train": size, "dev": dev, "test": test}
        self.seed, self.length, self.limit = seed, length, dict(limit or {})

    def grammar(self) -> GrammarJudge:
        return GrammarJudge(GRAMMAR)

    def read(self, split: str) -> list[Example]:
        if split not in SPLITS:
            raise ValueError(f"restaurants: no split {split!r}, only {', '.join(SPLITS)}")
        start = sum(self.sizes[s] for s in SPLITS[: SPLITS.index(split)])
        return spaced(self.examples[start : start + self.sizes[split]], self.limit.get(split))

    @cached_property
    def digest(self) -> str:
        return content_digest(self.examples)

    @cached_property
    def examples(self) -> list[Example]:
        """The texts of all splits, shuffled: those found late are rarer ones and would make a biased test set."""
        rng, wanted = random.Random(self.seed), sum(self.sizes.values())
        found: dict[tuple[str, ...], Example] = {}
        for tries, (example, _) in enumerate(describe(rng)):
            if len(found) == wanted or tries > 10 * wanted + 5000:
                break
            if len(example.words) + 2 <= self.length:
                found.setdefault(example.words, example)
        if len(found) < wanted:
            raise Refused(
                f"restaurants: {wanted} different texts of at most {self.length} positions were asked for and only "
                f"{len(found)} found; ask for fewer (size, dev, test) or for longer ones (length)"
            )
        return sorted(found.values(), key=lambda _: rng.random())
