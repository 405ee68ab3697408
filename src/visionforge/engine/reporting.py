"""From an evaluated split to the files that tell of it."""

import inspect
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import numpy.typing as npt
import torch

from visionforge.config.schema import EvaluationSettings, RunSettings
from visionforge.data.datamodule import ImageDataModule
from visionforge.data.info import DatasetInfo, Split
from visionforge.data.registry import is_builtin
from visionforge.engine.validation import TRAINER_DEFAULTS
from visionforge.errors import RunError
from visionforge.evaluation.embedding_map import Embedded, Features, Method
from visionforge.evaluation.evaluation import Partial
from visionforge.evaluation.explain import explain, explanation_method, overlay
from visionforge.evaluation.predictions import write_medmnist_scores
from visionforge.evaluation.subgrouping import with_subgroups
from visionforge.reading import read_rows
from visionforge.redaction import redact_settings
from visionforge.reporting.context import ReportContext
from visionforge.reporting.results import write_results
from visionforge.runs.manifest import read_manifest
from visionforge.runs.workspace import MAX_EPOCHS_BYTES, Workspace
from visionforge.scoring.clusters import Clusters
from visionforge.training.classifier import ImageClassifier
from visionforge.training.epoch_log import read_epochs
from visionforge.training.kept_features import KeptFeatures
from visionforge.training.outliers import TRAINING_IMAGES

log = logging.getLogger(__name__)

METHODS = {
    "grad-cam": "Grad-CAM (Selvaraju et al., 2017) of the predicted class: the brighter, the more it speaks for it.",
    "attention-rollout": "Attention rollout (Abnar and Zuidema, 2020): the brighter, the more attention it got.",
}


def write_outcome(
    workspace: Workspace,
    run: Workspace | None,
    model: ImageClassifier,
    data: ImageDataModule,
    split: Split,
    settings: EvaluationSettings,
    config: Mapping[str, Any],
    provenance: Mapping[str, Any],
    partial: Partial | None = None,
    embedding: Embedded | None = None,
) -> dict[str, Any]:
    """Write everything about the split that a model was just evaluated on; return the content of `metrics.json`.

    Args:
        workspace: Where the files go.
        run: The run that the model comes from; None for a checkpoint that lies in none.
        model: The model, with its predictions.
        data: The data.
        split: The evaluated split.
        settings: What is reported.
        config: The resolved configuration.
        provenance: Facts for `metrics.json`: backbone, checkpoint, epoch, digest of the data.
        partial: How much of the split was evaluated: its first images; None is all of it.
        embedding: Features of its images; None draws no map.
    """
    assert model.predictions is not None
    assert model.spec is not None
    side = data.side_table(split)
    groups = side.whole_groups if data.settings.groups else None
    grouped = {}  # tasks of other packages may not know of groups
    if groups is not None:
        grouped = {"clusters": Clusters(groups[: len(model.predictions.labels)])}
    evaluation = model.spec.kind.evaluate(model.predictions, model.spec, split, settings, partial, **grouped)
    folds = getattr(model.predictions, "folds", None)  # masks and boxes have none
    evaluation = with_subgroups(evaluation, side, grouped.get("clusters"), None if folds is None else folds.numpy())
    epoch = provenance.get("epoch")
    facts = {
        "": data.info.title,
        "at": evaluation.spec.resized_text,
        "backbone": str(provenance["backbone"]),
        "split": f"{split}, {partial or f'{len(evaluation.labels):,} images'}",
        "checkpoint": f"{provenance['checkpoint']}" + (f", epoch {epoch}" if epoch else ""),
    }
    manifest = None
    if run is not None and run.manifest.is_file():
        manifest = read_manifest(run.manifest)
    background = ReportContext(
        title=(run or workspace).path.name,
        facts=facts,
        config=redact_settings(config),
        defaults=default_settings(),
        manifest=manifest,
        epochs=read_epochs((run or workspace).epochs),
        side=side,
        candidates=read_candidates((run or workspace).candidates),
        embedding=embedding,
    )

    def explainer(images: npt.NDArray[Any]) -> tuple[list[npt.NDArray[Any]], str]:
        return overlays(model, images)

    content = write_results(workspace, evaluation, data.dataset_for(split), provenance, background, explainer)
    if has_medmnist_evaluator(data.info):
        write_medmnist_scores(workspace.predictions, evaluation.spec, split, workspace.summary.parent)
    return content


def read_candidates(path: Path) -> list[dict[str, str]]:
    """Return the rows of a probe's table of candidates; none if there is no such file.

    Raises:
        RunError: If it is no table of them.
    """
    if not path.is_file():
        return []
    try:
        heading, *rows = list(read_rows(path, MAX_EPOCHS_BYTES)) or [[]]
        found = [dict(zip(heading, row, strict=True)) for row in rows]
        if "chosen" not in heading:
            raise ValueError("it does not say which was chosen")
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be read as the table of candidates ({error})") from error
    return found


def embedded(
    model: ImageClassifier, data: ImageDataModule, split: Split, kept: KeptFeatures, method: Method, ranks: int
) -> Embedded | None:
    """Return the features of a split that was gone through, and those of images to compare them with.

    That are training images, where the network has looked at some for the score of images that are far out; else the
    images of the split.

    Args:
        model: The network, with its predictions.
        data: The data.
        split: The split.
        kept: Features of some of its images.
        method: How they are brought to two dimensions.
        ranks: Number of processes.
    """
    positions, values = (each.numpy() for each in kept.gather(ranks))
    count = len(model.predictions.labels)
    inside = positions < count
    if not inside.any() or not np.isfinite(values).all():
        return None
    found = Features(split, values[inside], positions[inside], data.dataset_for(split))
    reference, known = found, model.training_features
    if known is not None and len(places := data.plain_positions(TRAINING_IMAGES)) == len(known):
        reference = Features("train", known.numpy(), places, data.dataset_for("train"))

    def embed(images: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return model.features(torch.from_numpy(np.ascontiguousarray(images))).cpu().numpy()

    return Embedded(found, count, reference, method, embed)


def default_settings() -> dict[str, Any]:
    """Return what a configuration is where nothing is set, the Trainer's own flags among it."""
    parameters = inspect.signature(pl.Trainer.__init__).parameters
    flags = {name: item.default for name, item in parameters.items() if item.kind is item.KEYWORD_ONLY}
    settings = RunSettings().model_dump(mode="json", exclude={"tune", "benchmark"})
    return {**settings, "trainer": {**flags, **TRAINER_DEFAULTS, **settings["trainer"]}}


def has_medmnist_evaluator(info: DatasetInfo) -> bool:
    """Return whether MedMNIST's evaluator knows a data set."""
    return info.source == "archive" and is_builtin(info.name)


def overlays(model: ImageClassifier, images: npt.NDArray[Any]) -> tuple[list[npt.NDArray[Any]], str]:
    """Return images (N, C, H, W) uint8 with what the network looked at on top, and how that was found out.

    A backbone that neither method fits gives no overlays, with a line in the log.
    """
    try:
        method = METHODS[explanation_method(model)]
        maps = explain(model, torch.from_numpy(np.ascontiguousarray(images)).to(model.device))
    except RunError as error:
        log.info("no explanations: %s", error)
        return [], ""
    return [overlay(image, heat) for image, heat in zip(images, maps.numpy(), strict=True)], method
