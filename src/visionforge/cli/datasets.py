"""`visionforge datasets …`: list, describe, download, check, count, show and import data sets."""

import argparse
from collections.abc import Callable
from pathlib import Path

from visionforge.cli.arguments import CommandParser, print_json, say, warn
from visionforge.cli.dataset_tables import (
    imported_json,
    print_catalog,
    print_checks,
    print_entry,
    print_imported,
    print_statistics,
)
from visionforge.data.info import SPLITS
from visionforge.data.registry import catalog, dataset_info

EXIT_CHECK_FAILED = 1


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
    entries, problems = catalog()
    for problem in problems:  # somebody's own entry; the others are still listed
        warn(f"warning: {problem}")
    if options.json:
        print_json([entry.model_dump(mode="json") for entry in entries])
    else:
        print_catalog(entries)
    return 0


def _info(options: argparse.Namespace) -> int:
    entry = dataset_info(options.name)
    if options.json:
        print_json(entry.model_dump(mode="json"))
    else:
        print_entry(entry)
    return 0


# --- archives


def _download(options: argparse.Namespace) -> int:
    from visionforge.data.source import download_archive, offered_resolution
    from visionforge.runs.logfile import RunLog

    entry = dataset_info(options.name)
    resolution = offered_resolution(entry, options.resolution)
    log = RunLog()
    log.start()
    try:
        path = download_archive(entry, resolution, options.root)
    finally:
        log.stop()
    if options.json:
        print_json({"file": str(path), "bytes": path.stat().st_size, "md5": entry.archives[resolution].md5})
    else:
        say(f"✓ {path} ({path.stat().st_size:,} bytes, verified)")
    return 0


def _check(options: argparse.Namespace) -> int:
    from visionforge.data.checks import check_dataset

    report = check_dataset(dataset_info(options.name), options.resolution, options.root)
    if options.json:
        checks = [{"check": each.check, "ok": each.ok, "found": each.found} for each in (*report.checks, *report.leaks)]
        print_json({"file": str(report.path), "checks": checks})
    else:
        print_checks(report)
    return 0 if report.ok and (report.separate or not options.strict) else EXIT_CHECK_FAILED


def _stats(options: argparse.Namespace) -> int:
    from visionforge.data.statistics import dataset_statistics

    entry = dataset_info(options.name)
    found = dataset_statistics(entry, options.resolution, options.root)
    if options.json:
        per_class = {name: {s: found.counts[s][k] for s in SPLITS} for k, name in enumerate(entry.classes)}
        numbers = {"classes": per_class, "mean": found.mean, "std": found.std}
        print_json({"name": entry.name, "resolution": found.resolution, **numbers})
    else:
        print_statistics(entry, found)
    return 0


def _show(options: argparse.Namespace) -> int:
    from visionforge.reporting.sheet import dataset_sheet

    entry = dataset_info(options.name)
    target = Path(options.output or f"{entry.name}.png")
    dataset_sheet(entry, target, options.preset, options.resolution, options.root)
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
    if options.json:
        print_json(imported_json(report))
    else:
        print_imported(report, options.root)
    return 0
