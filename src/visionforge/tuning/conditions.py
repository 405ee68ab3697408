"""When a parameter of a search takes effect: what has to hold of other settings."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from visionforge.config.rules import READ_UNDER


@dataclass(frozen=True)
class Condition:
    """When a parameter takes effect.

    Attributes:
        decider: The setting that decides.
        allows: Whether the parameter is read under one of its values.
        text: The condition in words.
    """

    decider: str
    allows: Callable[[Any], bool]
    text: str


def _one_of(decider: str, *values: Any) -> Condition:
    return Condition(decider, lambda value: value in values, f"{decider} is {' or '.join(map(str, values))}")


def _above(decider: str, bound: float) -> Condition:
    return Condition(decider, lambda value: value > bound, f"{decider} is above {bound:g}")


def _no_preset() -> Condition:
    return _one_of("data.augmentation.preset", None)


CONDITIONS: dict[str, tuple[Condition, ...]] = {
    **{path: (_one_of(decider, *values),) for path, (decider, values) in READ_UNDER.items()},
    "model.optimizer.momentum": (_one_of("model.optimizer.name", "sgd", "muon"),),
    "model.averaging.decay": (_one_of("model.averaging.name", "ema"),),
    "model.averaging.start_epoch": (_one_of("model.averaging.name", "ema", "swa"),),
    "model.schedule.min_lr": (_one_of("model.schedule.name", "cosine", "step", "one_cycle"),),
    "model.schedule.scheduler_patience": (
        _one_of("model.schedule.name", "cosine"),
        Condition(
            "model.schedule.cosine_fraction", lambda value: value < 1, "model.schedule.cosine_fraction is below 1"
        ),
    ),
    "model.mixup.cutmix_prob": (_above("model.mixup.alpha", 0), _above("model.mixup.cutmix_alpha", 0)),
    "model.finetuning.freeze_epochs": (_one_of("model.backbone.pretrained", True),),
    "model.finetuning.stage_epochs": (_above("model.finetuning.freeze_epochs", 0),),
    "data.augmentation.magnitude": (_no_preset(), _above("data.augmentation.num_ops", 0)),
    **{
        f"data.augmentation.{name}": (_no_preset(),)
        for name in ("hflip", "rotation_angle", "jitter_val", "min_scale", "num_ops", "flip_mode")
    },
}
