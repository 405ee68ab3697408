"""Networks from checkpoints, of which only tensors and plain values are read."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from visionforge.data.info import TaskSpec
from visionforge.data.registry import dataset_info
from visionforge.distribution import CHECKPOINT_FORMAT, newer
from visionforge.errors import RunError, VisionForgeError, WeightsError

if TYPE_CHECKING:
    from visionforge.training.classifier import ImageClassifier
    from visionforge.training.trained_network import TrainedNetwork

Network = TypeVar("Network", "ImageClassifier", "TrainedNetwork")


def read_checkpoint(checkpoint: Path) -> dict[str, Any]:
    """Read a checkpoint; only tensors and plain values are loaded, never code.

    Raises:
        RunError: If it cannot be read that way.
    """
    from torch import Tensor

    from visionforge.models.tensor_files import load_tensors

    try:
        content = load_tensors(checkpoint)
    except Exception as error:  # a damaged file makes the reader raise almost anything
        reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        raise RunError(f"{checkpoint}: cannot be read as a checkpoint ({reason})") from error
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise RunError(f"{checkpoint}: is no checkpoint: it holds no state_dict of tensors")
    by = content.get("visionforge")
    if isinstance(by, dict) and (problem := newer(by.get("format"), CHECKPOINT_FORMAT, by.get("version"))):
        raise RunError(f"{checkpoint}: {problem}")
    return dict(content)


def restore(model: "ImageClassifier | TrainedNetwork", content: Mapping[str, Any], checkpoint: Path) -> None:
    """Give a model the weights of a checkpoint that was read, and what it says about its probabilities.

    Raises:
        SettingsError: If the settings ask for another network than the checkpoint holds.
        RunError: If it holds something else than this version of visionforge writes.
    """
    try:
        model.restore(content)
    except WeightsError as error:
        raise RunError([f"{checkpoint}: {problem}" for problem in error.problems]) from error
    except VisionForgeError:
        raise
    except Exception as error:  # what a stranger has put there fails wherever it is first used
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise RunError(f"{checkpoint}: does not fit this version of visionforge ({reason})") from error


def load_classifier(checkpoint: Path) -> "ImageClassifier":
    """Return the module of a checkpoint, ready to predict, from the checkpoint alone.

    Args:
        checkpoint: A file that a fit has written.

    Raises:
        RunError: If it cannot be read, or was not written by visionforge.
    """
    content, settings = _read_whole(checkpoint)

    from visionforge.training.classifier import ImageClassifier

    return _restored(lambda: ImageClassifier(**{**settings, "restoring": True}), content, checkpoint)


def load_network(checkpoint: Path) -> "TrainedNetwork":
    """Return what predicts in the module of a checkpoint, without Lightning; see `load_classifier`."""
    content, settings = _read_whole(checkpoint)

    from visionforge.training.trained_network import TrainedNetwork

    spec, sections = settings.pop("spec"), {key: value for key, value in settings.items() if key != "restoring"}
    return _restored(lambda: TrainedNetwork(spec, sections), content, checkpoint)


def _read_whole(checkpoint: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the content of a checkpoint, and the settings of its module."""
    content = read_checkpoint(checkpoint)
    settings = content.get("hyper_parameters")
    if not isinstance(settings, dict) or not settings.get("spec"):
        raise RunError(f"{checkpoint}: was not written by visionforge: it does not say what it was trained on")
    return content, {name: value for name, value in settings.items() if name not in ("members", "inputs", "heads")}


def _restored(make: Callable[[], Network], content: Mapping[str, Any], checkpoint: Path) -> Network:
    try:
        model = make()
    except VisionForgeError as error:
        raise RunError([f"{checkpoint}: {problem}" for problem in error.problems]) from error
    except TypeError as error:  # of another version, which has other settings
        reason = " ".join(str(error).split())[:160]
        raise RunError(f"{checkpoint}: does not fit this version of visionforge ({reason})") from error
    restore(model, content, checkpoint)
    assert model.spec is not None
    model.spec = _with_positive(model.spec)
    return model.eval()


def _with_positive(spec: TaskSpec) -> TaskSpec:
    """Return a task with the positive class that evaluations take: the catalog's, where an old checkpoint has none."""
    if not spec.kind.has_positive or spec.positive is not None:
        return spec
    try:
        info = dataset_info(spec.dataset)
    except VisionForgeError:  # it was trained elsewhere
        return spec
    if info.positive is None or info.classes != spec.classes:
        return spec
    return spec.model_copy(update={"positive": spec.classes.index(info.positive)})
