"""`visionforge models …`: list the backbones, and say what one of them costs and sees."""

import argparse
from dataclasses import asdict

from visionforge.cli.arguments import CommandParser, plain_table, print_json, print_table, say, warn
from visionforge.models.registry import BackboneEntry, backbone_entry, described_backbones


def run_models(arguments: list[str]) -> int:
    """Run `visionforge models …` and return its exit status.

    Raises:
        VisionForgeError: If the command or the backbone is unknown, or it does not take images of the size.
    """
    options = _parser().parse_args(arguments)
    status: int = options.run(options)
    return status


def _parser() -> CommandParser:
    parser = CommandParser(prog="visionforge models", description="The backbones.")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=CommandParser)
    text = "all backbones, a line each"
    command = commands.add_parser("list", help=text, description=text)
    command.set_defaults(run=_list)
    command.add_argument(
        "pattern", nargs="?", default="*", help='names, such as "*net*", "torchvision/*" or "timm/*vit*"'
    )
    command.add_argument("--json", action="store_true", help="print JSON instead of text")
    text = "parameters, multiply-adds, map sizes and weight sources of one backbone"
    command = commands.add_parser("info", help=text, description=text)
    command.set_defaults(run=_info)
    command.add_argument("name", help="name of a backbone")
    command.add_argument("--resolution", type=int, help="height and width in pixels; default 28, 64 and 224")
    command.add_argument("--channels", type=int, choices=(1, 3), default=3, help="default 3")
    command.add_argument("--classes", type=int, default=1000, help="number of classes; default 1000")
    command.add_argument("--no-adapt-stem", action="store_true", help="with the standard stem at every size")
    command.add_argument("--json", action="store_true", help="print JSON instead of text")
    return parser


def _list(options: argparse.Namespace) -> int:
    names, entries, problems = described_backbones(options.pattern)
    for problem in problems:  # another package's; the others are still listed
        warn(f"warning: {problem}")
    if options.json:
        described = {entry.name: entry.description for entry in entries}
        print_json([{"name": name, "description": described.get(name)} for name in names])
        return 0
    if not entries:
        for name in names:
            say(name)
        return 0
    table = plain_table("name", "network", "stem adapts", "weights", fold=("network",))
    for entry in entries:
        table.add_row(entry.name, entry.description, "yes" if entry.adaptable else "no", _sources(entry))
    print_table(table)
    return 0


def _sources(entry: BackboneEntry) -> str:
    """Return where published weights come from, in a word."""
    return "torchvision" if entry.weights else "timm" if entry.timm else "–"


def _info(options: argparse.Namespace) -> int:
    from visionforge.models.inspect import map_sizes, profiles_at, weight_names

    entry = backbone_entry(options.name)
    adapt = not options.no_adapt_stem
    profiles = profiles_at(entry, options.resolution, options.channels, options.classes, adapt)
    weights = weight_names(entry)
    if options.json:
        content = {
            "name": entry.name,
            "description": entry.description,
            "weights": weights,
            "profiles": [asdict(each) for each in profiles],
        }
        print_json(content)
        return 0
    rows = {
        "name": entry.name,
        "network": entry.description,
        "parameters": f"{profiles[0].parameters:,} ({options.classes} classes, {options.channels} channels)"
        if profiles
        else "–",
        "weights": ", ".join(weights) or "none published; name a file in model.backbone.weights",
        "resolution": f"{entry.min_resolution if adapt else entry.min_resolution_standard} pixels or more",
    }
    for label, value in rows.items():
        say(f"{label:>12}  {value}")
    table = plain_table("resolution", "stem", "multiply-adds", "map after each stage", right=("multiply-adds",))
    for each in profiles:
        table.add_row(
            f"{each.resolution}×{each.resolution}",
            "standard" if each.scale == 1 else f"downsampling ÷ {each.scale}",
            f"{each.multiply_adds / 1e6:,.0f} M",
            map_sizes(each),
        )
    say()
    print_table(table)
    return 0
