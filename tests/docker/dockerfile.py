"""Reads a Dockerfile, and the list of what its context leaves out, as far as ours go."""

import fnmatch
import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes:
        name: In capitals.
        text: What follows it, on one line.
    """

    name: str
    text: str

    @property
    def flags(self) -> dict[str, str]:
        """Options such as ``--from=build``."""
        words = self.text.split()
        return dict(word[2:].partition("=")[::2] for word in words if word.startswith("--"))

    @property
    def rest(self) -> str:
        """What follows the options."""
        return re.sub(r"^(--\S+\s+)*", "", self.text)

    @property
    def words(self) -> list[str]:
        """The JSON list, or else the words, after the options."""
        return json.loads(self.rest) if self.rest.startswith("[") else shlex.split(self.rest)


@dataclass
class Stage:
    """One stage.

    Attributes:
        name: After AS.
        base: After FROM.
        instructions: In order.
    """

    name: str
    base: str
    instructions: list[Instruction] = field(default_factory=list)

    def all(self, name: str) -> list[Instruction]:
        """Return the instructions of one kind."""
        return [instruction for instruction in self.instructions if instruction.name == name]

    def last(self, name: str) -> Instruction:
        """Return the instruction that counts, of a kind of which one counts."""
        return self.all(name)[-1]

    def variables(self) -> dict[str, str]:
        """Return ENV as it is written."""
        return {key: value for each in self.all("ENV") for key, value in pairs(each.text)}


def pairs(text: str) -> list[tuple[str, str]]:
    """Return the names and values of ``A=1 B="two words"``."""
    return [(name, value) for name, _, value in (word.partition("=") for word in shlex.split(text))]


def parse(text: str) -> tuple[list[Instruction], dict[str, Stage]]:
    """Return the instructions before the first stage, and the stages in order."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    before: list[Instruction] = []
    stages: dict[str, Stage] = {}
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        name, _, rest = line.strip().partition(" ")
        instruction = Instruction(name.upper(), " ".join(rest.split()))
        if instruction.name == "FROM":
            base, _, alias = instruction.text.partition(" AS ")
            stage = stages[alias] = Stage(alias, base)
        elif stages:
            stage.instructions.append(instruction)
        else:
            before.append(instruction)
    return before, stages


def left_out(path: str, patterns: list[str]) -> bool:
    """Return whether a context leaves out a file: the last pattern that fits it, or a folder above it, decides."""
    parts = path.split("/")
    above = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
    result = False
    for line in patterns:
        pattern = line.removeprefix("!").rstrip("/")
        shapes = (pattern, pattern.removeprefix("**/"))  # ** is any number of folders, also none
        if any(_fits(folder, shape) for folder in above for shape in shapes):
            result = not line.startswith("!")
    return result


def _fits(path: str, pattern: str) -> bool:
    if pattern.startswith("**/"):
        return fnmatch.fnmatchcase(path, pattern.replace("**/", "*/", 1))
    one, two = path.split("/"), pattern.split("/")
    return len(one) == len(two) and all(map(fnmatch.fnmatchcase, one, two))


def patterns_of(path: Path) -> list[str]:
    """Return the patterns of a .dockerignore."""
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line and not line.startswith("#")]
