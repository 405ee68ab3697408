"""Where more is to be read about a mistake: the command that explains a setting, or a page of the documentation."""

from collections.abc import Sequence

from visionforge.config.pages import ARGUMENTS, COMMANDS, ERRORS, TITLES
from visionforge.config.problems import leaves
from visionforge.config.schema import RunSettings
from visionforge.errors import VisionForgeError


def error_help(error: VisionForgeError, command: Sequence[str] = ()) -> str | None:
    """Return where more is to be read about an error; None if it says itself what to type, or no page explains it.

    Args:
        error: What was told.
        command: What was typed, without the program's name.

    >>> from visionforge.errors import SettingsError
    >>> error_help(SettingsError("data.batch_size: 0 is not allowed; allowed: an integer, 1 to 2048"))
    'visionforge explain-setting data.batch_size'
    """
    if any("visionforge " in problem for problem in error.problems):
        return None
    for problem in error.problems:
        subject = problem.partition(": ")[0].removeprefix("--").replace("-", "_")
        if subject in ARGUMENTS:
            return _page(ARGUMENTS[subject])
        if _is_setting(subject):
            return f"visionforge explain-setting {subject}"
    for kind, page in ERRORS.items():
        if isinstance(error, kind):
            own = [own for name, own in COMMANDS.items() if list(command[: len(name.split())]) == name.split()]
            return _page([*own, page][0])
    return None


def _page(page: str) -> str:
    return f"documentation, {TITLES[page]}"


def _is_setting(subject: str) -> bool:
    section, _, flag = subject.partition(".")
    if section == "trainer":
        from visionforge.engine.validation import trainer_flags

        return flag in trainer_flags() or subject in leaves(RunSettings)
    return subject in leaves(RunSettings)
