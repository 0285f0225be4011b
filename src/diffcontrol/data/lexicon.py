"""Words of the restaurant grammar: values of the fields, the ways to mention them, and words that lean to a tone."""

import re

from diffcontrol.data.grammar import Option, leaning, option, ranked

TONES = ("recommending", "neutral", "warning")
ODDS = 4.4  # a word is this much likelier under its own tone: posterior below 0.7, so no word settles the tone alone
MENTION_ODDS = 3.4  # the same for the ways to mention a value, whose value may lean as well
NAME_ODDS = 2.5  # the same for the restaurants

#: field → value → weight under each tone (one number: the same under all)
PRIORS: dict[str, dict[str, tuple[float, ...]]] = {
    "type": {
        "pub": (3, 4, 4), "restaurant": (4, 4, 4), "bistro": (3, 2, 2), "café": (3, 2, 2), "diner": (1, 2, 2.5),
        "wine bar": (1.5, 1, 1),
    },
    "food": {
        "Italian": (6, 6, 6), "Indian": (4, 4, 4), "French": (3, 2, 2), "Japanese": (3, 2, 2), "Mexican": (2, 2, 3),
        "Thai": (2, 2, 2), "Greek": (1, 1, 2), "vegetarian": (1, 1.5, 1),
    },
    "area": {
        "city centre": (4, 5, 5), "riverside": (4, 2.5, 2.5), "old town": (3, 2, 2), "suburbs": (1.5, 2, 2.5),
        "harbour": (2, 2, 1.5),
    },
    "price": {"cheap": (3, 2, 2), "moderate": (2, 3, 2), "expensive": (1.5, 1.5, 2.5), "upmarket": (1.5, 1, 1)},
    "rating": {"five stars": (5, 2, 1), "four stars": (4, 3, 1), "three stars": (1, 4, 3), "one star": (1, 2, 4)},
    "family": {"yes": (4, 3, 2), "no": (1.5, 2, 2.5)},
}  # fmt: skip

NAMES = """Marlowe / The Copper Kettle / Tamarind / Velvet Fig / The Silver Heron / Quince / Lumen / The Painted Door /
Amber Lantern / Ostara / The Lost Anchor / Pepperwood / Blue Thistle / The Quiet Fox / Bellamy / The Salty Gull /
Sorrel / Hungry Otter / The Crooked Spoon / Juniper Lane"""
LANDMARKS = """Grand Hotel / Town Hall / Opera House / Iron Bridge / Botanic Garden / Corn Market / Clock Tower /
University Library / Central Station / Museum of Glass"""

#: symbol → value → ways to say it, the commonest first; every one of them becomes a form for strict scoring.
#: Where `|` stands, what is on its sides leans to TONES in their order.
MENTIONS: dict[str, dict[str, str]] = {
    "type.n": {
        "pub": "(NN inn) | (NN pub) | (NN tavern)",
        "restaurant": "| (NN restaurant) | (NN eatery)",
        "bistro": "(NN brasserie) | (NN bistro) |",
        "café": "(NN café) | (NN coffee) (NN shop) |",
        "diner": "(NN diner)",
        "wine bar": "(NN wine) (NN bar)",
    },
    "food.adj": {
        "Italian": "(JJ Tuscan) | (JJ Italian) |",
        "French": "(JJ Breton) | (JJ French) |",
        "Indian": "| (JJ Bengali) | (JJ Indian)",
        "Japanese": "(JJ Japanese)",
        "Mexican": "(JJ Mexican)",
        "Thai": "(JJ Thai)",
        "Greek": "(JJ Cretan) | (JJ Greek) |",
        "vegetarian": "(JJ vegetarian) | (JJ meat-free) |",
    },
    "food.dish": {
        "Italian": "(NN risotto) | (NN pasta) | (NN pizza)",
        "French": "(NNS crêpes) | | (NNS omelettes)",
        "Indian": "| (NNS curries) | (NNS kormas)",
        "Japanese": "(NN sushi) | (NN ramen) |",
        "Mexican": "(NNS tacos) | | (NNS burritos)",
        "Thai": "(NN satay)",
        "Greek": "| (NN moussaka) | (NN souvlaki)",
        "vegetarian": "(NNS salads) | (JJ meatless) (NNS stews) |",
    },
    "area.pp": {
        "city centre": "(PP (IN in) (NP (NP (DT the) (NN heart)) (PP (IN of) (NP (DT the) (NN city))))) | "
        "(PP (IN in) (NP (DT the) (NN city) (NN centre))) | "
        "(PP (IN in) (NP (NP (DT the) (NN middle)) (PP (IN of) (NP (NN town)))))",
        "riverside": "(PP (IN by) (NP (DT the) (NN river))) | (PP (IN on) (NP (DT the) (NN riverside))) |",
        "old town": "(PP (IN in) (NP (DT the) (JJ old) (NN quarter))) | "
        "(PP (IN in) (NP (DT the) (JJ old) (NN town))) |",
        "suburbs": "(PP (IN on) (NP (DT the) (NNS outskirts))) | (PP (IN in) (NP (DT the) (NNS suburbs))) | "
        "(PP (IN on) (NP (NP (DT the) (NN edge)) (PP (IN of) (NP (NN town)))))",
        "harbour": "(PP (IN on) (NP (DT the) (NN waterfront))) | (PP (IN at) (NP (DT the) (NN harbour))) |",
    },
    "area.mod": {
        "city centre": "(NN city) (NN centre)",
        "riverside": "(NN riverside)",
        "old town": "(JJ old) (NN town)",
        "suburbs": "(JJ suburban)",
        "harbour": "(NN harbour) / (NN waterfront)",
    },
    "price.adj": {
        "cheap": "(JJ affordable) | (JJ inexpensive) | (JJ cheap)",
        "moderate": "| (JJ mid-range) | (JJ mid-priced)",
        "expensive": "(JJ costly) | (JJ expensive) | (JJ pricey)",
        "upmarket": "(JJ high-end) | (JJ upmarket) |",
    },
    "price.pred": {
        "cheap": "(ADJP (JJ affordable)) | (ADJP (JJ inexpensive)) | (ADJP (JJ cheap))",
        "moderate": "(ADJP (RB moderately) (VBN priced)) / (ADJP (JJ mid-range))",
        "expensive": "| (ADJP (JJ expensive)) | (ADJP (JJ pricey))",
        "upmarket": "(ADJP (JJ upmarket))",
    },
    "price.np": {
        "cheap": "(NP (JJ low) (NNS prices)) | (NP (JJ low) (NN cost)) |",
        "moderate": "(NP (JJ moderate) (NNS prices)) | (NP (JJ average) (NNS prices)) |",
        "expensive": "| (NP (JJ high) (NNS prices)) | (NP (JJ steep) (NNS prices))",
        "upmarket": "(NP (JJ premium) (NNS prices))",
    },
    "price.s": {
        "cheap": "(NP (NNS prices)) (VP (VBP are) (ADJP (JJ low)))",
        "moderate": "(NP (NNS prices)) (VP (VBP are) (ADJP (JJ moderate)))",
        "expensive": "| (NP (NNS prices)) (VP (VBP are) (ADJP (JJ high))) | "
        "(NP (NNS prices)) (VP (VBP are) (ADJP (JJ steep)))",
        "upmarket": "(NP (NNS prices)) (VP (VBP are) (ADJP (JJ sky-high)))",
    },
    "rating.np": {
        "five stars": "(NP (CD five) (NNS stars))",
        "four stars": "(NP (CD four) (NNS stars))",
        "three stars": "(NP (CD three) (NNS stars))",
        "one star": "(NP (CD one) (NN star)) / (NP (DT a) (JJ single) (NN star))",
    },
    "rating.adj": {
        "five stars": "(JJ five-star)",
        "four stars": "(JJ four-star)",
        "three stars": "(JJ three-star)",
        "one star": "(JJ one-star)",
    },
    "family.adj": {"yes": "(JJ child-friendly) | (JJ family-friendly) |", "no": "(JJ adults-only)"},
    "family.vp": {
        "yes": "(VP (VBZ welcomes) (NP (NNS families))) | (VP (VBZ is) (ADJP (NN family) (JJ friendly))) | "
        "(VP (VBZ welcomes) (NP (NNS children)))",
        "no": "(VP (VBZ is) (RB not) (ADJP (NN family) (JJ friendly))) / "
        "(VP (VBZ is) (RB n't) (ADJP (NN family) (JJ friendly))) / "
        "(VP (VBZ=AUX does) (RB n't) (VP (VB welcome) (NP (NNS children))))",
    },
    "family.tail": {
        "yes": "(CC and) (ADJP (NN family) (JJ friendly)) / "
        "(CC and) (ADJP (JJ suitable) (PP (IN for) (NP (NNS children))))",
        "no": "(CC but) (ADJP (RB not) (NN family) (JJ friendly)) / "
        "(CC but) (ADJP (RB not) (JJ suitable) (PP (IN for) (NP (NNS children))))",
    },
    "family.s": {
        "yes": "(NP (NNS children)) (VP (VBP are) (ADJP (JJ welcome))) | "
        "(NP (NNS families)) (VP (VBP are) (ADJP (JJ welcome))) |",
        "no": "| (NP (NNS children)) (VP (VBP are) (RB not) (ADJP (JJ welcome))) | "
        "(NP (NNS children)) (VP (VBP are) (RB n't) (VP (VBN allowed)))",
    },
}

#: symbol → (tag, words leaning to each of TONES); without a tag the items are brackets
LEANING: dict[str, tuple[str, str, str, str]] = {
    "look.adj": ("JJ", "charming / cosy / stylish", "small / local / modern / busy", "noisy / shabby / cramped"),
    "taste.adj": ("JJ", "delicious / fresh / superb", "traditional / simple / hearty", "bland / greasy / soggy"),
    "service.adj": ("JJ", "friendly / attentive / helpful", "polite / relaxed / informal", "slow / rude / careless"),
    "mood.adj": ("JJ", "warm / lovely / inviting", "calm / casual / lively", "dull / chilly / tired"),
    "portion.adj": ("JJ", "generous / large", "average / filling", "tiny / stingy"),
    "deg": ("RB", "very / really / truly", "quite / fairly", "rather / too"),
    "freq": ("RB", "always / really", "usually / generally", "often / still"),
    "sentence.rb": ("RB", "happily / luckily", "overall / evidently", "sadly / unfortunately"),
    "spot": ("NN", "spot / gem", "place / venue", "joint / dive"),
    "meal": ("", "(NN cuisine) / (NNS specialities) / (NNS delicacies)", "(NN food) / (NNS meals) / (NNS dishes)",
             "(NN fare) / (NNS snacks)"),
    "room": ("NN", "ambience / setting", "atmosphere / interior", "room / decor"),
    "people": ("NNS", "locals / regulars / gourmets", "visitors / students / workers", "tourists / critics"),
    "serve": ("VBZ", "offers / prepares", "serves / provides", "sells / reheats"),
    "sell": ("VBZ", "offers", "serves", "sells"),
    "serving": ("VBG", "offering / preparing", "serving / providing", "selling / reheating"),
    "enjoy": ("VB", "enjoy / savour", "order / eat", "find / get"),
    "named": ("VBN", "named", "called", "dubbed"),
    "modal": ("MD", "can", "may", "will"),
    "want": ("VBP", "love / crave", "want / like", "need"),
    "try": ("VB", "try / visit / choose", "consider / remember", "avoid / skip"),
    "set.vbn": ("VBN", "nestled / set", "located / situated", "hidden / stuck / squeezed"),
    "how.rb": ("RB", "beautifully / ideally", "quietly / discreetly", "awkwardly / poorly"),
    "sit.vbz": ("VBZ", "sits / nestles", "lies / stands", "hides / lurks"),
    "earn": ("VBZ", "earns / boasts / deserves", "has / holds", "gets / receives"),
    "award": ("VBN", "awarded", "rated", "given"),
    "praise": ("VBN", "loved / praised / recommended", "visited / chosen / discussed", "avoided / criticised / mocked"),
    "love": ("VBP", "love / praise / recommend", "visit / choose / discuss", "avoid / criticise / mock"),
    "beside": ("", "(PP (IN beside) <near.np>) / (ADVP (RB close) (PP (TO=ADP to) <near.np>))",
               "(PP (IN near) <near.np>) / (PP (IN opposite) <near.np>)",
               "(PP (IN behind) <near.np>) / (ADVP (RB next) (PP (TO=ADP to) <near.np>))"),
    "drink.np": ("", "(NP (JJ fine) (NNS wines)) / (NP (JJ homemade) (NNS desserts)) / (NP (JJ great) (NNS cocktails))",
                 "(NP (JJ soft) (NNS drinks)) / (NP (JJ bottled) (NN beer)) / (NP (JJ green) (NN tea))",
                 "(NP (JJ weak) (NN coffee)) / (NP (JJ stale) (NN bread)) / (NP (JJ watery) (NN soup))"),
    "verdict.vp": (
        "",
        "(VP (VBZ is) (ADJP (JJ worth) (NP (DT the) (NN trip)))) / (VP (ADVP (RB rarely)) (VBZ disappoints)) / "
        "(VP (VBZ merits) (NP (DT a) (NN visit)))",
        "(VP (VBZ opens) (NP (DT every) (NN day))) / (VP (VBZ takes) (NP (NNS bookings))) / "
        "(VP (VBZ=VERB has) (NP (DT a) (NN terrace)))",
        "(VP (VBZ fills) (PRT (RP up)) (ADVP (RB quickly))) / (VP (VBZ closes) (ADVP (RB early))) / "
        "(VP (VBZ=AUX does) (RB n't) (VP (VB take) (NP (NNS bookings))))",
    ),
    "advice.vp": (
        "",
        "(VP (VB book) (ADVP (RB soon))) / (VP (VB bring) (NP (DT a) (NN friend))) / "
        "(VP (VB stay) (PP (IN for) (NP (NN dessert))))",
        "(VP (VB ask) (PP (IN for) (NP (DT the) (NN menu)))) / (VP (VB book) (NP (DT a) (NN table)))",
        "(VP (VB expect) (NP (DT a) (JJ long) (NN wait))) / (VP (VB bring) (NP (NN patience)))",
    ),
}  # fmt: skip

_LEFT_OF_MENTION = {"in", "on", "at", "the", "a", "is", "and", "but"}  # stands before a mention, is no part of it
_TAGS = {"The": "DT", "of": "IN"}


def names(text: str) -> dict[str, str]:
    """Proper name → its words as leaves."""
    return {n: " ".join(f"({_TAGS.get(w, 'NNP')} {w})" for w in n.split()) for n in " ".join(text.split()).split(" / ")}


MENTIONS["name.np"] = {name: f"(NP {leaves})" for name, leaves in names(NAMES).items()}
MENTIONS["near.np"] = {name: f"(NP (DT the) {leaves})" for name, leaves in names(LANDMARKS).items()}
MENTIONS["near.np"]["Museum of Glass"] = "(NP (NP (DT the) (NNP Museum)) (PP (IN of) (NP (NNP Glass))))"
PRIORS["name"] = {  # some please more often than others
    name: tuple((NAME_ODDS if i % 3 == tone else 1) / (3 + i) for tone in range(len(TONES)))
    for i, name in enumerate(MENTIONS["name.np"])
}
PRIORS["near"] = {name: (1 / (2 + i),) * 3 for i, name in enumerate(MENTIONS["near.np"])}


def leanings() -> dict[str, list[Option]]:
    """Symbol → options of the words that lean to a tone."""
    return {symbol: leaning(tag, groups, ODDS) for symbol, (tag, *groups) in LEANING.items()}


def mentions() -> dict[str, dict[str, list[Option]]]:
    """Symbol → value → options."""
    return {symbol: {value: _ways(items) for value, items in values.items()} for symbol, values in MENTIONS.items()}


def _ways(items: str) -> list[Option]:
    if "|" in items:
        return leaning("", items.split("|"), MENTION_ODDS)
    return [option(text, [weight] * len(TONES)) for text, weight in ranked(items)]


def forms() -> dict[str, dict[str, list[str]]]:
    """Field → value → words of its mentions, made from the mentions so that the two cannot drift apart."""
    table: dict[str, dict[str, list[str]]] = {field: {v: [] for v in values} for field, values in PRIORS.items()}
    for symbol, values in MENTIONS.items():
        for value, items in values.items():
            for text, _ in ranked(items.replace("|", "/")):
                words = re.findall(r" ([^\s()]+)\)", text)
                while words[0] in _LEFT_OF_MENTION:
                    words.pop(0)
                found = table[symbol.partition(".")[0]][value]
                if " ".join(words) not in found:
                    found.append(" ".join(words))
    return table
