"""Run a complete run again: check data, versions and settings, fit it anew, and name the first difference."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visionforge.config.seeding import STRICT_VARIABLE
from visionforge.engine.fit import Origin, Request, fit
from visionforge.engine.other_data import other_data
from visionforge.engine.probe import probe
from visionforge.engine.run import Run
from visionforge.engine.validation import check_settings
from visionforge.errors import DataError, RunError, SettingsError
from visionforge.inference.trust import training_config
from visionforge.reading import read_rows
from visionforge.runs.config_hash import digest
from visionforge.runs.files import refuse_links
from visionforge.runs.paths import resolve, shown
from visionforge.runs.provenance import code_state, environment_variables, package_versions
from visionforge.runs.query import StoredRun, differences, find_run, load_run, provenance
from visionforge.runs.session import PROBE, SINGLE
from visionforge.runs.signals import Interruption
from visionforge.runs.workspace import MAX_EPOCHS_BYTES, MAX_PREDICTIONS_BYTES, Workspace

_TIMES = ("seconds",)  # columns of metrics.csv that are no results


@dataclass(frozen=True)
class Reproduction:
    """A run and its repetition.

    Attributes:
        run: The run.
        notes: A line for everything that may make the results differ.
        epochs: Its epochs.
        images: Its predictions.
        again: The new run; None if it was only checked.
        difference: Where the results differ first; None if nowhere.
    """

    run: StoredRun
    notes: list[str]
    epochs: int
    images: int
    again: Run | None = None
    difference: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return what was found as plain values."""
        if self.again is None:
            return {"run": self.run.name, "notes": self.notes}
        found = {"again": str(self.again.path), "notes": self.notes, "difference": self.difference}
        return {"run": self.run.name, **found}

    def lines(self) -> list[str]:
        """Return what the repetition has shown, as a terminal shows it; nothing if the run was only checked."""
        if self.again is None:
            return []
        folder = f"  {shown(self.again.path)}"
        if self.difference is not None:
            return [f"✗ first difference: {self.difference}", folder, *(f"! {note}" for note in self.notes)]
        steps = "candidates" if self.run.manifest.stage == PROBE else "epochs"
        equal = f"{self.epochs} {steps}, the tensors of both checkpoints and {self.images:,} predictions are equal"
        return [f"✓ no difference: {equal}", folder]


def reproduce(
    run: str | Path | Run,
    *,
    outputs: str | Path | None = None,
    trust: str | Path | None = None,
    check: bool = False,
    told: Callable[[Sequence[str]], None] | None = None,
) -> Reproduction:
    """Run a complete run again, and say where the first difference is.

    Args:
        run: The run: its folder, its name, or the object.
        outputs: Folder for the new run; None is beside the old one.
        trust: Build the classes that the configuration of this run names.
        check: Only check data, versions and settings.
        told: Is given the notes before the run begins, which may take hours.

    Raises:
        VisionForgeError: If the run is not complete, or cannot be run again here.
        Interrupted: If a signal ended the fit.
    """
    stored = load_run(run.workspace if isinstance(run, Run) else find_run(str(run), "reproduce"))
    refuse_links(stored.workspace.path)
    if stored.state != "complete" or stored.manifest.stage not in SINGLE:
        raise RunError(f"reproduce: {stored.name} is {stored.state}; only a complete fit can be compared")
    epochs, images = _sizes(stored.workspace)  # what cannot be compared is not run again
    notes = list(checks(stored))
    if told is not None:
        told(notes)
    if check:
        return Reproduction(stored, notes, epochs, images)
    again = run_again(stored, outputs, trust)
    difference = first_difference(stored.workspace, again.workspace)
    if difference is not None:
        later = _circumstances(stored, again.stored)
        notes = [*notes, *(f"{path}: {a} in the run, {b} here" for path, (a, b) in later.items())]
    return Reproduction(stored, notes, epochs, images, again, difference)


def checks(run: StoredRun) -> Iterator[str]:
    """Yield a line for everything that may make the result differ."""
    if (changed := other_data(run)) is not None:
        yield f"data: {changed}"
    found = digest(run.config)
    if found != run.manifest.hash:
        yield f"settings: config.yaml was changed after the run: digest {found}, the run's is {run.manifest.hash}"
    session = run.manifest.sessions[-1]
    if len(run.manifest.sessions) > 1:
        yield f"sessions: the run was interrupted {len(run.manifest.sessions) - 1} time(s)"
    if not session.switches.get("deterministic_algorithms"):
        yield "trainer.deterministic: false in the run, so that small differences are to be expected"
    for path, (before, now) in differences(session.packages, package_versions()).items():
        yield f"{path}: {before} in the run, {now} here"
    here = environment_variables()
    if session.switches.get("deterministic_algorithms"):
        here.setdefault(*STRICT_VARIABLE)  # as the fit will set it
    for path, (before, now) in differences(session.environment, here).items():
        yield f"${path}: {before} in the run, {now} here"
    code = code_state()
    for path, (before, now) in differences(session.code, code).items():
        yield f"code.{path}: {before} in the run, {now} here"
    if (code.get("package") or {}).get("changed_files"):
        yield "code: the work tree of visionforge has changes that are not committed"


def run_again(run: StoredRun, outputs: str | Path | None = None, trust: str | Path | None = None) -> Run:
    """Fit the run's configuration anew, and return the new run.

    Raises:
        VisionForgeError: If it cannot be run here; data that is not the run's is refused.
    """
    try:
        folder = resolve(str(outputs)) if outputs else run.workspace.path.absolute().parent
    except ValueError as error:
        raise SettingsError(f"outputs: {error}") from error
    if (changed := other_data(run)) is not None:
        raise DataError(f"reproduce: {changed}; it can only be repeated on its own")
    parent = {"run": run.name, "reason": "reproduce", "data": run.manifest.data}
    config = training_config(run.workspace, None if trust is None else str(trust), "reproduce")
    trainer = {**(config.get("trainer") or {}), "default_root_dir": str(folder)}
    trainer.pop("logger", None)  # which changes no result, and may need a secret that is not stored
    stage = run.manifest.stage
    settings = check_settings({**config, "trainer": trainer, "resume": "never"}, stage)
    with Interruption() as interruption:
        if stage == PROBE:
            return probe(Request(settings, {}), interruption, parent)
        return fit(Request(settings, {}), interruption, Origin(parent))


def _circumstances(one: StoredRun, two: StoredRun) -> dict[str, tuple[Any, Any]]:
    """Return what was different about machine and switches, which are known only once both have run."""
    parts = ("hardware", "switches")
    return differences(*({part: provenance(run).get(part, {}) for part in parts} for run in (one, two)))


def first_difference(one: Workspace, two: Workspace) -> str | None:
    """Return where the results of two runs differ first, in the order in which they came about; None if nowhere.

    Compared are the rows of `metrics.csv` (without times), every tensor of the last and of the best checkpoint, and the
    predictions of the test split.
    """
    for find in (_first_epoch, _first_tensor, _first_prediction):
        difference = find(one, two)
        if difference is not None:
            return difference
    return None


def _rows(path: Path, max_bytes: int) -> Iterator[dict[str, str]]:
    """Yield the rows of a table of a run, which may be a stranger's.

    Raises:
        RunError: If it cannot be read.
    """
    try:
        rows = read_rows(path, max_bytes)
        heading = next(rows, [])
        for row in rows:
            yield dict(zip(heading, row, strict=True))
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be read as a table of the run ({error})") from error


def _epochs(run: Workspace) -> Iterator[dict[str, str]]:
    """Yield the rows of the table of epochs, or of a probe's candidates."""
    probed = run.candidates.is_file() and not run.epochs.is_file()
    return _rows(run.candidates if probed else run.epochs, MAX_EPOCHS_BYTES)


def _predictions(run: Workspace) -> Iterator[dict[str, str]]:
    return _rows(run.predictions, MAX_PREDICTIONS_BYTES)


def _sizes(run: Workspace) -> tuple[int, int]:
    """Return the number of epochs and of predictions of a run.

    Raises:
        RunError: If their tables cannot be read.
    """
    epochs, images = (sum(1 for _ in rows) for rows in (_epochs(run), _predictions(run)))
    return epochs, images


def _first_epoch(one: Workspace, two: Workspace) -> str | None:
    for number, (before, now) in enumerate(zip(_epochs(one), _epochs(two), strict=False), start=1):
        for name in before:
            if name not in _TIMES and before[name] != now.get(name):
                return f"epoch {number}, {name}: {before[name]} before, {now.get(name)} now"
    old, new = (_sizes(run)[0] for run in (one, two))
    return f"epochs: {old} before, {new} now" if old != new else None


def _first_tensor(one: Workspace, two: Workspace) -> str | None:
    import torch

    from visionforge.inference.loading import read_checkpoint

    for name in ("last.ckpt", "best.ckpt"):
        if not (one.checkpoints / name).exists():
            continue
        before, now = (read_checkpoint(each.checkpoints / name)["state_dict"] for each in (one, two))
        if before.keys() != now.keys():
            return f"{name}: other tensors"
        for key, tensor in before.items():
            if tensor.shape != now[key].shape:
                return f"{name}, {key}: {tuple(tensor.shape)} before, {tuple(now[key].shape)} now"
            if not torch.equal(tensor, now[key]):
                largest = float((tensor.double() - now[key].double()).abs().max())
                return f"{name}, {key}: largest deviation {largest:.3g}"
    return None


def _first_prediction(one: Workspace, two: Workspace) -> str | None:
    old, new = _predictions(one), _predictions(two)
    if _heading(one) != _heading(two):  # of another version, whose columns have other names
        old, new = _of_any_version(one), _of_any_version(two)
    for number, (before, now) in enumerate(zip(old, new, strict=False)):
        for name in before:
            if before[name] != now.get(name):
                return f"predictions.csv, image {number}, {name}: {before[name]} before, {now.get(name)} now"
    images, images_now = (_sizes(run)[1] for run in (one, two))
    return f"predictions.csv: {images} images before, {images_now} now" if images != images_now else None


def _heading(run: Workspace) -> list[str]:
    return list(next(_predictions(run), {}))


def _of_any_version(run: Workspace) -> Iterator[dict[str, str]]:
    """Yield what tables of all versions hold: truth as numbers, and the probabilities before calibration."""
    from visionforge.evaluation.predictions import read_predictions

    plain, truth = read_predictions(run.predictions, tta=False)
    averaged, _ = read_predictions(run.predictions, tta=True)
    for number, (one, two) in enumerate(zip(plain, averaged, strict=True)):
        row = {} if truth is None else {"truth": str(truth[number])}
        row |= {f"raw probability of class {k}": f"{value:.9g}" for k, value in enumerate(one)}
        row |= {f"raw probability of class {k} with test-time views": f"{value:.9g}" for k, value in enumerate(two)}
        yield row
