"""Generation by transformers with continuous batching and paged attention: `paged:` before a model's folder.

When a reply ends, the next request takes its place at once, so a GPU stays busy until the last request. A GPU uses CUDA
graphs. This engine is for GPUs on which vLLM, which is faster, is not installed.
"""

import time
from pathlib import Path

from transformers.generation import ContinuousBatchingConfig

from agentark import StudyError
from agentark.engines import Reply, Request
from agentark.engines.transformers import Transformers

BLOCKS, WINDOW = 64, 512  # on a CPU: blocks of the cache, 256 tokens each, and tokens of a forward pass


class Paged(Transformers):
    """A causal model in the hub's format. Raises StudyError if the folder holds no loadable model."""

    rows = 2048  # requests scheduled together; each such batch captures the CUDA graphs again, which takes seconds

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.fingerprint = f"{self.fingerprint} paged"

    def generate(self, batch: list[Request], seed: int) -> list[Reply]:
        """Generate one batch of requests with equal temperature and length, reproducibly for a given seed.

        Raises StudyError if a prompt and its longest reply do not fit into the model's window, or if transformers
        returns no reply to a request.
        """
        start = time.perf_counter()
        prompts = self.prompts(batch)
        # On a GPU the cache may take the free memory; on a CPU transformers would take nearly all memory.
        limits = {} if self.device == "cuda" else {"num_blocks": BLOCKS, "max_batch_tokens": WINDOW}
        config = ContinuousBatchingConfig(seed=seed, **limits)
        outputs = list(self.model.generate_batch(prompts, self.sampling(batch[0]), config).values())
        failed = next((o.error for o in outputs if o.error), None)
        if failed or len(outputs) < len(batch):
            raise StudyError(
                f"paged: a batch of {len(batch)} requests failed ({failed or 'replies are missing'}); use vllm:"
            )
        rows = [output.generated_tokens for output in outputs]
        return self.replies(prompts, rows, (time.perf_counter() - start) / len(batch))
