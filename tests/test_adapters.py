"""A student trained with LoRA answers the same in vLLM, merged and as an adapter (`make test-vllm`).

vLLM's environment lacks what trains: the student comes from the study's own, whose Python STUDY_PYTHON names.
"""

import os
import subprocess
from pathlib import Path

import pytest
import torch

from agentark import root
from agentark.engines import Batch, Request
from agentark.engines.vllm import VLLM, settings
from agentark.models import loading
from agentark.models.chat import ends_of_turn, prompt_ids, solve_prompt
from agentark.tasks import TASKS

vllm = pytest.importorskip("vllm", reason="vllm is not installed; `make test-vllm` runs this with it")

QUESTIONS = TASKS["equation"].questions(6, "train", 0)
TRAINING = """
import sys
from pathlib import Path
from checkpoints import build
from agentark.distill import sft
from agentark.distill.settings import SFT
from agentark.tasks import TASKS
family, folder = sys.argv[1], Path(sys.argv[2])
pairs = [(q.text, q.solution) for q in TASKS["equation"].questions(24, "train", 0)]
base = build(family, folder / "base")
sft.train(base, pairs, folder / "student", 0, SFT(steps=4, batch_size=8, learning_rate=0.02, lora_rank=8))
sft.train(base, pairs, folder / "whole", 0, SFT(steps=4, batch_size=8, learning_rate=0.02))
"""


@pytest.fixture(scope="module", params=["qwen3", "llama", "gemma3"])
def folder(request, tmp_path_factory) -> Path:
    """`base`, and trained from it `student` with LoRA, `whole` with all weights."""
    if "STUDY_PYTHON" not in os.environ:
        pytest.skip("STUDY_PYTHON names no Python that trains; `make test-vllm` does")
    place = tmp_path_factory.mktemp(request.param)
    path = os.pathsep.join([str(root()), str(root() / "tests")])
    command = [os.environ["STUDY_PYTHON"], "-c", TRAINING, request.param, str(place)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return place


@torch.inference_mode()
def plain(folder: Path, most: int) -> list[str]:
    """Greedy answers by transformers."""
    model, tokenizer = loading.load(folder)
    ends, said = ends_of_turn(model.generation_config, tokenizer), []
    for question in QUESTIONS:
        ids = torch.tensor([prompt_ids(tokenizer, solve_prompt(question.text), 4000)])
        how = {"do_sample": False, "max_new_tokens": most, "eos_token_id": ends, "pad_token_id": tokenizer.pad_token_id}
        made = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **how)[0, ids.shape[1] :].tolist()
        said.append(tokenizer.decode(made[:-1] if made[-1] in ends else made, skip_special_tokens=True))
    return said


def answered(student: Path) -> list[str]:
    """Greedy answers by the study's vLLM engine."""
    replies = dict(VLLM(str(student)).run([Batch([Request(solve_prompt(q.text), 0.0, 16, 0)], 0) for q in QUESTIONS]))
    return [replies[i][0].text for i in range(len(QUESTIONS))]


def test_a_student_with_all_weights_trained_answers_the_same_in_vllm(folder):
    expected = plain(folder / "whole", 16)
    assert expected != plain(folder / "base", 16)
    assert answered(folder / "whole") == expected


def test_merged_and_adapter_answer_the_same_in_vllm(folder):
    base, student = folder / "base", folder / "student"
    expected = plain(student, 16)
    assert expected != plain(base, 16)
    assert answered(student) == expected
    adapted = vllm.LLM(str(base), enable_lora=True, max_lora_rank=8, disable_log_stats=True, **settings(base))
    request = vllm.lora.request.LoRARequest("student", 1, str(student / "adapter"))
    tokenizer, how = loading.load_tokenizer(base), vllm.SamplingParams(temperature=0.0, max_tokens=16)
    prompts = [{"prompt_token_ids": prompt_ids(tokenizer, solve_prompt(q.text), 4000)} for q in QUESTIONS]
    said = [output.outputs[0].text for output in adapted.generate(prompts, how, lora_request=request)]
    assert said == expected
