"""The future discriminator of FUDGE (Yang & Klein 2021): will a text that starts like this meet the target?

The paper trains one predictor for one attribute; ours reads the target as a prompt, so a task needs only `serialize`.
As in the paper, every prefix of a training text has the label of the whole text.

B rows · P positions of the prompt · T of the text
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid
from transformers import GPT2Model

from diffcontrol.allowed import Rules
from diffcontrol.autoregressive.causal_lm import SIZES_OF_GPT2, gpt2
from diffcontrol.autoregressive.prompted import Prompted
from diffcontrol.autoregressive.reading import IMPLEMENTATION, Reading
from diffcontrol.batches import Steps
from diffcontrol.data.corpus import Corpus
from diffcontrol.draws import seed_of
from diffcontrol.likelihood import BUCKET
from diffcontrol.task import ControlTask, Request, Target
from diffcontrol.text import PAD, crop, lengths


class Predictor(Prompted):
    """p(the whole text meets the target | target, prefix) at every prefix: serialised target, separator, START words.

    Prompt and text are told apart by their positions, of which each has its own: prompt 0 … P−1, text P … P+T−1,
    whatever the length of the prompt at hand, so that the i-th tag always stands at the same distance from the i-th
    word.
    """

    allowed: ClassVar[Rules] = {"model": SIZES_OF_GPT2}

    def __init__(self, data: Corpus, task: ControlTask, model: Mapping[str, Any], optim: Mapping[str, Any],
                 model_seed: int = 0, version: int = 1):  # fmt: skip
        super().__init__(data, task, optim, model_seed)
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

    def weight(self, batch: dict[str, Tensor]) -> Tensor:
        return (batch["texts"] != PAD).sum()

    def steps(self) -> Steps:
        train = self.corpus.ids["train"]
        return self._steps([torch.arange(len(train))], lengths=lengths(train), bucket=BUCKET)

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

    def read(self, targets: Sequence[Target]) -> Reading:
        """Ready to score the first words of a text for each target."""
        return Reading(self, self.prompts([self.task.serialize(target) for target in targets]).to(self.device))

    @torch.inference_mode()
    def verdict(self, targets: Sequence[Target], texts: Sequence[Sequence[str]], batch_size: int = 256) -> Tensor:
        """log p(the finished text meets its target), [B]."""
        self.eval()
        ids = torch.stack([self.corpus.vocabulary.encode(text, self.corpus.length) for text in texts])
        last = lengths(ids) - 1  # END, or the last word of a text that was cut
        found = torch.empty(len(ids))
        for rows in torch.arange(len(ids)).split(batch_size):
            prompts = self.prompts([self.task.serialize(targets[i]) for i in rows.tolist()]).to(self.device)
            batch = crop(ids[rows]).to(self.device)
            logits = self(prompts, batch).gather(1, last[rows, None].to(self.device))[:, 0]
            found[rows] = logsigmoid(logits).float().cpu()
            self.token_evaluations += prompts.numel() + batch.numel()
        return found


def verdicts(
    predictors: Mapping[str, Predictor], requests: Sequence[Request], texts: Sequence[Sequence[str]]
) -> Tensor:
    """log p(the finished text meets all targets of its request), were they independent, [B]."""
    total = torch.zeros(len(texts))
    for name, predictor in predictors.items():
        total = total + predictor.verdict([request.targets[name] for request in requests], texts)
    return total
