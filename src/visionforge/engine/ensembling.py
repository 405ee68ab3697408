"""Trained networks joined into one: its checkpoint, its test, and what each says of the fold that it has not learnt."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from visionforge.config.schema import EvaluationSettings, ModelSettings, Resize
from visionforge.config.schema.base import fields_of
from visionforge.data.datamodule import ImageDataModule
from visionforge.data.info import Split, TaskSpec
from visionforge.distribution import written_by
from visionforge.engine.construction import Construction
from visionforge.engine.reporting import default_settings
from visionforge.engine.resume import outputs_of
from visionforge.engine.run import Run
from visionforge.engine.stage import Stage
from visionforge.errors import RunError, SettingsError
from visionforge.evaluation.out_of_fold import FILE, NAME, HeldOut, OutOfFold
from visionforge.evaluation.subgrouping import with_subgroups
from visionforge.inference.loading import Target, load_classifier, read_checkpoint
from visionforge.redaction import redact_settings
from visionforge.reporting.context import ReportContext
from visionforge.reporting.results import write_results
from visionforge.runs.files import write_atomic
from visionforge.runs.logfile import RunLog
from visionforge.runs.manifest import read_manifest
from visionforge.runs.paths import shown
from visionforge.runs.query import read_metrics
from visionforge.runs.session import ENSEMBLE, ActiveRun
from visionforge.runs.signals import Interruption
from visionforge.runs.workspace import Workspace
from visionforge.scoring.clusters import Clusters
from visionforge.training.checkpoints import BEST, WholeFiles, keep_calibration
from visionforge.training.compatibility import differences
from visionforge.training.ensemble import MemberInput

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Member:
    """A network of an ensemble.

    Attributes:
        run: Its run.
        target: Its best checkpoint.
        fold: The fold that it has not learnt; None if there are no folds.
    """

    run: Run
    target: Target
    fold: int | None


class Ensembling(Stage):
    """The making of an ensemble.

    Args:
        construction: The resolved configuration, which is that of the first network.
        run_log: Takes the log lines.
        interruption: Handles the signals.
        members: The networks.
        digest: What identifies them together.
    """

    name = ENSEMBLE

    def __init__(
        self,
        construction: Construction,
        run_log: RunLog,
        interruption: Interruption,
        members: Sequence[Member],
        digest: str,
    ) -> None:
        super().__init__(construction, run_log, interruption)
        self._members = members
        self._digest = digest
        self._data = construction.settings.data
        self._folds = self._data.folds
        self.provenance = {"members": [member.run.name for member in members]}

    def take_workspace(self) -> Workspace:
        """Return a new run folder."""
        config = self.construction.resolved
        if self._folds is not None:
            config = {**config, "data": {**config["data"], "fold": None}}
        self._config = config
        runs = [{"run": member.run.name, "hash": member.run.hash, "fold": member.fold} for member in self._members]
        self.active = ActiveRun.create(
            outputs_of(self.settings),
            config,
            self._digest,
            stage=ENSEMBLE,
            parent={"reason": ENSEMBLE, "runs": runs},
            past_interrupted=True,
        )
        self.run_log.attach(self.active.workspace.log)
        return self.active.workspace

    def work(self) -> None:
        """Join the networks, ask each about its own fold, and test them together."""
        checkpoint = self.workspace.checkpoints / BEST
        WholeFiles().save_checkpoint(joined_checkpoint(self._members), checkpoint)
        log.info("%d networks: %s", len(self._members), shown(checkpoint))
        folds = None if self._folds is None else self._held_out()
        if self._data.fold_pool != "all":
            self.restore(checkpoint)
            self.evaluate("test", checkpoint, None, self.workspace)
        if folds is not None and self.workspace.metrics.is_file():
            content = {**read_metrics(self.workspace.metrics), "folds": folds}
            write_atomic(self.workspace.metrics, json.dumps(content, indent=2) + "\n")

    def _calibrate(self, checkpoint: Any) -> None:
        """Fit a temperature on the validation split, unless it is one that members have learnt."""
        if self._folds is not None:
            return
        super()._calibrate(checkpoint)
        if self.model.calibration is not None:
            keep_calibration(checkpoint, self.model.calibration, self.model.thresholds)

    # --- folds

    def _held_out(self) -> dict[str, Any] | None:
        """Ask each network about its own fold, and write what they say; None for a task without probabilities."""
        module = self.datamodule
        if not module.spec.kind.calibrates:
            log.info("%s: predictions of folds are kept in their own runs", module.spec.task)
            return None
        pool, origins = module.source.pool(module.dataset_for("train").in_memory)
        place = {origin: position for position, origin in enumerate(origins)}
        parts = [self._ask(member, place) for member in self._members]
        found = OutOfFold(parts, module.spec)
        side = module.source.pool_table()
        found.write(self.workspace.path / FILE, origins, side)
        folds = {
            "folds": self._folds,
            "repeats": self._data.fold_repeats,
            "pool": self._data.fold_pool,
            "runs": [part.run for part in parts],
            "metrics": found.by_fold(),
        }
        groups = side.whole_groups if self._data.groups else None
        clusters = None if groups is None else Clusters(groups)
        evaluation = module.spec.kind.evaluate(
            found.predictions, module.spec, NAME, self.settings.evaluation, None, clusters
        )
        answered = found.predictions.folds
        evaluation = with_subgroups(evaluation, side, clusters, None if answered is None else answered.numpy())
        whole = self._data.fold_pool == "all"
        workspace = self.workspace if whole else Workspace(self.workspace.within("evaluations", "out_of_fold"))
        workspace.path.mkdir(parents=True, exist_ok=True)
        background = ReportContext(
            title=self.workspace.path.name,
            facts={
                "": module.info.title,
                "at": module.spec.resized_text,
                "backbone": self.settings.model.backbone.name,
                "split": f"{self._folds} folds, {len(origins):,} images, each predicted by a network that has not "
                "learnt it",
            },
            config=redact_settings(self._config),
            defaults=default_settings(),
            manifest=read_manifest(self.workspace.manifest),
            side=side,
        )
        provenance = {**self.provenance, "backbone": self.settings.model.backbone.name, "checkpoint": BEST}
        content = write_results(workspace, evaluation, pool, {**provenance, "folds": folds}, background)
        log.info("out-of-fold predictions of %s images: %s", f"{content['images']:,}", shown(workspace.path))
        return {**folds, "out_of_fold": {name: content.get(name) for name in ("without_tta", "with_tta", "intervals")}}

    def _ask(self, member: Member, place: Mapping[tuple[Any, int], int]) -> HeldOut:
        """Return what a network says of its own fold."""
        module = ImageDataModule(**{**fields_of(self._data), "fold": member.fold}, seed=self.settings.seed_everything)
        split: Split = "test" if self._data.fold_pool == "all" else "val"
        model = load_classifier(member.target.checkpoint)
        model.evaluation = EvaluationSettings(conformal="none", ood="none")  # its probabilities are all that is asked
        asked = self.trainer.test if split == "test" else self.trainer.validate
        asked(model, datamodule=module, verbose=False)
        origins = module.source.origins(split)
        said = model.predictions
        if said is None or len(said.labels) != len(origins):
            raise RunError(f"trainer.limit_{split}_batches: leaves images of fold {member.fold} out; leave it out")
        assert member.fold is not None
        places = np.array([place[origin] for origin in origins], dtype=np.int64)
        return HeldOut(member.run.name, member.fold, places, said.probabilities, said.probabilities_tta, said.labels)


def joined_checkpoint(members: Sequence[Member]) -> dict[str, Any]:
    """Return the content of a checkpoint that holds all networks.

    The thresholds of labels are the means of theirs.
    """
    contents = [read_checkpoint(member.target.checkpoint) for member in members]
    specs = [_spec_of(content, member) for content, member in zip(contents, members, strict=True)]
    for member, spec in zip(members, specs, strict=True):
        if problems := differences(spec, specs[0]):
            raise SettingsError([f"ensemble: {member.run.name}: {problem}" for problem in problems])
    first, state = contents[0], {}
    for place, content in enumerate(contents):
        for name, tensor in content["state_dict"].items():
            state[_renamed(name, place)] = tensor
    stored = dict(first["hyper_parameters"])
    heads = [(content["hyper_parameters"].get("heads") or [None])[0] for content in contents]
    stored["heads"] = heads if any(heads) else None
    inputs = [MemberInput.of(spec) for spec in specs]
    if any(each != inputs[0] for each in inputs):
        stored["inputs"] = [each.model_dump(mode="json") for each in inputs]
    if any(each.resize != inputs[0].resize for each in inputs):  # each network resizes by itself
        stored["spec"] = {**stored["spec"], "resize": Resize().model_dump(mode="json")}
    thresholds = [content["thresholds"] for content in contents if content.get("thresholds") is not None]
    return {
        "visionforge": written_by(),
        "pytorch-lightning_version": first.get("pytorch-lightning_version"),
        "state_dict": state,
        "hyper_parameters": {**stored, "restoring": True, "members": [_settings_of(content) for content in contents]},
        "thresholds": _mean(thresholds) if len(thresholds) == len(contents) else None,
        "calibration": None,
        "monitor": first.get("monitor"),
    }


def _spec_of(content: Mapping[str, Any], member: Member) -> TaskSpec:
    try:
        return TaskSpec.model_validate(content["hyper_parameters"]["spec"])
    except (ValidationError, KeyError, TypeError) as error:
        where = shown(member.target.checkpoint)
        raise RunError(f"{where}: was not written by visionforge: it does not say what it was trained on") from error


def _renamed(name: str, place: int) -> str:
    """Return what a tensor of a network is called in an ensemble."""
    part, _, rest = name.partition(".")
    return f"network.{'members' if part == 'network' else 'cumulatives'}.{place}.{rest}"


def _settings_of(content: Mapping[str, Any]) -> dict[str, Any]:
    stored = content["hyper_parameters"]
    return {name: stored[name] for name in ModelSettings.model_fields if name in stored}


def _mean(given: Sequence[Sequence[float]]) -> list[float]:
    found: Tensor = torch.tensor(given, dtype=torch.float64).mean(dim=0)
    return [float(value) for value in found]
