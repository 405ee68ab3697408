"""Which of two classes is the one to be found, from what they are called."""

import re
from dataclasses import dataclass

NEGATIVE_WORDS = frozenset(
    (
        *("normal", "negative", "neg", "benign", "healthy", "control", "controls", "no", "none", "nothing", "absent"),
        *("background", "other", "others", "0", "false", "clean", "good", "ok", "okay", "intact", "undamaged"),
        *("unaffected", "uninfected", "nil"),
    )
)
NEGATIONS = ("no", "not", "non", "without")  # as the first word
NEGATING_PREFIX = "non"


@dataclass(frozen=True)
class Positive:
    """The class that is to be found.

    Attributes:
        name: Its name.
        reason: Half a sentence on how it was chosen.
        certain: Whether somebody said so, or the names do; otherwise it is only the last one.
    """

    name: str
    reason: str
    certain: bool


def names_nothing(name: str) -> bool:
    """Return whether a class name says that there is nothing to be found, such as ``normal`` or ``no_tumour``."""
    words = re.findall(r"[^\W_]+", name.casefold())
    if not words:
        return False
    return words[0] in NEGATIONS or words[0].startswith(NEGATING_PREFIX) or bool(NEGATIVE_WORDS & set(words))


def choose_positive(classes: tuple[str, str]) -> Positive:
    """Return which of two classes is to be found: the one beside a class that says that there is nothing."""
    nothing = [names_nothing(name) for name in classes]
    if nothing[0] != nothing[1]:
        name, other = classes if nothing[1] else classes[::-1]
        return Positive(name, f"because {other!r} says that there is nothing to be found", True)
    return Positive(classes[1], "because it is the last one: the names do not tell", False)
