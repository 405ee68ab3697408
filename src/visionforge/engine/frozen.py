"""A network that is not trained any further, and the images that it is asked about: of a run, or pretrained."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from visionforge.config.loading import RawConfig
from visionforge.config.schema import RunSettings
from visionforge.config.schema.base import fields_of
from visionforge.engine.evaluate import target_of
from visionforge.engine.validation import check_arguments
from visionforge.errors import WeightsError
from visionforge.inference.loading import Target, device_of, load_classifier

if TYPE_CHECKING:
    from visionforge.data.datamodule import ImageDataModule
    from visionforge.training.classifier import ImageClassifier

_COUNTERS = ("num_batches_tracked",)  # of batch normalisation, which nothing is computed with in evaluation mode


@dataclass(frozen=True, eq=False)
class Frozen:
    """A network in evaluation mode, on its device, and its images.

    Attributes:
        model: The network.
        datamodule: The images, not prepared yet.
        settings: The settings: of the run, or those that were given.
        sources: Dotted path → where each setting was written.
        target: The run or checkpoint that the network is of; None for a pretrained one.
        name: What people call the network: run, checkpoint file, or backbone with the source of its weights.
    """

    model: "ImageClassifier"
    datamodule: "ImageDataModule"
    settings: RunSettings
    sources: Mapping[str, str]
    target: Target | None
    name: str


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
    target: Target | None = None
    settings: RunSettings
    sources: Mapping[str, str]
    if raw.values.get("run") is None and raw.values.get("ckpt_path") is None:
        given = raw.copy()
        for name in ("run", "ckpt_path"):
            given.values.pop(name, None)
        settings, sources = check_arguments(given, "embed"), given.sources
    else:
        target, settings, sources = target_of(raw, stage, "features")

    from visionforge.data.datamodule import ImageDataModule  # seconds
    from visionforge.inference.embedding import require_features

    seed = settings.seed_everything
    datamodule = ImageDataModule(**fields_of(settings.data), seed=seed)
    if target is None:
        model = _pretrained(settings, datamodule)
        assert model.transfer is not None
        name = f"{settings.model.backbone.name} ({model.transfer.source})"
    else:
        model = load_classifier(target.checkpoint)
        model.bind(datamodule.spec)
        name = target.checkpoint.name if target.run is None else target.run.path.name
    require_features(model, stage, name)
    if target is None:
        require_weights(model, name)
    device = device_of(settings.trainer.accelerator)
    return Frozen(model.to(device).eval().requires_grad_(False), datamodule, settings, sources, target, name)


def _pretrained(settings: RunSettings, datamodule: "ImageDataModule") -> "ImageClassifier":
    from visionforge.training.classifier import ImageClassifier

    model = ImageClassifier(**fields_of(settings.model), seed=settings.seed_everything)
    model.bind(datamodule.spec)
    model.configure_model()
    return model


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
