"""Runs beside each other, as Python and notebooks have them."""

from typing import Any

from visionforge.evaluation.comparison import NAMES
from visionforge.evaluation.comparison_texts import comparison_tables, mean_text
from visionforge.printable import printable, printable_lines


class Comparison:
    """Runs beside each other: settings that differ, metrics, means over seeds, and paired differences.

    Attributes:
        content: Everything, as `visionforge runs compare --json` prints it.
    """

    def __init__(self, content: dict[str, Any]) -> None:
        self.content = content

    @property
    def metrics(self) -> Any:
        """A table with a row per metric and a column per run."""
        import pandas as pd

        return pd.DataFrame(self.content["metrics"], index=self.content["runs"]).T

    @property
    def differences(self) -> Any:
        """A table of the paired differences, with intervals and p-values; empty if there are none."""
        import pandas as pd

        return pd.DataFrame(self.content["differences"])

    @property
    def tests(self) -> Any:
        """A table of DeLong's and McNemar's tests; empty if there are none, as of masks and boxes."""
        import pandas as pd

        return pd.DataFrame(self.content["tests"])

    @property
    def verdicts(self) -> Any:
        """A table of what the margins say; empty if none were given."""
        import pandas as pd

        return pd.DataFrame(self.content["verdicts"])

    @property
    def _further(self) -> list[Any]:
        tables = {"differences": self.differences, "tests": self.tests, "verdicts": self.verdicts}
        return [table for name, table in tables.items() if self.content[name]]

    def __repr__(self) -> str:
        """Return the metrics, and the differences, tests and verdicts if there are any."""
        texts = [self.metrics.to_string(), *(table.to_string(index=False) for table in self._further)]
        return printable_lines("\n\n".join([*texts, *self._notes]).split("\n"))

    def _repr_html_(self) -> str:
        """Return what `visionforge runs compare` prints, for notebooks."""
        from visionforge.reporting.rendering import render

        content, groups = self.content, self.content["groups"]
        several = any(group["seeds"] > 1 for group in groups)
        pairs = comparison_tables(content) if content["differences"] else []
        letters = {run: group["name"] for group in groups for run in group["runs"]} if len(groups) > 1 else {}
        if pairs and not letters:  # the seed alone differs: each run is a model of its own
            letters = dict(zip(content["runs"], NAMES, strict=False))
        rows = [(name, row) for part in ("settings", "metrics") for name, row in content[part].items()]
        return render(
            "notebook_comparison.html.j2",
            runs=[printable(f"{letters[run]}: {run}" if letters else run) for run in content["runs"]],
            rows=[(printable(name), list(map(_text, row))) for name, row in rows],
            groups=[f"{group['name']} (n = {group['seeds']})" for group in groups] if several else [],
            means=[(name, [mean_text(group["metrics"][name]) for group in groups]) for name in content["metrics"]],
            pairs=pairs,
            note="" if pairs else printable(content["note"] or ""),
        )

    @property
    def _notes(self) -> list[str]:
        return [*self.content["left_out"], *filter(None, [self.content["adjusted"]])]


def _text(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.4f}" if isinstance(value, float) else printable(value)
