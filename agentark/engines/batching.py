"""Batched generation: shared prefixes are computed once, rows that have ended are left out."""

from collections.abc import Sequence

import torch
from transformers import DynamicCache, GenerationConfig, PreTrainedModel
from transformers.cache_utils import DynamicLayer

# Rows whose replies have ended leave a batch while so many stay, once they are so large a share: it takes a copy of the cache.
FEWEST, SHARE = 8, 0.15
SUFFIX = 8  # tokens that each row computes for itself; what stands before is computed once for all rows that share it


class KVBuffer(DynamicLayer):
    """A layer's keys and values in room for `capacity` tokens, taken once. DynamicLayer copies all of them at every token:
    a third of the time of replies to long prompts, and most of it where another process keeps the memory busy."""

    def __init__(self, layer: DynamicLayer, capacity: int):
        super().__init__()
        self.capacity = capacity
        if layer.is_initialized:
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
    """Hooks by which a model computes only the rows of a batch whose replies have not ended, while `generate` samples for
    all, so that the draws stay the same. It would compute every row to the end of the longest reply. The logits of the
    rows that are left are the same to the last bit, down to four rows (x86, float32).
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
        """The inputs of the rows still computed; those that have ended leave these, and the cache, once that pays."""
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
            rows_of = {"input_ids": 0, "attention_mask": 0, "position_ids": -2}  # the dimension; others have none
            kwargs |= {k: kwargs[k].index_select(d, self.rows) for k, d in rows_of.items() if kwargs.get(k) is not None}
        return args, kwargs

    def widen(self, model: PreTrainedModel, args: tuple, output):
        """Logits for all rows: zeros for those that have ended, whatever is sampled from which becomes padding."""
        if len(self.rows) < len(self.ended):
            logits = output.logits.new_zeros(len(self.ended), *output.logits.shape[1:])
            logits[self.rows] = output.logits
            output.logits = logits
        return output


def generate(
    model: PreTrainedModel, input_ids: torch.Tensor, attention_mask: torch.Tensor, generation_config: GenerationConfig
) -> torch.Tensor:
    """What `model.generate` makes of prompts padded on the left, in less time where most share a beginning with others or
    some replies end early (`make bench`); the same to the last bit on a CPU."""
    with ActiveRows(model, generation_config.eos_token_id):
        return type(model).generate(
            model,
            input_ids=input_ids,
            attention_mask=attention_mask,
            past_key_values=filled(model, input_ids, attention_mask, generation_config.max_new_tokens),
            generation_config=generation_config,
        )


def filled(
    model: PreTrainedModel, input_ids: torch.Tensor, attention_mask: torch.Tensor, max_tokens: int
) -> DynamicCache:
    """Room for prompts and replies, filled with what stands before a prompt's last tokens where most prompts share that:
    each distinct row is computed once."""
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
