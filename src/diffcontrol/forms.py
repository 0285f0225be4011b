"""Surface forms, and what they mean to a target: a reader takes them to say it, to say otherwise, or to speak of
something else.

    forms       "not family friendly" → otherwise · "family friendly" → said
    text        "Aromi is not family friendly ."     otherwise: of the forms that begin at a word the longest counts
"""

from collections.abc import Mapping, Sequence

from diffcontrol.automaton import Automaton, classed, explored, words
from diffcontrol.text import Vocabulary

SAID, OTHERWISE, NOTHING = "said", "otherwise", "nothing"  # what words mean to a target: it, its contrary, neither
ARTICLES = ("a", "an", "the")
NEGATIONS = ("not", "n't", "n’t", "never")
Words = tuple[str, ...]


class Telling:
    """What words mean: forms, found from left to right, the longest that begins at a word before all others."""

    def __init__(self, forms: Mapping[str, str]):
        self.forms: dict[Words, str] = {tuple(form.split()): meaning for form, meaning in forms.items()}
        self.begun: set[Words] = {form[:n] for form in self.forms for n in range(len(form))}
        self.longest = max(map(len, self.forms))

    def judged(self, text: Words, whole: bool = True) -> tuple[set[str], Words]:
        """Meanings of the forms in a text of lower-case words; and its last words if they may begin a form and it is
        not the whole text, as these cannot be judged yet."""
        found = set()
        while text and (whole or text not in self.begun):
            if length := self._begins(text):
                found.add(self.forms[text[:length]])
            text = text[length or 1 :]
        return found, text

    def placed(self, text: Words) -> list[tuple[int, int, str]]:
        """(first word, past the last, meaning) of each form that `judged` finds in a whole text."""
        found, start = [], 0
        while start < len(text):
            if length := self._begins(text[start:]):
                found.append((start, start + length, self.forms[text[start : start + length]]))
            start += length or 1
        return found

    def _begins(self, text: Words) -> int:
        """How many words the longest form has that the text begins with; 0 if it begins with none."""
        return max((n for n in range(1, min(self.longest, len(text)) + 1) if text[:n] in self.forms), default=0)


def saying(telling: Telling, vocabulary: Vocabulary) -> Automaton:
    """The automaton of texts in which forms mean SAID, and none means OTHERWISE.

    Its states are whether it is SAID, and the words that cannot be judged yet.
    """
    told = sorted({word for form in telling.forms for word in form})
    spelled = [words(vocabulary.spellings.get(word, []), len(vocabulary)) for word in told]
    classes, members = classed(spelled, len(vocabulary))
    names = [told[int(column.nonzero()[0])] if column.any() else "" for column in members.T]  # "" stands in no form

    def step(state: tuple[bool, Words], word: int) -> tuple[bool, Words] | None:
        meanings, rest = telling.judged((*state[1], names[word]), whole=False)
        return None if OTHERWISE in meanings else (state[0] or SAID in meanings, rest)

    def ends(state: tuple[bool, Words]) -> bool:
        meanings, _ = telling.judged(state[1])
        return OTHERWISE not in meanings and (state[0] or SAID in meanings)

    start: tuple[bool, Words] = (False, ())
    return explored(classes, start, step, ends)


def after(places: Sequence[str], form: str) -> list[str]:
    """The form after each of the words, with an article or without."""
    return [" ".join([word, *article, form]) for word in places for article in [[], *([a] for a in ARTICLES)]]


def denials(form: str) -> list[str]:
    """The form with a negation before it or in it; none of a form that has one, as it says what is not so itself."""
    words = form.split()
    if set(words) & set(NEGATIONS):
        return []
    return [" ".join([*words[:i], negation, *words[i:]]) for i in range(len(words)) for negation in NEGATIONS]
