"""`visionforge datasets list | info NAME | check NAME`: the catalog, without torch."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console
from rich.table import Table

from visionforge.data.info import SPLITS, DatasetInfo
from visionforge.data.registry import dataset_info, dataset_names
from visionforge.errors import DataError, SettingsError

EXIT_CHECK_FAILED = 1


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SettingsError(f"datasets: {message}; allowed: list, info NAME, check NAME")


def run_datasets(arguments: list[str]) -> int:
    """Run `visionforge datasets …` and return its exit status: 1 if a check failed.

    Raises:
        VisionForgeError: If the command or the data set is unknown, or an archive is missing.
    """
    parser = _Parser(prog="visionforge datasets", description="The catalog of data sets.")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)
    shared = _Parser(add_help=False)
    shared.add_argument("--json", action="store_true", help="print JSON instead of a table")
    listing = commands.add_parser("list", parents=[shared], help="all data sets, a line each")
    listing.set_defaults(run=_list)
    info = commands.add_parser("info", parents=[shared], help="everything the catalog says of one data set")
    info.add_argument("name")
    info.set_defaults(run=_info)
    check = commands.add_parser("check", parents=[shared], help="compare an archive on this machine with the catalog")
    check.add_argument("name")
    check.add_argument("--root", default=None, help="folder of the archives; default $VISIONFORGE_DATA or the cache")
    check.add_argument("--resolution", type=int, default=None, help="default: the data set's smallest")
    check.set_defaults(run=_check)
    options = parser.parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.run
    return command(options)


def _print_json(content: Any) -> None:
    sys.stdout.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _list(options: argparse.Namespace) -> int:
    entries = [dataset_info(name) for name in dataset_names()]
    if options.json:
        _print_json([entry.model_dump(mode="json") for entry in entries])
        return 0
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("name", "task (classes)", "images", "train/val/test", "resolutions"):
        table.add_column(heading, no_wrap=True)
    for entry in entries:
        sizes = "/".join(f"{count:,}" for count in entry.splits.model_dump().values())
        kind = "grey" if entry.channels == 1 else "colour"
        table.add_row(
            entry.name, f"{entry.task} ({len(entry.classes)})", kind, sizes, _resolutions(entry).replace(",", "")
        )
    Console(highlight=False).print(table)
    return 0


def _resolutions(entry: DatasetInfo) -> str:
    return "any" if entry.resolutions is None else ", ".join(map(str, entry.resolutions))


def _info(options: argparse.Namespace) -> int:
    entry = dataset_info(options.name)
    if options.json:
        _print_json(entry.model_dump(mode="json"))
        return 0
    flags = entry.flags
    allowed = [name for name, yes in (("left-right flip", flags.hflip), ("top-bottom flip", flags.vflip)) if yes]
    rows = {
        "name": f"{entry.name} ({entry.title})",
        "images": entry.description,
        "task": entry.task,
        "classes": ", ".join(name if name == str(i) else f"{i} {name}" for i, name in enumerate(entry.classes)),
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
        rows[f"archive {resolution}"] = f"{archive.url}\nMD5 {archive.md5}"
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for key, value in rows.items():
        table.add_row(key, value)
    Console(highlight=False).print(table)
    return 0


def _check(options: argparse.Namespace) -> int:
    from visionforge.data.download import data_root  # `list` and `info` need neither NumPy nor a network

    entry = dataset_info(options.name)
    if not entry.archives:
        raise DataError(f"{entry.name}: is made on this machine, there is no archive to check")
    resolution = options.resolution or min(entry.archives)
    if resolution not in entry.archives:
        raise SettingsError(
            f"--resolution: {resolution} is not offered by {entry.name}; allowed: {_resolutions(entry)}"
        )
    path = data_root(options.root) / entry.archive_name(resolution)
    if not path.is_file():
        raise DataError(f"{path}: missing; get {entry.archives[resolution].url}, or name its folder with --root")
    results = check_archive(path, entry, resolution)
    if options.json:
        _print_json({"file": str(path), "checks": [{"check": c, "ok": ok, "found": found} for c, ok, found in results]})
    else:
        console = Console(highlight=False)
        console.print(str(path), soft_wrap=True)
        for check, ok, found in results:
            console.print(f"  {'✓' if ok else '✗'} {check}: {found}", soft_wrap=True, markup=False)
    return 0 if all(ok for _, ok, _ in results) else EXIT_CHECK_FAILED


def check_archive(path: Path, entry: DatasetInfo, resolution: int) -> list[tuple[str, bool, str]]:
    """Return (check, whether it passed, what was found) for an archive's MD5, structure and labels."""
    from visionforge.data.archive import md5_of, read_split, structure_problems

    expected, actual = entry.archives[resolution].md5, md5_of(path)
    results = [("MD5", actual == expected, actual if actual == expected else f"{actual}, the catalog says {expected}")]
    problems = structure_problems(path, entry, resolution)
    structure = "6 arrays as the catalog says" if not problems else "; ".join(problems)
    results.append(("keys, dtypes, shapes and counts", not problems, structure))
    if problems:
        return results
    for split in SPLITS:
        try:
            labels = read_split(path, entry, split).labels
        except DataError as error:
            results.append((f"{split} data", False, error.problems[0]))
            continue
        found = f"{len(labels):,} images, labels {int(labels.min())} to {int(labels.max())}"
        results.append((f"{split} data", True, found))
    return results
