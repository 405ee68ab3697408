"""The catalog: find a data set by name. Entries are YAML files; nothing here knows a particular archive."""

import os
import re
import shlex
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.resources import files
from pathlib import Path

from platformdirs import user_data_path
from pydantic import ValidationError

from visionforge.config.problems import nearest, validation_problems
from visionforge.config.schema import Synthetic
from visionforge.config.schema.tasks import task_named
from visionforge.data.info import DatasetInfo, DomainFlags, Normalisation, Splits
from visionforge.errors import DataError, SettingsError, VisionForgeError
from visionforge.printable import printable
from visionforge.reading import UnreadableError, read_text, read_yaml_text

SYNTHETIC = "synthetic"
MAX_NAME = 60  # characters of a catalog name; it stands in names of folders and files
ENTRY_POINTS = "visionforge.datasets"  # of other packages: a DatasetInfo, or a function that returns one
_registered: dict[str, DatasetInfo] = {}


def catalog_folder() -> Path:
    """Return the folder of the user's own entries: $VISIONFORGE_CATALOG, or else one in the user's data folder."""
    environment = os.environ.get("VISIONFORGE_CATALOG")
    return Path(environment).expanduser() if environment else user_data_path("visionforge") / "catalog"


def register_dataset(info: DatasetInfo, replace: bool = False) -> None:
    """Add an entry for this process; an equal one may be added again, as when a notebook cell is run twice.

    Args:
        info: The entry.
        replace: Take the place of an entry of the same name that was registered before.

    Raises:
        ValueError: If the name is taken.
    """
    if info.name in _builtin_names():
        raise ValueError(f"a data set named {info.name!r} is in the catalog already: it is built in")
    if _registered.get(info.name) not in (None, info) and not replace:
        raise ValueError(
            f"a data set named {info.name!r} is in the catalog already, with other values; choose another name, or "
            "give replace=True"
        )
    _registered[info.name] = info


def dataset_names() -> tuple[str, ...]:
    """Return the names of all data sets: built in, of the user's catalog folder, of other packages, and registered."""
    folder = catalog_folder()
    own = [path.stem for path in folder.glob("*.yaml")] if folder.is_dir() else []
    return tuple(sorted({*_builtin_names(), *own, *_packaged(), *_registered}))


def catalog() -> tuple[list[DatasetInfo], list[str]]:
    """Return all entries, and a line for each problem of those that are not valid, such as the user's own."""
    entries: list[DatasetInfo] = []
    problems: list[str] = []
    for name in dataset_names():
        try:
            entries.append(dataset_info(name))
        except VisionForgeError as error:
            problems += error.problems
    return entries, problems


def is_builtin(name: str) -> bool:
    """Return whether a name belongs to visionforge itself."""
    return name in _builtin_names()


@cache
def _builtin_names() -> tuple[str, ...]:
    folder = files("visionforge.data") / "catalog"
    names = [entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")]
    return (*names, SYNTHETIC)


@cache
def _packaged() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}


def dataset_info(name: str, synthetic: Synthetic | None = None) -> DatasetInfo:
    """Return the catalog entry of a data set.

    Args:
        name: Catalog name.
        synthetic: What `synthetic` renders; other data sets do not read it.

    Raises:
        SettingsError: If there is no such data set; the nearest names are in the message.
        DataError: If the entry is not valid.
    """
    if name == SYNTHETIC:
        return synthetic_info(synthetic or Synthetic())
    if name in _builtin_names():
        return _builtin_entry(name)
    if name in _registered:
        return _registered[name]
    path = catalog_folder() / f"{name}.yaml"
    if name in dataset_names() and path.is_file():
        return _own_entry(path, name)
    if name in _packaged():
        return _packaged_entry(name)
    if (path := Path(name)).exists():
        word = name_from(path)
        if word in dataset_names() and dataset_info(word).made_from == str(path.resolve()):
            raise SettingsError(
                f"data.dataset: {printable(name)} is a path; the data set that was made of it is called {word}: name "
                "that one"
            )
        raise SettingsError(
            f"data.dataset: {printable(name)} is a path and no name of the catalog; make a data set of it with "
            f"`visionforge datasets import {shlex.quote(printable(name))} --name {word}`, then --data.dataset {word}"
        )
    close = nearest(name, dataset_names()) or dataset_names()
    raise SettingsError(
        f"data.dataset: {name!r} is unknown; nearest: {', '.join(close)} (`visionforge datasets list` shows all)"
    )


def name_from(path: Path) -> str:
    """Return a catalog name that a folder or file suggests."""
    return re.sub(r"[^a-z0-9]+", "_", path.resolve().stem.lower()).strip("_")[:MAX_NAME].strip("_") or "mine"


@cache
def _builtin_entry(name: str) -> DatasetInfo:
    text = (files("visionforge.data") / "catalog" / f"{name}.yaml").read_text(encoding="utf-8")
    return _parse_entry(text, f"catalog entry {name}", name)


def _own_entry(path: Path, name: str) -> DatasetInfo:
    """Read an entry of the user's folder, which may come from anybody."""
    try:
        info = _parse_entry(read_text(path), str(path), name)
    except (OSError, UnreadableError) as error:
        raise DataError(f"{path}: cannot be read as an entry of the catalog ({error})") from error
    if info.source != "archive":
        raise DataError(f"{path}: source: {info.source!r} is not allowed; allowed in an entry of your own: archive")
    return info


def _parse_entry(text: str, where: str, name: str) -> DatasetInfo:
    try:
        info = DatasetInfo.model_validate(read_yaml_text(text))
    except UnreadableError as error:
        raise DataError(f"{where}: {error}") from error
    except ValidationError as error:
        raise DataError([f"{where}: {line}" for line in validation_problems(error, DatasetInfo)]) from error
    except (ValueError, OverflowError) as error:  # of dates and numbers that look like some and are none
        raise DataError(f"{where}: not valid YAML ({error})") from error
    if info.name != name:
        raise DataError(f"{where}: is an entry for {info.name!r}, so the file has to be named {info.name}.yaml")
    return info


@cache
def _packaged_entry(name: str) -> DatasetInfo:
    loaded = _packaged()[name].load()
    info = loaded() if callable(loaded) else loaded
    if not isinstance(info, DatasetInfo) or info.name != name:
        raise DataError(f"entry point {ENTRY_POINTS}:{name}: gives no DatasetInfo of that name")
    return info


def synthetic_info(settings: Synthetic) -> DatasetInfo:
    """Return the entry of the rendered data set for the given settings."""
    task = task_named(settings.task)
    return DatasetInfo(
        name=SYNTHETIC,
        title="Synthetic",
        description="Gratings, discs and other shapes with noise, rendered on the fly; for tests and smoke runs.",
        task=settings.task,
        classes=task.drawn_classes(settings.classes),
        channels=settings.channels,
        splits=Splits(train=settings.train, val=settings.val, test=settings.test),
        source=SYNTHETIC,
        normalisation=Normalisation(
            mean=(0.5,) * settings.channels, std=(0.16,) * settings.channels, source="rendered"
        ),
        flags=DomainFlags(**task.drawn_flags()),
        licence="none needed",
        citation="none needed",
    )
