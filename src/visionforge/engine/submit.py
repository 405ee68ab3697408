"""Jobs for clusters: a batch script for SLURM, or the manifest of a Kubernetes Job, that runs a command of visionforge.

A script that starts the command itself is what lets signals reach it: a minute and a half before its time is over it
writes a checkpoint, and the requeued job goes on. People read what is written here, too, and change it by hand.
"""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from visionforge.config.loading import OF_EVERY_COMMAND, RawConfig, read_arguments
from visionforge.config.problems import nearest, value_at
from visionforge.config.schema import RunSettings
from visionforge.config.suites import take_benchmark_flags, with_suite
from visionforge.data.registry import dataset_info, name_from
from visionforge.data.source import EMBEDDED, local_archive
from visionforge.engine.beginning import begin_with
from visionforge.engine.fit import request_of, require_subject
from visionforge.engine.folds import number_of_folds, requests_of_folds
from visionforge.engine.seeds import parse_seeds
from visionforge.engine.several_fits import FITS, refuse_one_run
from visionforge.engine.validation import check_settings
from visionforge.errors import DataError, RunError, SettingsError
from visionforge.printable import printable
from visionforge.streams import caution

COMMANDS = ("fit", "tune", "benchmark")
SHARED = ("tune", "benchmark")  # whose processes share the work by themselves
WARNING_S = 90  # between the signal and the end of the job's time
REQUEUED_STATUS = 138  # 128 + SIGUSR1: the job's time is over
SUBMIT_TIMEOUT_S = 60.0
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,50}[a-z0-9])?")
_WORD = re.compile(r"[A-Za-z0-9][\w.:@/+=-]*")
_CLOCK = r"(?P<days>\d+-)?(?P<hours>\d{1,2}):(?P<minutes>\d{2}):(?P<seconds>\d{2})"
_TIME = re.compile(rf"{_CLOCK}|(?P<number>[1-9]\d{{0,5}})(?P<unit>[mhd]?)")
_SECONDS = {"d": 86_400, "h": 3_600, "m": 60, "": 60}  # of a unit
_MEMORY = re.compile(r"\d+[MG]")


@dataclass(frozen=True)
class Resources:
    """What a job gets.

    Attributes:
        nodes: Machines that train one network together.
        gpus: GPUs of each of them, and processes of a training; 0 trains on the processor.
        cpus: Cores of each process.
        memory: Of each machine, such as 16G.
        time: Longest time: D-HH:MM:SS, HH:MM:SS, minutes, or a number with m, h or d; None leaves it to the cluster.
        copies: How often the command runs beside itself: workers of a search, a benchmark or `fit --folds`.
        at_once: How many of several jobs may run at the same time; None sets no limit.
        name: Name of the job.
        partition: SLURM's partition.
        account: SLURM's account.
        image: Kubernetes: the image.
        claim: Kubernetes: the volume claim that holds data and runs.
    """

    nodes: int = 1
    gpus: int = 0
    cpus: int = 4
    memory: str = "16G"
    time: str | None = None
    copies: int = 1
    at_once: int | None = None
    name: str = "visionforge"
    partition: str | None = None
    account: str | None = None
    image: str = "visionforge:cpu"
    claim: str = "visionforge"

    @property
    def processes(self) -> int:
        """Return the processes of each machine."""
        return max(1, self.gpus)

    def __post_init__(self) -> None:
        """Refuse what is out of its bounds, or would be more than a word of a script."""
        problems = [
            f"{name}: {value} is not allowed; allowed: a whole number, {least} to 100000"
            for name, least in (("nodes", 1), ("gpus", 0), ("cpus", 1), ("copies", 1), ("at_once", 1))
            if (value := getattr(self, name)) is not None and not least <= value <= 100_000
        ]
        for name, form, allowed in (
            ("memory", _MEMORY, "a number and its unit, such as 16G or 500M"),
            ("time", _TIME, "HH:MM:SS, D-HH:MM:SS, minutes, or such as 90m, 8h and 1d"),
            ("name", _NAME, "small letters, digits and hyphens"),
            ("partition", _WORD, "a word"),
            ("account", _WORD, "a word"),
            ("image", _WORD, "the name of an image"),
            ("claim", _NAME, "small letters, digits and hyphens"),
        ):
            if (text := getattr(self, name)) is not None and not form.fullmatch(text):
                problems.append(f"{name}: {text!r} is not allowed; allowed: {allowed}")
        if problems:
            raise SettingsError(problems)


@dataclass(frozen=True)
class Job:
    """A command that is to run on a cluster, and what it gets.

    Attributes:
        command: `fit`, `tune` or `benchmark` and what follows.
        seeds: The seeds of `fit --seeds`, each of which is a job of its own; empty without.
        resources: What it gets.
    """

    command: tuple[str, ...]
    seeds: tuple[int, ...]
    resources: Resources

    @property
    def count(self) -> int:
        """Return how many jobs of SLURM it is."""
        return len(self.seeds) or self.resources.copies

    @classmethod
    def of(cls, command: Sequence[str], resources: Resources, shared: bool = True) -> "Job":
        """Read a command as it would be typed, without the program's name.

        Args:
            command: The command.
            resources: What it gets.
            shared: Whether the job sees this machine's runs and data sets.

        Raises:
            SettingsError: If there is none, it is none that is submitted, its settings are not allowed, or they and the
                resources do not fit.
            RunError: If a run or a checkpoint that it names is not there.
        """
        if not command:
            raise SettingsError(f"submit: what is to run is missing; write it behind --, one of {', '.join(COMMANDS)}")
        name, *arguments = command
        if name not in COMMANDS:
            close = nearest(name, COMMANDS)
            hint = f"nearest: {', '.join(close)}; " if close else ""
            raise SettingsError(f"submit: {name} is not submitted; {hint}allowed: {', '.join(COMMANDS)}")
        if name == "fit" and arguments and not arguments[0].startswith("-"):
            source = shlex.quote(printable(arguments[0]))
            raise SettingsError(
                f"submit: a job takes a configuration; type: `visionforge init {source}`, then "
                f"`visionforge submit -- fit --config {name_from(Path(arguments[0]))}.yaml`"
            )
        raw = read_arguments([argument for argument in arguments if argument not in OF_EVERY_COMMAND])
        if raw.help is not None or raw.print_config is not None:
            raise SettingsError(f"submit: what follows -- only prints something; run visionforge {name} itself")
        _require_fitting(name, raw, resources)
        seeds: tuple[int, ...] = ()
        if (text := raw.values.get("seeds")) is not None:
            usual = RunSettings.model_fields["seed_everything"].default
            first = raw.values.get("seed_everything", usual)
            if type(first) is not int:
                raise SettingsError(f"seed_everything: {first!r} is not allowed; allowed: a whole number")
            seeds = tuple(parse_seeds(str(text), first))
            arguments = _without_flag(arguments, "--seeds")
        _require_valid(name, raw.copy(), shared)
        _warn_of_sqlite(name, raw, resources)
        if name == "fit" and resources.nodes * resources.processes > 1:
            arguments += ["--trainer.num_nodes", str(resources.nodes), "--trainer.devices", str(resources.processes)]
        return cls((name, *arguments), seeds, resources)


def _require_fitting(name: str, raw: RawConfig, resources: Resources) -> None:
    """Refuse settings and resources that say different things."""
    problems = [
        f"submit: {path} is what --{flag} says; leave it out"
        for path, flag in (("trainer.devices", "gpus"), ("trainer.num_nodes", "nodes"))
        if name == "fit" and value_at(raw.values, path) is not None and resources.nodes * resources.processes > 1
    ]
    several = [flag for flag in ("seeds", "folds") if raw.values.get(flag) is not None]
    if resources.nodes > 1 and name != "fit":
        problems.append(f"submit: --nodes {resources.nodes} is for one training; workers of {name} are --copies")
    if resources.nodes * resources.processes > 1 and several:
        problems.append(f"submit: with --{several[0]} each network is trained on one device; take --nodes 1, --gpus 1")
    if resources.copies > 1 and name not in SHARED and "folds" not in several:
        problems.append(
            f"submit: --copies {resources.copies} of {name} would train the same run; allowed: with --folds"
        )
    if resources.copies > 1 and raw.values.get("workers") is not None:
        problems.append("submit: --workers and --copies both say how many share the work; leave one of them out")
    if problems:
        raise SettingsError(problems)


def _require_valid(name: str, raw: RawConfig, shared: bool) -> None:
    """Refuse what the command itself would refuse, as far as that can be told on another machine."""
    if name == "benchmark":
        take_benchmark_flags(raw)
        raw = with_suite(raw)
    elif name == "tune" and raw.values.pop("report", None) is not None:
        return  # of a study that is there
    elif name == "tune" and (folds := raw.values.pop("folds", None)) is not None:
        raw.merge({"data": {"folds": number_of_folds(folds)}, "tune": {"cross_validate": True}}, "with --folds")
    elif name == "fit":
        raw, _ = begin_with(raw, None)
        require_subject(raw)
    try:
        if name == "fit" and shared:
            _check_fit(raw)
            return
        if not shared and raw.values.get("imports"):
            return  # modules that may be there alone, and what they register
        for flag in ("seeds", "folds", "workers", "distill", "profile", "trust"):
            raw.values.pop(flag, None)
        check_settings(raw.values, "fit", raw.sources, rules=name != "benchmark", here=False)
    except SettingsError as error:
        known = [problem for problem in error.problems if shared or not problem.startswith("data.dataset: ")]
        if known:  # a data set may be there alone
            raise SettingsError(known) from None


def _check_fit(raw: RawConfig) -> None:
    seeds, folds, workers, distill = (raw.values.pop(flag, None) for flag in ("seeds", "folds", "workers", "distill"))
    making = replace(FITS, request_of=partial(request_of, here=False))
    if any(given is not None for given in (folds, workers, distill)):
        _warn_of_download(requests_of_folds(raw, folds, seeds, distill, making)[0].settings)
        return
    if seeds is not None:
        refuse_one_run(raw, "--seeds")
    _warn_of_download(making.request_of(raw).settings)


def _warn_of_sqlite(name: str, raw: RawConfig, resources: Resources) -> None:
    """Tell where several jobs would share a file that only processes of one host may."""
    storage = value_at(raw.values, f"{name}.storage")
    if name in SHARED and resources.copies > 1 and (storage is None or str(storage).startswith("sqlite")):
        caution(
            "submit: the jobs share a SQLite file, which is safe on one host only; for several take "
            f"--{name}.storage journal (a file system that all reach), or an address of PostgreSQL"
        )


def _warn_of_download(settings: RunSettings) -> None:
    """Tell where the images are not on this machine's disks, which those that train share: they may have no network."""
    data = settings.data
    info = dataset_info(data.dataset, data.synthetic)
    if info.source in EMBEDDED or data.resolution not in info.archives:
        return
    try:
        local_archive(info, data.resolution, data.root)
    except DataError as error:
        caution(f"submit: {error}; hosts that train often reach no network")


def _without_flag(arguments: Sequence[str], flag: str) -> list[str]:
    """Return arguments without a flag and its value, which may be joined by an equals sign."""
    kept, skip = [], False
    for argument in arguments:
        if not skip and argument != flag and not argument.startswith(f"{flag}="):
            kept.append(argument)
        skip = argument == flag
    return kept


def slurm_script(job: Job, logs: str | Path = "logs") -> str:
    """Return the batch script of a job.

    Args:
        job: The job.
        logs: Folder of the output files, which has to exist when the job begins.

    Raises:
        SettingsError: If the folder's name cannot stand in a batch script.
    """
    if re.search(r"[\s%\"'\\]", str(logs)):
        raise SettingsError(f"logs: {str(logs)!r} is not allowed; allowed: a folder without spaces, quotes and %")
    given, count = job.resources, job.count
    options = {
        "job-name": given.name,
        "nodes": given.nodes,
        "ntasks-per-node": given.processes,
        "cpus-per-task": given.cpus,
        "gpus-per-node": given.gpus or None,
        "mem": given.memory,
        "time": None if given.time is None else _clock(given.time),
        "partition": given.partition,
        "account": given.account,
        "array": f"0-{count - 1}{f'%{given.at_once}' if given.at_once else ''}" if count > 1 else None,
        "signal": f"SIGUSR1@{WARNING_S}",
        "requeue": "",
        "open-mode": "append",
        "output": f"{logs}/{'%x-%A_%a' if count > 1 else '%x-%j'}.log",
    }
    lines = ["#!/bin/bash"]
    lines += [
        f"#SBATCH --{key}{f'={value}' if value != '' else ''}" for key, value in options.items() if value is not None
    ]
    lines += ["export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK"]
    command = shlex.join(["srun", "--kill-on-bad-exit=1", sys.executable, "-m", "visionforge", *job.command])
    if job.seeds:
        index = "$SLURM_ARRAY_TASK_ID" if count > 1 else "0"
        lines += [f"seeds=({' '.join(map(str, job.seeds))})"]
        command += f' --seed_everything "${{seeds[{index}]}}"'
    if job.command[0] not in SHARED:  # a training asks to be requeued itself
        return "\n".join([*lines, f"exec {command}", ""])
    lines += [command, "status=$?"]
    lines += [f'[ "$status" -ne {REQUEUED_STATUS} ] || scontrol requeue "$SLURM_JOB_ID"', 'exit "$status"', ""]
    return "\n".join(lines)


def submit_to_slurm(script: str, logs: Path) -> str:
    """Submit a batch script from this folder, and return what `sbatch` calls the job.

    Raises:
        RunError: If there is no `sbatch`, or it refuses the job.
    """
    program = shutil.which("sbatch")
    if program is None:
        raise RunError("submit: there is no sbatch here; submit from a login node, or write the script with --print")
    logs.mkdir(parents=True, exist_ok=True)
    try:
        done = subprocess.run(
            [program, "--parsable"], input=script, capture_output=True, text=True, timeout=SUBMIT_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise RunError(f"submit: sbatch does not answer ({error})") from error
    if done.returncode:
        raise RunError(f"submit: sbatch refuses the job ({' '.join(done.stderr.split())})")
    return done.stdout.strip().partition(";")[0]


def kubernetes_manifest(job: Job) -> str:
    """Return the manifest of a job, for ``kubectl apply --filename -``.

    Data and runs lie on a volume that all pods mount. A pod that ends is started again, and its training goes on from
    its checkpoint. Seeds are a Job each.
    """
    import yaml

    names = [f"{job.resources.name}-seed-{seed}" for seed in job.seeds] or [job.resources.name]
    seeds: Sequence[int | None] = job.seeds or (None,)
    documents: list[dict[str, Any]] = []
    for name, seed in zip(names, seeds, strict=True):
        if job.resources.nodes > 1:
            documents.append(_service(name))
        documents.append(_kubernetes_job(job, name, seed))
    return yaml.safe_dump_all(documents, sort_keys=False, explicit_start=True)


def _service(name: str) -> dict[str, Any]:
    """Return what gives the pods of a training names, so that they find the first of them."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": {"job-name": name}},
    }


def _kubernetes_job(job: Job, name: str, seed: int | None) -> dict[str, Any]:
    given, arguments = job.resources, list(job.command)
    if seed is not None:
        arguments += ["--seed_everything", str(seed)]
    if arguments[0] == "fit" and not any(a == "--resume" or a.startswith("--resume=") for a in arguments):
        arguments += ["--resume", "auto"]
    pods = given.nodes if given.nodes > 1 else given.copies
    limits: dict[str, Any] = {"cpu": str(given.cpus * given.processes), "memory": f"{given.memory}i"}
    if given.gpus:
        limits["nvidia.com/gpu"] = given.gpus
    mounts = [{"name": "files", "mountPath": f"/{folder}", "subPath": folder} for folder in ("data", "outputs")]
    container: dict[str, Any] = {"name": "visionforge", "image": given.image, "args": arguments}
    if given.nodes > 1:
        launcher = ["torchrun", f"--nnodes={given.nodes}", f"--nproc-per-node={given.processes}"]
        launcher += ["--node-rank=$(JOB_COMPLETION_INDEX)", f"--master-addr={name}-0.{name}", "--master-port=29500"]
        container |= {"command": ["tini", "--", *launcher, "-m", "visionforge"]}
    container |= {
        "resources": {"limits": limits},
        "volumeMounts": [*mounts, {"name": "memory", "mountPath": "/dev/shm"}],
    }
    pod: dict[str, Any] = {
        "restartPolicy": "OnFailure",
        "terminationGracePeriodSeconds": WARNING_S,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000},
        "containers": [container],
        "volumes": [
            {"name": "files", "persistentVolumeClaim": {"claimName": given.claim}},
            {"name": "memory", "emptyDir": {"medium": "Memory"}},
        ],
    }
    if given.nodes > 1:
        pod["subdomain"] = name
    at_once = pods if given.nodes > 1 else min(pods, given.at_once or pods)
    spec = {"completions": pods, "parallelism": at_once, "completionMode": "Indexed", "backoffLimit": 6 * pods}
    if given.time is not None:
        spec["activeDeadlineSeconds"] = _seconds(given.time)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/name": "visionforge"}},
        "spec": {**spec, "template": {"metadata": {"labels": {"app.kubernetes.io/name": "visionforge"}}, "spec": pod}},
    }


def _seconds(time: str) -> int:
    """Return how long a time is; see `Resources.time`."""
    found = _TIME.fullmatch(time)
    assert found is not None
    if found["number"] is not None:
        return int(found["number"]) * _SECONDS[found["unit"]]
    hours, minutes, seconds = (int(found[part]) for part in ("hours", "minutes", "seconds"))
    return ((int((found["days"] or "0").removesuffix("-")) * 24 + hours) * 60 + minutes) * 60 + seconds


def _clock(time: str) -> str:
    """Return a time as SLURM has it, and one that has its form already as it is."""
    if ":" in time:
        return time
    days, rest = divmod(_seconds(time), 86_400)
    return f"{f'{days}-' if days else ''}{rest // 3_600:02}:{rest % 3_600 // 60:02}:00"
