"""Penn Treebank tags to the seventeen universal ones (Universal Dependencies v2, as spaCy's English models use them).

Most Penn tags have one universal tag. Where they do not, the word and its neighbours decide as far as they can:

    has/VBZ been/VBN   AUX VERB→AUX      forms of be are AUX; have and do are where a participle or infinitive follows
    to/TO book/VB      PART              to/TO the/DT is ADP
    while/IN           SCONJ             in/IN is ADP; as/IN it/PRP is SCONJ, as/IN a/DT is ADP
    not/RB             PART              also/RB is ADV
"""

from collections.abc import Sequence

UNIVERSAL = (
    "ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "INTJ", "NOUN", "NUM", "PART", "PRON", "PROPN", "PUNCT", "SCONJ", "SYM",
    "VERB", "X",
)  # fmt: skip

#: Penn tag (with OntoNotes' additions) → universal tag where nothing else is known; any other tag is X
OF_TAG = {
    "CC": "CCONJ", "CD": "NUM", "DT": "DET", "EX": "PRON", "FW": "X", "IN": "ADP", "JJ": "ADJ", "JJR": "ADJ",
    "JJS": "ADJ", "LS": "X", "MD": "AUX", "NN": "NOUN", "NNS": "NOUN", "NNP": "PROPN", "NNPS": "PROPN", "PDT": "DET",
    "POS": "PART", "PRP": "PRON", "PRP$": "PRON", "RB": "ADV", "RBR": "ADV", "RBS": "ADV", "RP": "ADP", "SYM": "SYM",
    "TO": "PART", "UH": "INTJ", "VB": "VERB", "VBD": "VERB", "VBG": "VERB", "VBN": "VERB", "VBP": "VERB",
    "VBZ": "VERB", "WDT": "PRON", "WP": "PRON", "WP$": "PRON", "WRB": "ADV", "AFX": "ADJ", "$": "SYM", "#": "SYM",
    ",": "PUNCT", ".": "PUNCT", ":": "PUNCT", "``": "PUNCT", "''": "PUNCT", "-LRB-": "PUNCT", "-RRB-": "PUNCT",
    "HYPH": "PUNCT", "NFP": "PUNCT",
}  # fmt: skip

BE = frozenset(("be", "am", "is", "are", "was", "were", "been", "being", "'s", "'re", "'m", "ai"))
HAVE = frozenset(("have", "has", "had", "having", "'ve", "'d"))
DO = frozenset(("do", "does", "did"))
NEGATIONS = frozenset(("not", "n't", "n’t"))
SUBORDINATORS = frozenset(
    ("although", "though", "while", "whilst", "if", "because", "unless", "whether", "whereas", "that", "lest")
)
#: subordinators or prepositions
EITHER = frozenset(("as", "since", "before", "after", "until", "till", "than", "once", "like", "so"))
DEMONSTRATIVES = frozenset(("this", "that", "these", "those"))
INDEFINITES = frozenset(start + end for start in ("some", "any", "every", "no") for end in ("thing", "one", "body"))
BETWEEN = frozenset(("RB", "RBR", "RBS", "PRP", "EX"))  # may stand between an auxiliary and its verb
NOMINAL = frozenset(("NN", "NNS", "NNP", "NNPS", "JJ", "JJR", "JJS", "CD", "VBG", "VBN"))  # may follow a determiner


def universal(tags: Sequence[str], words: Sequence[str]) -> tuple[str, ...]:
    """One universal tag a word, from Penn tags and the words themselves.

    Raises:
        ValueError: tags and words differ in number.
    """
    if len(tags) != len(words):
        raise ValueError(f"universal: {len(tags)} tags for {len(words)} words")
    lower = [word.lower() for word in words]
    return tuple(_of(i, tags, lower) for i in range(len(tags)))


def _of(i: int, tags: Sequence[str], words: Sequence[str]) -> str:
    tag, word = tags[i], words[i]
    after = tags[i + 1] if i + 1 < len(tags) else ""
    if tag[:2] == "VB":
        return "AUX" if word in BE or _helps(i, tags, word) else "VERB"
    if tag == "TO":
        return "PART" if _next_verb(i, tags) == "VB" else "ADP"
    if tag == "IN" and (word in SUBORDINATORS or (word in EITHER and after in ("PRP", "EX", "VBG"))):
        return "SCONJ"
    if tag == "RB" and word in NEGATIONS:
        return "PART"
    if tag == "DT" and word in DEMONSTRATIVES and after not in NOMINAL and after not in BETWEEN:
        return "PRON"
    if tag == "WDT" and word != "that" and after in NOMINAL:
        return "DET"
    if tag == "NN" and word in INDEFINITES:
        return "PRON"
    if tag == "NN" and word == "%":
        return "SYM"
    return OF_TAG.get(tag, "X")


def _helps(i: int, tags: Sequence[str], word: str) -> bool:
    """Whether this form of have or do stands before the verb that it is the auxiliary of."""
    return (word in HAVE and _next_verb(i, tags) == "VBN") or (word in DO and _next_verb(i, tags) == "VB")


def _next_verb(i: int, tags: Sequence[str]) -> str:
    """The tag after i, adverbs and a pronoun between them left out."""
    return next((tag for tag in tags[i + 1 :] if tag not in BETWEEN), "")
