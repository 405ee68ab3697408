"""What a search has found, as a Python object."""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visionforge.engine.run import Run
from visionforge.engine.validation import settings_of
from visionforge.errors import RunError
from visionforge.printable import printable, printable_lines
from visionforge.reading import UnreadableError, read_json, read_yaml
from visionforge.runs.paths import address_of, shown

if TYPE_CHECKING:
    import optuna
    import pandas as pd

    from visionforge.config.schema import RunSettings

MOST_BYTES = 200_000_000  # of the summary; a trial takes a thousand


class Study:
    """A search and what its folder holds; everything is read when it is asked for.

    Args:
        path: The folder of the study.
        study: Optuna's own object, for what else it offers; None if only the folder is at hand.
        objectives: Names of what is searched for.

    Attributes:
        refit: The run of the best trial at full length, if `tune.refit` asked for it.
        refitted: It was trained now, and not taken as it was.
    """

    def __init__(self, path: Path, study: "optuna.Study | None" = None, objectives: list[str] | None = None) -> None:
        self.path = path
        self._optuna = study
        self.objectives = objectives or []
        self.refit: Run | None = None
        self.refitted = False

    @property
    def name(self) -> str:
        """The name of the study."""
        return self.path.name

    @property
    def optuna(self) -> "optuna.Study":
        """Optuna's own object.

        Raises:
            RunError: If only the folder is at hand.
        """
        if self._optuna is None:
            raise RunError(f"{shown(self.path)}: the study was not opened; tune() and its reports open it")
        return self._optuna

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The content of `study_summary.json`.

        Raises:
            RunError: If it cannot be read.
        """
        path = self.path / "reports" / "study_summary.json"
        try:
            content = read_json(path, MOST_BYTES)
        except (OSError, UnreadableError) as error:
            raise RunError(f"{shown(path)}: cannot be read as the summary of a study ({error})") from error
        if not isinstance(content, dict) or not isinstance(content.get("trials"), list):
            raise RunError(f"{shown(path)}: is no summary of a study")
        return content

    @cached_property
    def trials(self) -> "pd.DataFrame":
        """A table with a row per trial: number, state, objectives, epochs, seconds, and every parameter."""
        import pandas as pd

        rows = [dict(trial) for trial in self.summary["trials"]]
        params = [row.pop("params", None) or {} for row in rows]
        return pd.DataFrame([{**row, **more} for row, more in zip(rows, params, strict=True)])

    @property
    def best(self) -> dict[str, Any] | None:
        """The best trial: number, objectives, parameters; None if no trial was completed."""
        return self.summary.get("best")

    @property
    def best_config(self) -> Path | None:
        """The file with the best trial's configuration at full length; None if no trial was completed."""
        path = self.path / "reports" / "best_config.yaml"
        return path if path.is_file() else None

    @cached_property
    def best_settings(self) -> "RunSettings":
        """The best trial's settings at full length; `fit` takes them.

        Raises:
            RunError: If no trial was completed.
        """
        if self.best_config is None:
            raise RunError(f"{shown(self.path)}: no trial was completed, so there are no best settings")
        return settings_of(read_yaml(self.best_config))

    @property
    def report(self) -> Path | None:
        """The page with all results, which opens offline."""
        path = self.path / "index.html"
        return path if path.is_file() else None

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values: places, the run of the best trial, and the summary with every trial."""
        places = {"report": self.report, "best_config": self.best_config}
        return {
            "path": str(self.path),
            **{name: None if path is None else str(path) for name, path in places.items()},
            "refit": None if self.refit is None else self.refit.as_dict(),
            **self.summary,
        }

    def _counts(self) -> str:
        counts = self.summary.get("counts") or {}
        return ", ".join(f"{count} {state}" for state, count in counts.items() if count) or "no trials yet"

    def __repr__(self) -> str:
        """Return how many trials there are, and the best one."""
        head = f"Study {printable(self.name)}: {self._counts()}"
        if self.best is None:
            return head
        values = ", ".join(f"{name} {self.best.get(name)}" for name in self.summary.get("objectives") or {})
        lines = [f"  {name}: {value}" for name, value in (self.best.get("params") or {}).items()]
        return printable_lines([head, f"best: trial {self.best.get('trial')}, {values}", *lines])

    def _repr_html_(self) -> str:
        """Return the trials as a table, the best one on top, for notebooks."""
        from visionforge.reporting.rendering import render
        from visionforge.reporting.sparklines import curves_svg

        table, curves = self.trials, ""
        for name, direction in (self.summary.get("objectives") or {}).items():
            if name in table:
                values = table[name].dropna()
                best = values.cummin() if direction == "minimize" else values.cummax()
                curves = curves_svg({name: values.to_list(), "best so far": best.to_list()} if len(best) > 1 else {})
                table = table.sort_values(name, ascending=direction == "minimize", na_position="last")
                break
        return render(
            "notebook_study.html.j2",
            headline=f"{printable(self.name)}: {self._counts()}",
            curves=curves,
            table=_printable(table.dropna(axis="columns", how="all").head(20)).to_html(index=False),
            link="" if self.report is None else address_of(self.report),
        )


def _printable(table: "pd.DataFrame") -> "pd.DataFrame":
    """Return a table in which no text can steer a terminal or reorder others."""
    named = table.rename(columns=printable)
    texts = named.select_dtypes(exclude="number").columns
    return named.assign(**{name: named[name].map(printable) for name in texts})
