"""Generation by transformers, in this process."""

import hashlib
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import torch
import transformers
from transformers import DynamicCache

from agentark import models
from agentark.engines import Reply, Request

ROWS = 320  # a batch's limit: 64 questions of five agents; larger ones gain nothing on two cores
SUFFIX = 8  # tokens that each row computes for itself; what stands before is computed once for all rows that share it


class Transformers:
    """A causal model in the hub's format, on a GPU if there is one."""

    def __init__(self, folder: Path):
        self.model, self.tokenizer = models.load(folder)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model.to(self.device).eval()
        digest = hashlib.sha256(f"{transformers.__version__} {torch.__version__} {self.device}".encode())
        for file in sorted(Path(folder).glob("*")):
            if file.suffix in (".safetensors", ".json", ".jinja"):
                digest.update(file.name.encode() + file.read_bytes())
        self.fingerprint = digest.hexdigest()

    def batches(self, requests: Sequence[Request]) -> list[list[int]]:
        """Equal sampling together, prompts of like length together, so that little is padding."""
        lengths = [sum(len(m["content"]) for m in r.messages) for r in requests]
        order = sorted(
            range(len(requests)),
            key=lambda i: (requests[i].temperature, requests[i].max_tokens, lengths[i], str(requests[i].messages[0])),
        )
        batches: list[list[int]] = []
        for i in order:
            like = batches and all(
                getattr(requests[batches[-1][0]], a) == getattr(requests[i], a) for a in ("temperature", "max_tokens")
            )
            if not like or len(batches[-1]) == ROWS:
                batches.append([])
            batches[-1].append(i)
        return batches

    @torch.inference_mode()
    def run(self, batch: list[Request], seed: int) -> list[Reply]:
        start = time.perf_counter()
        chats = [
            self.tokenizer.apply_chat_template(r.messages, tokenize=False, add_generation_prompt=True) for r in batch
        ]
        prompts = [self.tokenizer(chat, add_special_tokens=False).input_ids for chat in chats]
        inputs = self.tokenizer.pad({"input_ids": prompts}, return_tensors="pt", padding_side="left").to(self.device)
        torch.manual_seed(seed)
        sampled = batch[0].temperature > 0
        output = self.model.generate(
            **inputs,
            **self.shared_prefix(**inputs),
            max_new_tokens=batch[0].max_tokens,
            do_sample=sampled,
            **({"temperature": batch[0].temperature, "top_k": 0, "top_p": 1.0} if sampled else {}),
            pad_token_id=self.tokenizer.pad_token_id,
            eos_token_id=self.tokenizer.eos_token_id,
        )
        seconds = (time.perf_counter() - start) / len(batch)
        replies = []
        for prompt, row in zip(prompts, output[:, inputs["input_ids"].shape[1] :].tolist(), strict=True):
            ended = self.tokenizer.eos_token_id in row
            ids = row[: row.index(self.tokenizer.eos_token_id)] if ended else row
            text = self.tokenizer.decode(ids, skip_special_tokens=True)
            replies.append(Reply(text, len(prompt), len(ids) + ended, "stop" if ended else "length", seconds))
        return replies

    def shared_prefix(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, DynamicCache]:
        """Keys and values of all but the last tokens, each distinct prefix computed once; nothing if none is shared."""
        if input_ids.shape[1] <= SUFFIX:
            return {}
        prefix, row = torch.unique(input_ids[:, :-SUFFIX], dim=0, return_inverse=True)
        if 2 * len(prefix) > len(input_ids):
            return {}
        mask = torch.zeros_like(prefix)
        mask[row] = attention_mask[:, :-SUFFIX]
        position = (mask.cumsum(-1) - 1).clamp(min=0)
        cache = DynamicCache(config=self.model.config)
        self.model.model(input_ids=prefix, attention_mask=mask, position_ids=position, past_key_values=cache)
        cache.batch_select_indices(row)
        return {"past_key_values": cache}


@lru_cache(maxsize=2)
def engine(folder: Path) -> Transformers:
    """The engine for a model's folder, loaded once a process."""
    return Transformers(folder)
