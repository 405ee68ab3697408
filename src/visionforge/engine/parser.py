"""The parser of LightningCLI, whose complaints are one line each."""

import re
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser

from visionforge.errors import SettingsError

_NOUNS = {"int": "an integer", "float": "a number", "bool": "true or false", "str": "text"}


class NotAllowedError(SettingsError):
    """A flag has a value that it does not take.

    Args:
        path: Dotted path of the flag.
        value: The value, as text.
        allowed: What it takes.
    """

    def __init__(self, path: str, value: str, allowed: str) -> None:
        self.path, self.value, self.allowed = path, value, allowed
        super().__init__(self.line(repr(value)))

    def line(self, value: str, where: str = "") -> str:
        """Return the message for a value as it was written, and where."""
        return f"{self.path}: {value} is not allowed{where}; allowed: {self.allowed}"


class Parser(LightningArgumentParser):
    """A parser whose complaints are one line each."""

    def error(self, message: str, ex: Exception | None = None) -> None:  # type: ignore[override]
        """Raise instead of printing sixty lines of usage."""
        text = " ".join(str(message).split())
        key = re.search(r'Parser key "([^"]+)"', text)
        value = re.search(r"Given value: (.*)$", text) or re.search(r"Got value: (.*)$", text)
        kinds = re.search(r"Subtypes: \[(.*?)\] Errors", text) or re.search(r"Expected an? (<class '[^']+'>)", text)
        if key and value and kinds:
            names = re.sub(r"<class '([^']+)'>", r"\1", kinds[1]).replace("NoneType", "null").split(", ")
            told = " or ".join(_NOUNS.get(name, name) for name in sorted(names))
            raise NotAllowedError(key[1], value[1], told) from ex
        raise SettingsError(text) from ex


def dump(parser: LightningArgumentParser, config: Namespace) -> str:
    """Return settings as YAML, also those whose default is a word of an enumeration, as the Timer's interval is."""
    return str(parser.dump(_with_words(config.clone()), skip_unset=False))


def _with_words(value: Any) -> Any:
    """Return a value in which every text is plain text."""
    if isinstance(value, Namespace):
        for name, item in vars(value).items():
            setattr(value, name, _with_words(item))
    elif isinstance(value, list):
        return [_with_words(item) for item in value]
    elif isinstance(value, dict):
        return {name: _with_words(item) for name, item in value.items()}
    elif isinstance(value, str) and type(value) is not str:
        return str(getattr(value, "value", value))
    return value
