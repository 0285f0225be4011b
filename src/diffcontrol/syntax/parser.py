"""Parsers: words → a constituency tree and a tag for each word, by benepar (Kitaev et al. 2019).

    parser=embedded      trained by the store on the data's own gold trees (`embedded.py`)
    parser=benepar_en3   the published English model, downloaded
    parser=local         a folder in benepar's format

benepar, NLTK and transformers are imported when something is parsed, so that training a language model needs none.
"""

import hashlib
import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from diffcontrol.data.corpus import Corpus
from diffcontrol.recipe import Content, Shared
from diffcontrol.refused import Refused
from diffcontrol.syntax.quality import quality

if TYPE_CHECKING:
    from benepar import InputSentence
    from benepar.parse_chart import ChartParser

BATCH = 1200  # words parsed at once, padding included; more is no faster on a CPU
ESCAPES = {"(": "-LRB-", ")": "-RRB-", "{": "-LCB-", "}": "-RCB-", "[": "-LSB-", "]": "-RSB-"}  # Penn Treebank
_ESCAPED = re.compile(r"[(){}\[\]]")
_SPACE = re.compile(r"\s+")


@dataclass(frozen=True)
class Parse:
    """tree: brackets on one line, rooted in TOP, preterminals included; tags: a Penn tag for each word."""

    tree: str
    tags: tuple[str, ...]


class Parser(Shared):
    @abstractmethod
    def parse(self, texts: Sequence[Sequence[str]], title: str = "") -> list[Parse]:
        """A parse for each text (a list of words); Parse("", ()) for a text of no words. A title shows progress."""

    def quality(self, corpus: Corpus) -> Mapping[str, Any]:
        """F1 and tag accuracy on the corpus's held-out gold trees, as measures; nothing where it has none."""
        return quality(self, corpus.splits["test"])


class BeneparParser(Parser):
    """What a benepar network does as a parser. Texts are parsed once and remembered: the judges of a run share them.

    Batches hold texts of like length. Padding is masked, but sums are taken in another order in another batch: scores
    differ by about 1e-6 with what else is parsed, and only a tie as close as that can change a tree.
    """

    network: Any  # a benepar.parse_chart.ChartParser

    @cached_property
    def parsed(self) -> dict[tuple[str, ...], Parse]:
        """What has been parsed so far."""
        return {}

    def parse(self, texts: Sequence[Sequence[str]], title: str = "") -> list[Parse]:
        asked = [tuple(text) for text in texts]
        new = sorted({text for text in asked if text} - self.parsed.keys(), key=lambda text: (len(text), text))
        with bar(bool(title)) as progress:
            task = progress.add_task(title, total=len(new))
            for batch in batches(new):
                self.parsed |= zip(batch, self._parse(batch), strict=True)
                progress.advance(task, len(batch))
        return [self.parsed[text] if text else Parse("", ()) for text in asked]

    def _parse(self, texts: Sequence[tuple[str, ...]]) -> Iterator[Parse]:
        network = self.network
        sentences = [sentence(text) for text in texts]
        try:
            outputs = network.parse(sentences, return_compressed=True)
        except ValueError as error:  # benepar's own sentence on the length
            raise Refused(f"parser: a text of {len(texts[-1])} words is too long for it ({error})") from error
        labels, tags = network.decoder.label_from_index, network.tag_from_index
        for given, output in zip(sentences, outputs, strict=True):
            tree = output.to_tree(given.pos(), labels, tags)
            yield Parse(_SPACE.sub(" ", tree.pformat(margin=10**6)), tuple(tag for _, tag in tree.pos()))


class PublishedParser(BeneparParser):
    """A model that benepar publishes under a name, `benepar_en3`; downloaded where it is missing."""

    def __init__(self, name: str):
        self.name, self.folder = name, published(name)

    @cached_property
    def network(self) -> "ChartParser":
        return load(self.folder)


class FolderParser(BeneparParser, Content):
    """A folder in benepar's format: benepar_model.bin, config.json and a tokeniser. Addressed by what it holds."""

    location_arguments = ("model",)

    def __init__(self, model: str | None):
        if model is None or not Path(model, "benepar_model.bin").is_file():
            what = "none is given" if model is None else f"there is no benepar_model.bin in {model}"
            raise Refused(
                f"parser=local needs the folder of a benepar model and {what}; set parser.model=<folder>, a model that "
                "https://github.com/nikitakit/self-attentive-parser has trained and exported (src/export.py)."
            )
        self.folder = Path(model)

    @cached_property
    def digest(self) -> str:
        sha = hashlib.sha256()
        for path in sorted(path for path in self.folder.iterdir() if path.is_file() and path.name[0] != "."):
            sha.update(f"{path.name}:{hashlib.sha256(path.read_bytes()).hexdigest()};".encode())
        return sha.hexdigest()[:16]

    @cached_property
    def network(self) -> "ChartParser":
        return load(self.folder)


def published(name: str) -> Path:
    """The folder of a published model, downloaded if it is not there.

    Raises:
        Refused: it is not there and cannot be downloaded.
    """
    import benepar
    from benepar.integrations.downloader import locate_model

    for attempt in (lambda: None, lambda: benepar.download(name, quiet=True)):
        try:
            attempt()
            return Path(locate_model(name))
        except Exception:  # LookupError; while downloading it depends on network and version
            continue
    raise Refused(
        f"The parser {name} is not on this machine and could not be downloaded; get it where there is a network with "
        f"python -c \"import benepar; benepar.download('{name}')\" and copy ~/nltk_data/models/{name}, "
        "or set parser=local parser.model=<folder>."
    )


def load(folder: Path) -> "ChartParser":
    """A benepar network, in evaluation mode, on the GPU if there is one."""
    import torch
    from benepar.parse_chart import ChartParser

    network = ChartParser.from_trained(str(folder)).eval().requires_grad_(False)
    network.retokenizer.tokenizer.deprecation_warnings["Asking-to-pad-a-fast-tokenizer"] = True  # benepar means to
    return network.cuda() if torch.cuda.is_available() else network


def leaf(word: str) -> str:
    """The word as a leaf of a tree in brackets: no bracket, no space, never empty; `\\*` for `*`, as in the Penn
    Treebank, as that is any word in a bare tree."""
    return r"\*" if word == "*" else _ESCAPED.sub(lambda found: ESCAPES[found[0]], _SPACE.sub("_", word)) or "_"


def sentence(text: Sequence[str]) -> "InputSentence":
    """The text as benepar reads it: plain words and where a space follows, with leaves for the tree."""
    from benepar import InputSentence
    from benepar.ptb_unescape import guess_space_after

    words = [word or "_" for word in text]
    return InputSentence(words=words, space_after=guess_space_after(words), escaped_words=[leaf(word) for word in text])


def batches(texts: Sequence[tuple[str, ...]]) -> Iterator[Sequence[tuple[str, ...]]]:
    """Cuts texts, sorted by length, into batches of at most BATCH words with padding."""
    start = 0
    for end in range(1, len(texts) + 1):
        if end == len(texts) or len(texts[end]) * (end + 1 - start) > BATCH:
            yield texts[start:end]
            start = end


def bar(shown: bool) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, disable=not shown)
