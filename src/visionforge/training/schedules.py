"""Learning rates as closed forms of the step; only what follows a plateau depends on the training itself."""

import math
from collections.abc import Callable

from visionforge.config.schema import Schedule

ONE_CYCLE_START = 25.0  # the cycle starts at the highest rate divided by this (Smith and Topin, 2019)


def cosine(share: float, high: float, low: float) -> float:
    """Return half a cosine from `high` at share 0 to `low` at share 1 (Loshchilov and Hutter, 2017, equation 5)."""
    return low + (high - low) * (1 + math.cos(math.pi * share)) / 2


def _cosine(curve: "RateCurve", step: float, steps: float) -> float:
    return cosine(min(step / steps, curve.cosine_fraction), curve.high, curve.low)


def _constant(curve: "RateCurve", step: float, steps: float) -> float:
    return curve.high


def _step(curve: "RateCurve", step: float, steps: float) -> float:
    falls = int((curve.warmup_steps + step) // (curve.step_epochs * curve.steps_per_epoch))
    return max(curve.low, curve.high * curve.gamma**falls)


def _one_cycle(curve: "RateCurve", step: float, steps: float) -> float:
    top = curve.rise_fraction * steps
    if step < top:
        return cosine(step / top, curve.high / ONE_CYCLE_START, curve.high)
    return cosine((step - top) / (steps - top), curve.high, curve.low)


_SHAPES: dict[str, Callable[["RateCurve", float, float], float]] = {
    "cosine": _cosine,
    "constant": _constant,
    "step": _step,
    "one_cycle": _one_cycle,
}


class RateCurve:
    """The factor on the learning rate at every step; for ``torch.optim.lr_scheduler.LambdaLR``.

    A warm-up of W steps gives the rate high·(s+1)/(W+1) at step s < W; the shape takes the steps that are left. Where
    a cosine ends early (`cosine_fraction` below 1), `observe` multiplies the rate by `gamma` whenever the watched value
    has not improved for more than `scheduler_patience` epochs. All attributes are plain values, which LambdaLR keeps in
    its state, so that a resumed run goes on where it was.

    Args:
        schedule: The settings.
        learning_rate: Highest rate.
        steps: Steps T of the whole training.
        steps_per_epoch: Steps of one epoch.
    """

    def __init__(self, schedule: Schedule, learning_rate: float, steps: int, steps_per_epoch: float) -> None:
        self.shape = schedule.name
        self.high = learning_rate
        self.low = schedule.min_lr
        self.gamma = schedule.gamma
        self.cosine_fraction = schedule.cosine_fraction if schedule.name == "cosine" else 1.0
        self.patience = schedule.scheduler_patience
        self.step_epochs = schedule.step_epochs
        self.rise_fraction = schedule.rise_fraction
        self.steps = steps
        self.steps_per_epoch = steps_per_epoch
        self.warmup_steps = round(schedule.warmup_epochs * steps_per_epoch)
        self.plateau_factor = 1.0
        self.best = -math.inf
        self.waited = 0

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        if step < self.warmup_steps:
            return self.high * (step + 1) / (self.warmup_steps + 1)
        rate = _SHAPES[self.shape](self, step - self.warmup_steps, max(1, self.steps - self.warmup_steps))
        return rate if self.plateau_factor == 1.0 else max(self.low, rate * self.plateau_factor)

    def __call__(self, step: int) -> float:
        """Return the learning rate of a step as a share of the highest."""
        return self.rate(step) / self.high

    def watches(self, step: int) -> bool:
        """Return whether a step lies behind the part that follows the cosine."""
        return self.cosine_fraction < 1.0 and step - self.warmup_steps >= self.cosine_fraction * (
            self.steps - self.warmup_steps
        )

    def observe(self, value: float, step: int) -> None:
        """Take note of an epoch's validation value (higher is better) after `step` steps."""
        if not self.watches(step):
            return
        if value > self.best:
            self.best, self.waited = value, 0
            return
        self.waited += 1
        if self.waited > self.patience:
            self.plateau_factor *= self.gamma
            self.waited = 0
