"""The parser of LightningCLI, whose complaints are one line each."""

import re
from typing import Any, ClassVar

from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser

from visionforge.cli.classes import class_problems
from visionforge.config.loading import read_arguments
from visionforge.errors import SettingsError
from visionforge.printable import printable

SEEDS = "--seeds N or 1,7,42: train for several seeds, N of them from the configured one on, or these."
PICTURES = (
    "With --images, which takes folders, picture files and archives, `predict` classifies them and takes these flags "
    "alone: {}. `visionforge predict --images=PATH --help` tells of them."
)
_LONGEST = 200  # characters of a value in a message
_NOUNS = {"int": "an integer", "float": "a number", "bool": "true or false", "str": "text"}


class Parser(LightningArgumentParser):
    """A parser whose complaints are one line each."""

    given: ClassVar[list[str]] = []  # the arguments that are being parsed, without the subcommand

    def parse_args(self, args: Any = None, *more: Any, **options: Any) -> Any:
        """Parse, and remember what was given; the parameters are those of jsonargparse."""
        if isinstance(args, list):
            Parser.given = args[1:] if args and not args[0].startswith("-") else args
        return super().parse_args(args, *more, **options)

    def dump(self, cfg: Any, *more: Any, **options: Any) -> str:
        """Return settings as YAML, also those whose default is a word of an enumeration, as the Timer's interval is."""
        return str(super().dump(_with_words(cfg.clone()), *more, **options))

    def error(self, message: str, ex: Exception | None = None) -> None:  # type: ignore[override]
        """Raise instead of printing sixty lines of usage."""
        text = " ".join(str(message).split())
        key = re.search(r'Parser key "([^"]+)"', text)
        if "trainer." in text and (problems := self._class_problems()):
            raise SettingsError(problems) from ex
        value = re.search(r"Given value: (.*)$", text) or re.search(r"Got value: (.*)$", text)
        kinds = re.search(r"Subtypes: \[(.*?)\] Errors", text) or re.search(r"Expected an? (<class '[^']+'>)", text)
        if key and value and kinds:
            names = re.sub(r"<class '([^']+)'>", r"\1", kinds[1]).replace("NoneType", "null").split(", ")
            told = " or ".join(_NOUNS.get(name, name) for name in sorted(names))
            text = f"{key[1]}: {_shown(key[1], value[1])}; allowed: {told}"
        raise SettingsError(text) from ex

    def _class_problems(self) -> list[str]:
        raw = read_arguments(Parser.given)
        trainer = raw.values.get("trainer")
        return class_problems(trainer, raw.sources) if isinstance(trainer, dict) else []


def _shown(key: str, text: str) -> str:
    """Return a value as it was written, and where, in the words of the check of the settings."""
    raw = read_arguments(Parser.given)
    value: Any = raw.values
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    where = f" ({raw.sources[key]})" if key in raw.sources else ""
    written = value if isinstance(value, str) else text
    shown = str(value) if isinstance(value, int | float) else repr(printable(written, _LONGEST))
    return f"{shown} is not allowed{where}"


def describe_further_flags(parser: LightningArgumentParser, stage: str) -> None:
    """Name in the help of a stage the flags that are read before this parser is asked."""
    if stage == "fit":
        parser.add_argument_group("Several seeds", SEEDS)
    elif stage == "predict":
        from visionforge.cli.predict_images import flag_names

        names = ", ".join(name for name in flag_names() if name != "--images")
        parser.add_argument_group("Pictures instead of a data set", PICTURES.format(names))


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
