"""A configuration to begin with: what fits a data set, this machine and some minutes, and why.

Pictures that are no data set yet become one. What is chosen depends on the data, on whether there is a GPU, on the
number of cores and on the minutes; nothing is measured, so that the same question has the same answer.
"""

import datetime
import logging
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from visionforge.config.loading import SETTINGS, RawConfig, is_first_process
from visionforge.config.problems import value_at
from visionforge.config.schema import RunSettings
from visionforge.config.schema.tasks import TaskName
from visionforge.config.shipped import find_config
from visionforge.data.import_commands import flags_of, with_command
from visionforge.data.import_npz import SUFFIX
from visionforge.data.import_report import ImportReport
from visionforge.data.import_settings import import_flags
from visionforge.data.info import DatasetInfo
from visionforge.data.registry import dataset_info, dataset_names, name_from
from visionforge.data.table_files import TABLES
from visionforge.distribution import own_version
from visionforge.engine.starter_settings import choose
from visionforge.engine.starter_source import dataset_of, init_command
from visionforge.engine.validation import check_settings, device_facts
from visionforge.errors import SettingsError, VisionForgeError
from visionforge.printable import printable
from visionforge.runs.files import write_atomic
from visionforge.runs.paths import shown

log = logging.getLogger(__name__)
MINUTES = 10.0
LONGEST = 7 * 24 * 60.0
_ALLOWED = f"a number, above 0 to {LONGEST:g}"


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
    info, imported, note = dataset_of(source, name, root, given)
    flags = flags_of({**given, "replace": None})
    return _starter(info, minutes, root, imported, note, init_command(str(source), name, root, flags))


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
    settings, reasons, expected = choose(info, minutes, gpu, cores)
    if root is not None:
        settings["data"]["root"] = str(root)
    check_settings(settings, "fit", rules=False)
    return Starter(info, settings, reasons, expected, told, *made)


def begin_over(raw: RawConfig, source: str, minutes: object, name: str | None) -> tuple[RawConfig, Starter | None]:
    """Return settings with those of a starter underneath, and the starter; see `begin_with`."""
    if not is_first_process():
        if SETTINGS in os.environ:  # it is told of all settings
            return raw, None
        if source not in dataset_names():
            raise SettingsError(f"{source}: pictures become a data set in one process; run `visionforge init` before")
    _refuse_import_flags(raw, source, name)
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
        found = _of_pictures(source, name, allowed, root)
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
    first = init_command(source, name, value_at(raw.values, "data.root"), words)
    then = shlex.join(["visionforge", "fit", "--config", f"{name or name_from(Path(source))}.yaml"])
    flags = ", ".join(f"--{flag.replace('_', '-')}" for flag in found)
    raise SettingsError(f"{printable(flags)}: for the import; type: {first}, then {printable(then, None)}")


def _of_pictures(source: str, name: str | None, minutes: float, root: str | Path | None) -> Starter:
    """Return a starter; mistakes name the command that takes the flags of an import."""
    try:
        return begin(source, name, minutes, root, {})
    except VisionForgeError as error:
        command = init_command(source, name, root)
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


def _flow(value: Any) -> str:
    """Return a value as YAML on one line."""
    return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6).removesuffix("...\n").strip()
