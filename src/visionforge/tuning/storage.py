"""Where a study is kept: its folder, and the database or journal of its trials."""

import contextlib
import time
import warnings
from collections.abc import Iterator
from typing import Any, Protocol

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from visionforge.errors import RunError, SettingsError
from visionforge.redaction import redact_url
from visionforge.tuning.folder import StudyFolder
from visionforge.tuning.stored import require_plain_database, require_plain_journal
from visionforge.tuning.trials import lives_here, put_in_line

OPEN_ATTEMPTS, OPEN_WAIT_S = 4, 0.2  # doubled after each
LOCK_WAIT_S = 120.0  # SQLite: another worker is writing
_NO_ADDRESS = (
    "is no address of a database; allowed: null (SQLite in the study's folder), journal, or a URL such as "
    "postgresql://USER@HOST/NAME"
)


class Kept(Protocol):
    """What settings say of where a study is kept: those of a search, and of a benchmark."""

    @property
    def storage(self) -> str | None:
        """The database: null, `journal`, or its address."""

    @property
    def heartbeat_seconds(self) -> int:
        """Interval of the sign of life of a trial."""


def storage_url(settings: Kept, folder: StudyFolder) -> str:
    """Return the URL of the storage, or `journal`; PostgreSQL's gets the driver that the extra installs."""
    if settings.storage is None:
        return f"sqlite:///{folder.database.absolute()}"
    scheme, separator, rest = settings.storage.partition("://")
    driver = "postgresql+psycopg2" if scheme in ("postgresql", "postgres") else scheme
    return f"{driver}{separator}{rest}"


def shown_storage(settings: Kept, folder: StudyFolder) -> str:
    """Return where the study is kept, without a password."""
    url = storage_url(settings, folder)
    return str(folder.journal) if url == "journal" else redact_url(url)


class _Database(RDBStorage):
    """A database in which a trial is stale only if its process may be dead.

    A machine that was suspended has no trial with a sign of life when it wakes up, and all their processes.
    """

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        silent = super()._get_stale_trial_ids(study_id)
        return [number for number in silent if not lives_here(self.get_trial(number))]


def _open_database(url: str, backend: str, heartbeat_s: int) -> RDBStorage:
    """Open a database; several processes may be making its tables at the same time, of which one succeeds first."""
    options: dict[str, Any] = {"pool_pre_ping": True}
    if backend == "sqlite":
        options = {"connect_args": {"timeout": LOCK_WAIT_S}}
    attempt = 0
    while True:
        try:
            with _experimental():
                return _Database(
                    url,
                    engine_kwargs=options,
                    heartbeat_interval=heartbeat_s,
                    grace_period=2 * heartbeat_s,
                    heartbeat_stale_trial_callback=put_in_line,
                )
        except (SQLAlchemyError, AssertionError):  # Optuna asserts that the tables are whole
            attempt += 1
            if attempt == OPEN_ATTEMPTS:
                raise
            time.sleep(OPEN_WAIT_S * 2**attempt)


def open_storage(settings: Kept, folder: StudyFolder) -> BaseStorage:
    """Open the storage; a new SQLite or journal file is made with its folder.

    Raises:
        SettingsError: If the address is none.
        RunError: If the storage cannot be reached or written.
    """
    url = storage_url(settings, folder)
    try:
        if url == "journal":
            folder.journal.parent.mkdir(parents=True, exist_ok=True)
            require_plain_journal(folder.journal)
            return JournalStorage(JournalFileBackend(str(folder.journal)))
        backend = make_url(url).get_backend_name()
        if settings.storage is None:
            folder.database.parent.mkdir(parents=True, exist_ok=True)
            require_plain_database(folder.database, LOCK_WAIT_S, writable=True)
        return _open_database(url, backend, settings.heartbeat_seconds)
    except (ArgumentError, ValueError) as error:
        raise SettingsError(f"tune.storage: {_NO_ADDRESS}") from error
    except ImportError as error:
        raise SettingsError(f"tune.storage: the driver of this database is missing ({error}); install it") from error
    except (SQLAlchemyError, OSError) as error:
        reason = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise RunError(f"tune.storage: {shown_storage(settings, folder)} cannot be opened ({reason})") from error


@contextlib.contextmanager
def _experimental() -> Iterator[None]:
    """Use what Optuna may still change: heartbeats, and groups of conditional parameters. Tests would show it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield
