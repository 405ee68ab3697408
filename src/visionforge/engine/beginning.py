"""What a training of the command line begins with, where it is more than settings: nothing of it is loaded without."""

from typing import TYPE_CHECKING

from visionforge.config.loading import RawConfig
from visionforge.errors import SettingsError

if TYPE_CHECKING:
    from visionforge.engine.starter import Starter


def begin_with(raw: RawConfig, source: str | None) -> "tuple[RawConfig, Starter | None]":
    """Return settings with those of a starter underneath, and the starter; without a source, the settings as they are.

    Args:
        raw: The settings as they were given, and `minutes` and `name`.
        source: What `starter` takes.

    Raises:
        VisionForgeError: If there are minutes or a name without a source, or the source cannot be used.
    """
    raw = raw.copy()
    minutes, name = raw.values.pop("minutes", None), raw.values.pop("name", None)
    if source is not None:
        from visionforge.engine.starter import begin_over

        return begin_over(raw, source, minutes, None if name is None else str(name))
    if name is not None:
        raise SettingsError("--name: is for `visionforge fit SOURCE`; a data set is chosen by data.dataset")
    if minutes is not None:
        raise SettingsError("--minutes: is for `visionforge fit SOURCE`; otherwise set trainer.max_epochs")
    return raw, None
