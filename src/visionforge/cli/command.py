"""What a command is."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        name: What is typed.
        summary: Its line in `visionforge --help`.
        run: Runs it: what follows its name → exit status. It imports what is slow to load itself.
        place: Where it stands among the others.
        tells: Its result is what it prints, so that a full standard output is an error.
        examples: Command lines for `visionforge --help`.
    """

    name: str
    summary: str
    run: Callable[[list[str]], int]
    place: int
    tells: bool = False
    examples: tuple[str, ...] = ()
