"""A network that is not trained any further, and the images that it is asked about: of a run, or pretrained."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from visionforge.config.loading import RawConfig
from visionforge.config.schema import RunSettings
from visionforge.config.schema.base import fields_of
from visionforge.engine.evaluate import target_of
from visionforge.engine.validation import check_arguments
from visionforge.errors import SettingsError, WeightsError
from visionforge.inference.loading import Target, device_of, find_target, load_classifier, read_checkpoint, restore

if TYPE_CHECKING:
    from visionforge.data.datamodule import ImageDataModule
    from visionforge.training.classifier import ImageClassifier

_COUNTERS = ("num_batches_tracked",)  # of batch normalisation, which nothing is computed with in evaluation mode
_OF_PICTURES = ("trainer.accelerator", "log_level", "imports")  # settings that a trained network leaves open


@dataclass(frozen=True, eq=False)
class FrozenNetwork:
    """A network in evaluation mode, on its device.

    Attributes:
        model: The network, which has features of whole images.
        target: The run or checkpoint that it is of; None for a pretrained one.
        name: What people call it: run, checkpoint file, or backbone with the source of its weights.
    """

    model: "ImageClassifier"
    target: Target | None
    name: str


@dataclass(frozen=True, eq=False)
class Frozen(FrozenNetwork):
    """A network in evaluation mode, on its device, and its images.

    Attributes:
        datamodule: The images, not prepared yet.
        settings: The settings: of the run, or those that were given.
        sources: Dotted path → where each setting was written.
    """

    datamodule: "ImageDataModule"
    settings: RunSettings
    sources: Mapping[str, str]


def frozen_network(raw: RawConfig, stage: str = "embed") -> Frozen:
    """Return the network that settings name, and its images.

    Args:
        raw: The settings as they were given. With `run` or `ckpt_path` they change those of a training, such as
            `data.dataset`; else `model.backbone` names a network with its weights, and `data` the images.
        stage: The command, for messages.

    Raises:
        SettingsError: If a setting is not allowed, the weights would be random, or the network labels no whole images.
        VisionForgeError: If run, checkpoint or weights cannot be used.
    """
    target, settings, sources = frozen_settings(raw, stage)

    from visionforge.data.datamodule import ImageDataModule  # seconds
    from visionforge.training.classifier import ImageClassifier

    seed = settings.seed_everything
    datamodule = ImageDataModule(**fields_of(settings.data), seed=seed)
    model = ImageClassifier(**fields_of(settings.model), seed=seed, restoring=target is not None)
    model.bind(datamodule.spec)
    if target is None:
        model.configure_model()
    else:
        restore(model, read_checkpoint(target.checkpoint), target.checkpoint)
    network = _ready(model, target, settings.trainer.accelerator, stage)
    return Frozen(network.model, network.target, network.name, datamodule, settings, sources)


def picture_network(raw: RawConfig, stage: str = "embed") -> FrozenNetwork:
    """Return the trained network that settings name, with the size and normalisation of its own images.

    The data set that it was trained on need not be known here.

    Args:
        raw: The settings as they were given, with `run` or `ckpt_path`.
        stage: The command, for messages.

    Raises:
        SettingsError: If a setting is given that the network brings itself, or it labels no whole images.
        VisionForgeError: If run or checkpoint cannot be used.
    """
    raw = raw.copy()
    target = find_target(stage, raw.values.pop("run", None), raw.values.pop("ckpt_path", None))
    for path in raw.sources:
        branch = any(other.startswith(f"{path}.") for other in raw.sources)
        if not branch and path not in (*_OF_PICTURES, "run", "ckpt_path"):
            raise SettingsError(
                f"{path}: is not used for pictures, which are scaled and normalised as the network was trained; leave "
                "it out"
            )
    settings = check_arguments(raw, "features")
    return _ready(load_classifier(target.checkpoint), target, settings.trainer.accelerator, stage)


def frozen_settings(raw: RawConfig, stage: str = "embed") -> tuple[Target | None, RunSettings, Mapping[str, str]]:
    """Return the trained network that settings name, or None, the complete settings, and where each was written.

    Args:
        raw: See `frozen_network`.
        stage: The command, for messages.

    Raises:
        VisionForgeError: For every mistake that the user can mend.
    """
    if names_network(raw):
        return target_of(raw, stage, "features")
    given = raw.copy()
    for name in ("run", "ckpt_path"):
        given.values.pop(name, None)
    return None, check_arguments(given, "embed"), given.sources


def names_network(raw: RawConfig) -> bool:
    """Return whether settings name a trained network."""
    return raw.values.get("run") is not None or raw.values.get("ckpt_path") is not None


def _ready(model: "ImageClassifier", target: Target | None, accelerator: str, stage: str) -> FrozenNetwork:
    """Return a network that has been built, in evaluation mode on its device.

    Raises:
        SettingsError: If it has no features of whole images.
        WeightsError: If they would be random.
    """
    from visionforge.inference.embedding import require_features

    if target is not None:
        name = target.checkpoint.name if target.run is None else target.run.path.name
    else:
        assert model.transfer is not None
        name = f"{model.settings.backbone.name} ({model.transfer.source})"
    require_features(model, stage, name)
    if target is None:
        require_weights(model, name)
    return FrozenNetwork(model.to(device_of(accelerator)).eval().requires_grad_(False), target, name)


def require_weights(model: "ImageClassifier", name: str) -> None:
    """Check that nothing in front of the features is random.

    Raises:
        WeightsError: If something is.
    """
    assert model.transfer is not None
    head = f"{model.last_layer_name}."
    new = [each for each in model.transfer.new if not each.startswith(head) and not each.endswith(_COUNTERS)]
    if new:
        shown = ", ".join(new[:3]) + (", …" if len(new) > 3 else "")
        raise WeightsError(
            f"model.backbone.weights: {name} lacks {len(new):,} tensors that the features are computed with ({shown}), "
            "so they would be random; name weights that have them"
        )
