"""`visionforge datasets …`: list, describe, download, check, count, show, shard, import and remove data sets."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from visionforge.cli.arguments import Call, CommandParser, Subcommands
from visionforge.cli.command import Command
from visionforge.cli.printing import print_json
from visionforge.config.schema import PRESETS
from visionforge.data.import_settings import import_flags
from visionforge.runs.paths import shown
from visionforge.streams import caution, say, say_lines

if TYPE_CHECKING:
    from visionforge.data.info import DatasetInfo

EXIT_CHECK_FAILED = 1


def run(arguments: list[str]) -> int:
    """Run the command; return 1 if a check failed, and 0 otherwise."""
    return subcommands().run(arguments)


def subcommands() -> Subcommands:
    """Return the parsers of what the command can do."""
    group = Subcommands("visionforge datasets", "The catalog of data sets.")

    def archive(name: str, call: Call, text: str) -> CommandParser:
        made = group.add(name, call, text)
        made.add_argument("name", help="catalog name")
        made.add_argument("--root", help="folder of the archives; default $VISIONFORGE_DATA or the cache")
        made.add_argument("--resolution", type=int, help="default: the data set's smallest")
        return made

    group.add("list", _list, "all data sets, a line each")
    group.add("info", _info, "everything the catalog says of one data set").add_argument("name", help="catalog name")
    archive("download", _download, "get an archive, and unpack it for later use")
    check = archive("check", _check, "compare an archive with the catalog, and look for what splits share")
    check.add_argument("--strict", action="store_true", help="exit status 1 also for pictures that splits share")
    check.add_argument("--exactly", action="store_true", help="compare pictures by equal pixels only")
    check.add_argument("--embedding", metavar="RUN", help="compare by features of a trained run, too, or of `pixels`")
    check.add_argument("--pictures", type=Path, metavar="FOLDER", help="write a page of the pairs, and a table")
    archive("stats", _stats, "count the classes, and compute mean and standard deviation")
    remove = group.add("remove", _remove, "remove archives, their unpacked arrays, and the entry of an imported one")
    remove.add_argument("name", help="catalog name")
    remove.add_argument("--root", help="folder of the archives; default $VISIONFORGE_DATA or the cache")
    remove.add_argument("--resolution", type=int, help="only this archive; default: all")
    remove.add_argument("--yes", action="store_true", help="remove them; without it, they are only listed")
    show = archive("show", _show, "write a picture of images and of what augmentation does to them")
    show.add_argument("--output", default=None, help="PNG file; default NAME.png")
    show.add_argument("--preset", choices=tuple(PRESETS), default="standard", help="augmentation")
    shard = group.add("shard", _shard, "copy a data set into files of equal size, for more than a disk or memory holds")
    shard.add_argument("source", help="catalog name of the data set")
    shard.add_argument("--name", required=True, help="catalog name of the copy: small letters, digits and _")
    shard.add_argument("--output", metavar="FOLDER", help="where the copy goes; default: the folder of the archives")
    shard.add_argument("--root", help="folder of the archives; default $VISIONFORGE_DATA or the cache")
    shard.add_argument("--resolution", type=int, help="default: the data set's smallest")
    shard.add_argument("--shard-mb", type=float, default=64, help="size of a file in 10⁶ bytes; default 64")
    shard.add_argument("--url", help="address of the folder into which the copy will be put on a server")
    shard.add_argument("--replace", action="store_true", help="write a catalog entry of that name anew")
    bring = group.add("import", _import, "turn pictures or volumes with labels, masks or boxes into a data set")
    bring.add_argument(
        "source",
        type=Path,
        help="folder of class folders (or of train, val, test) or of pictures, a table, or an NPZ file",
    )
    bring.add_argument("--name", help="catalog name: small letters, digits and _; default: that of the source")
    for flag, given in import_flags().items():
        bring.add_argument(flag, **given)
    return group


def _entry(options: argparse.Namespace) -> "DatasetInfo":
    from visionforge.data.registry import dataset_info

    return dataset_info(options.name)


# --- the catalog


def _list(options: argparse.Namespace) -> int:
    from visionforge.cli.dataset_tables import print_catalog
    from visionforge.data.registry import catalog
    from visionforge.data.removal import disk_bytes

    entries, problems = catalog()
    for problem in problems:  # somebody's own entry; the others are still listed
        caution(problem)
    if options.json:
        print_json([{**entry.model_dump(mode="json"), "bytes": disk_bytes(entry)} for entry in entries])
    else:
        print_catalog(entries, {entry.name: disk_bytes(entry) for entry in entries})
    return 0


def _info(options: argparse.Namespace) -> int:
    from visionforge.cli.dataset_tables import print_entry

    entry = _entry(options)
    if options.json:
        print_json(entry.model_dump(mode="json"))
    else:
        print_entry(entry)
    return 0


# --- archives


def _download(options: argparse.Namespace) -> int:
    from visionforge.data.source import download_archive
    from visionforge.runs.logfile import RunLog

    with RunLog():
        got = download_archive(_entry(options), options.resolution, options.root)
    if options.json:
        print_json(got.as_dict())
    else:
        say(f"✓ {got.path} ({got.size:,} bytes, verified)")
    return 0


def _remove(options: argparse.Namespace) -> int:
    from visionforge.cli.dataset_tables import print_removal
    from visionforge.data.removal import remove_dataset

    found = remove_dataset(options.name, resolution=options.resolution, root=options.root, remove=options.yes)
    if options.json:
        print_json(found.as_dict())
    else:
        print_removal(found)
    return 0


def _check(options: argparse.Namespace) -> int:
    from visionforge.engine.dataset_check import check_dataset

    given = {name: value for name, value in vars(options).items() if name not in ("name", "json", "strict")}
    report = check_dataset(options.name, **given)
    if options.json:
        print_json(report.as_dict())
    else:
        say_lines([*report.lines(), *([] if report.page is None else [f"✓ {shown(report.page)}"])])
    return 0 if report.ok and (report.separate or not options.strict) else EXIT_CHECK_FAILED


def _stats(options: argparse.Namespace) -> int:
    from visionforge.cli.dataset_tables import print_statistics
    from visionforge.data.statistics import dataset_statistics

    found = dataset_statistics(_entry(options), options.resolution, options.root)
    if options.json:
        print_json(found.as_dict())
    else:
        print_statistics(found)
    return 0


def _show(options: argparse.Namespace) -> int:
    from visionforge.reporting.sheet import dataset_sheet

    entry = _entry(options)
    target = Path(options.output or f"{entry.name}.png")
    dataset_sheet(entry, target, options.preset, options.resolution, options.root)
    if options.json:
        print_json({"file": str(target), "preset": options.preset, "columns": entry.columns})
    else:
        say(f"✓ {target}")
        say_lines([f"columns: {', '.join(entry.columns)}"] if entry.columns else [])
    return 0


# --- own data


def _import(options: argparse.Namespace) -> int:
    from visionforge.data.importing import ImportSettings, import_images
    from visionforge.data.registry import name_from

    name = options.name or name_from(options.source)
    given = {**vars(options), "name": name, "fractions": tuple(options.fractions)}
    as_json = given.pop("json")
    report = import_images(ImportSettings(**given))
    if as_json:
        print_json(report.as_dict())
    else:
        say_lines(report.lines(options.root))
    return 0


def _shard(options: argparse.Namespace) -> int:
    from visionforge.data.registry import dataset_info
    from visionforge.data.sharding import shard_dataset
    from visionforge.runs.logfile import RunLog

    given = vars(options)
    as_json, source = given.pop("json"), given.pop("source")
    with RunLog():
        made = shard_dataset(dataset_info(source), **given)
    if as_json:
        print_json(made.as_dict())
    else:
        say_lines(made.lines())
    return 0


COMMAND = Command(
    "datasets",
    "list | info | download | check | stats | show | shard | import | remove: the catalog of data sets",
    run,
    place=110,
    tells=True,
)
