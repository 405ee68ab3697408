"""A configuration to begin with: what fits a data set, this machine and some minutes, and why.

Pictures that are no data set yet become one. What is chosen depends on the data, on whether there is a GPU, on the
number of cores and on the minutes; nothing is measured, so that the same question has the same answer.
"""

import contextlib
import datetime
import logging
import os
import shlex
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import yaml

from visionforge.config.loading import SETTINGS, RawConfig, is_first_process, read_yaml
from visionforge.config.problems import nearest, value_at
from visionforge.config.schema import RunSettings
from visionforge.config.schema.tasks import TaskName, task_named
from visionforge.config.shipped import find_config, recipe_for, shipped_files
from visionforge.data.csv_listing import table_facts
from visionforge.data.dicom import is_dicom
from visionforge.data.import_commands import flags_of, import_command, with_command
from visionforge.data.import_npz import SUFFIX
from visionforge.data.import_report import ImportReport
from visionforge.data.import_settings import import_flags
from visionforge.data.importing import BOXES, MASKS, ImportSettings, import_images, list_source
from visionforge.data.info import DatasetInfo
from visionforge.data.picture_sources import is_junk, is_picture, walk_files, walk_pictures, walk_volumes
from visionforge.data.pictures import PictureError, opened_picture, picture_size
from visionforge.data.positive import choose_positive
from visionforge.data.registry import MAX_NAME, dataset_info, dataset_names, name_from
from visionforge.data.table_files import TABLES
from visionforge.distribution import own_version
from visionforge.engine.validation import check_settings, device_facts
from visionforge.errors import DataError, SettingsError, VisionForgeError
from visionforge.printable import printable
from visionforge.runs.files import write_atomic
from visionforge.runs.paths import shown

log = logging.getLogger(__name__)
MINUTES = 10.0
LONGEST = 7 * 24 * 60.0
_ALLOWED = f"a number, above 0 to {LONGEST:g}"
PER_CORE = {  # images of 28×28 pixels that a CPU core trains in a second (AVX-512, float32), validation included
    "fastnet": 230.0,
    "masks": 70.0,  # resnet18 with unet
    "boxes": 60.0,  # resnet18 with fcos
}
SHARE = 0.7  # of the minutes that are trained: the rest is for start, test and report
LOOKED_AT = 64  # pictures whose sizes are asked for
SMALL, MIDDLE, LARGE, LARGEST = 28, 64, 128, 224  # pixels
MANY = 5_000  # pictures of 64 pixels that a CPU trains for long
_DENSE_EPOCHS, _DENSE_RATE = 30, 1e-3
_REASONS = {
    "data.batch_size": "small batches for small data sets: a step of the optimiser needs few images",
    "data.balanced_sampling": "classes are drawn as often as they occur; true draws rare ones more often",
    "data.force_rgb": "grey pictures stay grey: pretrained weights would need three channels",
    "data.augmentation": "what a picture may look like and stay what it is: `visionforge datasets show {name}`",
    "model.backbone": "trained from random weights: the network that gets furthest in minutes on small images",
    "model.optimizer": "found by a search on data sets of this size",
    "model.schedule": "the rate rises for a fifth of the steps and falls to the end, so that few epochs are enough",
    "model.loss": "a share of the target is spread over the other classes where images are few",
    "model.mixup": "pairs of images are mixed where there are enough of them",
    "model.tta": "test pictures are looked at mirrored, too, where that is allowed",
    "model.decoder": "feature maps become a class of every pixel",
    "model.detector": "feature maps become boxes",
}


@dataclass(frozen=True)
class Starter:
    """A configuration, and what is to be said of it.

    Attributes:
        info: The data set.
        settings: The settings, nested: ``vf.fit(starter.settings)`` trains.
        reasons: Dotted path of a setting or section → why it is so.
        minutes: About how long the training will take; None where nobody can say.
        device: What it was chosen for.
        imported: What was made of pictures; None of a data set that was there.
        note: What is to be said of a data set that was there already.
        command: What is typed for the same data set.
    """

    info: DatasetInfo
    settings: Mapping[str, Any]
    reasons: Mapping[str, str]
    minutes: float | None
    device: str
    imported: ImportReport | None = None
    note: str | None = None
    command: str = ""

    def lines(self, more: str = "--replace") -> list[str]:
        """Return what became of the source, as a terminal shows it.

        Args:
            more: What the command has to be given beside a flag that changes what was made of the source.
        """
        if self.imported is None:
            return [f"! {self.note}"] if self.note else []
        return [
            with_command(line, self.command, more)
            if line.startswith("! ") or line[1:].startswith(" positive ")
            else line
            for line in self.imported.lines(then=False)
        ]

    def choices(self, given: Mapping[str, Any]) -> str:
        """Return what is trained, and how, in one line.

        Args:
            given: The settings that are used, which may differ from those of the starter.
        """
        backbone = value_at(given, "model.backbone")
        network = backbone.get("name", "an own network") if isinstance(backbone, Mapping) else backbone
        pixels, batch = value_at(given, "data.resolution"), value_at(given, "data.batch_size")
        epochs = value_at(given, "trainer.max_epochs")
        plural = "" if str(epochs) == "1" else "s"
        explained = f" (`{self.command}` explains them)" if self.command else ""
        return f"  chosen   {network}, {pixels} pixels, {epochs} epoch{plural}, batches of {batch}{explained}"

    def yaml(self, file: str = "x.yaml") -> str:
        """Return the settings as a YAML file with a comment for every choice.

        Args:
            file: How it will be called, for the command in its first lines.
        """
        sizes = " / ".join(f"{count:,} {split}" for split, count in self.info.splits.model_dump().items())
        today = datetime.datetime.now(tz=datetime.UTC).date()
        lines = [
            f"# {self.info.name}: {self.info.task}, {len(self.info.classes)} classes, {sizes}.",
            f"# Written by visionforge {own_version()} on {today} for {self.device}; train with",
            f"#     visionforge fit --config {file}",
            f"# `visionforge fit --help all` tells of every setting.{self._duration()}",
        ]
        for section, content in self.settings.items():
            lines += ["", f"{section}:"]
            for name, value in content.items():
                reason = self.reasons.get(f"{section}.{name}")
                lines += [f"  # {reason}"] if reason else []
                lines.append(f"  {name}: {_flow(value)}")
        return "\n".join(lines) + "\n"

    def _duration(self) -> str:
        return "" if self.minutes is None else f" This takes about {max(1, round(self.minutes))} minutes here."

    def write(self, path: Path, overwrite: bool = False) -> Path:
        """Write the YAML file.

        Args:
            path: The file.
            overwrite: Take the place of a file that is there.

        Raises:
            SettingsError: If there is one, or it is no YAML file by its name.
        """
        check_output(path, overwrite)
        write_atomic(path, self.yaml(str(shown(path))))
        return path


def check_output(path: Path, overwrite: bool) -> None:
    """Refuse a file that must not be written; see `Starter.write`."""
    if path.suffix not in (".yaml", ".yml"):
        raise SettingsError(f"output: {shown(path)} is not allowed; allowed: a name that ends in .yaml or .yml")
    if path.exists() and not overwrite:
        raise SettingsError(f"output: {shown(path)} is there already; name another, or give `overwrite`")


def starter(
    source: str | Path = ".",
    *,
    name: str | None = None,
    minutes: float = MINUTES,
    task: TaskName | None = None,
    root: str | Path | None = None,
    **importing: Any,
) -> Starter:
    """Return a configuration to begin with; pictures become a data set first.

    Args:
        source: A data set of the catalog; an NPZ file in MedMNIST's layout; a folder of class folders, of ``images``
            and ``masks``, or with boxes of Pascal VOC or COCO; a table (CSV, or an Excel workbook) with columns of
            paths and labels; or a folder in which exactly one of the last two is. Of a table, a column that names
            patients or slides keeps each of them within one split.
        name: Catalog name of what is made of pictures; None makes one of the source's. A data set that was made of the
            same source is taken as it is, which is logged.
        minutes: How long the training may take on a CPU; on a GPU it has all epochs.
        task: Kind of labels; None follows from what the pictures have.
        root: Folder of the archives; None is where they lie by default.
        importing: Further settings of an import, in the place of those that are chosen here, as
            `vf.import_dataset` takes them, such as ``columns=("age", "sex")``.

    Raises:
        SettingsError: If an argument is out of its range, or nothing is there to be trained on.
        DataError: If pictures or table cannot be used.

    >>> import visionforge as vf
    >>> found = vf.starter("digits", minutes=2)
    >>> found.settings["model"]["backbone"]["name"]
    'fastnet'
    """
    found = begin(source, name, minutes, root, {"task": task, **importing})
    for note in ([found.note] if found.note else []) + (found.imported.notes if found.imported else []):
        log.warning("%s", note)
    return found


def begin(
    source: str | Path, name: str | None, minutes: float, root: str | Path | None, importing: Mapping[str, Any]
) -> Starter:
    """Return a starter as `starter` does, for those who tell of its note themselves."""
    _check_minutes(minutes)
    given = _as_settings(importing)
    info, imported, note = _dataset(source, name, root, given)
    flags = flags_of({**given, "replace": None})
    return _starter(info, minutes, root, imported, note, _init_command(str(source), name, root, flags))


def _as_settings(importing: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is given of an import as `ImportSettings` has it: names as one text, and paths."""
    given: dict[str, Any] = {}
    for key, value in importing.items():
        if key in ("columns", "classes") and not isinstance(value, str | None):
            value = ",".join(value) or None
        if key in ("masks", "boxes", "corrections") and value is not None:
            value = Path(value)
        if value is not None and (key != "replace" or value):
            given[key] = tuple(value) if isinstance(value, list) else value
    return given


def _check_minutes(minutes: float) -> None:
    if not isinstance(minutes, int | float) or isinstance(minutes, bool) or not 0 < minutes <= LONGEST:
        raise SettingsError(f"minutes: {printable(str(minutes))} is not allowed; allowed: {_ALLOWED}")


def _starter(info: DatasetInfo, minutes: float, root: str | Path | None, *made: Any) -> Starter:
    device = device_facts("auto")
    gpu = device is not None and device.gpu
    cores = psutil.cpu_count(logical=False) or 1
    told = device.name if device is not None and gpu else f"{cores} CPU core{'s' if cores > 1 else ''}"
    settings, reasons, expected = _choose(info, minutes, gpu, cores)
    if root is not None:
        settings["data"]["root"] = str(root)
    check_settings(settings, "fit", rules=False)
    return Starter(info, settings, reasons, expected, told, *made)


def _init_command(source: str, name: str | None, root: str | Path | None, flags: Sequence[str] = ()) -> str:
    """Return what is typed to have a configuration of a source written."""
    named, lies = [] if name is None else ["--name", name], [] if root is None else ["--root", str(root)]
    return printable(shlex.join(["visionforge", "init", source, *named, *lies, *flags]), None)


def begin_with(raw: RawConfig, source: str | None) -> tuple[RawConfig, Starter | None]:
    """Return settings with those of a starter underneath, and the starter; without a source, the settings as they are.

    Args:
        raw: The settings as they were given, and `minutes` and `name`.
        source: What `starter` takes.

    Raises:
        VisionForgeError: If there are minutes or a name without a source, or the source cannot be used.
    """
    raw = raw.copy()
    minutes, name = raw.values.pop("minutes", None), raw.values.pop("name", None)
    if source is None:
        if name is not None:
            raise SettingsError("--name: is for `visionforge fit SOURCE`; a data set is chosen by data.dataset")
        if minutes is not None:
            raise SettingsError("--minutes: is for `visionforge fit SOURCE`; otherwise set trainer.max_epochs")
        return raw, None
    if not is_first_process():
        if SETTINGS in os.environ:  # it is told of all settings
            return raw, None
        if source not in dataset_names():
            raise SettingsError(f"{source}: pictures become a data set in one process; run `visionforge init` before")
    _refuse_import_flags(raw, source, None if name is None else str(name))
    try:
        allowed = MINUTES if minutes is None else float(str(minutes))
    except ValueError:
        raise SettingsError(f"--minutes: {minutes} is not allowed; allowed: {_ALLOWED}") from None
    dataset = value_at(raw.values, "data.dataset")
    if dataset not in (None, source):
        raise SettingsError(f"data.dataset: {dataset} given beside {source}; leave one of them out")
    root = value_at(raw.values, "data.root")
    if dataset is not None and source in dataset_names():
        _check_minutes(allowed)
        found = _starter(dataset_info(source), allowed, root)
    else:
        found = _of_pictures(source, None if name is None else str(name), allowed, root)
    return raw.over(_beside(found.settings, raw.values), f"for {source}"), found


def _refuse_import_flags(raw: RawConfig, source: str, name: str | None) -> None:
    """Answer flags of an import with the two commands that take them."""
    known = {flag[2:].replace("-", "_") for flag in import_flags()} - {*RunSettings.model_fields}
    found = [flag for flag in raw.values if flag.replace("-", "_") in known]
    if not found:
        return
    words: list[str] = []
    for flag in found:
        value = raw.values[flag]
        values = [] if value in (None, True) else value if isinstance(value, list | tuple) else [value]
        words += [f"--{flag.replace('_', '-')}", *map(str, values)]
    first = _init_command(source, name, value_at(raw.values, "data.root"), words)
    then = shlex.join(["visionforge", "fit", "--config", f"{name or name_from(Path(source))}.yaml"])
    flags = ", ".join(f"--{flag.replace('_', '-')}" for flag in found)
    raise SettingsError(f"{printable(flags)}: for the import; type: {first}, then {printable(then, None)}")


def _of_pictures(source: str, name: str | None, minutes: float, root: str | Path | None) -> Starter:
    """Return a starter; mistakes name the command that takes the flags of an import."""
    try:
        return begin(source, name, minutes, root, {})
    except VisionForgeError as error:
        command = _init_command(source, name, root)
        error.problems = tuple(with_command(problem, command) for problem in error.problems)
        raise


def refuse_sources(config: object, settings: Mapping[str, Any]) -> None:
    """Answer who gives `fit` in Python what a starter is made of, or a starter, with what can be typed.

    Args:
        config: What is given as a configuration, one or several.
        settings: What is given by name.

    Raises:
        SettingsError: If there is any such.
    """
    for each in config if isinstance(config, list | tuple) else [config]:
        if isinstance(each, Starter):
            raise SettingsError("config: a starter holds its configuration in `settings`; type: vf.fit(found.settings)")
        if not isinstance(each, str | Path):
            continue
        text = printable(str(each))
        if Path(each).is_dir() or Path(each).suffix.lower() in (*TABLES, SUFFIX):
            raise SettingsError(f'config: {text} is no configuration; type: vf.fit(vf.starter("{text}").settings)')
        if str(each) in dataset_names() and find_config(str(each)) == str(each) and not Path(each).is_file():
            raise SettingsError(
                f'config: {text} is a data set; type: vf.fit(data={{"dataset": "{text}"}}), or '
                f'vf.fit(vf.starter("{text}").settings)'
            )
    if (minutes := settings.get("minutes")) is not None:
        raise SettingsError(
            "minutes: is what a starter takes; type: "
            f"vf.fit(vf.starter(SOURCE, minutes={printable(str(minutes))}).settings), or set trainer.max_epochs"
        )


def _beside(settings: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a starter's settings without what belongs to a part in whose place the user has named another."""
    kept = {section: dict(content) for section, content in settings.items()}
    for name, chosen in settings["model"].items():
        other = value_at(given, f"model.{name}")
        other = other if isinstance(other, str) else value_at(given, f"model.{name}.name")
        if isinstance(chosen, Mapping) and other is not None and other != chosen.get("name", other):
            del kept["model"][name]
    backbone = kept["model"].get("backbone")
    if backbone is not None and value_at(given, "model.backbone.weights") is not None:
        kept["model"]["backbone"] = {key: value for key, value in backbone.items() if key != "pretrained"}
    if value_at(given, "data.augmentation.preset") is not None:
        kept["data"].pop("augmentation", None)
    return kept


# --- the data set


def _dataset(
    source: str | Path, name: str | None, root: str | Path | None, given: Mapping[str, Any]
) -> tuple[DatasetInfo, ImportReport | None, str | None]:
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
            f"`{_init_command(text, other, root, flags_of(given))}`, or train on that one with `{_catalogs(name)}`"
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


# --- the settings


def _choose(info: DatasetInfo, minutes: float, gpu: bool, cores: int) -> tuple[dict[str, Any], dict[str, str], Any]:
    sides = sorted(info.resolutions or (SMALL, MIDDLE))  # of drawn images any
    resolution = max((side for side in sides if gpu or side <= MIDDLE), default=sides[0])
    if not gpu and info.splits.train > MANY and SMALL in sides:
        resolution = SMALL
    images, forms = info.splits.train, task_named(info.task).forms
    reasons = dict(_REASONS)
    if MASKS in forms or BOXES in forms:
        kind = "masks" if MASKS in forms else "boxes"
        tree = _dense(info, kind)
        reasons["data.batch_size"] = "whole pictures with a class of every pixel, or boxes, take much memory"
        reasons["data.augmentation"] = "the sampler draws pictures as they are, mirrored and a little turned"
        reasons["model.backbone"] = "a small residual network in front of the decoder or detector"
        reasons["model.optimizer"] = "AdamW needs no search for a usable rate"
        reasons["model.mixup"] = "masks and boxes are not mixed"
    else:
        kind, recipe = "fastnet", recipe_for(images)
        tree = read_yaml(shipped_files()[recipe])
        reasons["model.optimizer"] = f"found by a search on data sets of this size (recipe {recipe})"
        if not tree["model"]["mixup"]["alpha"]:
            reasons["model.mixup"] = "so few images are not mixed"
        if not tree["model"]["loss"]["label_smoothing"]:
            reasons["model.loss"] = "cross-entropy as it is: with so many images nothing was gained by smoothing"
        if {"labels", "grades"} & {*forms}:  # whose usual loss is another
            tree["model"].pop("loss")
        if info.spatial_dims == 3:
            tree["model"].pop("mixup")
    tree["data"] |= {"dataset": info.name, "resolution": resolution}
    while tree["data"]["batch_size"] > max(2, images // 4):
        tree["data"]["batch_size"] //= 2
    if info.channels == 3:
        tree["data"].pop("force_rgb", None)
    planned = tree["trainer"]["max_epochs"]
    epochs, expected = planned, None
    if not gpu:
        voxels = resolution / SMALL if info.spatial_dims == 3 else 1.0
        rate = PER_CORE[kind] * cores * (SMALL / resolution) ** 2 / (voxels * (10 if info.spatial_dims == 3 else 1))
        epochs = max(1, min(planned, int(minutes * 60 * SHARE * rate / images)))
        expected = epochs * images / rate / 60 + 0.25
    tree["trainer"] |= {"max_epochs": epochs, "precision": "auto"}
    short = f", of {planned} that would be better: --minutes {minutes:g} allows no more" if epochs < planned else ""
    reasons |= {
        "data.dataset": f"{printable(info.title)}",
        "data.resolution": f"height and width in pixels; there are {', '.join(map(str, sides))}",
        "trainer.max_epochs": f"passes over {images:,} training images{short}",
        "trainer.precision": "bfloat16 where the device multiplies in it, else float32",
    }
    reasons["data.augmentation"] = reasons["data.augmentation"].format(name=info.name)
    return {name: tree[name] for name in ("data", "model", "trainer")}, reasons, expected


def _dense(info: DatasetInfo, kind: str) -> dict[str, Any]:
    part = {"decoder": {"name": "unet"}} if kind == "masks" else {"detector": {"name": "fcos"}}
    return {
        "data": {"batch_size": 8, "augmentation": {"preset": "standard"}},
        "model": {
            "backbone": {"name": "resnet18", "pretrained": False},
            **part,
            "optimizer": {"name": "adamw", "learning_rate": _DENSE_RATE},
            "mixup": {"alpha": 0.0},
        },
        "trainer": {"max_epochs": _DENSE_EPOCHS},
    }


def _flow(value: Any) -> str:
    """Return a value as YAML on one line."""
    return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6).removesuffix("...\n").strip()
