"""Everything that is known of one setting: what it means, where it counts, and which others it is checked with."""

import ast
import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from visionforge.config import rules
from visionforge.config.background import SOURCES, acts_with
from visionforge.config.pages import page_of_setting
from visionforge.config.problems import describe_allowed, flatten, leaves, nearest, nearest_settings
from visionforge.config.schema import RunSettings
from visionforge.config.schema.components import Component, Family
from visionforge.engine.settings_help import trainer_flag_texts
from visionforge.engine.validation import TRAINER_DEFAULTS, trainer_constructor
from visionforge.errors import SettingsError
from visionforge.printable import printable
from visionforge.runs.config_hash import VOLATILE

_PATH = re.compile(r"\b(?:data|model|trainer|tune|benchmark|evaluation|probe)(?:\.[a-z_]+)+")


@dataclass(frozen=True)
class SettingFacts:
    """What is known of a setting.

    Attributes:
        setting: Its dotted path.
        means: What it does.
        allowed: What it takes.
        default: What it is where nobody says so, as JSON has it.
        kinds: Of a component's setting, the kinds that have it.
        identifies: Whether a run with another value is another run.
        source: The paper that it comes from; empty where there is none.
        related: Settings that are checked together with it.
        acts_with: What it decides together with other settings → these.
        page: The page of the documentation that explains it.
    """

    setting: str
    means: str
    allowed: str
    default: Any
    kinds: tuple[str, ...]
    identifies: bool
    source: str
    related: tuple[str, ...]
    acts_with: Mapping[str, Sequence[str]]
    page: str

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Return it as a terminal shows it."""
        shown = (
            "null"
            if self.default is None
            else str(self.default).lower()
            if isinstance(self.default, bool)
            else self.default
        )
        identity = (
            "yes, a run with another value is another run" if self.identifies else "no, it may change on resuming"
        )
        facts = {
            "means": self.means,
            "allowed": self.allowed,
            "default": shown,
            "read by": ", ".join(self.kinds),
            "source": self.source,
            "identifies": identity,
            "checked with": ", ".join(self.related),
        }
        rows = [(name, str(text)) for name, text in facts.items() if str(text)]
        rows += [("acts with", f"{', '.join(others)} ({what})") for what, others in self.acts_with.items()]
        rows.append(("page", f"docs/{self.page}"))
        width = max(len(name) for name, _ in rows)
        return [self.setting, *(f"  {name:<{width}}  {text}" for name, text in rows)]


def explain_setting(path: str) -> SettingFacts:
    """Return what is known of a setting.

    Args:
        path: Its dotted path, with or without leading dashes.

    Raises:
        SettingsError: If there is none; the nearest are in the message.

    >>> explain_setting("model.mixup.alpha").allowed
    'a number, 0 to 1'
    """
    path = path.removeprefix("--")
    flags = {f"trainer.{name}": text for name, text in trainer_flag_texts().items()}
    fields = leaves(RunSettings)
    if path not in fields and path not in flags:
        raise SettingsError(f"setting: {printable(path)} {_other_than_a_setting(path, [*fields, *flags])}")
    field = fields.get(path)
    identity = path not in VOLATILE and path.partition(".")[0] not in VOLATILE
    page = page_of_setting(path)
    related, source = tuple(sorted(_related().get(path, ()))), SOURCES.get(path, "")
    further = (identity, source, related, acts_with(path), page)
    if field is None:
        own = _trainer_default(path.removeprefix("trainer."))
        return SettingFacts(path, flags[path], "as Lightning's Trainer takes it", own, (), *further)
    default = field.get_default(call_default_factory=True)
    shown = default if isinstance(default, bool | int | float | str | None) else str(default)
    return SettingFacts(path, field.description or "", describe_allowed(field), shown, _kinds(path), *further)


def _other_than_a_setting(path: str, known: list[str]) -> str:
    """Return what is said of a name that is none of a setting."""
    for section in [path, *(name for name in flatten(RunSettings) if name.endswith(f".{path}"))]:
        if inside := [name for name in known if name.startswith(f"{section}.")]:
            which = "a section" if section == path else f"the section {section}"
            return f"is {which}, with {', '.join(inside)}"
    close = nearest_settings(path, known) or nearest(path, known)
    hint = f"nearest: {', '.join(close)}" if close else "`visionforge fit --help all` tells of all"
    return f"is no setting; {hint}"


def _trainer_default(flag: str) -> Any:
    """Return what a flag of the Trainer is where nobody says so, by us or by Lightning."""
    if flag in TRAINER_DEFAULTS:
        return TRAINER_DEFAULTS[flag]
    arguments = trainer_constructor().args
    found = dict(zip((each.arg for each in arguments.kwonlyargs), arguments.kw_defaults, strict=True))[flag]
    return (
        found.value if isinstance(found, ast.Constant) and isinstance(found.value, bool | int | float | str) else None
    )


def _kinds(path: str) -> tuple[str, ...]:
    """Return the kinds of a component that have a setting, where not all of them do."""
    parent, _, name = path.rpartition(".")
    for base in Component.__subclasses__():
        family = base.__dict__.get("family")
        if isinstance(family, Family) and family.path == parent and name != "name":
            readers = family.readers(name)
            return () if len(readers) == len(family.kinds) else readers
    return ()


@cache
def _related() -> dict[str, set[str]]:
    """Return setting → the others that a rule's messages name with it, read from the rules themselves."""
    known = {*flatten(RunSettings), *(f"trainer.{name}" for name in trainer_flag_texts())}
    found: dict[str, set[str]] = {}
    for node in ast.walk(ast.parse(inspect.getsource(rules))):
        if not isinstance(node, ast.Yield):  # a message
            continue
        texts = [
            part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)
        ]
        named = {path for text in texts for path in _PATH.findall(text)} & known
        for path in named:
            found.setdefault(path, set()).update(named - {path})
    return found
