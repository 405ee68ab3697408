"""A run that a process works on: made or reopened, locked, described in its manifest, and ended in order."""

import contextlib
import logging
import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from visionforge.distribution import own_version
from visionforge.errors import RunError
from visionforge.redaction import redact_arguments, redact_settings, redact_text
from visionforge.runs.files import refuse_links, remove_temporary, umask, write_atomic
from visionforge.runs.locks import Lock, LockedError, held, is_held, read_owner
from visionforge.runs.manifest import Manifest, Session, State, read_manifest, utc_now
from visionforge.runs.paths import shown
from visionforge.runs.processes import ProcessRecord, end_processes, leftovers, this_process
from visionforge.runs.provenance import code_state, environment_variables, package_versions, processor
from visionforge.runs.scheduler import detect_scheduler
from visionforge.runs.signature import CONFIGURATION, canonical_content, sign
from visionforge.runs.workspace import Workspace, describe, remedy, run_name

log = logging.getLogger(__name__)

FOLDER = "VISIONFORGE_RUN_FOLDER"  # environment variable for the other ranks, which are started by this process
CREATION_WAIT_S = 60.0  # another process of the same settings is making its folder, which takes a moment
LATEST = "latest"
MAX_SAME = 10_000
FOREIGN = "lightning"  # stage of a run that a Trainer of somebody's own has made
ENSEMBLE = "ensemble"  # stage of networks that were joined
PROBE = "probe"  # stage of a network whose classifier alone was fitted, to its features
SINGLE = ("fit", PROBE)  # stages that leave one network which settings describe
TRAININGS = ("fit", FOREIGN)  # stages that train a network


class ActiveRun:
    """A run folder that this process works on; it is locked until `finish` or `discard`.

    Args:
        workspace: The folder.
        manifest: Its manifest, already written.
        lock: Its lock, already held.
        new: Whether this process made the folder.
        made_outputs: Whether it made the folder of all runs, too.
    """

    def __init__(
        self, workspace: Workspace, manifest: Manifest, lock: Lock, new: bool, made_outputs: bool = False
    ) -> None:
        self.workspace = workspace
        self.manifest = manifest
        self.new = new
        self._made_outputs = made_outputs
        self._lock = lock
        self._record = ProcessRecord(workspace.path, manifest.mark)
        self._record.start()
        os.environ[FOLDER] = str(workspace.path.absolute())

    @classmethod
    def create(
        cls,
        outputs: Path,
        config: Mapping[str, Any],
        digest: str,
        *,
        stage: str = "fit",
        names: tuple[str, str] | None = None,
        parent: dict[str, Any] | None = None,
        past_interrupted: bool = False,
        past_running: bool = False,
    ) -> "ActiveRun":
        """Make a run folder; it appears with its configuration and its manifest, and locked.

        Args:
            outputs: The folder of all runs.
            config: The resolved configuration.
            digest: Its digest.
            stage: `fit`, `ensemble`, `probe`, an evaluation, or `lightning` for a Trainer of somebody's own.
            names: Of data set and model; None takes them from the configuration.
            parent: The run or study that this one comes from.
            past_interrupted: Make a new run also where one of the same settings and day was interrupted.
            past_running: Make a new run also where one of the same settings and day is in use.

        Raises:
            RunError: If it cannot be made, a run of the same settings and day is in use, or was interrupted.
        """
        dataset, model = names or (str(config["data"]["dataset"]), str(config["model"]["backbone"]["name"]))
        trains = stage in (*TRAININGS, ENSEMBLE, PROBE)
        name = run_name(dataset, model, digest)
        try:
            made_outputs = not outputs.exists()
            outputs.mkdir(parents=True, exist_ok=True)
            with held(outputs / f".{name}.lock", f"{name}", CREATION_WAIT_S):
                for stale in outputs.glob(f".{name}.new-*"):
                    shutil.rmtree(stale, ignore_errors=True)
                workspace = _free_folder(outputs, name, past_interrupted or not trains, past_running)
                kept = redact_settings(config)
                manifest = Manifest(
                    version=own_version(),
                    run=workspace.path.name,
                    mark=uuid.uuid4().hex,
                    stage=stage,
                    state="running",
                    started=utc_now(),
                    hash=digest,
                    signature=sign(canonical_content(kept), CONFIGURATION) if trains else None,
                    dataset=dataset,
                    model=model,
                    seeds={"seed_everything": int(config.get("seed_everything") or 0)},
                    parent=parent,
                    sessions=[new_session()],
                )
                staged = Path(tempfile.mkdtemp(prefix=f".{name}.new-", dir=outputs))
                try:
                    staged.chmod(0o777 & ~umask())
                    if trains:
                        write_atomic(staged / workspace.config.name, yaml.safe_dump(kept, sort_keys=False))
                    manifest.write(staged / workspace.manifest.name)
                    staged.rename(workspace.path)
                except BaseException:
                    shutil.rmtree(staged, ignore_errors=True)
                    raise
                lock = Lock(workspace.lock, str(workspace.path))
                lock.acquire(wait_s=2.0)  # somebody who lists the runs may look at it for a moment
        except OSError as error:
            raise RunError(f"{outputs}: no run folder can be made here ({describe(error)}); {remedy(error)}") from error
        point_latest(outputs, workspace.path.name)
        return cls(workspace, manifest, lock, new=True, made_outputs=made_outputs)

    @classmethod
    def reopen(cls, workspace: Workspace) -> "ActiveRun":
        """Take up a run that was interrupted or has failed, and end what its dead processes left.

        Raises:
            RunError: If it is complete, in use, or no run.
        """
        read_manifest(workspace.within(workspace.manifest.name))  # a folder that is no run gets no lock file
        refuse_links(workspace.path)
        lock = Lock(workspace.lock, str(workspace.path))
        try:
            lock.acquire(wait_s=2.0)
        except OSError as error:
            raise RunError(f"{workspace.path}: cannot be written ({describe(error)}); {remedy(error)}") from error
        try:
            manifest = read_manifest(workspace.manifest)  # somebody may have worked on it until now
            if manifest.state == "complete":
                raise RunError(
                    f"{workspace.path}: is complete, so there is nothing to resume; fit its settings anew with "
                    f"--config {workspace.config}"
                )
            clear_leftovers(workspace)
            remove_temporary(workspace.path)
            manifest = manifest.model_copy(
                update={
                    "run": workspace.path.name,
                    "state": "running",
                    "error": None,
                    "ended": None,
                    "sessions": [*manifest.sessions, new_session()],
                }
            )
            manifest.write(workspace.manifest)
        except BaseException:
            lock.release()
            raise
        return cls(workspace, manifest, lock, new=False)

    def update(self, **changes: Any) -> None:
        """Change fields of the manifest."""
        self.manifest = self.manifest.model_copy(update=changes)
        self.manifest.write(self.workspace.manifest)

    def update_session(self, **changes: Any) -> None:
        """Change fields of the manifest that belong to this process."""
        self.manifest = self.manifest.with_session(**changes)
        self.manifest.write(self.workspace.manifest)

    def finish(self, state: State, error: str | None = None) -> None:
        """Write how the run ended, and let go of it."""
        self._record.stop()
        now = utc_now()
        error = None if error is None else redact_text(error)
        try:
            self.manifest = self.manifest.with_session(ended=now)
            self.update(state=state, error=error, ended=now)
        except OSError as problem:  # a full disk: what is not marked as ended counts as interrupted
            log.warning("%s: cannot be written (%s)", self.workspace.manifest, describe(problem))
        self._let_go()

    def discard(self) -> None:
        """Remove the folder of a run that failed before its first checkpoint."""
        self._record.stop()
        outputs = self.workspace.path.parent
        shutil.rmtree(self.workspace.path, ignore_errors=True)
        self._let_go()
        repoint_latest(outputs)
        if self._made_outputs:
            with contextlib.suppress(OSError):  # another run may have begun in it
                outputs.rmdir()

    def _let_go(self) -> None:
        os.environ.pop(FOLDER, None)
        self._lock.release()


def new_session() -> Session:
    """Return a session of this process that begins now."""
    scheduler = detect_scheduler()
    return Session(
        started=utc_now(),
        process=this_process().as_dict(),
        command=redact_arguments(sys.argv),
        scheduler=None if scheduler is None else scheduler.as_dict(),
        hardware=processor(),
        packages=package_versions(),
        code=code_state(),
        environment=environment_variables(),
    )


def clear_leftovers(workspace: Workspace) -> None:
    """End the processes that a dead owner of a run left behind; on a shared cluster only tell of them."""
    left = leftovers(workspace.path)
    if not left:
        return
    pids = ", ".join(str(process.pid) for process in left)
    scheduler = detect_scheduler()
    if scheduler is not None:
        log.warning("processes %s were left behind by the run; under %s they are not ended", pids, scheduler.name)
        return
    log.warning("processes %s were left behind by the run and are ended", pids)
    if alive := end_processes(left):
        raise RunError(
            f"{workspace.path}: processes {', '.join(str(p.pid) for p in alive)} of it cannot be ended; "
            "end them, then resume"
        )


def derived_state(workspace: Workspace, manifest: Manifest) -> State:
    """Return the state of a run; one that says it is running but is held by nobody was interrupted."""
    if manifest.state == "running" and not is_held(workspace.lock):
        return "interrupted"
    return manifest.state


def same_settings(outputs: Path, name: str) -> Iterator[Workspace]:
    """Yield the runs named `name`, ``name-2``, ``name-3``, … that exist."""
    for attempt in range(1, MAX_SAME):
        path = outputs / (name if attempt == 1 else f"{name}-{attempt}")
        if not path.exists():
            return
        yield Workspace(path)


def _free_folder(outputs: Path, name: str, past_interrupted: bool, past_running: bool) -> Workspace:
    count = 0
    for workspace in same_settings(outputs, name):
        count += 1
        if not past_running and is_held(workspace.lock):
            raise LockedError(
                f"{workspace.path}: a run of the same settings; wait for its end, or change a setting (for instance "
                "seed_everything)",
                read_owner(workspace.lock),
            )
        if past_interrupted or not workspace.manifest.exists():
            continue
        manifest = read_manifest(workspace.within(workspace.manifest.name))
        if derived_state(workspace, manifest) == "interrupted":
            epoch = manifest.progress.get("epochs", 0)
            raise RunError(
                f"{workspace.path}: a run of the same settings was interrupted after {epoch} epochs; continue it with "
                f"`visionforge fit --resume {shown(workspace.path)}`, or begin a new one with --resume never"
            )
    if count >= MAX_SAME - 1:
        raise RunError(f"{outputs}: holds {count:,} runs of the same settings and day; remove some")
    return Workspace(outputs / (name if count == 0 else f"{name}-{count + 1}"))


def point_latest(outputs: Path, name: str) -> None:
    """Let ``outputs/latest`` point at a run, where the file system has symbolic links."""
    link = outputs / LATEST
    if link.exists() and not link.is_symlink():
        return  # somebody's own file or folder
    temporary = outputs / f".{LATEST}-{uuid.uuid4().hex}"
    try:
        temporary.symlink_to(name, target_is_directory=True)
        temporary.replace(link)
    except OSError as error:
        log.debug("%s: no link (%s)", link, describe(error))
        temporary.unlink(missing_ok=True)


def repoint_latest(outputs: Path) -> None:
    """Let ``outputs/latest`` point at the newest run that is left, if it points at none."""
    link = outputs / LATEST
    if not link.is_symlink() or link.exists():
        return
    left = [path.parent for path in outputs.glob("[!.]*/run.json")]
    if not left:
        link.unlink(missing_ok=True)
        return
    point_latest(outputs, max(left, key=lambda path: (path / "run.json").stat().st_mtime).name)
