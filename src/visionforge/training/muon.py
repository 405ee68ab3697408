"""Muon: momentum whose matrices are orthogonalised, for convolutions and linear layers alike.

After Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024), with the update scaled to the
size of AdamW's as in Liu et al. (2025, arXiv:2502.16982), so that both parts share one learning rate and weight decay.
torch.optim.Muon takes matrices only; here a convolution (O, I, h, w) is the matrix (O, I·h·w).
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor

from visionforge.training.shards import is_shard, shard_like, whole

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # quintic coefficients of Jordan et al., steepest at zero
ITERATIONS = 5
UPDATE_RMS = 0.2  # root mean square of AdamW's updates in practice, Liu et al., section 2.2
EPS = 1e-8


def orthogonalise(matrix: Tensor) -> Tensor:
    """Return a matrix (M, N) with the singular vectors of `matrix` and singular values of about 0.7 to 1.2.

    Five Newton-Schulz iterations X ← (aI + bXXᵀ + c(XXᵀ)²)X in float32. They are multiplied up as polynomials of the
    smaller Gram matrix, which X meets only at the end: for a 3×3 convolution that is 2 large products instead of 10.
    """
    a, b, c = NEWTON_SCHULZ
    x = matrix.float()
    tall = x.shape[0] > x.shape[1]
    if tall:
        x = x.mT
    x = x / x.norm().clamp(min=1e-7)
    gram = x @ x.mT
    product = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    for step in range(ITERATIONS):
        factor = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal().add_(a)
        product = factor @ product if step else factor
        if step + 1 < ITERATIONS:
            gram = factor @ gram @ factor
    x = product @ x
    found: Tensor = (x.mT if tall else x).to(matrix.dtype)
    return found


class Muon(torch.optim.Optimizer):
    """Muon for the groups with ``"orthogonal": True``, AdamW for the others.

    Args:
        params: Parameter groups; those of Muon hold parameters with two or more dimensions.
        lr: Learning rate of both parts.
        momentum: Momentum of Muon, and beta 1 of AdamW.
        nesterov: Nesterov's form of Muon's momentum.
        beta2: Beta 2 of AdamW.
        weight_decay: Decoupled decay of both.

    Raises:
        ValueError: If a vector is in a group of Muon.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        lr: float,
        momentum: float = 0.95,
        nesterov: bool = True,
        beta2: float = 0.999,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "nesterov": nesterov,
            "beta2": beta2,
            "weight_decay": weight_decay,
            "orthogonal": False,
        }
        super().__init__(params, defaults)
        for group in self.param_groups:
            if group["orthogonal"] and any(p.ndim < 2 for p in group["params"]):
                raise ValueError("Muon orthogonalises matrices and convolutions; put vectors into another group")

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            update = self._orthogonal_update if group["orthogonal"] else self._adam_update
            for p in group["params"]:
                if p.grad is not None:
                    direction = update(p, p.grad, group)
                    p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(direction, alpha=group["lr"])
        return loss

    def _orthogonal_update(self, p: Tensor, grad: Tensor, group: dict[str, Any]) -> Tensor:
        state, beta = self.state[p], group["momentum"]
        if not state:
            state["momentum"] = torch.zeros_like(p)
        velocity = state["momentum"].lerp_(grad, 1 - beta)
        direction = grad.lerp(velocity, beta) if group["nesterov"] else velocity
        matrix = whole(direction).flatten(1)
        scale = UPDATE_RMS * math.sqrt(max(matrix.shape))
        found = orthogonalise(matrix).view(direction.shape) * scale
        return shard_like(found, direction) if is_shard(direction) else found

    def _adam_update(self, p: Tensor, grad: Tensor, group: dict[str, Any]) -> Tensor:
        state, beta1, beta2 = self.state[p], group["momentum"], group["beta2"]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.int64)
            state["mean"], state["square"] = torch.zeros_like(p), torch.zeros_like(p)
        state["step"] += 1
        count = int(state["step"])
        mean = state["mean"].lerp_(grad, 1 - beta1)
        square = state["square"].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        denominator = (square / (1 - beta2**count)).sqrt_().add_(EPS)
        direction: Tensor = (mean / (1 - beta1**count)) / denominator
        return direction
