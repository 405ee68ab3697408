"""A name, or a mapping, in place of a settings object: `optimizer="adamw"` is `Optimizer(name="adamw")`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from visionforge.config.schema import Averaging, Backbone, Finetuning, Loss, Mixing, Optimizer, Schedule
from visionforge.config.stored import of_known_parts
from visionforge.models.registry import backbone_entry
from visionforge.training.compatibility import plain

if TYPE_CHECKING:
    BackboneLike = Backbone | Mapping[str, Any] | str
    FinetuningLike = Finetuning | Mapping[str, Any]
    OptimizerLike = Optimizer | Mapping[str, Any] | str
    ScheduleLike = Schedule | Mapping[str, Any] | str
    LossLike = Loss | Mapping[str, Any] | str
    MixUpLike = Mixing | Mapping[str, Any] | str
    AveragingLike = Averaging | Mapping[str, Any] | str
else:  # the command line derives its flags from these
    BackboneLike, FinetuningLike = Backbone, Finetuning
    OptimizerLike = ScheduleLike = LossLike = MixUpLike = AveragingLike = dict[str, Any] | str  # of whichever kind


def as_sections(given: Mapping[str, Any], restoring: bool = False) -> dict[str, Any]:
    """Return the sections of a model as plain values that can be validated.

    A backbone that is only named starts from pretrained weights if there are published ones, as the settings' default
    says, and else from random ones.

    Args:
        given: Section → settings, a mapping, or a name.
        restoring: They come from a checkpoint: what they say of parts that are not known here is left out.

    Raises:
        SettingsError: If a backbone that is only named is unknown; the nearest names are in the message.
    """
    sections = dict(plain(given))
    if restoring:
        sections = dict(of_known_parts({"model": sections})["model"])
    if isinstance(name := sections["backbone"], str):
        published = backbone_entry(name).has_published_weights
        sections["backbone"] = {"name": name} if published else {"name": name, "pretrained": False}
    return sections
