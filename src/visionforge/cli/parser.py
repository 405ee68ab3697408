"""The parser of LightningCLI, whose complaints are one line each."""

import re

from lightning.pytorch.cli import LightningArgumentParser

from visionforge.errors import SettingsError


class Parser(LightningArgumentParser):
    """A parser whose complaints are one line each."""

    def error(self, message: str, ex: Exception | None = None) -> None:  # type: ignore[override]
        """Raise instead of printing sixty lines of usage."""
        text = " ".join(str(message).split())
        key = re.search(r'Parser key "([^"]+)"', text)
        value = re.search(r"Given value: (.*)$", text)
        kinds = re.search(r"Subtypes: \[(.*?)\] Errors", text)
        if key and value and kinds:
            names = re.sub(r"<class '([^']+)'>", r"\1", kinds[1]).replace("NoneType", "null").split(", ")
            text = f"{key[1]}: {value[1]!r} is not allowed; allowed: {', '.join(sorted(names))}"
        raise SettingsError(text) from ex
