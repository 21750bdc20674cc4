"""Checkpoints with 8-bit weights: the error of a weight is at most half a scale, and vLLM generates with them."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest
import torch
from examples import MAX_TOKENS, question_from_family
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors.torch import load_file, save_file

from agentark import StudyError, root
from agentark.engines import Batch, Request, engine
from agentark.models.chat import solve_prompt
from agentark.models.int8 import EMBEDDING, HEAD, convert, quantised

TEACHER = root() / "data/models/teacher"


@settings(max_examples=60, deadline=None)
@given(arrays.arrays("float32", (3, 8), elements=st.floats(-1e3, 1e3, width=32)))
def test_int8_weights_times_the_row_scale_match_the_original_weights(values):
    weight = torch.from_numpy(values)
    integers, scale = quantised(weight)
    assert integers.dtype == torch.int8 and scale.shape == (3, 1)
    # The scale has 8 bits of precision, so the largest weight may be clipped by 1/256 of its value.
    error, largest = (integers.float() * scale.float() - weight).abs(), weight.abs().amax(1, keepdim=True)
    assert (error <= scale.float() / 2 + largest / 256).all()


def test_matrices_are_int8_and_other_weights_bfloat16(tmp_path):
    convert(TEACHER, tmp_path / "out")
    before, after = load_file(TEACHER / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    assert HEAD not in before and after[HEAD].dtype == torch.int8  # a tied head is written as a separate matrix
    assert torch.equal(after[EMBEDDING], before[EMBEDDING].to(torch.bfloat16))
    for name, weight in before.items():
        matrix = weight.ndim == 2 and name != EMBEDDING
        assert after[name].dtype == (torch.int8 if matrix else torch.bfloat16)
        assert (f"{name}_scale" in after) == matrix
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["quantization_config"]["quant_method"] == "compressed-tensors" and not config["tie_word_embeddings"]
    assert {"tokenizer.json", "generation_config.json"} <= {f.name for f in (tmp_path / "out").iterdir()}


def test_an_untied_head_is_converted(tmp_path):
    (tmp_path / "model").mkdir()
    save_file({EMBEDDING: torch.ones(4, 2), HEAD: torch.full((4, 2), 3.0)}, tmp_path / "model" / "model.safetensors")
    (tmp_path / "model" / "config.json").write_text("{}")
    convert(tmp_path / "model", tmp_path / "out")
    after = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.allclose(after[HEAD].float() * after[f"{HEAD}_scale"].float(), torch.tensor(3.0), rtol=1e-2)


def test_a_folder_without_a_checkpoint_is_refused_and_nothing_is_written(tmp_path):
    (tmp_path / "model").mkdir()
    save_file({"other": torch.ones(2)}, tmp_path / "model" / "model.safetensors")
    with pytest.raises(StudyError, match="no weights named"):
        convert(tmp_path / "model", tmp_path / "out")
    for arguments in ([str(tmp_path / "none"), str(tmp_path / "out")], [str(tmp_path / "model")]):
        result = subprocess.run(
            [sys.executable, "-m", "agentark.models.int8", *arguments], capture_output=True, text=True, cwd=root(),
            env={**os.environ, "PYTHONPATH": str(root())},
        )  # fmt: skip
        assert result.returncode == 1 and result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not importlib.util.find_spec("vllm"), reason="vllm is not installed; `make test-vllm` runs this")
def test_vllm_replies_mostly_match_those_of_the_original_weights(tmp_path):
    convert(TEACHER, tmp_path / "out")
    questions = [question_from_family("equation", 2 + i % 3, i)[1] for i in range(40)]
    batches = [Batch([Request(solve_prompt(q.text), 0.0, MAX_TOKENS, 0)], 0) for q in questions]
    original, int8 = (dict(engine(f"vllm:{folder}").run(batches)) for folder in (TEACHER, tmp_path / "out"))
    matching = sum(original[i][0].text.split()[:16] == int8[i][0].text.split()[:16] for i in range(40))
    assert matching >= 32, matching
