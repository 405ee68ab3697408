"""The reference of all settings, derived from their declarations.

``python -m visionforge.config.reference`` prints the table of docs/settings.md.
"""

import sys

from pydantic import BaseModel

from visionforge.config.problems import describe_allowed, flatten, item_fields
from visionforge.config.schema import RunSettings


def settings_table() -> str:
    """Return a Markdown table with name, default, allowed values and meaning of every setting."""
    lines = ["| setting | default | allowed | meaning |", "|---|---|---|---|"]
    for path, field in flatten(RunSettings).items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            continue  # a section; its members have lines of their own
        for name, each in {path: field, **item_fields(path, field)}.items():
            lines.append(f"| `{name}` | {_shown(each.default)} | {describe_allowed(each)} | {each.description} |")
    return "\n".join(lines) + "\n"


def _shown(value: object) -> str:
    """Return a value as YAML writes it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if value == "":
        return "needed"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_shown, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.stdout.write(settings_table())
