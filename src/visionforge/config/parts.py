"""Decorators by which a class of anyone's becomes a part that a configuration chooses by name."""

from typing import TypeVar

from visionforge.config.schema import (
    AugmentationOperation,
    Averaging,
    Decoder,
    Detector,
    Loss,
    Mixing,
    Optimizer,
    Sampler,
    Schedule,
)
from visionforge.config.schema.components import register
from visionforge.config.schema.tasks import asked_problem

OptimizerT = TypeVar("OptimizerT", bound=Optimizer)
ScheduleT = TypeVar("ScheduleT", bound=Schedule)
LossT = TypeVar("LossT", bound=Loss)
AveragingT = TypeVar("AveragingT", bound=Averaging)
MixingT = TypeVar("MixingT", bound=Mixing)
DecoderT = TypeVar("DecoderT", bound=Decoder)
DetectorT = TypeVar("DetectorT", bound=Detector)
SamplerT = TypeVar("SamplerT", bound=Sampler)
OperationT = TypeVar("OperationT", bound=AugmentationOperation)


def register_optimizer(kind: type[OptimizerT], replace: bool = False) -> type[OptimizerT]:
    """Make an optimiser known, which `model.optimizer.name` then chooses.

    Args:
        kind: The class, with a name: ``name: Literal["mine"] = "mine"``. Two are the same if module, name and code are.
        replace: Take the place of another class that was registered under this name before.

    Raises:
        TypeError: If it is no subclass of `Optimizer`.
        ValueError: If the name is missing or taken, or `build` is not defined.
    """
    return register(kind, Optimizer, replace)


def register_schedule(kind: type[ScheduleT], replace: bool = False) -> type[ScheduleT]:
    """Make a schedule known, which `model.schedule.name` then chooses. See `register_optimizer`."""
    return register(kind, Schedule, replace)


def register_loss(kind: type[LossT], replace: bool = False) -> type[LossT]:
    """Make a loss known, which `model.loss.name` then chooses. See `register_optimizer`.

    Raises:
        ValueError: Also if `tasks` names what is neither a task nor a form of labels.
    """
    named = kind.tasks if isinstance(kind, type) and issubclass(kind, Loss) else ()
    if named and (problem := asked_problem(named)):
        raise ValueError(f"{kind.__qualname__}: {problem}")
    return register(kind, Loss, replace)


def register_averaging(kind: type[AveragingT], replace: bool = False) -> type[AveragingT]:
    """Make an average of the weights known, which `model.averaging.name` then chooses. See `register_optimizer`."""
    return register(kind, Averaging, replace)


def register_mixing(kind: type[MixingT], replace: bool = False) -> type[MixingT]:
    """Make a mixer of training pairs known, which `model.mixup.name` then chooses. See `register_optimizer`."""
    return register(kind, Mixing, replace)


def register_decoder(kind: type[DecoderT], replace: bool = False) -> type[DecoderT]:
    """Make a decoder known, which `model.decoder.name` then chooses. See `register_optimizer`."""
    return register(kind, Decoder, replace)


def register_detector(kind: type[DetectorT], replace: bool = False) -> type[DetectorT]:
    """Make a detector known, which `model.detector.name` then chooses. See `register_optimizer`."""
    return register(kind, Detector, replace)


def register_sampler(kind: type[SamplerT], replace: bool = False) -> type[SamplerT]:
    """Make a sampler known, which `data.sampler.name` then chooses. See `register_optimizer`."""
    return register(kind, Sampler, replace)


def register_augmentation(kind: type[OperationT], replace: bool = False) -> type[OperationT]:
    """Make an operation known, which `data.augmentation.operations` then names. See `register_optimizer`."""
    return register(kind, AugmentationOperation, replace)
