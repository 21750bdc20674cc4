"""Routes of training on a GPU, tested without a GPU: PEFT or Unsloth, and vLLM in the process of the policy."""

import importlib.util

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen3Config
from trl import GRPOConfig, RLOOConfig

from agentark import StudyError
from agentark.distill import launch, policy
from agentark.distill.settings import SFT, Policy
from agentark.distill.training import arguments

SHAPE = dict(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
OUTPUT = 4 * 2 * 2 * 16 * 100  # bytes of keys and values of 100 tokens: 2 layers of 2 heads of 16


@pytest.fixture
def gpu(monkeypatch):
    """Patch the checks that select a route: a GPU is present and every package is installed."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


def settings(**chosen) -> Policy:
    defaults: dict = {"steps": 2, "batch_size": 2, "num_generations": 4, "max_tokens": 6}
    defaults |= {"learning_rate": 0.001, "temperature": 1.0, "beta": 0.001, "aggregate": "min", "outcome_weight": 0.0}
    return Policy.read(defaults | {"lora_rank": 4, "generator": "vllm"} | chosen)


SHARED = arguments(settings(), 0, 8) | {"num_generations": 4}  # computed before the fixture `gpu` patches this machine


def frozen():
    model = AutoModelForCausalLM.from_config(Qwen3Config(**SHAPE, num_key_value_heads=2, head_dim=16))
    return model.requires_grad_(False)


@pytest.mark.parametrize("trainer", ["auto", "peft", "unsloth"])
def test_unsloth_is_used_only_if_it_is_requested(trainer, gpu):
    chosen = SFT.read({"steps": 4, "batch_size": 8, "learning_rate": 0.02, "lora_rank": 4, "trainer": trainer})
    unsloth, line = launch.route(chosen)
    assert unsloth == (trainer == "unsloth")
    assert line == f"trainer: {'Unsloth' if unsloth else 'PEFT'}, LoRA of rank 4"


@pytest.mark.parametrize("kind", [GRPOConfig, RLOOConfig])
def test_vllm_generates_in_the_training_process_and_sleeps_during_updates(kind, gpu):
    chosen, model = settings(), frozen()
    config = kind(**SHARED, **policy.generation(chosen), **policy.vllm_arguments(model, chosen, 94, 1e9))
    assert config.use_vllm and config.vllm_mode == "colocate" and config.vllm_enable_sleep_mode
    assert config.vllm_max_model_length == 100 and 0 <= config.vllm_gpu_memory_utilization < 0.01
    paged = kind(**SHARED, **policy.generation(settings(generator="paged")))
    assert paged.use_transformers_continuous_batching and not paged.use_vllm
    assert not kind(**SHARED, **policy.generation(settings(generator="transformers"))).use_vllm


def test_vllm_gets_the_memory_of_a_step_or_what_training_leaves(gpu):
    chosen, model = settings(), frozen()
    weights = model.num_parameters()

    def share(memory: float) -> float:
        return float(policy.vllm_arguments(model, chosen, 94, memory)["vllm_gpu_memory_utilization"])

    required = 1.1 * (2 * weights + 8 * OUTPUT)  # eight outputs per step
    assert share(8 * required) == 0.12  # an eighth, rounded down
    minimum = 1.1 * 2 * weights + OUTPUT
    tight = (minimum + 4 * weights) / 0.89  # the base and the reward model stay loaded, 2 bytes per weight each
    assert share(tight) == pytest.approx(0.9 - 4 * weights / tight, abs=0.011)
    with pytest.raises(StudyError, match="no room for vLLM beside the training; set lora_rank"):
        share((minimum + 4 * weights) / 0.91)


def test_vllm_of_unsloth_does_not_sleep(gpu):
    assert policy.vllm_arguments(frozen(), settings(trainer="unsloth"), 94, 1e9) == {"vllm_max_model_length": 100}
