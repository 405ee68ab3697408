"""What somebody's pictures are: a data set of the catalog, or a folder or table that becomes one."""

import contextlib
import shlex
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from visionforge.config.problems import nearest
from visionforge.data.csv_listing import table_facts
from visionforge.data.dicom import is_dicom
from visionforge.data.import_commands import flags_of, import_command
from visionforge.data.import_npz import SUFFIX
from visionforge.data.import_report import ImportReport
from visionforge.data.importing import BOXES, MASKS, ImportSettings, import_images, list_source
from visionforge.data.info import DatasetInfo
from visionforge.data.picture_sources import is_junk, is_picture, walk_files, walk_pictures, walk_volumes
from visionforge.data.pictures import PictureError, opened_picture, picture_size
from visionforge.data.positive import choose_positive
from visionforge.data.registry import MAX_NAME, dataset_info, dataset_names, name_from
from visionforge.data.table_files import TABLES
from visionforge.engine.starter_settings import LARGE, LARGEST, MANY, MIDDLE, SMALL
from visionforge.engine.validation import device_facts
from visionforge.errors import DataError, SettingsError, VisionForgeError
from visionforge.printable import printable
from visionforge.runs.paths import shown

LOOKED_AT = 64  # pictures whose sizes are asked for


def dataset_of(
    source: str | Path, name: str | None, root: str | Path | None, given: Mapping[str, Any]
) -> tuple[DatasetInfo, ImportReport | None, str | None]:
    """Return the data set of a source, what was made of pictures, and what is to be said of one that was there.

    Args:
        source: What `starter` takes.
        name: Catalog name of what is made of pictures; None makes one of the source's.
        root: Folder of the archives.
        given: Settings of the import that were asked for.

    Raises:
        SettingsError: If nothing is there of this name, or the settings do not go with it.
        DataError: If pictures or table cannot be used.
    """
    text, path = str(source), Path(source).expanduser()
    of_pictures = [*(["name"] if name not in (None, text) else []), *given]
    if text in dataset_names() and not (of_pictures and path.exists()):
        if of_pictures:
            raise SettingsError(
                f"{of_pictures[0]}: is for pictures, and {text} is a data set of the catalog; leave it out"
            )
        info = dataset_info(text)
        if info.made_from is None or not path.is_dir():
            return info, None, None
        made_from = Path(info.made_from)
        if made_from.is_relative_to(path.resolve()):
            return info, None, _again(info, made_from, root) if made_from.exists() else None
        if isinstance(source, str):
            raise SettingsError(
                f"{text}: is a folder here, and a data set of the catalog that was made of another, {info.made_from}; "
                f"type `visionforge fit {text}/` for the folder, `{_catalogs(text)}` for the data set"
            )
    if not path.exists():
        if len(path.parts) > 1 or text.endswith("/") or path.suffix:
            raise DataError(f"{printable(text)}: does not exist")
        raise SettingsError(
            f"{printable(text)}: there is no folder, table or data set of this name here; "
            f"nearest: {_nearest(text) or 'none'} (`visionforge datasets list` shows all data sets)"
        )
    path = _found(path, given.get("frames") == "volume")
    chosen = name or name_from(path)
    if chosen in dataset_names() and not given.get("replace"):
        return _known(chosen, path, text, root, given)
    settings = _import_settings(path, chosen, root, given)
    report = import_images(settings)
    if settings.group_column is not None:
        report.notes.insert(0, f"pictures of the same {settings.group_column} are in the same split")
    return report.info, report, None


def _import_settings(path: Path, name: str, root: str | Path | None, given: Mapping[str, Any]) -> ImportSettings:
    """Return how a source is imported: as it is asked for, and else as it looks."""
    settings: dict[str, Any] = {"root": None if root is None else Path(root)}
    if path.suffix.lower() == SUFFIX and path.is_file():
        return ImportSettings(source=path, name=name, **settings, **given)
    if path.is_file():
        table = table_facts(path)
        pictures = table.paths
        if table.label_column is not None:
            settings["label_column"] = table.label_column
        if table.group_columns and not given.get("no_groups"):
            settings["group_column"] = table.group_columns[0]
    else:
        pictures = list(walk_pictures(path)) or list(walk_volumes(path))
    kind = next((form for form in (MASKS, BOXES) if form in given), _kind(path))
    if "resolution" not in given:
        device = device_facts("auto")
        settings["resolution"] = _resolution(pictures, kind, device is not None and device.gpu)
    if kind == MASKS and not {"mask_values", "ignore"} & given.keys():
        inside = path / "train" if (path / "train").is_dir() else path
        settings |= _values_of_masks(given.get("masks") or inside / MASKS)
    return ImportSettings(source=path, name=name, **{**settings, **given})


def _known(
    name: str, path: Path, text: str, root: str | Path | None, given: Mapping[str, Any]
) -> tuple[DatasetInfo, None, str]:
    """Return a data set that was made of the same source before.

    Raises:
        SettingsError: If it was made of something else, or is to be made otherwise.
    """
    info = dataset_info(name)
    if info.made_from != str(path.resolve()):
        other = f"{name[: MAX_NAME - 2]}_2"
        raise SettingsError(
            f"name: there is another data set {name!r}; make this one with "
            f"`{init_command(text, other, root, flags_of(given))}`, or train on that one with `{_catalogs(name)}`"
        )
    if given.get("task") not in (None, info.task):
        raise SettingsError(f"task: {name} was made as {info.task}; give it another `name`")
    if others := [key for key in given if key != "task"]:
        raise SettingsError(
            f"{others[0]}: {name} was made of it before; add `replace` to make it anew, or give it another `name`"
        )
    return info, None, _again(info, path, root)


def _catalogs(name: str) -> str:
    """Return what is typed to train on a data set of the catalog, whatever lies in the folder."""
    return f"visionforge fit {name} --data.dataset {name}"


def _again(info: DatasetInfo, path: Path, root: str | Path | None) -> str:
    """Return what is to be said of a data set that was made of the same source before."""
    note = f"{info.name} was made of it before"
    try:
        settings = replace(_import_settings(path, info.name, root, _as_it_was(info)), replace=True)
        then = sum(info.splits.model_dump().values())
        more = 0 if path.suffix.lower() == SUFFIX else len(list_source(settings).paths) - then
    except (VisionForgeError, OSError) as error:
        return printable(f"{note}; it can no longer be read again ({str(error).splitlines()[0]})")
    if more:
        count = f"{abs(more):,} picture{'s' if abs(more) > 1 else ''}"
        note += f", and it has {count} {'more' if more > 0 else 'fewer'} than were taken then"
    return printable(f"{note}; `{import_command(settings)}` would read it again")


def _as_it_was(info: DatasetInfo) -> dict[str, Any]:
    """Return what an entry tells of the settings that it was imported with."""
    flags = info.flags.model_dump(include={"hflip", "vflip", "dflip", "rotation"})
    given = flags | {"resolution": min(info.resolutions or (SMALL,)), "intensity": info.intensity}
    given["columns"] = ",".join(info.columns) or None
    if info.positive is not None and len(info.classes) == 2:
        usual = choose_positive((info.classes[0], info.classes[1])).name
        given["positive"] = None if info.positive == usual else info.positive
    return {key: value for key, value in given.items() if value is not None}


def _found(path: Path, volumes: bool) -> Path:
    """Return the folder or table of pictures that a path means, which may lie in it.

    Args:
        path: The path.
        volumes: DICOM files are volumes, for which folders of scans lie in those of the classes.

    Raises:
        DataError: If there is none, or several.
    """
    if path.is_file():
        if path.suffix.lower() not in (*TABLES, SUFFIX):
            raise DataError(f"{shown(path)}: is no table (.csv, .xlsx), archive (.npz), folder or name of the catalog")
        return path
    tables = sorted(each for each in path.iterdir() if each.suffix.lower() in TABLES and _is_table(each))
    if len(tables) == 1:
        return tables[0]
    if _is_source(path, volumes):
        return path
    below = [each for each in sorted(path.iterdir()) if each.is_dir() and not each.name.startswith(".")]
    found = [*tables, *(each for each in below if _is_source(each, volumes))]
    if len(found) == 1:
        return found[0]
    there = (
        f"{len(found)} of them: {', '.join(printable(each.name) for each in found[:4])}; name one"
        if found
        else ("none of them; `visionforge datasets list` shows data sets that are ready")
    )
    if not volumes and len(_of_scans(path)) > 1:
        there += "; folders of DICOM series in folders of classes are volumes: add `frames` volume"
    raise DataError(
        f"{shown(path)}: looked for a folder of class folders, pictures with masks or boxes, or a table (.csv, .xlsx); "
        f"there {'are' if len(found) > 1 else 'is'} {there}"
    )


def _nearest(text: str) -> str:
    """Return the names of the catalog, and of folders and tables here, that resemble one."""
    here: list[str] = []
    with contextlib.suppress(OSError):
        for each in Path().iterdir():
            if not is_junk(each.name) and (each.is_dir() or each.suffix.lower() in (*TABLES, SUFFIX)):
                here.append(printable(each.name))
    return ", ".join(nearest(text, [*here, *dataset_names()]))


def _is_table(path: Path) -> bool:
    """Return whether a file is a table of pictures and labels; what cannot be read is none."""
    try:
        return table_facts(path).names_pictures
    except DataError:
        return False


def _is_source(folder: Path, volumes: bool) -> bool:
    """Return whether a folder has folders of pictures, of volumes, of the splits of such, or of scans if asked for."""
    names = {each.name for each in folder.iterdir() if each.is_dir() and not each.name.startswith(".")}
    if {"images", "masks"} <= names or {"JPEGImages", "Annotations"} <= names or "annotations" in names:
        return True
    if "train" in names:
        return _is_source(folder / "train", volumes)
    if volumes and len(_of_scans(folder)) > 1:
        return True
    return sum(any(is_picture(each) for each in (folder / name).iterdir() if each.is_file()) for name in names) > 1


def _of_scans(folder: Path) -> list[str]:
    """Return the names of the folders below one that have DICOM files in folders of their own."""
    found = []
    for each in sorted(folder.iterdir()):
        if each.is_dir() and not is_junk(each.name):
            inside = (scan for scan in sorted(each.iterdir()) if scan.is_dir() and not is_junk(scan.name))
            found += [each.name] if any(any(map(is_dicom, walk_files(scan))) for scan in inside) else []
    return found


def _kind(path: Path) -> str | None:
    """Return what a source seems to have beside classes."""
    inside = path / "train" if (path / "train").is_dir() else path
    if (inside / "masks").is_dir():
        return MASKS
    if path.is_dir() and ((path / "Annotations").is_dir() or (path / "annotations").is_dir()):
        return BOXES
    return None


def _values_of_masks(masks: Path) -> dict[str, Any]:
    """Return what masks seem to mean: all above 0 is one class, or 255 stands for pixels that count for nothing."""
    values = set[int]()
    for path in [each for each in sorted(masks.rglob("*")) if is_picture(each)][:LOOKED_AT]:
        with contextlib.suppress(PictureError), opened_picture(path) as mask:  # the import tells of what is none
            values |= {value for _, value in mask.convert("L").getcolors(256) or []}  # type: ignore[misc]
    if values <= {0, 255} and 255 in values:
        return {"mask_values": "foreground"}
    return {"ignore": 255} if 255 in values else {}


def _resolution(pictures: list[str], kind: str | None, gpu: bool) -> int:
    """Return the side in pixels that pictures are stored with."""
    step = max(1, len(pictures) // LOOKED_AT)
    sides = []
    for name in pictures[::step][:LOOKED_AT]:
        with contextlib.suppress(PictureError):  # of a volume
            sides.append(min(picture_size(Path(name))))
    side = statistics.median(sides) if sides else SMALL
    if kind is not None:
        return LARGE if side <= LARGE * 1.5 or not gpu else 2 * LARGE
    if side <= 1.5 * SMALL or (not gpu and len(pictures) > MANY):
        return SMALL
    if side <= 1.5 * MIDDLE or not gpu:
        return MIDDLE
    return LARGE if side <= 1.5 * LARGE else LARGEST


def init_command(source: str, name: str | None, root: str | Path | None, flags: Sequence[str] = ()) -> str:
    """Return what is typed to have a configuration of a source written."""
    named, lies = [] if name is None else ["--name", name], [] if root is None else ["--root", str(root)]
    return printable(shlex.join(["visionforge", "init", source, *named, *lies, *flags]), None)
