"""`visionforge datasets …`: list, describe, download, check, count, show and import data sets."""

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from visionforge.cli.arguments import CommandParser, plain_table, print_json, print_table, say, warn
from visionforge.data.info import SPLITS, DatasetInfo, Split
from visionforge.data.registry import dataset_info, dataset_names
from visionforge.errors import DataError, SettingsError, VisionForgeError
from visionforge.terminal import PlainTable, plain_console

EXIT_CHECK_FAILED = 1


class Check(NamedTuple):
    """One thing that was looked at.

    Attributes:
        check: What is asked of it.
        ok: Whether it is so.
        found: What was found, which is printed.
        subject: What `found` is said of, if that is not `check`.
    """

    check: str
    ok: bool
    found: str
    subject: str | None = None


def run_datasets(arguments: list[str]) -> int:
    """Run `visionforge datasets …` and return its exit status: 1 if a check failed.

    Raises:
        VisionForgeError: If the command or the data set is unknown, or an archive is missing.
    """
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.run
    return command(options)


def _parser() -> CommandParser:
    parser = CommandParser(prog="visionforge datasets", description="The catalog of data sets.")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=CommandParser)

    def add(
        name: str, run: Callable[[argparse.Namespace], int], help_text: str, archive: bool = False
    ) -> CommandParser:
        command = commands.add_parser(name, help=help_text, description=help_text)
        command.set_defaults(run=run)
        command.add_argument("--json", action="store_true", help="print JSON instead of text")
        if archive:
            command.add_argument("name", help="catalog name")
            command.add_argument("--root", help="folder of the archives; default $VISIONFORGE_DATA or the cache")
            command.add_argument("--resolution", type=int, help="default: the data set's smallest")
        return command

    add("list", _list, "all data sets, a line each")
    add("info", _info, "everything the catalog says of one data set").add_argument("name", help="catalog name")
    add("download", _download, "get an archive, and unpack it for later use", archive=True)
    check = add(
        "check", _check, "compare an archive with the catalog, and look for images that splits share", archive=True
    )
    check.add_argument("--strict", action="store_true", help="exit status 1 also for images that splits share")
    add("stats", _stats, "count the classes, and compute mean and standard deviation", archive=True)
    show = add("show", _show, "write a picture of images and of what augmentation does to them", archive=True)
    show.add_argument("--output", default=None, help="PNG file; default NAME.png")
    show.add_argument(
        "--preset", choices=("none", "light", "standard", "strong"), default="standard", help="augmentation"
    )
    bring = add("import", _import, "turn folders of pictures, or a CSV that names them, into a data set")
    bring.add_argument("source", type=Path, help="folder of class folders (or of train, val, test), or a CSV file")
    bring.add_argument("--name", required=True, help="catalog name: small letters, digits and _")
    bring.add_argument("--resolution", type=int, default=28, help="height and width in pixels; default 28")
    bring.add_argument("--task", choices=("binary", "multi-class", "multi-label", "ordinal"), help="default: by labels")
    bring.add_argument("--fractions", type=float, nargs=3, default=(0.7, 0.1, 0.2), metavar=("TRAIN", "VAL", "TEST"))
    bring.add_argument("--seed", type=int, default=42, help="seed of the split")
    bring.add_argument("--path-column", help="CSV: default path, file, filename or image")
    bring.add_argument("--label-column", default="label", help="CSV: several labels are separated by | or ;")
    bring.add_argument("--split-column", default="split", help="CSV: used if the column is there")
    bring.add_argument("--group-column", help="CSV: values that must not be spread over splits, such as patients")
    bring.add_argument("--no-groups", action="store_true", help="CSV: a column that looks like groups is none")
    bring.add_argument("--positive", metavar="CLASS", help="the class of binary data that is to be found")
    bring.add_argument("--no-hflip", action="store_true", help="left and right may not be swapped")
    bring.add_argument("--vflip", action="store_true", help="top and bottom may be swapped")
    bring.add_argument("--rotation", choices=("none", "small", "any"), default="small", help="how it may be turned")
    bring.add_argument("--replace", action="store_true", help="take the place of an entry of the same name")
    bring.add_argument("--root", help="folder for the archive; default $VISIONFORGE_DATA or the cache")
    return parser


# --- the catalog


def _list(options: argparse.Namespace) -> int:
    entries: list[DatasetInfo] = []
    broken: list[str] = []
    for name in dataset_names():
        try:
            entries.append(dataset_info(name))
        except VisionForgeError as error:
            broken += error.problems
    for problem in broken:  # somebody's own entry; the others are still listed
        warn(f"warning: {problem}")
    if options.json:
        print_json([entry.model_dump(mode="json") for entry in entries])
        return 0
    table = plain_table("name", "task (classes)", "images", "train/val/test", "resolutions")
    for entry in entries:
        sizes = "/".join(f"{count:,}" for count in entry.splits.model_dump().values())
        kind = "grey" if entry.channels == 1 else "colour"
        resolutions = _resolutions(entry).replace(",", "")
        table.add_row(entry.name, f"{entry.task} ({len(entry.classes)})", kind, sizes, resolutions)
    print_table(table)
    return 0


def _resolutions(entry: DatasetInfo) -> str:
    return "any" if entry.resolutions is None else ", ".join(map(str, entry.resolutions))


def _info(options: argparse.Namespace) -> int:
    entry = dataset_info(options.name)
    if options.json:
        print_json(entry.model_dump(mode="json"))
        return 0
    flags = entry.flags
    allowed = [name for name, yes in (("left-right flip", flags.hflip), ("top-bottom flip", flags.vflip)) if yes]
    rows = {
        "name": f"{entry.name} ({entry.title})",
        "images": entry.description,
        "task": entry.task,
        "classes": ", ".join(name if name == str(i) else f"{i} {name}" for i, name in enumerate(entry.classes)),
        **({"positive": entry.positive or entry.classes[-1]} if entry.task == "binary" else {}),
        "channels": "3 (colour)" if entry.channels == 3 else "1 (grey)",
        "splits": ", ".join(f"{name} {count:,}" for name, count in entry.splits.model_dump().items()),
        "resolutions": _resolutions(entry),
        "mean": ", ".join(f"{value:.4f}" for value in entry.normalisation.mean),
        "std": ", ".join(f"{value:.4f}" for value in entry.normalisation.std),
        "constants": entry.normalisation.source,
        "label keeps under": ", ".join([*allowed, f"{flags.rotation} rotation"]),
        "texture is label": "yes" if flags.texture_is_label else "no",
        "colour is label": "yes" if flags.colour_is_label else "no",
        "licence": entry.licence,
        "cite": entry.citation,
    }
    for resolution, archive in entry.archives.items():
        rows[f"archive {resolution}"] = archive.url or "on this machine only"
        rows[f"MD5 {resolution}"] = archive.md5 or "not recorded"
    table = PlainTable(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for key, value in rows.items():
        table.add_row(key, value)
    plain_console().print(table, soft_wrap=False)
    return 0


# --- archives


def _resolution(entry: DatasetInfo, wanted: int | None) -> int:
    """Return the wanted resolution, or the smallest that the data set offers.

    Raises:
        SettingsError: If the data set does not offer it.
    """
    offered = tuple(entry.archives) or entry.resolutions  # an entry may offer what it has no archive of
    resolution = wanted if wanted is not None else min(offered) if offered else 28
    if offered is not None and resolution not in offered:
        allowed = ", ".join(map(str, offered))
        raise SettingsError(f"--resolution: {resolution} is not offered by {entry.name}; allowed: {allowed}")
    return resolution


def _download(options: argparse.Namespace) -> int:
    from visionforge.data.download import ensure_archive
    from visionforge.data.store import open_archive
    from visionforge.runs.logfile import RunLog

    entry = dataset_info(options.name)
    resolution = _resolution(entry, options.resolution)
    if not entry.archives:
        raise DataError(f"{entry.name}: is made on this machine, there is no archive to download")
    log = RunLog()
    log.start()
    try:
        path = ensure_archive(entry, resolution, options.root, download=True)
        open_archive(path, entry, resolution)
    finally:
        log.stop()
    if options.json:
        print_json({"file": str(path), "bytes": path.stat().st_size, "md5": entry.archives[resolution].md5})
    else:
        say(f"✓ {path} ({path.stat().st_size:,} bytes, verified)")
    return 0


def _check(options: argparse.Namespace) -> int:
    entry = dataset_info(options.name)
    resolution = _resolution(entry, options.resolution)
    if not entry.archives:
        raise DataError(f"{entry.name}: is made on this machine, there is no archive to check")
    path = _present(entry, resolution, options.root)
    results = check_archive(path, entry, resolution)
    leaks = find_shared_images(path, entry) if all(result.ok for result in results) else []
    failed = [*results, *leaks] if options.strict else results
    status = 0 if all(result.ok for result in failed) else EXIT_CHECK_FAILED
    results += leaks
    if options.json:
        checks = [{"check": result.check, "ok": result.ok, "found": result.found} for result in results]
        print_json({"file": str(path), "checks": checks})
    else:
        say(str(path))
        for result in results:
            say(f"  {'✓' if result.ok else '✗'} {result.subject or result.check}: {result.found}")
        if not all(leak.ok for leak in leaks):
            say("  images that splits share make test results look better than they are")
    return status


def _present(entry: DatasetInfo, resolution: int, root: str | None) -> Path:
    from visionforge.data.download import data_root

    path = data_root(root) / entry.archive_name(resolution)
    if not path.is_file():
        raise DataError(f"{path}: missing; `visionforge datasets download {entry.name}` gets it, or name its --root")
    return path


def check_archive(path: Path, entry: DatasetInfo, resolution: int) -> list[Check]:
    """Return what was found of an archive's MD5, structure and labels."""
    from visionforge.data.archive import md5_of, read_split, structure_problems

    expected, actual = entry.archives[resolution].md5, md5_of(path)
    found = actual if expected in (actual, None) else f"{actual}, the catalog says {expected}"
    results = [Check("MD5", expected in (actual, None), found)]
    problems = structure_problems(path, entry, resolution)
    structure = "6 arrays as the catalog says" if not problems else "; ".join(problems)
    results.append(Check("keys, dtypes, shapes and counts", not problems, structure))
    if problems:
        return results
    for split in SPLITS:
        try:
            part = read_split(path, entry, split)
        except DataError as error:
            results.append(Check(f"{split} data", False, error.problems[0]))
            continue
        found = f"{len(part.labels):,} images, labels {int(part.labels.min())} to {int(part.labels.max())}"
        results.append(Check(f"{split} data", True, found))
    return results


def find_shared_images(path: Path, entry: DatasetInfo) -> list[Check]:
    """Return the same for images that two splits share: equal ones fail, those that only look the same are counted.

    They are named as they were when they were imported, where the archive tells, and else by their position.
    """
    from visionforge.data.archive import read_split
    from visionforge.data.inspect import find_leaks
    from visionforge.data.side_table import read_side_table

    names = {split: read_side_table(path, split, getattr(entry.splits, split)).names for split in SPLITS}

    def name(split: Split, position: int) -> str:
        known = names[split]
        return f"{split} {position}" if known is None else f"{split} {known[position]}"

    results = []
    for leak in find_leaks({split: read_split(path, entry, split).images for split in SPLITS}):
        count = len(leak.exact)
        found = f"{count:,} image{'s' if count > 1 else ''} in both" if count else "no image in both"
        examples = "; ".join(f"{name(leak.first, a)} = {name(leak.second, b)}" for a, b in leak.exact[:3])
        found += f" ({examples})" if examples else ""
        found += f"; {len(leak.near):,} look the same" if leak.near else ""
        pair = f"{leak.first} and {leak.second}"
        results.append(Check(f"{pair} share no image", not leak.exact, found, pair))
    return results


def _stats(options: argparse.Namespace) -> int:
    from visionforge.data.importing import channel_statistics
    from visionforge.data.inspect import class_counts
    from visionforge.data.source import load_split

    entry = dataset_info(options.name)
    resolution = _resolution(entry, options.resolution)
    if entry.archives:
        _present(entry, resolution, options.root)
    parts = {split: load_split(entry, resolution, options.root, split) for split in SPLITS}
    counts: dict[Split, list[int]] = {split: class_counts(part.labels, entry) for split, part in parts.items()}
    mean, std = channel_statistics(parts["train"].images)
    if options.json:
        per_class = {name: {s: counts[s][k] for s in SPLITS} for k, name in enumerate(entry.classes)}
        print_json({"name": entry.name, "resolution": resolution, "classes": per_class, "mean": mean, "std": std})
        return 0
    headings = [text for split in SPLITS for text in (split, "share")]
    table = plain_table("class", *headings, right=headings, fold=("class",))
    for k, name in enumerate(entry.classes):
        cells = [text for s in SPLITS for text in (f"{counts[s][k]:,}", f"{counts[s][k] / len(parts[s].labels):.1%}")]
        table.add_row(name, *cells)
    print_table(table)
    largest, smallest = max(counts["train"]), min(counts["train"])
    balance = f"largest to smallest class {largest / smallest:.1f}" if smallest else "a class has no training image"
    say(f"{balance}; mean {_numbers(mean)}, std {_numbers(std)} (training images at {resolution} pixels)")
    return 0


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.4f}" for value in values)


def _show(options: argparse.Namespace) -> int:
    from visionforge.config.schema import Augmentation
    from visionforge.data.datamodule import MedMNISTDataModule
    from visionforge.evaluation.sheet import augmentation_sheet

    entry = dataset_info(options.name)
    resolution = _resolution(entry, options.resolution)
    if entry.archives:
        _present(entry, resolution, options.root)
    target = Path(options.output or f"{entry.name}.png")
    module = MedMNISTDataModule(
        entry.name,
        root=options.root,
        resolution=resolution,
        download=False,
        cache="mmap",
        augmentation=Augmentation(preset=options.preset),
    )
    augmentation_sheet(module, target)
    if options.json:
        print_json({"file": str(target), "preset": options.preset})
    else:
        say(f"✓ {target}")
    return 0


# --- own data


def _import(options: argparse.Namespace) -> int:
    from visionforge.data.importing import ImportSettings, import_images

    report = import_images(
        ImportSettings(
            source=options.source,
            name=options.name,
            resolution=options.resolution,
            task=options.task,
            fractions=tuple(options.fractions),
            seed=options.seed,
            label_column=options.label_column,
            path_column=options.path_column,
            split_column=options.split_column,
            group_column=options.group_column,
            no_groups=options.no_groups,
            positive=options.positive,
            hflip=not options.no_hflip,
            vflip=options.vflip,
            rotation=options.rotation,
            replace=options.replace,
            root=options.root,
        )
    )
    info = report.info
    if options.json:
        broken = [{"file": str(path), "reason": reason} for path, reason in report.broken]
        entry = info.model_dump(mode="json")
        print_json(
            {
                "archive": str(report.archive),
                "entry": str(report.entry),
                "info": entry,
                "broken": broken,
                "notes": report.notes,
                "positive": None if report.positive is None else dataclasses.asdict(report.positive),
            }
        )
        return 0
    for path, reason in report.broken:
        say(f"✗ {path}: {reason}; left out")
    sizes = " / ".join(f"{count:,} {split}" for split, count in info.splits.model_dump().items())
    say(f"✓ {info.name}: {info.task}, {len(info.classes)} classes, {sizes}; {len(report.broken)} broken")
    for note in report.notes:
        say(f"! {note}")
    say(f"  archive  {report.archive}")
    say(f"  entry    {report.entry}")
    if report.positive is not None:
        sign = " " if report.positive.certain else "!"
        say(f"{sign} positive {report.positive.name}, {report.positive.reason}; --positive CLASS changes it")
    root = f" --data.root {options.root}" if options.root else ""
    resolution = next(iter(info.archives))
    say(f"  next     visionforge fit --data.dataset {info.name} --data.resolution {resolution}{root}")
    return 0
