"""Generation by transformers, in this process."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import transformers
from transformers import GenerationConfig

from agentark import deadline
from agentark.engines import Batch, Reply, Request
from agentark.engines.batching import generate
from agentark.engines.thoughts import written
from agentark.models import loading
from agentark.models.chat import ends_of_turn, prompt_ids
from agentark.models.checkpoints import digest

ROWS = 320  # the maximal batch: 64 questions of five agents; larger batches are no faster on two cores


class Transformers:
    """A causal model in the hub's format, on a GPU if there is one.

    Raises StudyError if the folder holds no loadable model.
    """

    def __init__(self, folder: Path):
        self.model, self.tokenizer = loading.load(folder)
        self.device = loading.device()
        self.model.to(self.device).eval()
        self.window = self.model.config.get_text_config().max_position_embeddings
        self.ends = ends_of_turn(self.model.generation_config, self.tokenizer)
        # Discard the checkpoint's own top-k, penalties and the like.
        self.model.generation_config = GenerationConfig()
        self.fingerprint = digest(folder, f"{transformers.__version__} {torch.__version__} {self.device}")

    def batches(self, requests: Sequence[Request]) -> list[list[int]]:
        """Group requests with equal sampling settings, sorted by prompt length to reduce padding."""
        lengths = [sum(len(m["content"]) for m in r.messages) for r in requests]
        order = sorted(
            range(len(requests)),
            key=lambda i: (requests[i].temperature, requests[i].most, lengths[i], str(requests[i].messages[0])),
        )
        batches: list[list[int]] = []
        for i in order:
            same_settings = batches and all(
                getattr(requests[batches[-1][0]], a) == getattr(requests[i], a) for a in ("temperature", "most")
            )
            if not same_settings or len(batches[-1]) == ROWS:
                batches.append([])
            batches[-1].append(i)
        return batches

    def run(self, batches: Sequence[Batch]) -> Iterator[tuple[int, list[Reply]]]:
        for number, (requests, seed) in enumerate(batches):
            deadline.check()
            yield number, self.generate(requests, seed)

    @torch.inference_mode()
    def generate(self, batch: list[Request], seed: int) -> list[Reply]:
        """Generate one batch of requests with equal temperature and length, reproducibly for a given seed.

        Raises StudyError if a prompt and its longest reply do not fit into the model's window.
        """
        start = time.perf_counter()
        prompts = [prompt_ids(self.tokenizer, r.messages, self.window - r.most, r.thinking) for r in batch]
        inputs = self.tokenizer.pad({"input_ids": prompts}, return_tensors="pt", padding_side="left").to(self.device)
        torch.manual_seed(seed)
        sampling = {"do_sample": True, "temperature": batch[0].temperature, "top_k": 0, "top_p": 1.0}
        config = GenerationConfig(
            max_new_tokens=batch[0].most,
            **(sampling if batch[0].temperature > 0 else {"do_sample": False}),
            pad_token_id=self.tokenizer.pad_token_id,
            eos_token_id=self.ends,
        )
        output = generate(self.model, inputs["input_ids"], inputs["attention_mask"], config)
        seconds = (time.perf_counter() - start) / len(batch)
        replies = []
        for prompt, row in zip(prompts, output[:, inputs["input_ids"].shape[1] :].tolist(), strict=True):
            length = next((i for i, token in enumerate(row) if token in self.ends), len(row))
            ended = length < len(row)
            text = written(self.tokenizer, prompt, row[:length])
            replies.append(Reply(text, len(prompt), length + ended, "stop" if ended else "length", seconds))
        return replies
