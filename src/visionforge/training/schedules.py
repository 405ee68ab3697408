"""Learning rates as closed forms of the step; only what follows a plateau depends on the training itself."""

import math
from collections.abc import Callable

import lightning.pytorch as pl

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


def steps_per_epoch(trainer: pl.Trainer) -> float:
    """Return the optimiser steps of one epoch; the last, maybe smaller, group of accumulated batches gives one, too.

    Args:
        trainer: Its loaders are set up, as they are once `estimated_stepping_batches` was asked for.
    """
    batches = float(trainer.num_training_batches)
    return max(1.0, math.ceil(batches / trainer.accumulate_grad_batches)) if math.isfinite(batches) else math.inf


class _Plan:
    """What a curve is made from. LambdaLR stores what lies in `__dict__`, of which slots are no part: a training that
    begins from a checkpoint follows the settings that it is given, not those that the checkpoint was trained with.
    """  # noqa: D205

    __slots__ = (
        "cosine_fraction",
        "gamma",
        "high",
        "higher",
        "low",
        "patience",
        "rise_fraction",
        "shape",
        "step_epochs",
        "steps",
        "steps_per_epoch",
        "warmup_steps",
    )


class RateCurve(_Plan):
    """The factor on the learning rate at every step; for ``torch.optim.lr_scheduler.LambdaLR``.

    A warm-up of W steps gives the rate high·(s+1)/(W+1) at step s < W; the shape takes the steps that are left. Where
    a cosine ends early (`cosine_fraction` below 1), `observe` multiplies the rate by `gamma` whenever the watched value
    has not improved for more than `scheduler_patience` epochs, however often it is validated. What `observe` has seen
    are plain values, which LambdaLR keeps in its state, so that a resumed run goes on where it was.

    Args:
        schedule: The settings.
        learning_rate: Highest rate.
        steps: Optimiser steps T of the whole training.
        steps_per_epoch: Optimiser steps of one epoch.
        higher: Whether higher values of what `observe` is told are better.
    """

    def __init__(
        self, schedule: Schedule, learning_rate: float, steps: int, steps_per_epoch: float, higher: bool = True
    ) -> None:
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
        self.higher = higher
        self.plateau_factor = 1.0
        self.best = math.nan
        self.best_step = 0  # or that of the last fall

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
        """Take note of a validation value after `step` steps; an undefined one (NaN) is no improvement."""
        if not self.watches(step):
            return
        if math.isnan(self.best) or (value > self.best if self.higher else value < self.best):
            self.best, self.best_step = value, step
            return
        if step - self.best_step > self.patience * self.steps_per_epoch:
            self.plateau_factor *= self.gamma
            self.best_step = step
