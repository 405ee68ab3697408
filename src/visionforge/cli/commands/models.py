"""`visionforge models …`: list the backbones, and say what one of them costs and sees."""

import argparse
from typing import TYPE_CHECKING

from visionforge.cli.arguments import Subcommands, add_import_flag, add_json_flag
from visionforge.cli.command import Command
from visionforge.cli.printing import plain_table, print_json, print_table
from visionforge.streams import caution, say, say_lines

if TYPE_CHECKING:
    from visionforge.models.inspect import Inspection

_DIMENSIONS = {2: "images", 3: "volumes"}


def run(arguments: list[str]) -> int:
    """Run the command and return its exit status."""
    return subcommands().run(arguments)


def subcommands() -> Subcommands:
    """Return the parsers of what the command can do."""
    named = {"resolution": "resolution", "classes": "models info: --classes"}
    group = Subcommands("visionforge models", "The backbones.", named)
    text = 'names, such as "*net*", "torchvision/*" or "timm/*vit*"'
    listing = group.add("list", _list, "all backbones, a line each", json=False)
    listing.add_argument("pattern", nargs="?", default="*", help=text)
    text = "parameters, multiply-adds, map sizes and weight sources of one backbone"
    info = group.add("info", _info, text, json=False)
    info.add_argument("name", help="name of a backbone")
    info.add_argument("--resolution", type=int, help="height and width in pixels; default 28, 64 and 224")
    info.add_argument("--channels", type=int, choices=(1, 3), default=3, help="default 3")
    info.add_argument("--classes", type=int, default=1000, help="number of classes; default 1000")
    info.add_argument(
        "--volumes", action="store_true", help="for volumes of RESOLUTION voxels a side; default 28 and 64"
    )
    text = "kernels of a network for volumes; default 3d"
    info.add_argument("--volume-convolution", choices=("3d", "acs"), default="3d", help=text)
    info.add_argument("--no-adapt-stem", action="store_true", help="with the standard stem at every size")
    for command in (listing, info):
        add_import_flag(command, "backbones are then known by name")
        add_json_flag(command)
    return group


def _list(options: argparse.Namespace) -> int:
    from visionforge.models.registry import described_backbones

    names, entries, problems = described_backbones(options.pattern)
    for problem in problems:  # another package's; the others are still listed
        caution(problem)
    if options.json:
        known = {entry.name: (entry.description, entry.spatial_dims) for entry in entries}
        unknown = (None, (2,))  # of a library, whose models are for images
        rows = [(name, *known.get(name, unknown)) for name in names]
        print_json([{"name": n, "description": text, "spatial_dims": dims} for n, text, dims in rows])
    elif entries:
        table = plain_table("name", "network", "takes", "stem adapts", "weights", fold=("network",))
        for entry in entries:
            takes = ", ".join(_DIMENSIONS[dims] for dims in entry.spatial_dims)
            adapts = "yes" if entry.adaptable else "no"
            table.add_row(entry.name, entry.description, takes, adapts, ", ".join(entry.published_by) or "–")
        print_table(table)
    else:
        say_lines(names)
    return 0


def _info(options: argparse.Namespace) -> int:
    from visionforge.models.inspect import inspect_backbone

    given = options.resolution, options.channels, options.classes, not options.no_adapt_stem
    found = inspect_backbone(options.name, *given, 3 if options.volumes else 2, options.volume_convolution)
    if options.json:
        print_json(found.as_dict())
    else:
        _print(found)
    return 0


def _print(found: "Inspection") -> None:
    from visionforge.models.inspect import map_sizes

    entry, profiles, size = found.entry, found.profiles, f"{found.classes} classes, {found.channels} channels"
    rows = {
        "name": entry.name,
        "network": entry.description,
        "parameters": f"{profiles[0].parameters:,} ({size})" if profiles else "–",
        "weights": ", ".join(found.weights) or "none published; name a file in model.backbone.weights",
        "takes": " and ".join(_DIMENSIONS[dims] for dims in entry.spatial_dims),
        "resolution": f"{found.min_resolution} pixels or more",
    }
    for label, value in rows.items():
        say(f"{label:>12}  {value}")
    table = plain_table("resolution", "stem", "multiply-adds", "map after each stage", right=("multiply-adds",))
    for each in profiles:
        table.add_row(
            "×".join([str(each.resolution)] * each.spatial_dims),
            "standard" if each.scale == 1 else f"downsampling ÷ {each.scale}",
            f"{each.multiply_adds / 1e6:,.0f} M",
            map_sizes(each),
        )
    say()
    print_table(table)


COMMAND = Command(
    "models",
    "list | info: the backbones, what they cost and what they see",
    run,
    place=120,
    tells=True,
)
