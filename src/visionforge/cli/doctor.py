"""`visionforge doctor`: this machine, its folders, and processes that dead runs left behind."""

from pathlib import Path

from visionforge.cli.arguments import CommandParser, print_json, say
from visionforge.engine.diagnosis import diagnose
from visionforge.runs.diagnostics import Diagnosis
from visionforge.runs.paths import shown

EXIT_PROBLEMS = 1


def run_doctor(arguments: list[str]) -> int:
    """Run `visionforge doctor`; return 1 if something keeps runs from working, and 0 otherwise.

    Raises:
        SettingsError: If an argument is unknown.
    """
    parser = CommandParser(
        prog="visionforge doctor",
        description="This machine, its folders, and processes that dead runs left behind. Exit status 1 if a folder "
        "cannot be written, or processes are left.",
    )
    parser.add_argument("--outputs", help="folder of the runs; default $VISIONFORGE_OUTPUTS or the project's")
    parser.add_argument("--root", help="folder of the archives; default $VISIONFORGE_DATA or the cache")
    parser.add_argument("--kill", action="store_true", help="end the processes that dead runs left behind")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    options = parser.parse_args(arguments)
    found = diagnose(options.outputs, options.root, kill=options.kill)
    if options.json:
        print_json(found.as_dict())
    else:
        _print(found)
    return 0 if found.ok else EXIT_PROBLEMS


def _print(found: Diagnosis) -> None:
    machine, scheduler = found.machine, found.scheduler
    say(
        f"{machine['processor']}, {machine['cores']} cores, "
        f"{machine['memory_free_gb']} of {machine['memory_gb']} GB free"
    )
    for device in found.devices:
        memory = f", {device['free_gb']} of {device['memory_gb']} GB free" if "memory_gb" in device else ""
        say(f"{device['name']}{memory}")
    if not found.devices:
        say("no GPU")
    if scheduler:
        say(f"under {scheduler['name']}, job {scheduler['job']}")
    say(", ".join(f"{name} {version}" for name, version in found.packages.items()))
    for name, folder in found.folders.items():
        state = "writable" if folder.writable else "read-only" if folder.ok else "cannot be written"
        there = "" if folder.exists else ", will be made"
        path = shown(Path(folder.path))
        say(f"{'✓' if folder.ok else '✗'} {name}: {path} ({state}{there}, {folder.free_gb} GB free)")
        if folder.locks:
            say(f"  {folder.locks}")
    for process in found.leftovers:
        verb = "ended" if process.ended else "left behind"
        say(
            f"{'✓' if process.ended else '✗'} process {process.pid} of {process.run} {verb} "
            f"({process.age_s} s, {process.memory_mb} MB): {process.command}"
        )
    if not found.leftovers:
        say("✓ no processes of dead runs")
    elif scheduler and found.only_reports:
        say(f"under {scheduler['name']} processes are not ended; let the scheduler do it")
    elif not all(process.ended for process in found.leftovers):
        say("`visionforge doctor --kill` ends them")
