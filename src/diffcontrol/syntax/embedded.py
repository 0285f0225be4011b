"""The embedded parser: benepar's chart parser on a character LSTM, trained by the store on the data's gold trees."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffcontrol.batches import Steps
from diffcontrol.data.corpus import Corpus, Example
from diffcontrol.refused import Refused
from diffcontrol.syntax.parser import BeneparParser
from diffcontrol.syntax.trees import read
from diffcontrol.training import Trainable

TAG_LOSS = 5.0  # benepar's default
_OPENINGS = re.compile(r"(?:\([^\s()]+ )+")


class EmbeddedParser(Trainable, BeneparParser):
    """Characters → words → `depth` partitioned transformer layers of `width` → a label for each span, a tag a word.

    characters: width of a character's embedding; length: words of the longest text it can read.
    """

    def __init__(self, data: Corpus, optim: Mapping[str, Any], width: int = 128, depth: int = 1, heads: int = 4,
                 characters: int = 32, dropout: float = 0.1, length: int = 510, model_seed: int = 0,
                 version: int = 1):  # fmt: skip
        from benepar.char_lstm import RetokenizerForCharLSTM
        from benepar.decode_chart import ChartDecoder
        from benepar.nkutil import HParams
        from benepar.parse_chart import ChartParser

        super().__init__(data, optim, model_seed)
        examples = data.splits["train"]
        if not all(example.tree for example in examples):
            raise Refused(
                "parser=embedded learns from gold trees, which these data do not have; set parser=benepar_en3, or "
                "parser=local parser.model=<folder>"
            )
        trees = [tree_of(brackets) for brackets in telling(example.tree for example in examples)]
        tagged = (example.tags or read(example.tree).tags for example in examples)  # to read all trees takes seconds
        tags = ["UNK", *sorted({tag for tags in tagged for tag in tags})]
        hparams = HParams(
            use_pretrained=False, use_chars_lstm=True, use_encoder=True, predict_tags=True, d_model=width,
            d_char_emb=characters, d_label_hidden=width, d_tag_hidden=width, num_layers=depth, num_heads=heads,
            d_kv=width // heads, d_ff=2 * width, encoder_max_len=length + 2, tag_loss_scale=TAG_LOSS,
            attention_dropout=dropout, relu_dropout=dropout, residual_dropout=dropout, morpho_emb_dropout=dropout,
            char_lstm_input_dropout=dropout,
            force_root_constituent=ChartDecoder.infer_force_root_constituent(trees),  # not where a TOP holds sentences
        )  # fmt: skip
        self.network = ChartParser(
            tag_vocab={tag: i for i, tag in enumerate(tags)}, label_vocab=ChartDecoder.build_vocab(trees),
            char_vocab=RetokenizerForCharLSTM.build_vocab([data.vocabulary.words]), hparams=hparams,
        )  # fmt: skip

    def collate(self, indices: list[int]) -> Any:
        gold = [Gold.of(self.corpus.splits["train"][i]) for i in indices]
        words = sum(len(each.words) + 2 for each in gold)
        ((_, batch),) = self.network.encode_and_collate_subbatches(gold, subbatch_max_tokens=words * len(gold))
        return batch

    def losses(self, batch: Any) -> dict[str, Tensor]:
        # benepar's losses are sums over charts, too large for the eight bits of bf16.
        with torch.autocast(self.device.type, enabled=False):
            return {"parse": self.network.compute_loss(batch)}

    def weight(self, batch: Any) -> float:
        return 1.0  # benepar's losses are sums over rows, divided by numbers of the whole batch

    def steps(self) -> Steps:
        lengths = torch.tensor([len(example.words) for example in self.corpus.splits["train"]])
        return self._steps([torch.arange(len(lengths))], lengths=lengths, bucket=8)


@dataclass(frozen=True)
class Gold:
    """A sentence with its tree, as benepar trains on it."""

    words: list[str]
    tree: Any
    space_after: None = None

    @classmethod
    def of(cls, example: Example) -> "Gold":
        return cls(list(example.words), tree_of(example.tree))

    def pos(self) -> list[tuple[str, str]]:
        return self.tree.pos()


def tree_of(brackets: str) -> Any:
    """The nltk.Tree of a tree in brackets."""
    from nltk import Tree

    return Tree.fromstring(brackets)


def telling(trees: Iterable[str]) -> list[str]:
    """The few trees that between them hold all runs of opening brackets, so all labels and all chains of labels."""
    seen: set[str] = set()
    kept = []
    for tree in trees:
        if new := set(_OPENINGS.findall(tree)) - seen:
            seen |= new
            kept.append(tree)
    return kept
