"""The settings that a study was begun with, from its folder, which may be a stranger's."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from visionforge.config.loading import read_yaml
from visionforge.config.problems import validation_problems
from visionforge.config.schema import TuneSettings
from visionforge.errors import SettingsError


def stored_tune(path: Path, storage: str | None, setting: str = "study") -> TuneSettings:
    """Return the settings of a study's search.

    Args:
        path: Its configuration.
        storage: Where it is kept, if the command line says so.
        setting: What names the study, for messages.

    Raises:
        SettingsError: If they cannot be read, or do not say where the study is kept.
    """
    stored = read_yaml(path).get("tune")
    if not isinstance(stored, Mapping):
        raise SettingsError(f"{path}: has no section tune, so it is no study's configuration")
    own = stored.get("storage")
    if storage is None and own not in (None, "journal"):  # only the user says what is connected to
        mend = "; name it with --tune.storage" if setting == "study" else ", which is not connected to"
        raise SettingsError(f"{setting}: the study is kept in a database of its own{mend}")
    try:
        return TuneSettings.model_validate({**stored, "storage": storage or own})
    except ValidationError as error:
        raise SettingsError(
            [f"{path}: {line}" for line in validation_problems(error, TuneSettings, "tune.")]
        ) from error
