"""The study: where it is kept, how values are proposed, and which of its trials count."""

import contextlib
import datetime
import logging
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, PatientPruner, PercentilePruner
from optuna.samplers import (
    BaseSampler,
    GPSampler,
    GridSampler,
    NSGAIISampler,
    RandomSampler,
    TPESampler,
)
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from visionforge.config.schema import TuneSettings
from visionforge.config.seeding import derive_seed
from visionforge.errors import RunError, SettingsError
from visionforge.redaction import redact_url
from visionforge.runs.files import refuse_links, within
from visionforge.runs.locks import held
from visionforge.runs.processes import ProcessId
from visionforge.tuning.cma_es import ReplayedCmaEsSampler
from visionforge.tuning.space import Space
from visionforge.tuning.stored import require_plain_database, require_plain_journal

log = logging.getLogger(__name__)

OWNER_WAIT_S = 10.0  # a trial says whose it is within milliseconds of its beginning
OPEN_ATTEMPTS, OPEN_WAIT_S = 4, 0.2  # doubled after each
LOCK_WAIT_S = 120.0  # SQLite: another worker is writing
_NO_ADDRESS = (
    "is no address of a database; allowed: null (SQLite in the study's folder), journal, or a URL such as "
    "postgresql://USER@HOST/NAME"
)
# User attributes of a trial
SURPLUS, REASON, OWNER, RUN, RETRY, RETRIES = "surplus", "reason", "owner", "run", "retry_of", "retries"
EPOCHS = "epochs"  # that the trial has, told when its values are chosen
OWN = "own"  # the trial has the values of the configuration itself
SEARCHED = "searched"  # user attribute of the study: what it searches, by which it recognises itself


@dataclass(frozen=True)
class StudyFolder:
    """Where a study lies.

    Attributes:
        path: ``OUTPUTS/studies/NAME``.
    """

    path: Path

    @property
    def database(self) -> Path:
        """The SQLite file of the study, if it is kept there."""
        return self.path / "database" / "study.db"

    @property
    def journal(self) -> Path:
        """The journal file of the study, if it is kept there."""
        return self.path / "database" / "study.journal"

    @property
    def trials(self) -> Path:
        """Folder of the trials' runs."""
        return self.path / "trials"

    @property
    def reports(self) -> Path:
        """Folder of tables and configurations."""
        return self.path / "reports"

    @property
    def figures(self) -> Path:
        """Folder of figures."""
        return self.path / "figures"

    @property
    def asking(self) -> Path:
        """Lock file of the one who takes the next trial."""
        return self.path / ".ask.lock"

    @property
    def settings(self) -> Path:
        """The configuration of the study."""
        return self.path / "config.yaml"

    @property
    def log(self) -> Path:
        """Everything that was logged."""
        return self.path / "tune.log"


def minimised(metric: str) -> bool:
    """Return whether lower values of a metric are better."""
    return metric == "val/loss"


def objectives(settings: TuneSettings) -> list[str]:
    """Return the names of the objectives."""
    return [settings.metric] if settings.second_metric is None else [settings.metric, settings.second_metric]


def directions(settings: TuneSettings) -> list[StudyDirection]:
    """Return the direction of every objective, which follows from what it measures."""
    first = StudyDirection.MINIMIZE if minimised(settings.metric) else StudyDirection.MAXIMIZE
    return [first] if settings.second_metric is None else [first, StudyDirection.MINIMIZE]


# --- storage


def storage_url(settings: TuneSettings, folder: StudyFolder) -> str:
    """Return the URL of the storage, or `journal`; PostgreSQL's gets the driver that the extra installs."""
    if settings.storage is None:
        return f"sqlite:///{folder.database.absolute()}"
    scheme, separator, rest = settings.storage.partition("://")
    driver = "postgresql+psycopg2" if scheme in ("postgresql", "postgres") else scheme
    return f"{driver}{separator}{rest}"


def shown_storage(settings: TuneSettings, folder: StudyFolder) -> str:
    """Return where the study is kept, without a password."""
    url = storage_url(settings, folder)
    return str(folder.journal) if url == "journal" else redact_url(url)


def _open_database(url: str, backend: str, heartbeat_s: int) -> RDBStorage:
    """Open a database; several processes may be making its tables at the same time, of which one succeeds first."""
    options: dict[str, Any] = {"pool_pre_ping": True}
    if backend == "sqlite":
        options = {"connect_args": {"timeout": LOCK_WAIT_S}}
    attempt = 0
    while True:
        try:
            with _experimental():
                return RDBStorage(
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


def open_storage(settings: TuneSettings, folder: StudyFolder) -> BaseStorage:
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


def open_study(settings: TuneSettings, folder: StudyFolder, name: str, searched: dict[str, Any]) -> Study:
    """Make the study, or take it up again.

    Args:
        settings: The settings.
        folder: Where it lies.
        name: Its name.
        searched: What is searched, and around which configuration; a study keeps that.

    Raises:
        SettingsError: If there is a study of that name that searches something else.
        RunError: If the storage cannot be reached or written.
    """
    refuse_links(folder.path)
    storage = open_storage(settings, folder)
    study = optuna.create_study(
        storage=storage, study_name=name, directions=directions(settings), load_if_exists=True, pruner=NopPruner()
    )
    if study.directions != directions(settings):
        raise SettingsError(f"tune.metric: the study {name} was begun with other objectives; choose another tune.study")
    stored = study.user_attrs.get(SEARCHED)
    if stored is None:
        study.set_user_attr(SEARCHED, searched)
    elif stored != searched:
        changed = sorted(key for key in {*stored, *searched} if stored.get(key) != searched.get(key))
        raise SettingsError(
            f"tune.study: {name} was begun with other settings ({', '.join(changed)}); choose another name, "
            "or leave tune.study out"
        )
    _ask_in_turn(study, folder)
    return study


def _ask_in_turn(study: Study, folder: StudyFolder) -> None:
    """Let one process of this machine at a time take a trial: SQLite locks no rows, so two could take the same one."""
    ask = study.ask

    def in_turn(fixed_distributions: dict[str, BaseDistribution] | None = None) -> Trial:
        with held(folder.asking, f"{folder.path}: the next trial", LOCK_WAIT_S):
            return ask(fixed_distributions)

    folder.path.mkdir(parents=True, exist_ok=True)
    study.ask = in_turn  # type: ignore[method-assign]  # `optimize` calls it


def load_study(settings: TuneSettings, folder: StudyFolder, name: str) -> Study:
    """Open a study that exists, to read it: nothing is made in its storage, which may be a stranger's.

    Args:
        settings: The settings; `storage` is null or `journal` for the folder's own, or what the user has named.
        folder: Where it lies.
        name: Its name.

    Raises:
        SettingsError: If the address is none.
        RunError: If there is no such storage, or no study of that name in it.
    """
    own = {None: folder.database, "journal": folder.journal}.get(settings.storage)
    if own is not None:
        within(folder.path, own.relative_to(folder.path).as_posix())
        if not own.is_file():
            raise RunError(
                f"{folder.path}: holds no {own.relative_to(folder.path)}; name the storage with --tune.storage"
            )
    url = storage_url(settings, folder)
    try:
        if url == "journal":
            require_plain_journal(folder.journal)
            storage: BaseStorage = JournalStorage(JournalFileBackend(str(folder.journal)))
        else:
            if settings.storage is None:
                require_plain_database(folder.database, LOCK_WAIT_S, writable=False)
                url = f"sqlite:///file:{quote(str(folder.database.absolute()))}?mode=ro&uri=true"
            make_url(url)
            storage = RDBStorage(url, skip_table_creation=True)
        study = optuna.load_study(study_name=name, storage=storage)
        study.get_trials(deepcopy=False)  # which are kept from now on
        return study
    except RunError:
        raise
    except KeyError as error:
        raise RunError(f"{shown_storage(settings, folder)}: holds no study {name}") from error
    except (ArgumentError, ImportError) as error:
        raise SettingsError(f"tune.storage: {_NO_ADDRESS}") from error
    except Exception as error:  # a damaged or foreign file makes Optuna and SQLAlchemy raise almost anything
        reason = next(iter(str(getattr(error, "orig", None) or error).splitlines()), type(error).__name__)
        raise RunError(f"{shown_storage(settings, folder)}: cannot be read as a study ({reason})") from error


# --- sampler and pruner


def make_sampler(settings: TuneSettings, space: Space, seed: int, position: int) -> BaseSampler:
    """Return the sampler for one trial.

    Its seed is a function of the study's seed and of the trial's position, so that a study proposes the same values
    whether or not it was interrupted.

    Args:
        settings: The settings.
        space: The space.
        seed: The study's seed.
        position: Number of trials that count and came before.

    Raises:
        SettingsError: If a grid is asked for and a parameter has no end of values.
    """
    number = derive_seed(seed, "sampler", position) % 2**32
    match settings.sampler:
        case "random":
            return RandomSampler(seed=number)
        case "cmaes":
            return ReplayedCmaEsSampler(number, settings.n_startup_trials)
        case "gp":
            return GPSampler(seed=number, n_startup_trials=settings.n_startup_trials)
        case "nsgaii":
            return NSGAIISampler(seed=number)
        case "grid":
            return _Grid(grid_of(space), seed=derive_seed(seed, "grid") % 2**32)
    with _experimental():
        return TPESampler(
            seed=number,
            n_startup_trials=settings.n_startup_trials,
            multivariate=True,
            group=True,  # conditional parameters
            constant_liar=True,  # several workers
        )


class _Grid(GridSampler):
    """A grid whose end the search looks for itself, before every trial.

    Optuna's stops the study after a trial, and fails there if the trial was put in line and is no point of the grid.
    """

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Do nothing."""


def grid_of(space: Space) -> dict[str, list[Any]]:
    """Return all values of every parameter.

    Raises:
        SettingsError: If a parameter has no end of them, or is not always proposed.
    """
    found: dict[str, list[Any]] = {}
    problems = []
    for parameter in space.parameters:
        values = parameter.grid()
        deciders = {p.path for p in space.parameters} & {c.decider for c in parameter.conditions}
        if values is None:
            problems.append(f"tune.space.{parameter.path}: a grid needs choices, or low and high with a step")
        elif deciders:
            problems.append(
                f"tune.space.{parameter.path}: depends on {', '.join(deciders)}, which a grid cannot follow"
            )
        else:
            found[parameter.path] = values
    if problems:
        raise SettingsError(problems)
    return found


def make_pruner(settings: TuneSettings, epochs: int) -> BasePruner:
    """Return the pruner for trials of so many epochs."""
    startup, warmup = settings.n_startup_trials, settings.n_warmup_epochs
    match settings.pruner:
        case "median":
            return MedianPruner(n_startup_trials=startup, n_warmup_steps=warmup)
        case "percentile":
            return PercentilePruner(settings.percentile, n_startup_trials=startup, n_warmup_steps=warmup)
        case "hyperband":
            return HyperbandPruner(min_resource=max(1, warmup), max_resource=epochs, reduction_factor=3)
        case "patient":
            median = MedianPruner(n_startup_trials=startup, n_warmup_steps=warmup)
            return PatientPruner(median, patience=settings.patience)
    return NopPruner()


# --- which trials count


def counted(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Return the trials that are part of `n_trials`, by number.

    Not among them are those that still wait, those that were one too many, and those that were cut off and put in line
    again: their retry counts.
    """
    trials = list(trials)
    retried = {trial.user_attrs.get(RETRY) for trial in trials}
    return sorted(
        (
            trial
            for trial in trials
            if trial.state != TrialState.WAITING and not trial.user_attrs.get(SURPLUS) and trial.number not in retried
        ),
        key=lambda trial: trial.number,
    )


def finished(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Return the trials that count and have ended."""
    return [trial for trial in counted(trials) if trial.state.is_finished()]


def failures_in_a_row(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Return the failed trials since the last that did not fail, in the order in which they ended."""
    ended = sorted(finished(trials), key=lambda trial: trial.datetime_complete or datetime.datetime.min)
    row: list[FrozenTrial] = []
    for trial in reversed(ended):
        if trial.state != TrialState.FAIL:
            break
        row.insert(0, trial)
    return row


def best_trials(study: Study) -> list[FrozenTrial]:
    """Return the completed trials, best first; with two objectives those that no other one beats come first."""
    completed = [trial for trial in study.get_trials(deepcopy=False) if trial.state == TrialState.COMPLETE]
    sign = -1.0 if study.directions[0] == StudyDirection.MAXIMIZE else 1.0
    front = {trial.number for trial in study.best_trials} if len(study.directions) > 1 and completed else set()
    return sorted(completed, key=lambda t: (t.number not in front, sign * t.values[0], t.number))


# --- trials that were cut off


def put_in_line(study: Study, trial: FrozenTrial, times: int = 1) -> None:
    """Let the values of a trial that was cut off be tried again.

    Args:
        study: The study.
        trial: The trial; it has failed already.
        times: How often at most; a trial that kills its process each time must not do so for ever.
    """
    before = int(trial.user_attrs.get(RETRIES, 0))
    if before < times and (params := _values_of(trial)):
        own = {OWN: True} if trial.user_attrs.get(OWN) else {}
        study.enqueue_trial(params, user_attrs={**own, RETRY: trial.number, RETRIES: before + 1})


def _values_of(trial: FrozenTrial) -> dict[str, Any]:
    """Return the values of a trial; nothing if its process was killed while the sampler chose them."""
    fixed = trial.system_attrs.get("fixed_params")
    if fixed is not None:  # it was itself a retry, or the study's first
        return {**fixed, **trial.params}
    return trial.params if EPOCHS in trial.user_attrs else {}


def cut_off(study: Study, trial: FrozenTrial, reason: str, times: int = 1) -> None:
    """Fail a trial that says it is running, and put its values in line again; see `put_in_line`."""
    storage = study._storage
    try:
        storage.set_trial_user_attr(trial._trial_id, REASON, reason)
        if not _values_of(trial):  # the next trial takes its place, and is given the same values
            storage.set_trial_user_attr(trial._trial_id, SURPLUS, True)
        if not storage.set_trial_state_values(trial._trial_id, TrialState.FAIL):
            return
    except optuna.exceptions.UpdateFinishedTrialError:
        return  # another worker was faster
    put_in_line(study, trial, times)


def without_owner(study: Study) -> list[FrozenTrial]:
    """Return the running trials that do not say whose they are: just begun, or killed in that moment."""
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return [trial for trial in running if OWNER not in trial.user_attrs]


def recover(study: Study) -> list[FrozenTrial]:
    """Cut off the trials whose process is known to be dead, and return them."""
    found = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        owner = trial.user_attrs.get(OWNER)
        if owner is None:
            age = datetime.datetime.now() - (trial.datetime_start or datetime.datetime.min)
            dead = age.total_seconds() > OWNER_WAIT_S
        else:
            dead = not ProcessId.from_dict(owner).may_live()
        if dead:
            cut_off(study, trial, "its process was killed")
            found.append(trial)
    return found
