"""A causal LM part-way through some texts: the next word's probabilities in every row, one word at a time.

For methods that do more between two words than choose the next one: rows can be left out, doubled and reordered, with
their keys and values.

R rows · V vocabulary
"""

import torch
from torch import Tensor
from transformers import DynamicCache

from diffcontrol.autoregressive.causal_lm import NEVER_WRITTEN, CausalLM
from diffcontrol.text import START


class Writing:
    """Texts that `lm` writes; they begin as START. `temperature` divides its logits, and words that no text has are
    left out."""

    @torch.inference_mode()
    def __init__(self, lm: CausalLM, rows: int, temperature: float = 1.0):
        self.lm, self.temperature, self.cache = lm, temperature, DynamicCache()
        lm.eval()
        self.log_probs = self._read(torch.full((rows,), START))

    def __len__(self) -> int:
        return len(self.log_probs)

    @torch.inference_mode()
    def go_on(self, rows: Tensor, words: Tensor) -> None:
        """These of the rows, in this order and as often as they stand there, each with one more word, [R'], [R']."""
        if len(rows) != len(self) or not torch.equal(rows, torch.arange(len(self))):
            self.cache.batch_select_indices(rows.to(self.lm.device))
        self.log_probs = self._read(words)

    def _read(self, words: Tensor) -> Tensor:
        """log p of the next word, on the CPU, [R V]."""
        self.lm.token_evaluations += len(words)
        ids = words[:, None].to(self.lm.device)
        logits = self.lm.network(ids, past_key_values=self.cache, use_cache=True).logits[:, -1].float()
        logits[:, list(NEVER_WRITTEN)] = -torch.inf
        return (logits / self.temperature).log_softmax(-1).cpu()
