"""The study: made, taken up again, or opened to be read."""

import logging
from typing import Any
from urllib.parse import quote

import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import NopPruner
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from visionforge.config.schema import TuneSettings
from visionforge.config.schema.metrics import higher_is_better
from visionforge.errors import RunError, SettingsError
from visionforge.runs.files import refuse_links, within
from visionforge.runs.locks import held
from visionforge.tuning.folder import StudyFolder
from visionforge.tuning.halving import Ladder, promote
from visionforge.tuning.storage import (
    _NO_ADDRESS,
    LOCK_WAIT_S,
    Kept,
    open_storage,
    shown_storage,
    storage_url,
)
from visionforge.tuning.stored import require_plain_database, require_plain_journal
from visionforge.tuning.trials import first_attempts

log = logging.getLogger(__name__)
SEARCHED = "searched"  # user attribute of the study: what it searches, by which it recognises itself


def minimised(metric: str) -> bool:
    """Return whether lower values of a metric are better."""
    return not higher_is_better(metric)


def objectives(settings: TuneSettings) -> list[str]:
    """Return the names of the objectives."""
    return [settings.metric] if settings.second_metric is None else [settings.metric, settings.second_metric]


def directions(settings: TuneSettings) -> list[StudyDirection]:
    """Return the direction of every objective, which follows from what it measures."""
    first = StudyDirection.MINIMIZE if minimised(settings.metric) else StudyDirection.MAXIMIZE
    return [first] if settings.second_metric is None else [first, StudyDirection.MINIMIZE]


def open_study(
    settings: TuneSettings, folder: StudyFolder, name: str, searched: dict[str, Any], ladder: Ladder | None = None
) -> Study:
    """Make the study, or take it up again.

    Args:
        settings: The settings.
        folder: Where it lies.
        name: Its name.
        searched: What is searched, and around which configuration; a study keeps that.
        ladder: When paused trials go on.

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
    ask_in_turn(study, folder, ladder)
    return study


def ask_in_turn(study: Study, folder: StudyFolder, ladder: Ladder | None = None) -> None:
    """Let one process of this machine at a time take a trial: SQLite locks no rows, so two could take the same one.

    Paused trials that may go on come before new ones.
    """
    ask = study.ask

    def in_turn(fixed_distributions: dict[str, BaseDistribution] | None = None) -> Trial:
        with held(folder.asking, f"{folder.path}: the next trial", LOCK_WAIT_S):
            if ladder is not None:
                promote(study, ladder)
            return ask(fixed_distributions)

    folder.path.mkdir(parents=True, exist_ok=True)
    study.ask = in_turn  # type: ignore[method-assign]  # `optimize` calls it


def load_study(settings: Kept, folder: StudyFolder, name: str) -> Study:
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


def best_trials(study: Study) -> list[FrozenTrial]:
    """Return the completed trials, best first; with two objectives those that no other one beats come first."""
    completed = [trial for trial in study.get_trials(deepcopy=False) if trial.state == TrialState.COMPLETE]
    sign = -1.0 if study.directions[0] == StudyDirection.MAXIMIZE else 1.0
    front = {trial.number for trial in study.best_trials} if len(study.directions) > 1 and completed else set()
    first = first_attempts(study.get_trials(deepcopy=False))
    return sorted(completed, key=lambda t: (t.number not in front, sign * t.values[0], first[t.number]))
