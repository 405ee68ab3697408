"""What is typed to import something otherwise: commands, and the lines that name settings."""

import re
import shlex
from collections.abc import Mapping
from typing import Any

from visionforge.data.import_settings import ImportSettings, import_flags
from visionforge.runs.paths import shown


def flags_of(given: Mapping[str, Any]) -> list[str]:
    """Return the words that are typed for settings of an import.

    Args:
        given: Name of a setting → its value; the default needs no words, but that of `resolution` is said.
    """
    words: list[str] = []
    for flag, name, _ in _flags():
        value = given.get(name)
        if value is None or (value == getattr(ImportSettings, name) and name != "resolution"):
            continue
        values = [] if isinstance(value, bool) else value if isinstance(value, tuple | list) else [value]
        words += [flag, *(f"{each:g}" if isinstance(each, float) else str(each) for each in values)]
    return words


def import_command(settings: ImportSettings) -> str:
    """Return the command that imports with these settings."""
    return shlex.join(
        [
            *("visionforge", "datasets", "import", str(shown(settings.source)), "--name", settings.name),
            *flags_of(vars(settings)),
        ]
    )


def with_command(line: str, command: str, more: str = "") -> str:
    """Return a line that names settings as Python does with the flags in their places, and the command at its end.

    Args:
        line: What is told; others than those that name a setting stay as they are.
        command: What takes the flags.
        more: What else it has to be given.

    >>> with_command("add `mask_values` foreground if all is one class", "visionforge init cells")
    'add --mask-values foreground if all is one class (`visionforge init cells --mask-values foreground`)'
    """
    flags = {name: (flag, given) for flag, name, given in _flags()}
    names, typed = "|".join(flags), "|".join(flag for flag, _ in flags.values())
    found = re.search(
        rf"^({names})(?=:)|`({names})`(?: ([^\s;]*[^\s;:,.]))?|`?({typed})(?: ([^`]+(?=`)|[^\s`]+))?", line
    )
    if found is None:
        return line
    name = found[1] or found[2] or next(name for name, (flag, _) in flags.items() if flag == found[4])
    flag, given = flags[name]
    words = " ".join(word for word in (command, flag, found[5] or _value(name, given, found[3]), more) if word)
    line = re.sub(rf"^({names})(?=:)|`({names})`", lambda each: flags[each[1] or each[2]][0], line)
    return f"{line} (`{words}`)"


def _flags() -> list[tuple[str, str, dict[str, Any]]]:
    """Return flag, setting and arguments of `argparse`, of each setting once."""
    flags = [(flag, given.get("dest") or flag[2:].replace("-", "_"), given) for flag, given in import_flags().items()]
    return [each for each in flags if each[0] != "--groups"]


def _value(name: str, given: Mapping[str, Any], word: str | None) -> str:
    """Return what follows a flag: the word that a line has behind the name, if it is a value, or what is allowed."""
    if "action" in given:
        return ""
    choices, metavar = given.get("choices"), given.get("metavar", name.upper())
    if word is not None and (
        word in choices if choices else word.isdigit() if given.get("type") is int else name.endswith("column")
    ):
        return shlex.quote(word)
    if word is not None and "," in word and metavar == "NAME,NAME":
        return shlex.quote(word)
    return "|".join(choices) if choices else " ".join(metavar) if isinstance(metavar, tuple) else str(metavar)
