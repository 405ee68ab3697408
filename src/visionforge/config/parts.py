"""Decorators by which a class or function of anyone's becomes a part that a configuration chooses by name."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar, overload

from visionforge.config.functions import OPERATIONS, PLACES, is_function, loss_of, operation_of
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


class _Tensor(Protocol):
    """What a function of tensors returns; a class, which is called likewise, returns no such thing."""

    @property
    def ndim(self) -> int: ...


FunctionT = TypeVar("FunctionT", bound=Callable[..., _Tensor])


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


@overload
def register_loss(kind: type[LossT], replace: bool = False) -> type[LossT]: ...
@overload
def register_loss(
    kind: FunctionT, replace: bool = False, *, name: str | None = None, tasks: Sequence[str] = ("classes",)
) -> FunctionT: ...
@overload
def register_loss(
    kind: None = None, replace: bool = False, *, name: str | None = None, tasks: Sequence[str] = ("classes",)
) -> Callable[[FunctionT], FunctionT]: ...


def register_loss(
    kind: Any = None, replace: bool = False, *, name: str | None = None, tasks: Sequence[str] = ("classes",)
) -> Any:
    """Make a loss known, which `model.loss.name` then chooses: a class, as `register_optimizer` says, or a function.

    Args:
        kind: The class; or a function ``(logits, targets)`` or ``(logits, targets, weights)``, whose result is the mean
            of a batch or the loss of each image, (N,), and whose arguments behind a ``*`` are settings.
        replace: Take the place of another that was registered under this name before.
        name: Of a function; None takes its own.
        tasks: Of a function, as `Loss.tasks`.

    Raises:
        TypeError: If it is neither.
        ValueError: Also if `tasks` names what is neither a task nor a form of labels, or a function takes other
            arguments.

    >>> import visionforge as vf
    >>> @vf.register_loss
    ... def brier(logits, targets, *, power: float = 2.0):
    ...     return (logits.softmax(dim=1) - targets).abs().pow(power).sum(dim=1)
    >>> vf.ImageClassifier("mini_cnn", loss={"name": "brier", "power": 1.5}).settings.loss.power
    1.5
    """
    if kind is None:
        return lambda given: register_loss(given, replace, name=name, tasks=tasks)
    made = loss_of(kind, name, (tasks,) if isinstance(tasks, str) else tuple(tasks)) if is_function(kind) else kind
    named = made.tasks if isinstance(made, type) and issubclass(made, Loss) else ()
    if named and (problem := asked_problem(named)):
        raise ValueError(f"{made.__qualname__}: {problem}")
    register(made, Loss, replace)
    return kind


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


@overload
def register_augmentation(kind: type[OperationT], replace: bool = False) -> type[OperationT]: ...
@overload
def register_augmentation(kind: FunctionT, replace: bool = False, *, name: str | None = None) -> FunctionT: ...
@overload
def register_augmentation(
    kind: None = None, replace: bool = False, *, name: str | None = None
) -> Callable[[FunctionT], FunctionT]: ...


def register_augmentation(kind: Any = None, replace: bool = False, *, name: str | None = None) -> Any:
    """Make an operation known, which `data.augmentation.operations` then names: a class, or a function.

    Args:
        kind: The class, as `register_optimizer` says; or a function ``(images, draws)`` of a batch and numbers of each
            image, or ``(images, generator)``, to images of the same shape, whose arguments behind a ``*`` are settings.
        replace: Take the place of another that was registered under this name before.
        name: Of a function; None takes its own.

    Raises:
        TypeError: If it is neither.
        ValueError: If the name is missing or taken, or a function takes other arguments.

    >>> import visionforge as vf
    >>> @vf.register_augmentation
    ... def darker(images, draws, *, most: float = 0.5):
    ...     return images * (1 - most * draws.uniform(1, 1, 1))
    >>> data = vf.ImageDataModule("synthetic", augmentation={"operations": [{"name": "darker", "most": 0.2}]})
    >>> data.settings.augmentation.operations[0].most
    0.2
    """
    if kind is None:
        return lambda given: register_augmentation(given, replace, name=name)
    register(operation_of(kind, name) if is_function(kind) else kind, AugmentationOperation, replace)
    return kind


PLACES |= {"model.loss": register_loss, "model.loss.name": register_loss, OPERATIONS: register_augmentation}
