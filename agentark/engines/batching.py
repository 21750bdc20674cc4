"""Batched generation that computes shared prefixes once and drops finished rows, and an attention for it."""

from collections.abc import Sequence

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, DynamicCache, GenerationConfig, PreTrainedModel
from transformers.cache_utils import DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from agentark.models.loading import Model

# Dropping finished rows copies the cache, so drop them only if at least FEWEST rows remain and at least SHARE of the
# rows are finished.
FEWEST, SHARE = 8, 0.15
SUFFIX = 8  # tokens at the end of a prompt that each row computes itself; the prefix is computed once for equal rows

GROUPED = "sdpa_of_groups"  # the name of `attend`


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **named,
) -> tuple[torch.Tensor, None]:
    """Attention of new tokens in the form of transformers' AttentionInterface, with the heads of a group as rows.

    `sdpa` copies the keys and values for every head of a group whenever there is a mask, which takes a third of the
    time of a batch on a CPU (Qwen2.5-0.5B, 64 rows of 300 tokens).

    query: (rows, heads, tokens, width); key, value: (rows, groups, all tokens, width). Returns (rows, tokens, heads,
    width). With more than one new token, or one head per group, it calls `sdpa`.
    """
    rows, heads, new, width = query.shape
    groups = key.shape[1]
    if new > 1 or heads == groups:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **named)
    grouped = query.view(rows, groups, heads // groups, width)
    out = scaled_dot_product_attention(grouped, key, value, attn_mask=attention_mask, scale=named.get("scaling"))
    return out.reshape(rows, 1, heads, width), None


AttentionInterface.register(GROUPED, attend)
AttentionMaskInterface.register(GROUPED, sdpa_mask)


class KVBuffer(DynamicLayer):
    """A layer's keys and values in a buffer of `capacity` tokens that is allocated once.

    DynamicLayer copies the whole cache at every token. This takes a third of the time for long prompts, and most of the
    time when another process uses the memory bandwidth.
    """

    def __init__(self, layer: DynamicLayer, capacity: int):
        super().__init__()
        self.capacity = capacity
        if layer.keys is not None and layer.values is not None:
            self.update(layer.keys, layer.values)

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        super().lazy_initialization(key_states, value_states)
        shapes = [(*s.shape[:-2], self.capacity, s.shape[-1]) for s in (key_states, value_states)]
        self.buffer = [key_states.new_empty(shape) for shape in shapes]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args, **kwargs
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        for buffer, new in zip(self.buffer, (key_states, value_states), strict=True):
            buffer[..., start:end, :] = new
        self.keys, self.values = (buffer[..., :end, :] for buffer in self.buffer)
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        end = self.get_seq_length()
        self.buffer = [buffer[indices] for buffer in self.buffer]
        self.keys, self.values = (buffer[..., :end, :] for buffer in self.buffer)


class ActiveRows:
    """Forward hooks that compute only the unfinished rows of a batch.

    Without them, `generate` computes every row until the longest reply ends. With them, it still samples for all rows,
    so that the random draws stay the same. Logits of remaining rows are bit-identical down to four rows (x86, float32).
    """

    def __init__(self, model: PreTrainedModel, ends: int | Sequence[int]):
        self.model, self.ends = model, torch.tensor(ends, device=model.device)

    def __enter__(self) -> None:
        before = self.model.register_forward_pre_hook(self.narrow, with_kwargs=True)
        self.hooks = before, self.model.register_forward_hook(self.widen)

    def __exit__(self, *_) -> None:
        for hook in self.hooks:
            hook.remove()

    def narrow(self, model: PreTrainedModel, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """Restrict the inputs to the active rows. Drop finished rows from inputs and cache when that saves time."""
        ids = kwargs["input_ids"]
        if ids.shape[1] > 1:  # the prompts
            self.rows = torch.arange(len(ids), device=ids.device)
            self.ended = torch.zeros_like(self.rows, dtype=torch.bool)
            return args, kwargs
        self.ended |= torch.isin(ids[:, 0], self.ends)
        left = ~self.ended[self.rows]
        if FEWEST <= left.sum() <= (1 - SHARE) * len(left):
            kwargs["past_key_values"].batch_select_indices(left)
            self.rows = self.rows[left]
        if len(self.rows) < len(ids):
            batch_axis = {"input_ids": 0, "attention_mask": 0, "position_ids": -2}  # other inputs have none
            kwargs |= {
                k: kwargs[k].index_select(d, self.rows) for k, d in batch_axis.items() if kwargs.get(k) is not None
            }
        return args, kwargs

    def widen(self, model: PreTrainedModel, args: tuple, output):
        """Expand the logits to all rows. Finished rows get zeros; `generate` replaces their samples by padding."""
        if len(self.rows) < len(self.ended):
            logits = output.logits.new_zeros(len(self.ended), *output.logits.shape[1:])
            logits[self.rows] = output.logits
            output.logits = logits
        return output


def generate(
    model: Model, input_ids: torch.Tensor, attention_mask: torch.Tensor, generation_config: GenerationConfig
) -> torch.Tensor:
    """The output of `model.generate` for left-padded prompts, bit-identical on a CPU.

    Faster if most prompts share a prefix or some replies end early (measured by `make bench`).
    """
    cache = filled(model, input_ids, attention_mask, generation_config.max_new_tokens)
    if hasattr(model.model, "rope_deltas"):  # Qwen2.5-VL would add those of its last batch after a cached prefix
        model.model.rope_deltas = None
    with ActiveRows(model, generation_config.eos_token_id):
        return type(model).generate(
            model,
            input_ids=input_ids,
            attention_mask=attention_mask,
            past_key_values=cache,
            generation_config=generation_config,
        )


def filled(
    model: PreTrainedModel, input_ids: torch.Tensor, attention_mask: torch.Tensor, max_tokens: int
) -> DynamicCache:
    """A cache with room for prompts and replies.

    If at most half of the prefixes (a prompt without its last SUFFIX tokens) are distinct, the cache contains them,
    each computed once.
    """
    cache = DynamicCache(config=model.config)
    if input_ids.shape[1] > SUFFIX:
        prefix, row = torch.unique(input_ids[:, :-SUFFIX], dim=0, return_inverse=True)
        if 2 * len(prefix) <= len(row):
            mask = torch.zeros_like(prefix)
            mask[row] = attention_mask[:, :-SUFFIX]
            position = (mask.cumsum(-1) - 1).clamp(min=0)
            model.model(input_ids=prefix, attention_mask=mask, position_ids=position, past_key_values=cache)
            cache.batch_select_indices(row)
    capacity = input_ids.shape[1] + max_tokens
    cache.layers = [KVBuffer(layer, capacity) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
