"""Audit of the labels of a run of folds, or of a data set: written into a folder, for people to look at and correct."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from visionforge.config.loading import read_yaml
from visionforge.config.problems import nearest
from visionforge.config.schema import Synthetic
from visionforge.data.archive import SplitArrays
from visionforge.data.info import SPLITS, DatasetInfo, Split, TaskSpec
from visionforge.data.registry import dataset_info, dataset_names
from visionforge.data.side_table import SideTable
from visionforge.data.source import load_split, local_archive, offered_resolution, stored_side_table
from visionforge.engine.pixel_model import FOLDS, LEAST_FOLDS, MODEL, MOST_FOLDS, out_of_fold
from visionforge.errors import DataError, RunError, SettingsError, VisionForgeError
from visionforge.evaluation.class_names import unique_names
from visionforge.evaluation.fold_table import FoldTable, read_fold_table
from visionforge.evaluation.label_audit import LabelAudit, positions_of, suspect_columns
from visionforge.evaluation.out_of_fold import FILE
from visionforge.evaluation.prediction_table import headings_of, rows_of
from visionforge.evaluation.table_writers import open_table, read_table
from visionforge.inference.trust import evaluation_config
from visionforge.printable import LONGEST_LINE, printable
from visionforge.reading import UnreadableError
from visionforge.reporting.audit_page import audit_page
from visionforge.runs.files import refuse_links, write_atomic
from visionforge.runs.owned_files import Listed, OwnedFolder, described
from visionforge.runs.paths import shown
from visionforge.runs.query import find_run
from visionforge.runs.workspace import Workspace

if TYPE_CHECKING:
    import pandas as pd

CONTENT, TABLE, PAGE = "audit.json", "suspicious.csv", "audit.html"
MOST = 1000  # images of the page
USUAL: tuple[Split, ...] = ("train", "val")
_TEXTS = ("split", "name", "label", "suggested", "corrected")


class Audit:
    """An audit of labels, as it lies in a folder.

    Args:
        path: The folder.
        content: What `audit.json` says.
    """

    def __init__(self, path: Path, content: dict[str, Any]) -> None:
        self.path = path
        self.content = content

    @cached_property
    def suspicious(self) -> "pd.DataFrame":
        """The table `suspicious.csv`: a row per label that is likely to be wrong, the likeliest first.

        Raises:
            RunError: If it is no longer there, or cannot be read.
        """
        return read_table(self.path / TABLE, _TEXTS)

    def as_dict(self) -> dict[str, Any]:
        """Return the folder, and everything as `audit.json` has it."""
        return {"path": str(self.path), **self.content}

    def __repr__(self) -> str:
        """Return how many labels are suspicious, and where they are shown."""
        count = sum(self.content["images"].values())
        text = f"{self.content['suspicious']:,} of {count:,} labels are suspicious: {shown(self.path / PAGE)}"
        return printable(text, LONGEST_LINE)


@dataclass(frozen=True)
class _Subject:
    """What is audited: a data set, as a run or the catalog has it."""

    title: str
    info: DatasetInfo
    resolution: int
    root: str | None
    run: Workspace | None

    @property
    def spec(self) -> TaskSpec:
        return TaskSpec.of(self.info, self.resolution, False)


def audit(
    what: str,
    *,
    split: Sequence[str] = USUAL,
    folds: int | None = None,
    seed: int = 0,
    resolution: int | None = None,
    root: str | None = None,
    limit: int = 100,
    out: Path | None = None,
    overwrite: bool = False,
) -> Audit:
    """Find labels that are likely to be wrong, and estimate how many are.

    Args:
        what: A run of folds, by folder or name, whose out-of-fold predictions are taken; or a data set, on whose pixels
            a quick model is fitted.
        split: Splits that are audited; `all` is every one.
        folds: Of a data set: number of folds; None is 5.
        seed: Of a data set: seed of the folds; of both, of the intervals.
        resolution: Of a data set: height and width of the images; None is the smallest.
        root: Folder of the archives; None is as the run has it, or the usual one.
        limit: Most images of the page.
        out: The folder; None is `audit` in the evaluations of the run, or `audit_DATASET` in the working folder.
        overwrite: Replace what an earlier call wrote there.

    Raises:
        SettingsError: If an argument is not allowed, or a file would be lost.
        VisionForgeError: If run or data set cannot be used.
    """
    wanted = _wanted(split)
    if not 1 <= limit <= MOST:
        raise SettingsError(f"limit: {limit} is not allowed; allowed: 1 to {MOST}")
    if folds is not None and not LEAST_FOLDS <= folds <= MOST_FOLDS:
        raise SettingsError(f"folds: {folds} is not allowed; allowed: {LEAST_FOLDS} to {MOST_FOLDS}")
    if not 0 <= seed < 1 << 32:
        raise SettingsError(f"seed: {seed} is not allowed; allowed: 0 to {(1 << 32) - 1}")
    subject = _subject(what, resolution, root)
    if subject.run is not None and (folds is not None or resolution is not None):
        name = "folds" if folds is not None else "resolution"
        raise SettingsError(f"{name}: is for a data set; {what} is a run, which has its own: leave it out")
    if not {"classes", "labels"} & set(subject.spec.kind.forms):
        raise SettingsError(f"audit: is for classes and labels of images; {subject.info.name} is {subject.spec.task}")
    folder = out or (
        Path(f"audit_{subject.info.name}") if subject.run is None else subject.run.path / "evaluations" / "audit"
    )
    owned = OwnedFolder(folder, CONTENT, _listed, rf"{re.escape(TABLE)}|{re.escape(PAGE)}")
    owned.require([TABLE, PAGE], overwrite)
    notes = [
        "An estimate counts as wrong also what the model cannot learn: the weaker the model, the more so. Intervals "
        "(95 %) say how much it depends on which images there are, not on the model."
    ]
    if subject.run is None:
        parts = {name: _part(subject, name) for name in wanted}
        model = MODEL
        table = out_of_fold(subject.spec, parts, folds or FOLDS, seed)
        arrays = {name: part for name, (part, _) in parts.items()}
    else:
        model = f"networks of {subject.run.path.name}"
        table = _of_run(subject, subject.run, wanted, explicit=tuple(split) != USUAL)
        arrays, note = _arrays_of_run(subject, table)
        notes += note
    found = LabelAudit(table, subject.spec.kind, seed=seed)
    if found.unjudged:
        notes.append(f"Too few images to judge their labels: {', '.join(found.unjudged[:20])}.")
    content = {"dataset": subject.info.name, "resolution": subject.resolution, "task": subject.spec.task}
    content |= {"model": model, "accuracy": _accuracy(table, subject.spec), **found.as_dict()}
    suspects = found.suspects
    pictures = [(each, _pixels(arrays[each.split], each.index, subject.spec)) for each in suspects[:limit] if arrays]
    facts = [subject.info.title, f"{subject.resolution} pixels", ", ".join(table.present), model]
    facts.append(f"it agrees with {content['accuracy']:.1%} of the labels")
    with owned.writing(overwrite) as staged:
        columns = suspect_columns(suspects)
        with open_table(staged / TABLE, headings_of(columns)) as writer:
            writer.write(rows_of(columns))
        write_atomic(staged / PAGE, audit_page(f"Labels of {subject.title}", facts, notes, found, pictures))
        content["files"] = [described(staged / name) for name in (TABLE, PAGE)]
        write_atomic(staged / CONTENT, json.dumps(content, indent=2, allow_nan=False) + "\n")
    return Audit(folder, content)


def _wanted(split: Sequence[str]) -> tuple[Split, ...]:
    unknown = [name for name in split if name not in (*SPLITS, "all")]
    if unknown or not split:
        raise SettingsError(f"split: {', '.join(unknown) or 'none'} is not allowed; allowed: {', '.join(SPLITS)}, all")
    return tuple(name for name in SPLITS if name in split or "all" in split)


def _listed(text: str) -> Listed:
    content = json.loads(text)
    if "dataset" not in content or "model" not in content:
        raise ValueError("no audit")
    return {str(entry["file"]): str(entry["sha256"]) for entry in content["files"]}


# --- what is audited


def _subject(what: str, resolution: int | None, root: str | None) -> _Subject:
    """Return the run or the data set that a text names; a folder without a run is none."""
    try:
        run: Workspace | None = find_run(what, "audit")
    except RunError:
        run = None
    if run is not None and run.config.is_file():
        return _of_workspace(run, root)
    if what in dataset_names():
        info = dataset_info(what)
        if info.archives:
            local_archive(info, offered_resolution(info, resolution), root)
        return _Subject(what, info, offered_resolution(info, resolution), root, None)
    close = nearest(what, dataset_names())
    hint = f"; nearest data sets: {', '.join(close)}" if close else ""
    raise SettingsError(f"audit: {what} is neither a run nor a data set{hint} (`visionforge datasets list`)")


def _of_workspace(run: Workspace, root: str | None) -> _Subject:
    refuse_links(run.path)
    if not (run.path / FILE).is_file():
        raise RunError(
            f"audit: {shown(run.path)} has no {FILE}, which has what networks say of images they have not learnt; "
            "`visionforge fit --folds 5` makes such a run, or name the data set"
        )
    try:
        data = evaluation_config(read_yaml(run.config))["data"]
        info = dataset_info(str(data["dataset"]), Synthetic.model_validate(data.get("synthetic") or {}))
        return _Subject(run.path.name, info, int(data.get("resolution", 28)), root or data.get("root"), run)
    except (OSError, UnreadableError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise RunError(f"audit: {shown(run.config)} does not say what the run was trained on ({reason})") from error


def _part(subject: _Subject, split: Split) -> tuple[SplitArrays, SideTable]:
    info, resolution = subject.info, subject.resolution
    arrays = load_split(info, resolution, subject.root, split)
    return arrays, stored_side_table(info, resolution, subject.root, split)


def _of_run(subject: _Subject, run: Workspace, wanted: tuple[Split, ...], explicit: bool) -> FoldTable:
    table = read_fold_table(run.path / FILE, subject.spec.kind, unique_names(subject.spec))
    missing = [split for split in wanted if split not in table.present]
    if (missing and explicit) or not set(wanted) & set(table.present):
        raise SettingsError(
            f"split: {', '.join(missing)} is not in {FILE} of {run.path.name}, which has {', '.join(table.present)}; "
            "choose of these (`visionforge fit --data.fold_pool all` divides every split)"
        )
    return table.of([split for split in wanted if split in table.present])


def _arrays_of_run(subject: _Subject, table: FoldTable) -> tuple[dict[Split, SplitArrays], list[str]]:
    """Return the images of the splits, if they are here, and what there is to say of them.

    Raises:
        DataError: If the data set has other labels than the table.
    """
    try:
        arrays = {split: load_split(subject.info, subject.resolution, subject.root, split) for split in table.present}
    except VisionForgeError as error:
        return {}, [f"No images are shown: {error.problems[0]}"]
    for split, part in arrays.items():
        rows = positions_of(table, split)
        at = table.indices[rows]
        outside = at >= len(part.labels)
        changed = outside | (part.labels[np.where(outside, 0, at)] != table.labels[rows]).reshape(len(rows), -1).any(1)
        if changed.any():
            raise DataError(
                f"audit: {int(changed.sum()):,} labels of {split} in {FILE} are not those of {subject.info.name} now, "
                f"the first at {int(at[np.argmax(changed)]):,}; the data set has changed since: train again"
            )
    return arrays, []


def _accuracy(table: FoldTable, spec: TaskSpec) -> float:
    return float((spec.kind.decide(table.probabilities) == table.labels).mean())


def _pixels(part: SplitArrays, index: int, spec: TaskSpec) -> Any:
    """Return an image (C, H, W) or a volume (C, R, R, R)."""
    image = np.asarray(part.images[index])
    return image[None] if image.ndim == spec.spatial_dims else np.moveaxis(image, -1, 0)
