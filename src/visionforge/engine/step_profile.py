"""Where the time of a training went, as a file of its run folder, and what there is to change."""

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field, ValidationError

from visionforge.config.schema.base import Section
from visionforge.errors import RunError
from visionforge.reading import UnreadableError, read_json
from visionforge.runs.files import write_atomic

STEP_PARTS = ("input", "transfer", "augmentation", "forward", "backward", "optimiser", "callbacks", "logging", "loop")
OTHER_PARTS = ("set-up", "validation", "checkpoints")
MAX_PROFILE_BYTES = 1_000_000
MOST = 100


class Part(Section):
    """What a training spends its time on.

    Attributes:
        name: One of `STEP_PARTS` or `OTHER_PARTS`.
        share: Of the whole training, 0 to 1.
        step_ms: Its median in a step, in milliseconds; None where it belongs to no step.
    """

    name: str = Field(max_length=100)
    share: float = Field(ge=0)
    step_ms: float | None = None


class Operator(Section):
    """An operator of the traced steps.

    Attributes:
        name: As torch calls it.
        step_ms: Milliseconds of its own in a step, on the device that the training ran on.
        calls: How often a step calls it.
    """

    name: str = Field(max_length=100)
    step_ms: float
    calls: float


class StepProfile(Section):
    """Where the time of a training went.

    Attributes:
        device: What it ran on.
        steps: How many steps there were.
        measured: How many of them stand in the medians.
        seconds: The whole training, without the steps that were traced.
        step_ms: The median of a measured step.
        overhead: By how much longer a measured step takes than others, as a share; None where there were too few.
        parts: What the time went on.
        operators: The most expensive operators of the traced steps.
        advice: Where the time went, and what to change: a sentence each.
    """

    device: str = Field(max_length=100)
    steps: int
    measured: int
    seconds: float
    step_ms: float | None
    overhead: float | None
    parts: tuple[Part, ...] = Field(max_length=MOST)
    operators: tuple[Operator, ...] = Field(max_length=MOST)
    advice: tuple[str, str]

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(self.model_dump(mode="json"), indent=2) + "\n")

    @classmethod
    def read(cls, path: Path) -> "StepProfile":
        """Return what `write` has written.

        Raises:
            RunError: If it cannot be read.
        """
        try:
            return cls.model_validate(read_json(path, MAX_PROFILE_BYTES))
        except (OSError, UnreadableError, ValidationError) as error:
            raise RunError(f"{path}: is no profile of a training; make one with `visionforge fit --profile`") from error


_CHANGES: tuple[tuple[tuple[str, ...], float, str], ...] = (  # parts, from which share on they stand out, the change
    (("set-up",), 0.5, "The set-up outweighs the steps: train for more epochs before anything in a step is changed."),
    (("input",), 0.15, "Batches come late: set data.cache to ram, or data.num_workers above 0."),
    (("transfer",), 0.15, "Moving batches is slow: set data.cache to device where the images fit on it."),
    (("augmentation",), 0.25, "Augmentation is dear: choose a lighter data.augmentation.preset, or fewer operations."),
    (("validation",), 0.3, "Validate less often, with trainer.check_val_every_n_epoch."),
    (("checkpoints",), 0.15, "Checkpoints are dear: let trainer.default_root_dir lie on a faster disk."),
    (("callbacks", "logging"), 0.15, "Callbacks and loggers are dear: raise trainer.log_every_n_steps."),
    (("optimiser",), 0.2, "The optimiser is dear: take fewer, larger steps (data.batch_size), or optimizer.name sgd."),
    (("loop",), 0.2, "Steps are too short for what surrounds them: raise data.batch_size."),
)
_NETWORK = (
    "The network is the limit: take a smaller one, fewer pixels, or trainer.precision bf16-mixed where it is faster."
)
_NOTHING = "No part stands out: a larger data.batch_size spreads what a step costs over more images."


def advice(parts: Sequence[Part]) -> tuple[str, str]:
    """Return in a sentence each where the time of a training went, and what to change.

    >>> advice([Part(name="input", share=0.6), Part(name="forward", share=0.4)])[0]
    'input takes 60 % of the training, forward 40 %.'
    """
    if not parts:
        return "No step was measured.", "Train for more steps."
    shares = {part.name: part.share for part in parts}
    first, *others = sorted(shares, key=lambda name: -shares[name])[:3]
    told = [f"{name} {_percent(shares[name])}" for name in others if shares[name] >= 0.01]
    where = ", ".join([f"{first} takes {_percent(shares[first])} of the training", *told]) + "."
    standing_out = [(sum(shares.get(name, 0.0) for name in names) / least, change) for names, least, change in _CHANGES]
    most, change = max(standing_out, key=lambda pair: pair[0])
    if most >= 1:
        return where, change
    return where, _NETWORK if shares.get("forward", 0.0) + shares.get("backward", 0.0) >= 0.5 else _NOTHING


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
