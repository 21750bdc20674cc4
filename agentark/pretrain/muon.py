"""The optimiser of base training: Muon (Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks").

torch.optim.Muon computes in bfloat16 on every device. On a CPU without bfloat16 arithmetic a matrix product then takes
about 25 times as long as in float32, and these products took most of a training step. This module therefore
orthogonalises the update in float32.
"""

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

RATIO = 7.0  # learning rate of the hidden matrices relative to the others: 0.02 at 0.003, as in the author's examples
MOMENTUM = 0.95  # this and the next two as in the author's code
ITERATIONS = 5
QUINTIC = (3.4445, -4.7750, 2.0315)


def orthogonal(matrix: Tensor) -> Tensor:
    """Approximately the nearest matrix with orthonormal rows or columns, by Newton-Schulz iteration.

    matrix: (rows, columns). The singular values of the result are between about 0.7 and 1.2 instead of 1: the author's
    coefficients increase small ones fast but do not converge.
    """
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonal(matrix.T).T
    a, b, c = QUINTIC
    x = matrix / matrix.norm().clamp(min=1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


class Matrices(torch.optim.Optimizer):
    """Muon for matrices only: the averaged gradient with Nesterov momentum, orthogonalised."""

    def __init__(self, matrices: list[nn.Parameter], lr: float):
        super().__init__(matrices, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                average = self.state[p].setdefault("average", torch.zeros_like(p)).lerp_(p.grad, 1 - MOMENTUM)
                rows, columns = p.shape
                rate = group["lr"] * max(1, rows / columns) ** 0.5
                p.add_(orthogonal(p.grad.lerp(average, MOMENTUM)), alpha=-rate)


class Muon(torch.optim.Optimizer):
    """Muon for the hidden matrices, AdamW for embeddings and norms, as its author recommends.

    In this study it reaches AdamW's loss in about 0.6 of the steps.
    """

    def __init__(self, model: PreTrainedModel, learning_rate: float):
        embedding = model.get_input_embeddings().weight
        hidden = [p for p in model.parameters() if p.dim() == 2 and p is not embedding]
        other = [p for p in model.parameters() if p.dim() != 2 or p is embedding]
        adamw = torch.optim.AdamW(other, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
        super().__init__([*hidden, *other], {})
        self.parts = (Matrices(hidden, lr=RATIO * learning_rate), adamw)
        self.param_groups = [group for part in self.parts for group in part.param_groups]  # for the schedule

    def step(self, closure=None) -> None:
        for part in self.parts:
            part.step()
