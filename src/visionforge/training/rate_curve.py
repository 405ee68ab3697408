"""Learning rates over the whole training; only what follows a plateau depends on the training itself."""

import math

import lightning.pytorch as pl

from visionforge.config.schema import Schedule


def steps_per_epoch(trainer: pl.Trainer) -> float:
    """Return the optimiser steps of one epoch; the last, maybe smaller, group of accumulated batches gives one, too.

    Infinite where the loader does not know its length.
    """
    if trainer.train_dataloader is None:  # as where `max_steps` alone says when the training ends
        trainer.fit_loop.setup_data()
    batches = float(trainer.num_training_batches)
    return max(1.0, math.ceil(batches / trainer.accumulate_grad_batches)) if math.isfinite(batches) else math.inf


class _Plan:
    """What a curve is made from. LambdaLR stores what lies in `__dict__`, of which slots are no part: a training that
    begins from a checkpoint follows the settings that it is given, not those that the checkpoint was trained with.
    """  # noqa: D205

    __slots__ = ("high", "higher", "plateau", "schedule", "steps", "steps_per_epoch", "warmup_steps")


class RateCurve(_Plan):
    """The factor on the learning rate at every step; for ``torch.optim.lr_scheduler.LambdaLR``.

    A warm-up of W steps gives the rate high·(s+1)/(W+1) at step s < W; the schedule takes the steps that are left. On
    its plateau, `observe` multiplies the rate by the plateau's factor whenever the watched value has not improved for
    more than its patience, however often it is validated. What `observe` has seen are plain values, which LambdaLR
    keeps in its state, so that a resumed run goes on where it was.

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
        self.schedule = schedule
        self.plateau = schedule.plateau
        self.high = learning_rate
        self.steps = steps
        self.steps_per_epoch = steps_per_epoch
        self.warmup_steps = round(schedule.warmup * steps_per_epoch) if schedule.warmup else 0
        self.higher = higher
        self.plateau_factor = 1.0
        self.best = math.nan
        self.best_step = 0  # or that of the last fall

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        if step < self.warmup_steps:
            return self.high * (step + 1) / (self.warmup_steps + 1)
        left = max(1, self.steps - self.warmup_steps)
        rate = self.schedule.rate(step - self.warmup_steps, left, self.high, self.steps_per_epoch, self.warmup_steps)
        return rate if self.plateau_factor == 1.0 else max(self.schedule.lowest, rate * self.plateau_factor)

    def __call__(self, step: int) -> float:
        """Return the learning rate of a step as a share of the highest."""
        return self.rate(step) / self.high

    def watches(self, step: int) -> bool:
        """Return whether a step lies in the part in which the rate falls where nothing improves."""
        plateau = self.plateau
        return plateau is not None and step - self.warmup_steps >= plateau.begins * (self.steps - self.warmup_steps)

    def observe(self, value: float, step: int) -> None:
        """Take note of a validation value after `step` steps; an undefined one (NaN) is no improvement."""
        if self.plateau is None or not self.watches(step):
            return
        if math.isnan(self.best) or (value > self.best if self.higher else value < self.best):
            self.best, self.best_step = value, step
            return
        if step - self.best_step > self.plateau.patience * self.steps_per_epoch:
            self.plateau_factor *= self.plateau.factor
            self.best_step = step
