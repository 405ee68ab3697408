"""What a run's manifest says of its data, its device and the switches in force."""

import lightning.pytorch as pl

from visionforge.config.schema import DataSettings
from visionforge.data.info import DatasetInfo
from visionforge.data.source import EMBEDDED, fingerprint
from visionforge.errors import DataError
from visionforge.runs.provenance import environment_variables
from visionforge.runs.session import ActiveRun
from visionforge.training.determinism import devices_in_use, switches_in_force


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
    before = active.manifest.data
    if before and before != found:
        raise DataError(
            f"data.root: {found['archive']} has MD5 {found['md5']}, the run was begun with {before.get('md5')}; "
            "name the folder of that archive, or begin a new run"
        )
    active.update(data=found)


def describe_session(active: ActiveRun, trainer: pl.Trainer, checkpoint: str | None) -> None:
    """Write into the manifest which device and which switches are in force, and what the training goes on from."""
    session = active.manifest.sessions[-1]
    active.update_session(
        hardware={**session.hardware, **devices_in_use(trainer)},
        switches=switches_in_force(),
        environment=environment_variables(),
        checkpoint=checkpoint,
    )
