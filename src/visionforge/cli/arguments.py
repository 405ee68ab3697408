"""What the light commands share: a parser whose complaints are one line each, and ways to print."""

import argparse
import json
import sys
from typing import Any, NoReturn

from rich.console import Console

from visionforge.errors import SettingsError


class CommandParser(argparse.ArgumentParser):
    """A parser that raises instead of printing its usage."""

    def error(self, message: str) -> NoReturn:
        """Raise with the command's name and where its help is."""
        raise SettingsError(f"{self.prog.removeprefix('visionforge ')}: {message} (`{self.prog} --help`)")


def print_json(content: Any) -> None:
    """Print a value as JSON."""
    sys.stdout.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def plain_console() -> Console:
    """Return a console that neither colours numbers, nor reads markup, nor breaks lines."""
    return Console(highlight=False, markup=False, soft_wrap=True)
