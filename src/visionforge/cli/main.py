"""The entry point: dispatches commands, and turns a user's mistake into one line and exit status 2.

Nothing heavy is imported here; `--version`, `--help` and the light commands answer without torch.
"""

import contextlib
import errno
import os
import sys
from collections.abc import Sequence
from types import TracebackType

from visionforge.cli.commands import commands
from visionforge.config.aliases import command_meant
from visionforge.config.environment import keep_freed_memory, prepare_environment, shield_matplotlib
from visionforge.config.loading import OF_EVERY_COMMAND
from visionforge.config.problems import nearest
from visionforge.distribution import own_version
from visionforge.errors import PeerEndedError, SettingsError, VisionForgeError
from visionforge.printable import traceback_lines
from visionforge.runs.signals import Interrupted
from visionforge.streams import Guarded, guarded, results_apart, say_text, warn

COMMANDS = commands()
_HEAD = """\
usage: visionforge COMMAND [options]

Train, evaluate and compare image classifiers on small images, with PyTorch Lightning.
"""
_OPTIONS = """\
options:
  --version       print the version
  --quiet         after any command: only warnings, errors, and what is asked for: JSON, help, a script
  --debug         after any command: print the traceback of an error
  -h, --help      this text; `visionforge COMMAND --help` lists the settings of a command
"""


def usage() -> str:
    """Return the list of commands."""
    width = max(map(len, COMMANDS))
    lines = [f"  {command.name:<{width}} {command.summary}" for command in COMMANDS.values()]
    examples = [f"  visionforge {example}" for command in COMMANDS.values() for example in command.examples]
    return "\n".join([_HEAD, "commands:", *lines, "", _OPTIONS, "examples:", *examples])


USAGE = usage()

EXIT_UNTOLD = 1  # what the command was asked for could not be written
EXIT_MISTAKE = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells report it
_STORAGE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EFBIG, errno.ENOTDIR)


def main(args: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Args:
        args: The arguments after the program's name; None takes those of the process.

    Returns:
        0 if it worked, 2 after a mistake in the settings, the data or the environment, 1 if a check failed or what was
        asked for could not be written to standard output, 128 plus the number of the signal that interrupted it.
    """
    arguments = list(sys.argv[1:] if args is None else args)
    if args is None:  # this process is ours
        sys.excepthook = _tell_unexpected
        keep_freed_memory()
    place = arguments.index("--") if "--" in arguments else len(arguments)
    own, rest = arguments[:place], arguments[place:]  # what follows is a command of its own
    quiet, debug = "--quiet" in own, "--debug" in own
    arguments = [argument for argument in own if argument not in OF_EVERY_COMMAND] + rest
    apart = quiet or "--json" in own
    with guarded() as output, results_apart(quiet) if apart else contextlib.nullcontext():
        status = _run(arguments, debug)
        return status if status or _is_told(arguments, output) else EXIT_UNTOLD


def _is_told(arguments: list[str], output: Guarded) -> bool:
    """Return whether somebody got what a command has to say, or did not want it.

    A reader that goes away, such as `head`, wants no more; where a command leaves its results in files, nothing is
    lost.
    """
    output.flush()
    in_files = arguments and arguments[0] in COMMANDS and not COMMANDS[arguments[0]].tells
    asked = any(argument.startswith(("--help", "-h", "--print_config", "--json")) for argument in arguments)
    if output.failure is None or output.failure.errno == errno.EPIPE or (in_files and not asked):
        return True
    warn(f"error: standard output cannot be written ({str(output.failure.strerror).lower()})")
    return False


def _run(arguments: list[str], debug: bool) -> int:
    try:
        prepare_environment()
        shield_matplotlib()
        return _dispatch(arguments)
    except PeerEndedError as error:
        if not error.told:
            _tell(error.problems, debug)
        return error.status
    except VisionForgeError as error:
        _tell(error.problems, debug)
        from visionforge.engine.error_help import error_help

        if (more := error_help(error, arguments)) is not None:
            warn(f"help: {more}")
    except OSError as error:
        if error.errno not in _STORAGE_ERRORS:
            raise
        where = f"{error.filename}: " if error.filename else ""
        _tell([f"{where}{(error.strerror or str(error)).lower()}; check permissions and free disk space"], debug)
    except Interrupted as interrupted:
        if os.environ.get("LOCAL_RANK", "0") != "0":
            return 0  # any other status makes the launcher kill the first process, which still writes
        warn(f"interrupted by {interrupted.name}")
        return interrupted.exit_status
    except KeyboardInterrupt:
        warn("interrupted")
        return EXIT_INTERRUPTED
    except SystemExit as exit_request:  # argparse, after --help or a mistake
        code = exit_request.code
        if isinstance(code, str):
            warn(code)
        return code if isinstance(code, int) else 0 if code is None else 1
    return EXIT_MISTAKE


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        say_text(USAGE)
        return 0
    name, rest = arguments[0], arguments[1:]
    if name == "--version":
        say_text(f"visionforge {own_version()}")
        return 0
    if name not in COMMANDS:
        if (meant := command_meant(name, rest)) is not None:
            raise SettingsError(f"{name}: unknown command; type: {meant}")
        close = nearest(name, COMMANDS) or list(COMMANDS)
        raise SettingsError(f"{name}: unknown command; nearest: {', '.join(close)} (`visionforge --help` shows all)")
    return COMMANDS[name].run(rest)


def _tell(problems: Sequence[str], debug: bool) -> None:
    error = sys.exception()
    if debug and error is not None:
        _tell_unexpected(type(error), error, error.__traceback__)
    for problem in problems:
        warn(f"error: {problem}")


def _tell_unexpected(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print a traceback, whose messages may hold names from outside."""
    for line in traceback_lines(error.with_traceback(trace)):
        warn(line)
