"""`run.json`: what a run is, how far it came, and everything that is needed to judge and to repeat it."""

import datetime
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from visionforge.distribution import newer
from visionforge.errors import RunError
from visionforge.reading import read_json
from visionforge.runs.files import write_atomic
from visionforge.runs.processes import ProcessId

State = Literal["running", "complete", "interrupted", "failed", "pruned"]
FORMAT = 1
SHARED, NOTICED = "shared with train", "noticed by its import"  # texts among what is said of the data
MAX_BYTES = 4_000_000  # a manifest is some pages of text; anything larger is the wrong file


def _require_time(text: str) -> str:
    """Return the text if it is a point in time, whose difference to others can be told.

    Raises:
        ValueError: If it is none.
    """
    time = datetime.datetime.fromisoformat(text)
    if time.tzinfo is None or not 1970 <= time.year < 9999:
        raise ValueError(f"{text} is no time with its zone")
    return text


Time = Annotated[str, AfterValidator(_require_time)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")  # a later version may write more


class Session(_Part):
    """One process that worked on the run: the first, and one more for every resume."""

    started: Time = Field(description="UTC, ISO 8601.")
    ended: Time | None = Field(None, description="UTC; null while it works, or if it was killed.")
    process: dict[str, Any] = Field(description="pid, creation time, also since the boot, host and machine.")
    command: list[str] = Field(description="The command line.")
    checkpoint: str | None = Field(None, description="The checkpoint that it continued from.")
    scheduler: dict[str, Any] | None = Field(None, description="Batch system and job.")
    hardware: dict[str, Any] = Field({}, description="Processor, memory, devices.")
    packages: dict[str, str] = Field({}, description="Versions, Python's and the operating system's among them.")
    code: dict[str, Any] = Field({}, description="Version of visionforge; commit and state of the work trees.")
    environment: dict[str, str] = Field({}, description="Environment variables that can change a result.")
    switches: dict[str, Any] = Field({}, description="Switches of determinism and precision, as they were in force.")


class Manifest(_Part):
    """What `run.json` holds."""

    format: int = Field(FORMAT, description="Version of this layout.")
    version: str | None = Field(None, description="Version of visionforge that made the run.")
    run: str = Field(description="Name of the folder.")
    mark: str = Field(description="A number that no other run has; its processes carry it.")
    stage: str = Field("fit", description="`fit`, or the evaluation that the folder was made for.")
    state: State = Field(description="running, complete, interrupted, failed, or (a trial of a study) pruned.")
    error: str | None = Field(None, description="Why it was interrupted or failed.")
    started: Time = Field(description="UTC, ISO 8601.")
    ended: Time | None = Field(None, description="UTC; null while it runs, or if it was killed.")
    hash: str = Field(description="Digest of the configuration, six digits.")
    signature: str | None = Field(None, description="By which the user who made the run knows its configuration again.")
    dataset: str = Field(description="Catalog name.")
    model: str = Field(description="Backbone.")
    seeds: dict[str, int] = Field({}, description="Seeds.")
    data: dict[str, Any] = Field({}, description="What was read: archive, MD5, number of images.")
    weights: dict[str, Any] | None = Field(None, description="Source and SHA-256 of pretrained weights.")
    teacher: dict[str, Any] | None = Field(None, description="Checkpoint that was learnt from, and its SHA-256.")
    parent: dict[str, Any] | None = Field(None, description="The run or study that this one comes from.")
    progress: dict[str, int] = Field({}, description="Finished epochs, all epochs, optimiser steps.")
    sessions: list[Session] = Field([], description="The processes that worked on it, in order.")

    @property
    def owner(self) -> ProcessId | None:
        """Return the process that worked on it last."""
        try:
            return ProcessId.from_dict(self.sessions[-1].process)
        except (IndexError, ValueError):
            return None

    def with_session(self, **changes: Any) -> "Manifest":
        """Return a copy in which fields of the last session are changed."""
        *before, last = self.sessions
        return self.model_copy(update={"sessions": [*before, last.model_copy(update=changes)]})

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        write_atomic(path, json.dumps(self.model_dump(mode="json"), indent=2) + "\n")


def read_manifest(path: Path) -> Manifest:
    """Read `run.json`.

    Raises:
        RunError: If it is missing or not valid.
    """
    try:
        found = Manifest.model_validate(read_json(path, MAX_BYTES))
    except FileNotFoundError:
        raise RunError(f"{path.parent}: holds no run.json, so it is no run") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise RunError(f"{path}: cannot be read as the manifest of a run ({reason})") from error
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise RunError(f"{path}: cannot be read as the manifest of a run ({reason})") from error
    if problem := newer(found.format, FORMAT, found.version):
        raise RunError(f"{path}: {problem}")
    return found


def utc_now() -> str:
    """Return the time as ISO 8601 in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
