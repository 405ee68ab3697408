"""`visionforge reproduce RUN`: check data, versions and settings, run it again, and name the first difference."""

from collections.abc import Sequence

from visionforge.cli.arguments import CommandParser, print_json, say
from visionforge.engine.reproduce import Reproduction, reproduce
from visionforge.inference.trust import FLAG
from visionforge.runs.paths import shown

EXIT_DIFFERENT = 1


def run_reproduce(arguments: list[str]) -> int:
    """Run `visionforge reproduce RUN`; return 0 if the results are the same, 1 if they differ.

    Raises:
        VisionForgeError: If the run is not complete, or cannot be run again here.
    """
    parser = CommandParser(
        prog="visionforge reproduce",
        description="Run a complete run again, and say where the first difference is. Exit status 1 if there is one.",
    )
    parser.add_argument("name", metavar="RUN", help="folder or name")
    parser.add_argument("--outputs", help="folder for the new run; default: beside the old one")
    parser.add_argument(FLAG, metavar="RUN", help="build the classes that the configuration of this run names")
    parser.add_argument("--check", action="store_true", help="only check data, versions and settings")
    parser.add_argument("--json", action="store_true", help="print JSON at the end instead of text")
    options = parser.parse_args(arguments)
    found = reproduce(
        options.name,
        outputs=options.outputs,
        trust=options.trust,
        check=options.check,
        told=None if options.json else _tell_notes,
    )
    if options.json:
        print_json(_content(found))
    elif found.again is not None:
        _print(found)
    return 0 if found.difference is None else EXIT_DIFFERENT


def _tell_notes(notes: Sequence[str]) -> None:
    for note in notes:
        say(f"! {note}")
    if not notes:
        say("✓ settings, versions and environment are those of the run")


def _content(found: Reproduction) -> dict[str, object]:
    if found.again is None:
        return {"run": found.run.name, "notes": found.notes}
    return {"run": found.run.name, "again": str(found.again.path), "notes": found.notes, "difference": found.difference}


def _print(found: Reproduction) -> None:
    assert found.again is not None
    if found.difference is None:
        say(
            f"✓ no difference: {found.epochs} epochs, the tensors of both checkpoints and "
            f"{found.images:,} predictions are equal"
        )
        say(f"  {shown(found.again.path)}")
        return
    say(f"✗ first difference: {found.difference}")
    say(f"  {shown(found.again.path)}")
    for note in found.notes:
        say(f"! {note}")
