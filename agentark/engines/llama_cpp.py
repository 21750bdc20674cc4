"""Generation by llama.cpp, in this process: quantised models from GGUF files, on a CPU or a GPU.

Each process has one thread and one slot, so that a sample depends only on its own request. With one process per core
(see debate.run), more slots are not faster on a CPU. Requests with a common prefix share a batch, in which the prefix
is read once.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from agentark import StudyError, deadline, first_line
from agentark.engines import Batch, Reply, Request, replies
from agentark.engines.failures import Passing
from agentark.models.chat import SWITCH
from agentark.models.gguf import MISSING, digest, gguf_path

WINDOW = 8192  # maximal tokens of prompt and reply together; less if the model's own window is smaller
TOGETHER = 8  # requests per batch, the most that an interruption can lose
# Sample from the full distribution, unlike llama.cpp's defaults, which include top-k, top-p and min-p.
PLAIN_SAMPLING = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "repeat_penalty": 1.0, "samplers": ["temperature"]}


class LlamaCpp:
    """A GGUF file, optionally with a LoRA adapter: "FILE.gguf" or "FILE.gguf+ADAPTER.gguf".

    Raises StudyError if llama.cpp is not installed, or if a file is missing or not loadable.
    """

    def __init__(self, name: str):
        files = [gguf_path(part) for part in name.split("+")]
        try:
            import xllamacpp
            from gguf import GGUFReader
        except ImportError:
            raise StudyError(MISSING) from None
        settings = xllamacpp.CommonParams()
        settings.model.path = str(files[0])
        settings.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(file), 1.0) for file in files[1:]]
        try:
            self.window = min(WINDOW, own_window(GGUFReader(files[0])))
            settings.n_ctx, settings.n_parallel = self.window, 1
            settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 1
            settings.warmup, settings.verbosity, settings.ctx_shift = False, -1, False
            # Keep the thinking in the text, as the other engines do.
            settings.reasoning_format = xllamacpp.common_reasoning_format.COMMON_REASONING_FORMAT_NONE
            self.model = xllamacpp.Server(settings)
        except Exception as error:  # a damaged file makes the loader raise errors of many types
            raise StudyError(f"{name}: not a loadable GGUF file ({first_line(error)}); fetch it again") from None
        self.name = name
        self.fingerprint = " ".join(["llama.cpp", xllamacpp.__version__, str(self.window), *map(digest, files)])

    def batches(self, requests: Sequence[Request]) -> list[list[int]]:
        """Group successive requests whose prompts share at least their first half, at most TOGETHER per batch."""
        found: list[list[int]] = []
        for i, request in enumerate(requests):
            if found and len(found[-1]) < TOGETHER and share_prefix(requests[found[-1][0]], request):
                found[-1].append(i)
            else:
                found.append([i])
        return found

    def run(self, batches: Sequence[Batch]) -> Iterator[tuple[int, list[Reply]]]:
        for number, batch in enumerate(batches):
            deadline.check()
            # The first prompt of a batch is read without the cache, so that a batch does not depend on earlier ones.
            yield number, [self.reply(request, i > 0) for i, request in enumerate(batch.requests)]

    def reply(self, request: Request, continues: bool) -> Reply:
        """One answer. continues: reuse the cached prefix that the prompt shares with the previous one."""
        body = {
            "messages": request.messages,
            "temperature": request.temperature,
            "max_tokens": request.most,
            "chat_template_kwargs": SWITCH[request.thinking],
            "seed": request.seed % 2**32,
            "cache_prompt": continues,
            **PLAIN_SAMPLING,
        }
        start = time.perf_counter()
        try:
            answered = replies.reply(self.model.handle_chat_completions(body))
        except (StudyError, Passing) as error:
            raise StudyError(f"{self.name}: {error}") from None
        return replace(answered, seconds=time.perf_counter() - start)


def own_window(reader) -> int:
    """Return the context length, in tokens, of the model in a GGUF file."""
    fields = reader.fields
    architecture = fields["general.architecture"].contents()
    return int(fields[f"{architecture}.context_length"].contents())


def share_prefix(first: Request, second: Request) -> bool:
    """Whether two prompts share the first half of the longer one."""
    one, other = ("\0".join(m["role"] + m["content"] for m in r.messages) for r in (first, second))
    half = max(len(one), len(other)) // 2
    return one[:half] == other[:half]
