"""What a run's manifest says of its data, its device and the switches in force."""

import logging

import lightning.pytorch as pl

from visionforge.config.schema import DataSettings
from visionforge.config.schema.data import FOLD_POOLS
from visionforge.data.info import DatasetInfo
from visionforge.data.leakage import training_leaks
from visionforge.data.source import EMBEDDED, fingerprint, local_archive
from visionforge.errors import DataError
from visionforge.runs.manifest import NOTICED, SHARED
from visionforge.runs.provenance import environment_variables
from visionforge.runs.session import ActiveRun
from visionforge.training.determinism import devices_in_use, switches_in_force

log = logging.getLogger(__name__)


def describe_data(active: ActiveRun, info: DatasetInfo, settings: DataSettings) -> None:
    """Write into the manifest what is read; a resumed run has to read the same.

    Raises:
        DataError: If the data is not what the run was begun with.
    """
    found = {
        "dataset": info.name,
        "resolution": settings.resolution,
        "archive": None if info.source in EMBEDDED else info.archive_name(settings.resolution),
        "md5": fingerprint(info, settings.resolution, settings.root),
        "images": info.splits.model_dump(),
    }
    before = {name: value for name, value in active.manifest.data.items() if name not in (SHARED, NOTICED)}
    if before and before != found:
        raise DataError(
            f"data.root: {found['archive']} has MD5 {found['md5']}, the run was begun with {before.get('md5')}; "
            "name the folder of that archive, or begin a new run"
        )
    active.update(data={**found, NOTICED: "; ".join(info.notes)} if info.notes else found)


def warn_of_leaks(active: ActiveRun, info: DatasetInfo, settings: DataSettings) -> None:
    """Warn in a line of what validation and test split share with the training split; the manifest says it, too."""
    if info.source in EMBEDDED:
        return
    path = local_archive(info, settings.resolution, settings.root)
    try:
        leaks = training_leaks(info, settings.resolution, settings.root, path)
    except DataError as error:  # of names and groups, which a training does not need
        log.warning("%s: not looked for what splits share (%s)", info.name, error)
        return
    anew = FOLD_POOLS[settings.fold_pool] if settings.folds is not None else ()  # what folds divide
    told = [leak for leak in leaks if not anew or leak.split not in anew or leak.split == "test"]
    found = "; ".join(map(str, told))
    if found and "test" in anew:
        found += ", as the archive divides them: folds do not keep copies together"
    if found:
        log.warning("%s: %s; see `visionforge datasets check %s`", info.name, found, info.name)
        active.update(data={**active.manifest.data, SHARED: found})


def describe_session(active: ActiveRun, trainer: pl.Trainer, checkpoint: str | None) -> None:
    """Write into the manifest which device and which switches are in force, and what the training goes on from."""
    session = active.manifest.sessions[-1]
    active.update_session(
        hardware={**session.hardware, **devices_in_use(trainer)},
        switches=switches_in_force(),
        environment=environment_variables(),
        checkpoint=checkpoint,
    )
