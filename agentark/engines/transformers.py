"""Generation by transformers, in this process."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import transformers
from transformers import GenerationConfig

from agentark import deadline
from agentark.engines import Batch, Reply, Request
from agentark.engines.batching import GROUPED, generate
from agentark.engines.thoughts import written
from agentark.models import loading
from agentark.models.chat import ends_of_turn, prompt_ids
from agentark.models.checkpoints import digest


class Transformers:
    """A causal model in the hub's format, on a GPU if there is one. With `bf16` it also runs in 16 bits on a CPU.

    Raises StudyError if the folder contains no loadable model.
    """

    rows = 320  # the maximum batch size: 64 questions of five agents; larger batches are no faster on two cores

    def __init__(self, folder: Path, bf16: bool = False):
        self.model, self.tokenizer = loading.load(folder, torch.bfloat16 if bf16 else None)
        self.device = loading.device()
        self.model.to(self.device).eval()
        if bf16:
            self.model.set_attn_implementation(GROUPED)
        self.window = self.model.config.get_text_config().max_position_embeddings
        self.ends = ends_of_turn(self.model.generation_config, self.tokenizer)
        # Discard the checkpoint's own sampling settings, such as top-k and penalties.
        self.model.generation_config = GenerationConfig()
        arithmetic = f"{self.device} bf16 {GROUPED}" if bf16 else self.device
        self.fingerprint = digest(folder, f"{transformers.__version__} {torch.__version__} {arithmetic}")

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
            if not same_settings or len(batches[-1]) == self.rows:
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
        prompts = self.prompts(batch)
        inputs = self.tokenizer.pad({"input_ids": prompts}, return_tensors="pt", padding_side="left").to(self.device)
        torch.manual_seed(seed)
        output = generate(self.model, inputs["input_ids"], inputs["attention_mask"], self.sampling(batch[0]))
        rows = output[:, inputs["input_ids"].shape[1] :].tolist()
        return self.replies(prompts, rows, (time.perf_counter() - start) / len(batch))

    def prompts(self, batch: Sequence[Request]) -> list[list[int]]:
        """The tokens of the prompts. Raises StudyError if one leaves no room in the window for its longest reply."""
        return [prompt_ids(self.tokenizer, r.messages, self.window - r.most, r.thinking) for r in batch]

    def sampling(self, request: Request) -> GenerationConfig:
        """Greedy decoding at temperature 0, otherwise sampling from the full distribution."""
        drawn = {"do_sample": True, "temperature": request.temperature, "top_k": 0, "top_p": 1.0}
        return GenerationConfig(
            max_new_tokens=request.most,
            **(drawn if request.temperature > 0 else {"do_sample": False}),
            pad_token_id=self.tokenizer.pad_token_id,
            eos_token_id=self.ends,
        )

    def replies(self, prompts: Sequence[list[int]], rows: Sequence[list[int]], seconds: float) -> list[Reply]:
        """Replies from the tokens generated after each prompt, up to the first end-of-turn token."""
        found = []
        for prompt, row in zip(prompts, rows, strict=True):
            length = next((i for i, token in enumerate(row) if token in self.ends), len(row))
            ended = length < len(row)
            text = written(self.tokenizer, prompt, row[:length])
            found.append(Reply(text, len(prompt), length + ended, "stop" if ended else "length", seconds))
        return found
