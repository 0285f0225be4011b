"""A predictor part-way through a text: scores all candidates for the next word in one call, one position each.

Each candidate attends to the prefix and to itself, all at the same position. Keys and values of the candidates stay
until one is chosen, whose own then join the prefix: no word is pushed through the network twice.

B rows · h heads · S positions of prompt and text so far · C candidates · d width of a head
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from diffcontrol.text import START

if TYPE_CHECKING:
    from diffcontrol.baselines.fudge import Predictor

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
    weights = scores.masked_fill_(~attention_mask, -torch.inf).softmax(-1)
    mixed = weights[..., :-1] @ values + weights[..., -1:] * own_value
    return mixed.transpose(1, 2), None


AttentionInterface.register(IMPLEMENTATION, prefix_and_self)
AttentionMaskInterface.register(IMPLEMENTATION, sdpa_mask)


class Reading:
    """What a predictor knows of each row: its target and the words so far. Starts after START.

    Call `score` with candidates, then `keep` with the rows that go on and the candidate each has chosen, in turn.
    """

    @torch.inference_mode()
    def __init__(self, predictor: "Predictor", prompts: Tensor):
        self.predictor, self.cache = predictor.eval(), DynamicCache()
        ids = torch.cat([prompts, torch.full_like(prompts[:, :1], START)], 1)
        self.seen = ids != predictor.blank  # [B S]
        self.position = predictor.prompt_length + 1  # of the next word
        predictor.network(ids, attention_mask=self.seen, past_key_values=self.cache,
                          position_ids=predictor.positions(prompts, 1))  # fmt: skip
        predictor.token_evaluations += ids.numel()

    def __len__(self) -> int:
        return len(self.seen)

    @torch.inference_mode()
    def score(self, candidates: Tensor) -> Tensor:
        """Logits of success if the candidate is written next, [B C] → [B C]."""
        itself = torch.ones_like(self.seen[:, :1])
        hidden = self.predictor.network(
            candidates, attention_mask=torch.cat([self.seen, itself], 1)[:, None, None], past_key_values=self.cache,
            position_ids=candidates.new_full((1, 1), self.position), candidates=True,
        ).last_hidden_state  # fmt: skip
        self.predictor.token_evaluations += candidates.numel()
        return self.predictor.logit(hidden)[..., 0]

    @torch.inference_mode()
    def keep(self, rows: Tensor, chosen: Tensor) -> None:
        """Goes on with these rows [≤ B], each with the candidate at index `chosen` [≤ B] of the last `score`."""
        length = self.seen.shape[1]
        at = (rows, slice(None), length + chosen)
        for layer in self.cache.layers:
            layer.keys = torch.cat([layer.keys[rows, :, :length], layer.keys[at][:, :, None]], 2)
            layer.values = torch.cat([layer.values[rows, :, :length], layer.values[at][:, :, None]], 2)
        self.seen = torch.cat([self.seen[rows], self.seen.new_ones(len(rows), 1)], 1)
        self.position += 1
