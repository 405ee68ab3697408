"""The table of backbones and resolutions, measured on the networks themselves.

``python -m visionforge.models.reference`` prints the table of docs/models.md.
"""

import sys

from visionforge.models.inspect import map_sizes, profile
from visionforge.models.registry import backbone_entry, backbone_names

RESOLUTIONS = (28, 64, 128, 224)


def models_table() -> str:
    """Return a Markdown table: per built-in backbone and resolution the map after each stage, and multiply-adds."""
    lines = [
        "| backbone | resolution | stem's downsampling | map after each stage | multiply-adds |",
        "|---|---|---|---|---|",
    ]
    for entry in filter(lambda entry: entry.is_builtin, map(backbone_entry, backbone_names())):
        for resolution in RESOLUTIONS:
            found = profile(entry, resolution)
            stem = "standard" if found.scale == 1 else f"÷ {found.scale}"
            lines.append(
                f"| `{entry.name}` | {resolution} | {stem} | {map_sizes(found)} | {found.multiply_adds / 1e6:,.0f} M |"
            )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(models_table())
