"""vLLM and transformers give the same answers for full, merged and adapter students (`make test-vllm`).

vLLM's environment has no training packages, so the Python named by STUDY_PYTHON trains the students.
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
    """The base model `base`, and two students of it: `student` trained with LoRA, `whole` with all weights."""
    if "STUDY_PYTHON" not in os.environ:
        pytest.skip("STUDY_PYTHON is not set to a Python with the training packages; `make test-vllm` sets it")
    path = tmp_path_factory.mktemp(request.param)
    python_path = os.pathsep.join([str(root()), str(root() / "tests")])
    command = [os.environ["STUDY_PYTHON"], "-c", TRAINING, request.param, str(path)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": python_path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return path


@torch.inference_mode()
def transformers_answers(folder: Path, limit: int) -> list[str]:
    """Greedy answers of transformers, of at most `limit` tokens."""
    model, tokenizer = loading.load(folder)
    ends, texts = ends_of_turn(model.generation_config, tokenizer), []
    for question in QUESTIONS:
        ids = torch.tensor([prompt_ids(tokenizer, solve_prompt(question.text), 4000)])
        options = {
            "do_sample": False,
            "max_new_tokens": limit,
            "eos_token_id": ends,
            "pad_token_id": tokenizer.pad_token_id,
        }
        out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **options)[0, ids.shape[1] :].tolist()
        texts.append(tokenizer.decode(out[:-1] if out[-1] in ends else out, skip_special_tokens=True))
    return texts


def vllm_answers(student: Path) -> list[str]:
    """Greedy answers of the project's vLLM engine, of at most 16 tokens."""
    replies = dict(VLLM(str(student)).run([Batch([Request(solve_prompt(q.text), 0.0, 16, 0)], 0) for q in QUESTIONS]))
    return [replies[i][0].text for i in range(len(QUESTIONS))]


def test_student_with_all_weights_trained_gives_the_same_answers_in_vllm(folder):
    expected = transformers_answers(folder / "whole", 16)
    assert expected != transformers_answers(folder / "base", 16)
    assert vllm_answers(folder / "whole") == expected


def test_merged_student_and_its_adapter_give_the_same_answers_in_vllm(folder):
    base, student = folder / "base", folder / "student"
    expected = transformers_answers(student, 16)
    assert expected != transformers_answers(base, 16)
    assert vllm_answers(student) == expected
    adapted = vllm.LLM(str(base), enable_lora=True, max_lora_rank=8, disable_log_stats=True, **settings(base))
    request = vllm.lora.request.LoRARequest("student", 1, str(student / "adapter"))
    tokenizer, greedy = loading.load_tokenizer(base), vllm.SamplingParams(temperature=0.0, max_tokens=16)
    prompts = [{"prompt_token_ids": prompt_ids(tokenizer, solve_prompt(q.text), 4000)} for q in QUESTIONS]
    texts = [output.outputs[0].text for output in adapted.generate(prompts, greedy, lora_request=request)]
    assert texts == expected
