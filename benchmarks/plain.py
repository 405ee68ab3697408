"""A plain training loop in PyTorch for as much processor time as it is given: the other side of comparisons.

Processor time is that of the process from its start, so imports, loading, augmentation and validation count, and what
else the machine does is not counted. All of it happens in this process; worker processes would escape the count.
"""

import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

WARM_UP = 0.05  # share of the time in which the learning rate rises


def rate(share: float) -> float:
    """Return the learning rate as a share of the highest when this share of the time is spent: a cosine."""
    return min(share / WARM_UP, 0.5 * (1 + math.cos(math.pi * share)))


def train(
    model: nn.Module,
    batches: Callable[[], Iterable[Any]],
    loss_of: Callable[[nn.Module, Any], Tensor],
    score_of: Callable[[nn.Module], float],
    *,
    seconds: float,
    learning_rate: float,
    validations: int,
    state: Path | None = None,
    pause: float = math.inf,
) -> dict[str, float] | None:
    """Train with AdamW and a cosine of the time, in bfloat16 where autocast does so; end with the best weights.

    Args:
        model: Is changed.
        batches: Gives an epoch of augmented batches.
        loss_of: The loss of a batch.
        score_of: Validates the model; higher is better.
        seconds: Processor time for the training, validation included.
        learning_rate: The highest.
        validations: How many there are, evenly over the time.
        state: File with which a paused training continues, if it is there; None where there is no pause.
        pause: Processor time of this process after which the training is written to `state`.

    Returns:
        The best score, processor time and time on the clock, epochs and steps; None of a paused training.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=5e-4)
    found: dict[str, float] = {"best": -math.inf, "cpu_s": 0.0, "wall_s": 0.0, "epochs": 0, "steps": 0, "validated": 0}
    best: dict[str, Tensor] = {}
    if state is not None and state.is_file():
        held = torch.load(state, weights_only=True)
        model.load_state_dict(held["model"])
        optimizer.load_state_dict(held["optimizer"])
        found, best = held["found"], held["best"]
    spent_before, clock_before, clock = found["cpu_s"], found["wall_s"], time.perf_counter()

    def spent() -> float:
        return spent_before + time.process_time()

    def noted() -> dict[str, float]:
        return found | {"cpu_s": spent(), "wall_s": clock_before + time.perf_counter() - clock}

    while spent() < seconds:
        for batch in batches():
            share = spent() / seconds
            if share >= 1 or time.process_time() >= pause:
                break
            model.train()
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * rate(share)
            with torch.autocast("cpu", torch.bfloat16):
                loss = loss_of(model, batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            found["steps"] += 1
            if share >= (found["validated"] + 1) / validations:
                found["validated"] += 1
                best = _validated(model, score_of, found, best)
        if state is not None and time.process_time() >= pause and spent() < seconds:
            kept = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "found": noted(), "best": best}
            torch.save(kept, state)
            return None
        found["epochs"] += 1
    best = _validated(model, score_of, found, best)
    model.load_state_dict(best)
    if state is not None:
        state.unlink(missing_ok=True)
    return noted()


def _validated(
    model: nn.Module, score_of: Callable[[nn.Module], float], found: dict[str, float], best: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Return the best weights so far, and note their score."""
    model.eval()
    with torch.inference_mode():
        score = score_of(model)
    if score > found["best"]:
        found["best"] = score
        return {name: values.clone() for name, values in model.state_dict().items()}
    return best
