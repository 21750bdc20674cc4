import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agentark.pretrain import tiny
from agentark.pretrain.muon import Matrices, Muon, orthogonal

SIZES = st.integers(2, 40)


@given(SIZES, SIZES, st.integers(0, 99))
def test_orthogonalised_matrix_has_singular_values_near_one(rows, columns, seed):
    result = orthogonal(torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))
    values = torch.linalg.svdvals(result)
    assert result.shape == (rows, columns)
    assert values.max() < 1.3
    # Not the minimum: in a square matrix it may be so close to 0 that five iterations do not raise it enough.
    assert values.median() > 0.6


@pytest.mark.parametrize("shape", [(24, 24), (48, 16), (16, 48)])
def test_steps_match_torch_to_the_precision_of_bfloat16(shape):
    torch.manual_seed(0)
    start, goal = torch.randn(shape), torch.randn(shape)
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    optimisers = Matrices([ours], lr=0.02), torch.optim.Muon([theirs], lr=0.02, weight_decay=0.0)
    for _ in range(10):
        for p, optimiser in zip((ours, theirs), optimisers, strict=True):
            p.grad = p.detach() - goal
            optimiser.step()
    distance = (theirs - start).norm()
    assert (ours - theirs).norm() < 0.02 * distance


def test_schedule_applies_to_matrices_and_other_parameters():
    model = tiny.build_model("qwen3", 32, 1, 0, 64)
    optimiser = Muon(model, 0.003)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 0.5)
    schedule.step()
    assert [group["lr"] for part in optimiser.parts for group in part.param_groups] == [0.0105, 0.0015]
    trained = {id(p) for part in optimiser.parts for group in part.param_groups for p in group["params"]}
    assert trained == {id(p) for p in model.parameters()}
