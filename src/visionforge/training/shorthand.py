"""A name, or a mapping, in place of a settings object: `optimizer="adamw"` is `Optimizer(name="adamw")`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from visionforge.config.schema import Averaging, Backbone, Finetuning, Loss, MixUp, Optimizer, Schedule
from visionforge.models.registry import backbone_entry
from visionforge.training.compatibility import plain

if TYPE_CHECKING:
    BackboneLike = Backbone | Mapping[str, Any] | str
    FinetuningLike = Finetuning | Mapping[str, Any]
    OptimizerLike = Optimizer | Mapping[str, Any] | str
    ScheduleLike = Schedule | Mapping[str, Any] | str
    LossLike = Loss | Mapping[str, Any] | str
    MixUpLike = MixUp | Mapping[str, Any]
    AveragingLike = Averaging | Mapping[str, Any] | str
else:  # the command line derives its flags from these
    BackboneLike, FinetuningLike, OptimizerLike = Backbone, Finetuning, Optimizer
    ScheduleLike, LossLike, MixUpLike, AveragingLike = Schedule, Loss, MixUp, Averaging

_NAMED = ("backbone", "optimizer", "schedule", "loss", "averaging")  # sections that have a name


def as_sections(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sections of a model as plain values that can be validated.

    A name stands for the settings with that name. A backbone that is only named starts from pretrained weights if
    there are published ones, as the settings' default says, and else from random ones.

    Raises:
        SettingsError: If a backbone that is only named is unknown; the nearest names are in the message.
    """
    sections = plain(given)
    for name in _NAMED:
        if isinstance(sections[name], str):
            sections[name] = {"name": sections[name]}
            if name == "backbone" and not backbone_entry(sections[name]["name"]).has_published_weights:
                sections[name]["pretrained"] = False
    return dict(sections)
