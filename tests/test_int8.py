"""Checkpoints with 8-bit weights: the weights are the original's to half a scale, and vLLM answers with them."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest
import torch
from examples import MAX_TOKENS, posed
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
def test_a_row_is_its_8_bit_weights_times_its_scale(values):
    weight = torch.from_numpy(values)
    whole, scale = quantised(weight)
    assert whole.dtype == torch.int8 and scale.shape == (3, 1)
    # The scale has 8 bits of precision, so the largest weight may be clipped by 1/256 of itself.
    error, largest = (whole.float() * scale.float() - weight).abs(), weight.abs().amax(1, keepdim=True)
    assert (error <= scale.float() / 2 + largest / 256).all()


def test_matrices_have_8_bits_and_all_else_16(tmp_path):
    convert(TEACHER, tmp_path / "out")
    before, after = load_file(TEACHER / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    assert HEAD not in before and after[HEAD].dtype == torch.int8  # a tied head becomes a matrix of its own
    assert torch.equal(after[EMBEDDING], before[EMBEDDING].to(torch.bfloat16))
    for name, weight in before.items():
        matrix = weight.ndim == 2 and name != EMBEDDING
        assert after[name].dtype == (torch.int8 if matrix else torch.bfloat16)
        assert (f"{name}_scale" in after) == matrix
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["quantization_config"]["quant_method"] == "compressed-tensors" and not config["tie_word_embeddings"]
    assert {"tokenizer.json", "generation_config.json"} <= {f.name for f in (tmp_path / "out").iterdir()}


def test_a_head_of_its_own_is_kept(tmp_path):
    (tmp_path / "model").mkdir()
    save_file({EMBEDDING: torch.ones(4, 2), HEAD: torch.full((4, 2), 3.0)}, tmp_path / "model" / "model.safetensors")
    (tmp_path / "model" / "config.json").write_text("{}")
    convert(tmp_path / "model", tmp_path / "out")
    after = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.allclose(after[HEAD].float() * after[f"{HEAD}_scale"].float(), torch.tensor(3.0), rtol=1e-2)


def test_what_is_no_checkpoint_is_one_line_and_writes_nothing(tmp_path):
    (tmp_path / "model").mkdir()
    save_file({"other": torch.ones(2)}, tmp_path / "model" / "model.safetensors")
    with pytest.raises(StudyError, match="no weights named"):
        convert(tmp_path / "model", tmp_path / "out")
    for given_ in ([str(tmp_path / "none"), str(tmp_path / "out")], [str(tmp_path / "model")]):
        done = subprocess.run(
            [sys.executable, "-m", "agentark.models.int8", *given_], capture_output=True, text=True, cwd=root(),
            env={**os.environ, "PYTHONPATH": str(root())},
        )  # fmt: skip
        assert done.returncode == 1 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not importlib.util.find_spec("vllm"), reason="vllm is not installed; `make test-vllm` runs this")
def test_vllm_answers_as_with_the_original_weights(tmp_path):
    convert(TEACHER, tmp_path / "out")
    questions = [posed("equation", 2 + i % 3, i)[1] for i in range(40)]
    batches = [Batch([Request(solve_prompt(q.text), 0.0, MAX_TOKENS, 0)], 0) for q in questions]
    original, eight_bits = (dict(engine(f"vllm:{folder}").run(batches)) for folder in (TEACHER, tmp_path / "out"))
    same = sum(original[i][0].text.split()[:16] == eight_bits[i][0].text.split()[:16] for i in range(40))
    assert same >= 32, same
