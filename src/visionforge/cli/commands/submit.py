"""`visionforge submit`: a command as a job of a cluster."""

import argparse
from dataclasses import fields
from itertools import pairwise
from pathlib import Path

from visionforge.cli.arguments import CommandParser, add_json_flag
from visionforge.cli.command import Command
from visionforge.cli.help import OF_STAGE
from visionforge.cli.printing import print_json
from visionforge.config.aliases import refuse_other_words
from visionforge.errors import SettingsError
from visionforge.streams import say, say_text

SWITCHES = ("--print", "--json")  # flags that no value follows


def parser() -> CommandParser:
    """Return the command's parser."""
    made = CommandParser(
        prog="visionforge submit",
        usage="visionforge submit [options] -- fit|tune|benchmark ...",
        description="Submit a command as a job of SLURM, or print the manifest of a Kubernetes Job. Before its time is "
        "over, a training writes a checkpoint; the requeued job goes on. fit --seeds is a job for each seed; "
        "--copies are workers that share a search, a benchmark or the folds of a fit.",
    )
    add = made.add_argument
    add("--scheduler", choices=("slurm", "kubernetes"), default="slurm", help="slurm, or kubernetes, which is printed")
    add("--nodes", type=int, default=1, metavar="N", help="machines that train one network together; default 1")
    add("--gpus", type=int, default=0, metavar="N", help="GPUs of each, a process for each; default 0: the processor")
    add("--cpus", type=int, default=4, metavar="N", help="cores of each process; default 4")
    add("--memory", default="16G", metavar="SIZE", help="of each machine; default 16G")
    text = "longest time of a job: HH:MM:SS, D-HH:MM:SS, minutes, or such as 90m, 8h, 1d; default that of the cluster"
    add("--time", metavar="TIME", help=text)
    add("--copies", type=int, default=1, metavar="N", help="workers of tune, benchmark or fit --folds; default 1")
    add("--at_once", type=int, metavar="N", help="most of several jobs that run at the same time")
    add("--name", default="visionforge", help="name of the job; default visionforge")
    add("--partition", help="partition of SLURM")
    add("--account", help="account of SLURM")
    add("--logs", default="logs", metavar="FOLDER", help="folder of the jobs' output files; default logs")
    add("--image", default="visionforge:cpu", help="image of Kubernetes; default visionforge:cpu")
    add("--claim", default="visionforge", help="volume claim of Kubernetes that holds data and runs")
    add("--print", action="store_true", help="print the batch script instead of submitting it")
    add("rest", nargs="*", metavar="-- COMMAND", help="fit, tune or benchmark, and what follows it")
    add_json_flag(made)
    return made


def run(arguments: list[str]) -> int:
    """Run the command and return its exit status."""
    if "--" not in arguments and (bare := _bare_command(arguments)) is not None:
        raise SettingsError(f"submit: put `--` before {bare}: visionforge submit -- {bare} …")
    place = arguments.index("--") if "--" in arguments else len(arguments)
    own, command = arguments[:place], arguments[place + 1 :]

    def submit(options: argparse.Namespace) -> int:
        return _submit(options, [*options.rest, *command])

    return parser().run(own, submit)


def _bare_command(arguments: list[str]) -> str | None:
    """Return the first word that is a command and no flag's value."""
    from visionforge.engine.submit import COMMANDS

    for before, argument in pairwise(["", *arguments]):
        if argument in COMMANDS and (not before.startswith("-") or "=" in before or before in SWITCHES):
            return argument
    return None


def _submit(options: argparse.Namespace, command: list[str]) -> int:
    from visionforge.engine.submit import COMMANDS, Job, Resources, kubernetes_manifest, slurm_script, submit_to_slurm

    if command and command[0] in COMMANDS:
        refuse_other_words(command[0], command[1:], OF_STAGE[command[0]])
    kubernetes = options.scheduler == "kubernetes"
    given = Resources(**{field.name: getattr(options, field.name) for field in fields(Resources)})
    job = Job.of(command, given, shared=not kubernetes)
    script = kubernetes_manifest(job) if kubernetes else slurm_script(job, options.logs)
    number = None if kubernetes or options.print else submit_to_slurm(script, Path(options.logs))
    several = f", an array of {job.count}" if job.count > 1 else ""
    if options.json:
        print_json({"job": number, "count": job.count, "logs": options.logs, "script": script})
    elif number is None:
        say_text(script.rstrip())
    else:
        say(f"submitted job {number}{several}; its output is in {options.logs}")
    return 0


COMMAND = Command(
    "submit",
    "run fit, tune or benchmark as a job of SLURM or Kubernetes",
    run,
    place=95,
    tells=True,
    examples=("submit --gpus 4 --time 08:00:00 -- fit --config resnet18_28 --seeds 5",),
)
