"""When a parameter of a search takes effect: what has to hold of other settings."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from visionforge.config.rules import EFFECTIVE
from visionforge.config.stored import component_paths


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
    return Condition(decider, lambda value: value is not None and value > bound, f"{decider} is above {bound:g}")


def _no_preset() -> Condition:
    return _one_of("data.augmentation.preset", None)


_OWN: dict[str, tuple[Condition, ...]] = {
    "model.optimizer.momentum": (_one_of("model.optimizer.name", "sgd", "muon"),),
    "model.loss.effective_beta": (_one_of("model.loss.class_weights", EFFECTIVE),),
    "model.schedule.scheduler_patience": (
        _one_of("model.schedule.name", "cosine"),
        Condition(
            "model.schedule.cosine_fraction", lambda value: value < 1, "model.schedule.cosine_fraction is below 1"
        ),
    ),
    "model.mixup.cutmix_prob": (_above("model.mixup.alpha", 0), _above("model.mixup.cutmix_alpha", 0)),
    "model.finetuning.freeze_epochs": (_one_of("model.backbone.pretrained", True),),
    "model.finetuning.stage_epochs": (_above("model.finetuning.freeze_epochs", 0),),
    **{
        f"model.distillation.{name}": (
            Condition(
                "model.distillation.teacher", lambda value: value is not None, "model.distillation.teacher is given"
            ),
        )
        for name in ("weight", "temperature")
    },
    "data.resize.mode": (Condition("data.resize.size", lambda value: value is not None, "data.resize.size is given"),),
    "data.augmentation.magnitude": (_no_preset(), _above("data.augmentation.num_ops", 0)),
    **{
        f"data.augmentation.{name}": (_no_preset(),)
        for name in ("hflip", "rotation_angle", "jitter_val", "min_scale", "num_ops", "flip_mode")
    },
}


def conditions_of(path: str) -> tuple[Condition, ...]:
    """Return when a setting takes effect; a component's, where a kind that has it is chosen."""
    if path in _OWN:
        return _OWN[path]
    section, _, name = path.rpartition(".")
    base = component_paths().get(section)
    if base is None or name == "name":
        return ()
    readers = base.family.readers(name)
    return () if len(readers) == len(base.family.kinds) else (_one_of(f"{section}.name", *readers),)


def kind_that_reads(path: str) -> dict[str, str]:
    """Return the choice of a kind that has the setting at `path`; nothing if it is no component's."""
    section, _, name = path.rpartition(".")
    base = component_paths().get(section)
    if base is None or name == "name":
        return {}
    return {f"{section}.name": next(iter(base.family.readers(name)))}


def without_other_kinds(tree: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of nested settings without those that a kind which `values` chooses does not have.

    Args:
        tree: Nested settings.
        values: Dotted path → value.
    """
    result = dict(tree)
    for section, base in component_paths().items():
        kind = base.family.kinds.get(values.get(f"{section}.name", ""))
        above, _, name = section.rpartition(".")
        own = result[above].get(name) if kind and isinstance(result.get(above), Mapping) else None
        if isinstance(own, Mapping) and kind is not None:
            result[above] = {**result[above], name: {key: own[key] for key in own if key in kind.model_fields}}
    return result
