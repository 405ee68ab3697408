"""The making of a probe: features, candidates, a checkpoint of the network with the best one on top, and its test."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor

from visionforge.config.resizing import network_resolution
from visionforge.data.info import Split, TaskSpec
from visionforge.engine.construction import Construction
from visionforge.engine.embedding import split_features
from visionforge.engine.feature_cache import features_folder
from visionforge.engine.frozen import require_weights
from visionforge.engine.probe import SETTING
from visionforge.engine.provenance import describe_data, describe_session, warn_of_leaks
from visionforge.engine.resume import outputs_of, parent_of
from visionforge.engine.stage import Stage
from visionforge.errors import SettingsError
from visionforge.inference.embedding import require_features
from visionforge.inference.loading import load_classifier
from visionforge.models.registry import backbone_entry
from visionforge.models.weights import pretrained_state
from visionforge.printable import csv_text
from visionforge.runs.files import write_atomic
from visionforge.runs.logfile import RunLog
from visionforge.runs.paths import shown
from visionforge.runs.query import find_checkpoint
from visionforge.runs.session import PROBE, ActiveRun
from visionforge.runs.signals import Interruption
from visionforge.runs.workspace import Workspace
from visionforge.training.checkpoints import BEST, WholeFiles, keep_calibration
from visionforge.training.classifier import ImageClassifier
from visionforge.training.monitor import Monitor, monitor_for, monitor_named, undefined_metric
from visionforge.training.probes.choice import Choice, choose, fit_values, logits_of
from visionforge.training.probes.features import Array, Labelled

log = logging.getLogger(__name__)


class Probing(Stage):
    """A probe.

    Args:
        construction: The resolved configuration.
        run_log: Takes the log file once the run folder exists.
        interruption: Handles the signals.
        parent: What the run comes from.
    """

    name = PROBE

    def __init__(
        self,
        construction: Construction,
        run_log: RunLog,
        interruption: Interruption,
        parent: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(construction, run_log, interruption)
        self.parent = parent or {}
        self._probe = self.settings.probe

    def check_sources(self) -> None:
        """Download and verify the archive and pretrained weights, before anything is made."""
        super().check_sources()
        backbone = self.settings.model.backbone
        if self._probe.network is None:
            data = self.settings.data
            resolution = network_resolution(data.resize, data.resolution)
            pretrained_state(backbone_entry(backbone.name), backbone.weights, resolution)

    def take_workspace(self) -> Workspace:
        """Return a new run folder."""
        parent = self.parent or parent_of(self.settings)
        if self._probe.network is not None and not self.parent:
            checkpoint = find_checkpoint(self._probe.network, SETTING)
            parent = {"run": checkpoint.parent.parent.resolve().name, "reason": "features"}
        self.active = ActiveRun.create(
            outputs_of(self.settings),
            self.construction.resolved,
            self.construction.hash,
            stage=PROBE,
            parent=parent,
            past_interrupted=True,
        )
        return self.active.workspace

    def build(self) -> None:
        """Write the log into the folder from now on, and into the manifest what is read; then build."""
        assert self.active is not None
        self.run_log.attach(self.workspace.log)
        describe_data(self.active, self.info, self.settings.data)
        warn_of_leaks(self.active, self.info, self.settings.data)
        super().build()

    def work(self) -> None:
        """Fit the classifier, write the network with it, and test that."""
        assert self.active is not None
        log.info("run folder %s", shown(self.workspace.path))
        describe_session(self.active, self.trainer, None)
        self.introduce(self.workspace.path.name)
        self._prepare_network()
        train, val = self._features("train"), self._features("val")
        if self._probe.augmented_views:
            train = train.with_more(self._augmented(train))
        monitor = self._choose_monitor()
        model = self.model
        choice = choose(self._probe, train, val, model.spec, model.criterion, monitor)
        self._tell(choice, monitor)
        model.take_head(choice.head)
        probabilities = model.criterion.probabilities(logits_of(choice.head, val.values))
        model.thresholds = model.spec.kind.thresholds(probabilities, self.datamodule.dataset_for("val").labels)
        if self._probe.refit:
            model.take_head(fit_values(self._probe, choice.values, train.with_more(val)))
        checkpoint = self.workspace.checkpoints / BEST
        self._save(checkpoint)
        self.write_transfer()
        self.restore(checkpoint)
        self.evaluate("test", checkpoint, None, self.workspace)

    # --- the network

    def _prepare_network(self) -> None:
        """Build the network with pretrained weights, or those of a trained one, in front of its last layer."""
        model, network = self.model, self._probe.network
        model.bind(self.datamodule.spec)
        name = self.settings.model.backbone.name
        if network is None:
            model.configure_model()
            require_features(model, PROBE, name)
            require_weights(model, name)
        else:
            model.restoring = True  # no published weights are read
            model.configure_model()
            source = load_classifier(find_checkpoint(network, SETTING))
            _take_weights(model, source, network)
            constants = {name: getattr(source.spec, name) for name in ("mean", "std")}  # that it was trained with
            model.spec = model.spec.model_copy(update=constants)
        model.to(self.trainer.strategy.root_device).eval()

    def _save(self, checkpoint: Path) -> None:
        model = self.model
        model.trainer = self.trainer
        state = {name: tensor.cpu() for name, tensor in model.state_dict().items()}
        content = {"pytorch-lightning_version": lightning.__version__, "state_dict": state}
        model.on_save_checkpoint(content)
        WholeFiles().save_checkpoint(content, checkpoint)

    def _calibrate(self, checkpoint: Path) -> None:
        """Fit a temperature on the validation split, unless the classifier has learnt it."""
        if self._probe.refit:
            return
        super()._calibrate(checkpoint)
        if self.model.calibration is not None:
            keep_calibration(checkpoint, self.model.calibration, self.model.thresholds, self.model.outliers)

    # --- what is fitted

    def _features(self, split: Split) -> Labelled:
        found = split_features(self.model, self.datamodule, split, cache=features_folder())
        return self._labelled(found.values, found.labels)

    def _labelled(self, values: Array, labels: Array) -> Labelled:
        spec, chosen = self.model.spec, self._probe.class_weights
        balanced = chosen == "balanced" or (chosen == "auto" and self.settings.data.balances)
        return Labelled.of(values, labels, len(spec.classes), spec.task, balanced, self.settings.seed_everything)

    def _augmented(self, train: Labelled) -> Labelled:
        """Return the features of augmented training images, with the random numbers of as many epochs."""
        dataset, size, values = self.datamodule.dataset_for("train"), self.datamodule.batch_size, []
        device = self.trainer.strategy.root_device
        for view in range(self._probe.augmented_views):
            for step, start in enumerate(range(0, len(dataset), size)):
                places = list(range(start, min(len(dataset), start + size)))
                images = self.datamodule.augment(dataset.__getitems__(places)[0].to(device), view, step)
                values.append(self.model.features(_renormalised(images, self.datamodule.spec, self.model.spec)).cpu())
        return self._labelled(torch.cat(values).numpy(), np.concatenate([train.labels] * self._probe.augmented_views))

    def _choose_monitor(self) -> Monitor:
        """Return what candidates are compared by, which has to be defined on the validation split.

        Raises:
            SettingsError: If a setting goes by a metric that is undefined.
        """
        spec, labels = self.datamodule.spec, np.asarray(self.datamodule.source.labels("val"))
        monitor, reason = monitor_for(labels, spec)
        if (chosen := self.settings.model.monitor) is not None:
            if (told := undefined_metric(chosen, labels, spec)) is not None:
                raise SettingsError(
                    f"model.monitor: {chosen} is undefined on the validation split, because {told}; set it to val/loss"
                )
            monitor = monitor_named(chosen)
        elif reason is not None:
            log.warning("candidates are compared by %s, because in the validation split %s", monitor.name, reason)
        self.model.monitor = monitor
        return monitor

    def _tell(self, choice: Choice, monitor: Monitor) -> None:
        """Write the table of candidates, and say which was chosen."""
        write_atomic(self.workspace.candidates, _as_csv(choice.rows))
        told = ", ".join(f"{name} {value}" for name, value in choice.values.items())
        best = next(row for row in choice.rows if row["chosen"])
        log.info(
            "%s: %s, %s %.4f, the best of %d candidates",
            self._probe.classifier,
            told,
            monitor.name,
            best[monitor.name],
            len(choice.rows),
        )
        self.provenance = {
            "probe": {"classifier": self._probe.classifier, **choice.values, "candidates": len(choice.rows)}
        }


def _take_weights(model: ImageClassifier, source: ImageClassifier, name: str) -> None:
    """Give a network the tensors of a trained one, all but those of the last layer.

    Raises:
        SettingsError: If it has other tensors, or no features.
    """
    require_features(source, PROBE, name)
    require_features(model, PROBE, model.settings.backbone.name)
    assert model.network is not None
    assert source.network is not None
    own, head = model.network.state_dict(), f"{model.last_layer_name}."
    theirs = source.network.state_dict()
    state = {key: theirs.get(key) for key in own if not key.startswith(head)}
    wrong = [key for key, value in state.items() if value is None or value.shape != own[key].shape]
    if wrong:
        raise SettingsError(
            f"{SETTING}: {name} has other tensors than {model.settings.backbone.name} for these images "
            f"({wrong[0]}); leave model.backbone and data.force_rgb as the run has them"
        )
    model.network.load_state_dict(state, strict=False)


def _renormalised(images: Tensor, data: TaskSpec, network: TaskSpec) -> Tensor:
    """Return images (N, C, R, R[, R]) of the constants of a data set with those of a network."""
    if (data.mean, data.std) == (network.mean, network.std):
        return images
    of = [images.new_tensor(each).view(-1, *[1] * data.spatial_dims) for each in (data.std, data.mean)]
    to = [images.new_tensor(each).view(-1, *[1] * data.spatial_dims) for each in (network.std, network.mean)]
    return (images * of[0] + of[1] - to[1]) / to[0]


def _as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    names = list(rows[0])
    cells = ([row[name] for name in names] for row in rows)
    return csv_text([names, *([f"{cell:.6g}" if isinstance(cell, float) else cell for cell in each] for each in cells)])
