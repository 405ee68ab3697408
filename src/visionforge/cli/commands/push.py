"""`visionforge push RUN OWNER/NAME`: the network of a run as a repository of the Hugging Face Hub, or as a folder."""

import argparse
from pathlib import Path

from visionforge.cli.arguments import CommandParser, add_import_flag, add_json_flag
from visionforge.cli.command import Command
from visionforge.cli.printing import print_found
from visionforge.runs.signals import Interruption
from visionforge.streams import caution, say


def parser() -> CommandParser:
    """Return the command's parser."""
    from visionforge.publishing.layout import ARTIFACTS

    made = CommandParser(
        prog="visionforge push",
        description="Publish the network of a complete run with its proof, its card, its results and its settings "
        "without secrets and folders. Pictures, predictions and logs stay here. The token is that of `hf auth login`, "
        "or of HF_TOKEN.",
    )
    add = made.add_argument
    add("run", metavar="RUN", help="folder of the run, or its name in the outputs folder")
    add("repository", nargs="?", metavar="OWNER/NAME", help="repository on the Hub, made if it is not there")
    text = "safetensors (default) or onnx; may be given twice"
    add("--format", dest="formats", action="append", choices=tuple(ARTIFACTS), help=text)
    add("--folder", type=Path, metavar="DIR", help="write what would be sent into a folder, and send nothing")
    add("--private", action="store_true", help="make a new repository private")
    add("--revision", metavar="BRANCH", help="branch, made if it is not there; default main")
    add("--message", metavar="TEXT", help="of the commit")
    add("--license", dest="licence", metavar="NAME", help="of the network, as the Hub names them: mit, cc-by-4.0, …")
    add("--dry-run", "--dry_run", dest="dry_run", action="store_true", help="say what would be sent, and send nothing")
    add("--overwrite", action="store_true", help="replace a card that was edited, and files that no push has written")
    text = "prove it on these instead of the test split"
    add("--images", dest="pictures", nargs="+", type=Path, metavar="PATH", help=text)
    add("--root", help="folder of the archives; default as the run was configured")
    add_import_flag(made)
    add_json_flag(made)
    return made


def run(arguments: list[str]) -> int:
    """Run the command and return its exit status."""
    from visionforge.config.loading import normalise

    return parser().run(normalise(arguments), _push)


def _push(options: argparse.Namespace) -> int:
    from visionforge.publishing.push import push_run

    options.formats = options.formats or ["safetensors"]
    as_json = vars(options).pop("json")
    with Interruption():
        pushed = push_run(**vars(options), tell=say, warn=caution)
    print_found(pushed, as_json)
    return 0


COMMAND = Command("push", "publish the network of a run on the Hugging Face Hub, or as a folder", run, place=71)
