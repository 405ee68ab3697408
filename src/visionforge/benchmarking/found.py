"""A benchmark as a Python object: its leaderboard as numbers and tables, and where its files are."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visionforge.evaluation.metric_names import metric_text
from visionforge.printable import printable
from visionforge.runs.paths import address_of, resolve, shown

if TYPE_CHECKING:
    import pandas as pd

    from visionforge.engine.run import Run


class Benchmark:
    """The leaderboard of a benchmark.

    Attributes:
        path: Its folder.
        content: Everything, as `leaderboard.json` has it.
    """

    def __init__(self, path: Path, content: Mapping[str, Any]) -> None:
        self.path = path
        self.content = content

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.content["benchmark"])

    @property
    def counts(self) -> dict[str, int]:
        """State → number of cells: ``all``, ``complete``, ``failed``, ``refused``, ``running``, ``waiting``."""
        return dict(self.content["cells"])

    @property
    def left(self) -> int:
        """How many cells are still in line or being worked on."""
        return sum(self.counts.get(state, 0) for state in ("new", "waiting", "running"))

    @property
    def failed(self) -> list[dict[str, Any]]:
        """Cells without a result, and the reason of each."""
        return [dict(each) for each in self.content["failed"]]

    @cached_property
    def leaderboard(self) -> "pd.DataFrame":
        """A table with a row per data set, resolution, backbone and recipe: the file `leaderboard.csv`."""
        import pandas as pd

        return pd.read_csv(self.path / "leaderboard.csv")

    @property
    def report(self) -> Path:
        """The page, which opens offline."""
        return self.path / "index.html"

    @cached_property
    def runs(self) -> "list[Run]":
        """The runs of all cells that are complete."""
        from visionforge.engine.run import open_run

        paths = [path for table in self.content["tables"] for row in table["rows"] for path in row["runs"]]
        return [open_run(resolve(path)) for path in paths]

    def as_dict(self) -> dict[str, Any]:
        """Return its folder, and everything as `leaderboard.json` has it."""
        return {"path": str(self.path), **self.content}

    def _lines(self) -> list[tuple[str, str, list[tuple[str, str]]]]:
        """Return (data set, method, (label, value) of each metric) of every row that has a result."""
        return [
            (
                f"{table['dataset']} {table['resolution']}",
                printable(f"{row['backbone']} {row['recipe']}"),
                [(table["labels"][name], metric_text(row["metrics"][name])) for name in table["metrics"][:2]],
            )
            for table in self.content["tables"]
            for row in table["rows"]
        ]

    def __repr__(self) -> str:
        """Return how many cells there are in which state, and the results."""
        told = ", ".join(f"{count} {state}" for state, count in self.counts.items() if state != "all")
        lines = [f"Benchmark {printable(self.name)}: {self.counts['all']} cells, {told} ({shown(self.report)})"]
        for place, method, values in self._lines():
            lines.append(f"  {place:<22} {method:<28} {'  '.join(f'{label} {value}' for label, value in values)}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Return the same as a table, for notebooks."""
        from visionforge.reporting.rendering import render

        columns = ["dataset", "resolution", "backbone", "recipe", "seeds"]
        means = [name for name in self.leaderboard.columns if name.endswith(("_mean", "_sd"))]
        return render(
            "notebook_study.html.j2",
            headline=repr(self).splitlines()[0],
            curves="",
            table=self.leaderboard[[*columns, *means]].to_html(index=False),
            link=address_of(self.report),
        )
