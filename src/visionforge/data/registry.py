"""The catalog: find a data set by name. Entries are YAML files; nothing here knows a particular archive."""

from functools import cache
from importlib.resources import files

import yaml
from pydantic import ValidationError

from visionforge.config.problems import nearest, validation_problems
from visionforge.config.schema import Synthetic
from visionforge.data.info import DatasetInfo, DomainFlags, Normalisation, Splits
from visionforge.errors import DataError, SettingsError

SYNTHETIC = "synthetic"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # both are safe; the C one is ten times as fast


@cache
def dataset_names() -> tuple[str, ...]:
    """Return the names of all data sets, sorted."""
    folder = files("visionforge.data") / "catalog"
    names = [entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")]
    return tuple(sorted([*names, SYNTHETIC]))


def dataset_info(name: str, synthetic: Synthetic | None = None) -> DatasetInfo:
    """Return the catalog entry of a data set.

    Args:
        name: Catalog name.
        synthetic: What `synthetic` renders; other data sets do not read it.

    Raises:
        SettingsError: If there is no such data set; the nearest names are in the message.
    """
    if name == SYNTHETIC:
        return synthetic_info(synthetic or Synthetic())
    if name not in dataset_names():
        close = nearest(name, dataset_names()) or dataset_names()
        raise SettingsError(
            f"data.dataset: {name!r} is unknown; nearest: {', '.join(close)} (`visionforge datasets list` shows all)"
        )
    return _read_entry(name)


@cache
def _read_entry(name: str) -> DatasetInfo:
    text = (files("visionforge.data") / "catalog" / f"{name}.yaml").read_text(encoding="utf-8")
    try:
        return DatasetInfo.model_validate(yaml.load(text, Loader=_LOADER))
    except ValidationError as error:
        raise DataError(
            [f"catalog entry {name}: {line}" for line in validation_problems(error, DatasetInfo)]
        ) from error


def synthetic_info(settings: Synthetic) -> DatasetInfo:
    """Return the entry of the rendered data set for the given settings."""
    word = {"multi-label": "pattern", "ordinal": "grade"}.get(settings.task, "class")
    classes = 2 if settings.task == "binary" else settings.classes
    return DatasetInfo(
        name=SYNTHETIC,
        title="Synthetic",
        description="Oriented gratings and discs with noise, rendered on the fly; for tests and smoke runs.",
        task=settings.task,
        classes=tuple(f"{word} {index}" for index in range(classes)),
        channels=settings.channels,
        splits=Splits(train=settings.train, val=settings.val, test=settings.test),
        source=SYNTHETIC,
        normalisation=Normalisation(
            mean=(0.5,) * settings.channels, std=(0.16,) * settings.channels, source="rendered"
        ),
        flags=DomainFlags(hflip=False, vflip=False, rotation="small", texture_is_label=True, colour_is_label=False),
        licence="none needed",
        citation="none needed",
    )
