"""The future discriminator of FUDGE (Yang & Klein 2021): will a text that starts like this meet the target?

The paper trains one predictor for one attribute; ours reads the target as a prompt, so a task needs only `serialize`.
As in the paper, every prefix of a training text has the label of the whole text.

B rows · P positions of the prompt · T of the text
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.nn.utils.rnn import pad_sequence
from transformers import GPT2Model

from diffcontrol.baselines.lm import BUCKET, crop, gpt2, lengths
from diffcontrol.baselines.reading import IMPLEMENTATION, Reading
from diffcontrol.data.corpus import Corpus, Example
from diffcontrol.task import ControlTask, Target
from diffcontrol.text import PAD
from diffcontrol.training import Steps, Trainable, seed_of

TRIES = 16  # draws of a target that a text does not meet


class Asked:
    """What may be asked of every training text, as a table that positive and negative targets are drawn from.

    Attributes: `words`, the different serialised targets; `flat`, indices into them of all texts one after another;
    `starts` [N + 1], where a text's own begin in it.
    """

    def __init__(self, task: ControlTask, examples: Sequence[Example]):
        numbers: dict[tuple[str, ...], int] = {}
        flat: list[int] = []
        starts = [0]
        for example in examples:
            own = dict.fromkeys(tuple(task.serialize(target)) for target in task.targets(task.annotate(example)))
            flat += [numbers.setdefault(words, len(numbers)) for words in own]
            starts.append(len(flat))
        if len(numbers) < 2:
            raise ValueError(f"{type(task).__name__}: {len(numbers)} different targets in the training texts; need 2")
        self.words, self.flat, self.starts = list(numbers), torch.tensor(flat), torch.tensor(starts)
        letters = {word: i for i, word in enumerate(dict.fromkeys(word for words in numbers for word in words))}
        self._spelled = pad_sequence(
            [torch.tensor([letters[word] for word in words]) for words in numbers], batch_first=True, padding_value=-1
        )  # [targets P]
        self.counts = self.starts.diff()
        self._carriers = self.counts.nonzero()[:, 0]
        owners = torch.arange(len(examples)).repeat_interleave(self.counts)
        self._pairs = (owners * len(numbers) + self.flat).sort().values

    def draw(self, texts: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """A target that each text meets, and one of another text's that it does not: of TRIES, half of the time the
        first and half of the time the one spelled most like the positive (food : Thai for food : Italian), as they
        are what has to be told apart.

        Returns [≤ 2B]: indices into `words`, rows of `texts`, labels. A text without target is no positive.
        """
        negative = self._pick(self._carriers[torch.randint(len(self._carriers), (len(texts), TRIES),
                                                           generator=generator)], generator)  # fmt: skip
        foreign = ~self._met(texts[:, None], negative)
        rows = torch.arange(len(texts))
        with_targets, with_negative = rows[self.counts[texts] > 0], rows[foreign.any(1)]
        positive = self._pick(texts[with_targets], generator)
        likeness = torch.zeros_like(negative)
        alike = self._spelled[negative[with_targets]] == self._spelled[positive][:, None]
        likeness[with_targets] = (alike & (self._spelled[positive][:, None] >= 0)).sum(-1)
        hard = torch.rand((len(texts), 1), generator=generator) < 0.5
        chosen = (foreign * (1 + hard * likeness)).argmax(1, keepdim=True)
        negative = negative.gather(1, chosen)[:, 0]
        labels = torch.cat([torch.ones(len(positive)), torch.zeros(len(with_negative))])
        return torch.cat([positive, negative[with_negative]]), torch.cat([with_targets, with_negative]), labels

    def _pick(self, texts: Tensor, generator: torch.Generator) -> Tensor:
        """One of each text's own targets."""
        drawn = torch.rand(texts.shape, generator=generator, dtype=torch.float64)
        return self.flat[self.starts[texts] + (drawn * self.counts[texts]).long()]

    def _met(self, texts: Tensor, targets: Tensor) -> Tensor:
        pairs = texts * len(self.words) + targets
        return self._pairs[torch.searchsorted(self._pairs, pairs).clamp(max=len(self._pairs) - 1)] == pairs


class Predictor(Trainable):
    """p(the whole text meets the target | target, prefix) at every prefix: serialised target, separator, START words.

    Prompt and text share the ids of the words they have in common, so that a value asked for can be matched with its
    mention; they are told apart by their positions, of which each has its own: prompt 0 … P−1, text P … P+T−1,
    whatever the length of the prompt at hand, so that the i-th tag always stands at the same distance from the i-th
    word. Words of targets that no text has follow the vocabulary.
    """

    def __init__(self, data: Corpus, task: ControlTask, model: Mapping[str, Any], optim: Mapping[str, Any],
                 model_seed: int = 0, version: int = 1):  # fmt: skip
        super().__init__(data, optim, model_seed)
        self.task, self.token_evaluations = task, 0
        self.asked = Asked(task, data.splits["train"])
        self.ids = dict(data.vocabulary.ids)
        for words in self.asked.words:
            for word in words:
                self.ids.setdefault(word, len(self.ids))
        self.separator, self.blank = len(self.ids), len(self.ids) + 1
        self.prompt_length = 1 + max(map(len, self.asked.words))
        self.network = GPT2Model(gpt2(
            model, len(self.ids) + 2, self.prompt_length + data.length, attn_implementation=IMPLEMENTATION,
            initializer_range=model["width"] ** -0.5,  # GPT-2's 0.02 takes about five times the steps to match anything
        ))  # fmt: skip
        self._look_for_equals()
        self.logit = nn.Linear(model["width"], 1)

    @torch.no_grad()
    def _look_for_equals(self) -> None:
        """Keys begin as queries, so that at first every word attends to the same word of the prompt. To find out that
        it should is what takes a network with keys of their own most of its training (docs/log.md)."""
        for name, weight in self.network.named_parameters():
            if name.endswith("attn.c_attn.weight"):
                query, key, _ = weight.chunk(3, 1)
                key.copy_(query)

    def collate(self, indices: list[int]) -> dict[str, Tensor]:
        """Prompts [2B P], texts [2B T], labels [2B]; drawn as a function of the model seed and the texts alone."""
        generator = torch.Generator().manual_seed(seed_of(self.model_seed, *indices))
        targets, rows, labels = self.asked.draw(torch.tensor(indices), generator)
        prompts = self.prompts([self.asked.words[i] for i in targets.tolist()])
        return {"prompts": prompts, "texts": crop(super().collate(indices))[rows], "labels": labels}

    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        texts = batch["texts"]
        logits = self(batch["prompts"], texts)
        labels = batch["labels"][:, None].expand_as(logits)
        errors = binary_cross_entropy_with_logits(logits, labels, reduction="none")
        written = texts != PAD
        return {"bce": (errors * written).sum() / written.sum()}

    def steps(self, rank: int = 0, world: int = 1) -> Steps:
        train = self.corpus.ids["train"]
        return self._steps([torch.arange(len(train))], rank, world, lengths=lengths(train), bucket=BUCKET)

    def forward(self, prompts: Tensor, texts: Tensor) -> Tensor:
        """Logits of every prefix, prompts [B P], texts [B T] → [B T]."""
        seen = torch.cat([prompts != self.blank, torch.ones_like(texts, dtype=torch.bool)], 1)
        hidden = self.network(torch.cat([prompts, texts], 1), attention_mask=seen, use_cache=False,
                              position_ids=self.positions(prompts, texts.shape[1])).last_hidden_state  # fmt: skip
        return self.logit(hidden[:, prompts.shape[1] :])[..., 0]

    def positions(self, prompts: Tensor, words: int) -> Tensor:
        """Position ids [1 P+T]."""
        prompt = torch.arange(prompts.shape[1], device=prompts.device)
        text = torch.arange(self.prompt_length, self.prompt_length + words, device=prompts.device)
        return torch.cat([prompt, text])[None]

    def prompts(self, serialised: Sequence[Sequence[str]]) -> Tensor:
        """Ids [B P] of words, separator, blanks; words that training never saw become UNK."""
        most = self.prompt_length - 1
        cut = max(map(len, serialised)) - most
        if cut > 0:
            logging.getLogger(__name__).warning(
                "%s: a target is %d words longer than any in training; it is cut", type(self.task).__name__, cut
            )
        unknown = self.ids["UNK"]
        rows = [[*(self.ids.get(word, unknown) for word in words[:most]), self.separator] for words in serialised]
        longest = max(map(len, rows))
        return torch.tensor([row + [self.blank] * (longest - len(row)) for row in rows])

    def read(self, targets: Sequence[Target]) -> Reading:
        """Ready to score the first words of a text for each target."""
        return Reading(self, self.prompts([self.task.serialize(target) for target in targets]).to(self.device))
