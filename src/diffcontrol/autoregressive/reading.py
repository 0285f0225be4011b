"""A predictor part-way through a text: scores all candidates for the next word in one call, one position each.

Each candidate attends to the prefix, whose keys and values are kept, and to itself, all at the same position.

B rows · h heads · S positions of prompt and text so far · C candidates · d width of a head
"""

from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from diffcontrol.text import START

IMPLEMENTATION = "prefix_and_self"  # what GPT2Config.attn_implementation names


def prefix_and_self(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
                    candidates: bool = False, **kwargs: Any) -> tuple[Tensor, None]:  # fmt: skip
    """Attention of candidates, query [B h C d], key and value [B h S+C d], mask [B 1 1 S+1]; otherwise torch's own.

    The same as a mask [B 1 C S+C] would give, for (S + 1) / (S + C) of its work.
    """
    if not candidates:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    count = query.shape[2]
    keys, own_key = key[:, :, :-count], key[:, :, -count:]
    values, own_value = value[:, :, :-count], value[:, :, -count:]
    query = query * query.shape[-1] ** -0.5
    scores = torch.cat([query @ keys.transpose(2, 3), (query * own_key).sum(-1, keepdim=True)], -1)  # [B h C S+1]
    assert attention_mask is not None
    weights = scores.masked_fill_(~attention_mask, -torch.inf).softmax(-1)
    mixed = weights[..., :-1] @ values + weights[..., -1:] * own_value
    return mixed.transpose(1, 2), None


AttentionInterface.register(IMPLEMENTATION, prefix_and_self)
AttentionMaskInterface.register(IMPLEMENTATION, sdpa_mask)


class Predicting(Protocol):
    """What a predictor is to a reading of it."""

    prompt_length: int
    blank: int
    token_evaluations: int
    network: Any
    logit: Any

    def eval(self) -> Any: ...

    def positions(self, prompts: Tensor, words: int) -> Tensor: ...


class Reading:
    """What a predictor knows of each row: its target and the words so far. Starts after START."""

    @torch.inference_mode()
    def __init__(self, predictor: Predicting, prompts: Tensor):
        self.predictor, self.cache = predictor.eval(), DynamicCache()
        ids = torch.cat([prompts, torch.full_like(prompts[:, :1], START)], 1)
        self.seen = ids != predictor.blank  # [B S]
        self.position = predictor.prompt_length + 1  # of the next word
        hidden = self._run(ids, self.seen, predictor.positions(prompts, 1), self.cache)
        self.logits = predictor.logit(hidden)[:, -1, 0]  # of success, after the words so far, [B]

    def __len__(self) -> int:
        return len(self.seen)

    @torch.inference_mode()
    def score(self, rows: Tensor, candidates: Tensor) -> Tensor:
        """Logits of success if the candidate is written next in these of the rows, [R], [R C] → [R C]."""
        cache = DynamicCache()
        for i, layer in enumerate(self.cache.layers):
            assert layer.keys is not None and layer.values is not None
            cache.update(layer.keys[rows], layer.values[rows], i)
        seen = torch.cat([self.seen[rows], self.seen.new_ones(len(rows), 1)], 1)  # the prefix and itself
        here = candidates.new_full((1, 1), self.position)
        hidden = self._run(candidates, seen[:, None, None], here, cache, candidates=True)
        return self.predictor.logit(hidden)[..., 0]

    @torch.inference_mode()
    def advance(self, rows: Tensor, words: Tensor) -> Tensor:
        """Goes on with these of the rows alone, in this order and as often as they stand there, each with the word that
        was written [R]. Returns the logits of success [R]."""
        rows, words = rows.to(self.seen.device), words.to(self.seen.device)
        if len(rows) != len(self) or not torch.equal(rows, torch.arange(len(self), device=rows.device)):
            self.cache.batch_select_indices(rows)
        self.seen = torch.cat([self.seen[rows], self.seen.new_ones(len(rows), 1)], 1)
        if len(rows):
            here = words.new_full((1, 1), self.position)
            self.logits = self.predictor.logit(self._run(words[:, None], self.seen, here, self.cache))[:, -1, 0]
        self.position += 1
        return self.logits[: len(rows)]

    def _run(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: DynamicCache, **kwargs: Any) -> Tensor:
        self.predictor.token_evaluations += ids.numel()
        return self.predictor.network(
            ids, attention_mask=mask, position_ids=positions, past_key_values=cache, **kwargs
        ).last_hidden_state  # fmt: skip
