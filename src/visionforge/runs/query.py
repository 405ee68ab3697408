"""The runs of an outputs folder: found, read, compared; nothing here changes one."""

import datetime
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visionforge.errors import RunError, SettingsError
from visionforge.reading import UnreadableError, read_json, read_yaml
from visionforge.runs.files import bytes_of
from visionforge.runs.manifest import Manifest, State, read_manifest
from visionforge.runs.paths import outputs_folder, resolve, shown
from visionforge.runs.session import LATEST, derived_state
from visionforge.runs.workspace import Workspace, digest_in_name

MAX_METRICS_BYTES = 4_000_000  # metrics of all classes are some thousand bytes
READINGS = ("without_tta", "with_tta")  # how images are looked at: alone, or with test-time views
COLUMNS = (  # by which runs can be sorted
    *("run", "state", "started", "seconds", "epochs", "accuracy", "auc"),
    *("dataset", "model", "hash", "seed", "stage", "bytes"),
)
_SESSION_FACTS = {"code", "packages", "hardware", "environment", "switches"}


@dataclass(frozen=True)
class StoredRun:
    """A run as it lies on the disk.

    Attributes:
        workspace: The folder.
        manifest: What it says of itself.
        state: Its state; a killed run says `running`, but is interrupted.
    """

    workspace: Workspace
    manifest: Manifest
    state: State

    @property
    def name(self) -> str:
        """Return the name of the folder."""
        return self.workspace.path.name

    @property
    def metrics(self) -> dict[str, Any]:
        """Return the content of `metrics.json`, or nothing if it is not there yet."""
        try:
            return read_metrics(self.workspace.within(self.workspace.metrics.name))
        except RunError:  # a link that leads out of the run
            return {}

    @property
    def config(self) -> dict[str, Any]:
        """Return the resolved configuration, or nothing if there is none."""
        try:
            content = read_yaml(self.workspace.within(self.workspace.config.name))
        except (OSError, UnreadableError, RunError):
            return {}
        return _with_names(content) if isinstance(content, dict) else {}

    @property
    def size(self) -> int:
        """Return the bytes of its files; links are not followed."""
        return bytes_of(self.workspace.path)

    @property
    def seconds(self) -> float:
        """Return how long it was worked on, in seconds; sessions that were killed are not known and not counted."""
        total = 0.0
        for session in self.manifest.sessions:
            if session.ended is not None:
                total += (_time(session.ended) - _time(session.started)).total_seconds()
        return total

    def as_row(self) -> dict[str, Any]:
        """Return what a list of runs shows of it."""
        best = self.metrics.get("with_tta") or self.metrics.get("without_tta") or {}
        progress = self.manifest.progress
        return {
            "run": self.name,
            "state": self.state,
            "stage": self.manifest.stage,
            "started": self.manifest.started,
            "seconds": self.seconds,
            "dataset": self.manifest.dataset,
            "model": self.manifest.model,
            "hash": self.manifest.hash,
            "seed": self.manifest.seeds.get("seed_everything"),
            "epochs": progress.get("epochs", 0),
            "max_epochs": progress.get("max_epochs"),
            "accuracy": best.get("accuracy"),
            "auc": best.get("auc"),
            "error": self.manifest.error,
        }

    def as_dict(self) -> dict[str, Any]:
        """Return its manifest, state, metrics and settings as plain values."""
        content = {**self.manifest.model_dump(mode="json"), "state": self.state}
        return {**content, "metrics": self.metrics, "config": self.config}


def read_metrics(path: Path) -> dict[str, Any]:
    """Return the content of a `metrics.json`, or nothing if it is not there or cannot be read."""
    try:
        content = read_json(path, MAX_METRICS_BYTES)
    except (OSError, UnreadableError):
        return {}
    return with_numbers(content) if isinstance(content, dict) else {}


def with_numbers(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of `metrics.json` in which the metrics are numbers; what else stands there is left out."""
    content = dict(metrics)
    for reading in READINGS:
        values = content.get(reading)
        if not isinstance(values, Mapping):
            content.pop(reading, None)
            continue
        content[reading] = {
            name: value for name, value in values.items() if type(value) in (int, float) or value is None
        }
    return content


def _with_names(tree: Any) -> Any:
    """Return settings whose keys are all text, so that they can be compared and sorted."""
    if isinstance(tree, Mapping):
        return {str(key): _with_names(value) for key, value in tree.items()}
    return [_with_names(item) for item in tree] if isinstance(tree, list) else tree


def _time(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text)


def load_run(workspace: Workspace) -> StoredRun:
    """Read a run.

    Raises:
        RunError: If the folder holds none, or a link to one elsewhere.
    """
    manifest = read_manifest(workspace.within(workspace.manifest.name))
    return StoredRun(workspace, manifest, derived_state(workspace, manifest))


def stored_runs(outputs: Path, digest: str | None = None) -> tuple[list[StoredRun], list[str]]:
    """Return the runs of a folder, oldest first, and a line for each whose manifest cannot be read.

    Args:
        outputs: The folder.
        digest: Only runs that may be of the configuration with this digest: those that have it in their name, and those
            that somebody has given another name. None takes all.
    """
    found: list[StoredRun] = []
    problems: list[str] = []
    for path in sorted(outputs.glob("[!.]*/run.json")):
        if path.parent.is_symlink():
            continue  # `latest`
        if digest is not None and digest_in_name(path.parent.name) not in (None, digest):
            continue
        try:
            found.append(load_run(Workspace(path.parent)))
        except RunError as error:
            problems += error.problems
    return sorted(found, key=lambda run: (run.manifest.started, run.name)), problems


def find_run(text: str, flag: str) -> Workspace:
    """Return the run that a text names: a folder, or a name such as `latest` in the outputs folder.

    Args:
        text: Path or name.
        flag: Where it was given, for the message.

    Raises:
        RunError: If there is no such folder.
    """
    try:
        path = resolve(text)
    except ValueError as error:
        raise RunError(f"{flag}: {error}") from error
    if not path.is_dir() and "/" not in text:
        path = outputs_folder() / text
    if not path.is_dir() and text == LATEST and next(outputs_folder().glob("[!.]*/run.json"), None) is None:
        raise RunError(f"{flag}: there are no runs in {shown(outputs_folder())}; `visionforge fit` begins one")
    if not path.is_dir():
        raise RunError(
            f"{flag}: {text} is no folder; name a run folder such as outputs/20261123_…, or a run of "
            f"{shown(outputs_folder())} (`visionforge runs list`)"
        )
    return Workspace(shown(path.resolve() if path.is_symlink() else path))


def find_checkpoint(text: str, setting: str) -> Path:
    """Return the checkpoint that a text names: a file, or the best one of a run; see `find_run`.

    Args:
        text: Path or name.
        setting: Where it was given, for the message.

    Raises:
        RunError: If there is none.
    """
    try:
        path = resolve(text)
    except (ValueError, RuntimeError) as error:  # no such anchor, or nobody's home folder
        raise RunError(f"{setting}: {error}") from error
    if path.is_file():
        return path
    if not path.is_dir() and ("/" in text or not (outputs_folder() / text).is_dir()):
        raise RunError(
            f"{setting}: {text} does not exist; name a run folder, a run of {shown(outputs_folder())} "
            "(`visionforge runs list`), or a checkpoint"
        )
    run = find_run(text, setting)
    checkpoint = run.checkpoints / "best.ckpt"
    if not checkpoint.is_file():
        raise RunError(f"{setting}: {run.path} is no run with a trained network: it has no checkpoints/best.ckpt")
    return checkpoint


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted path, value) of all leaves."""
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{path}.")
        else:
            yield path, value


def differences(one: Mapping[str, Any], two: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the dotted paths at which two nested mappings differ, with both values; a missing one is None."""
    left, right = dict(flat(one)), dict(flat(two))
    paths = sorted({*left, *right})
    return {path: (left.get(path), right.get(path)) for path in paths if left.get(path) != right.get(path)}


def provenance(run: StoredRun) -> dict[str, Any]:
    """Return what else than the settings can make two runs differ: data, weights, code, versions, machine."""
    last = run.manifest.sessions[-1] if run.manifest.sessions else None
    return {
        "data": run.manifest.data,
        "weights": run.manifest.weights or {},
        "teacher": run.manifest.teacher or {},
        **({} if last is None else last.model_dump(include=_SESSION_FACTS)),
    }


def named_outputs(text: str | None) -> Path:
    """Return the outputs folder that a text names; None is the usual one, which need not exist.

    Raises:
        SettingsError: If the text begins with an anchor that does not exist.
        RunError: If there is no such folder.
    """
    try:
        folder = resolve(text) if text else outputs_folder()
    except ValueError as error:
        raise SettingsError(f"outputs: {error}") from error
    if text and not folder.is_dir():
        raise RunError(f"outputs: {folder} is no folder")
    return folder


def run_rows(
    outputs: Path, state: State | None = None, sort: str = "started", reverse: bool = False
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return what a list of runs shows of each, and a line for each run that cannot be read.

    Args:
        outputs: The folder of the runs.
        state: Only runs in this state.
        sort: One of `COLUMNS`; runs that have no value there come last.
        reverse: Largest first.
    """
    runs, problems = stored_runs(outputs)
    rows = [{**run.as_row(), "bytes": run.size} for run in runs if state in (None, run.state)]
    known = [row for row in rows if row[sort] is not None]
    unknown = [row for row in rows if row[sort] is None]  # last, whichever way the others are sorted
    return sorted(known, key=lambda row: row[sort], reverse=reverse) + unknown, problems


def run_differences(one: StoredRun, two: StoredRun) -> dict[str, dict[str, tuple[Any, Any]]]:
    """Return the dotted paths at which settings, provenance and metrics of two runs differ, with both values."""
    return {
        "settings": differences(one.config, two.config),
        "provenance": differences(provenance(one), provenance(two)),
        "metrics": differences(_metrics(one), _metrics(two)),
    }


def _metrics(run: StoredRun) -> dict[str, Any]:
    metrics = run.metrics
    return {kind: metrics[kind] for kind in READINGS if metrics.get(kind)}
