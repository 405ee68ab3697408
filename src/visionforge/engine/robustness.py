"""How a trained network fares on corrupted images, as a table, a page and JSON in a folder."""

import datetime
import json
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visionforge.config.schema import EvaluationSettings
from visionforge.data.corruption import MOST_SEVERITIES, Corruption, chosen_corruptions
from visionforge.data.info import SPLITS, Split
from visionforge.errors import SettingsError, VisionForgeError
from visionforge.evaluation.table_writers import read_table
from visionforge.inference.loading import Target, find_target
from visionforge.printable import LONGEST_LINE, printable
from visionforge.reading import read_json_text
from visionforge.runs.files import write_atomic
from visionforge.runs.owned_files import Listed, OwnedFolder, described
from visionforge.runs.paths import address_of, shown
from visionforge.runs.signals import Interruption

if TYPE_CHECKING:
    import pandas as pd

    from visionforge.engine.corrupted_split import CorruptedSplit, Observed

DESCRIPTION, TABLE, PAGE = "robustness.json", "robustness.csv", "robustness.html"
MOST_SEED = (1 << 63) - 1
_OURS = r"robustness\.(csv|html)"


class Robustness:
    """What a network loses on corrupted images, as it lies in a folder.

    Args:
        path: The folder.
        content: The whole content of `robustness.json`.
    """

    def __init__(self, path: Path, content: dict[str, Any]) -> None:
        self.path = path
        self.content = content

    @cached_property
    def table(self) -> "pd.DataFrame":
        """The table `robustness.csv`: a row per corruption and severity, the first of clean images.

        Raises:
            RunError: If it is no longer there, or cannot be read.
        """
        return read_table(self.path / TABLE, ())  # an empty cell is no number

    @property
    def report(self) -> Path:
        """The page."""
        return self.path / PAGE

    @property
    def mean_error(self) -> float | None:
        """The mean corruption error; None if only corruptions were run that are no part of it."""
        return None if self.content["mean"] is None else float(self.content["mean"]["error"]["value"])

    @property
    def mean_increase(self) -> float | None:
        """The relative mean corruption error: how much of it is due to the corruptions."""
        return None if self.content["mean"] is None else float(self.content["mean"]["increase"]["value"])

    def lines(self) -> list[str]:
        """Return errors by corruption and severity, means and intervals as the lines of a terminal."""
        from visionforge.evaluation.robustness_text import TEXTS, aligned, error_table, headline, notes

        table = aligned(error_table(self.content), texts=len(TEXTS))
        told = [*headline(self.content), "", *table, "", *notes(self.content), f"page: {shown(self.report)}"]
        return [printable(line, LONGEST_LINE) for line in told]

    def as_dict(self) -> dict[str, Any]:
        """Return the folder, and everything as `robustness.json` has it."""
        return {"path": str(self.path), **self.content}

    def __repr__(self) -> str:
        """Return the errors on clean and on corrupted images, and where the files are."""
        told = f"error {self.content['clean']['error']['value']:.4f}"
        if self.mean_error is not None:
            told += f", corrupted {self.mean_error:.4f} ({self.mean_increase:+.4f})"
        return printable(f"{told}, {self.content['images']:,} images: {shown(self.path)}", LONGEST_LINE)

    def _repr_html_(self) -> str:
        """Return the same, and the address of the page, for notebooks."""
        from visionforge.reporting.rendering import render

        return render("notebook_study.html.j2", headline=repr(self), curves="", table="", link=address_of(self.report))


def measure_robustness(
    *,
    run: str | None = None,
    checkpoint: str | None = None,
    split: Split = "test",
    corruptions: str | Sequence[str | Corruption] | None = None,
    severities: str | Sequence[int] | None = None,
    seed: int = 0,
    baseline: str | None = None,
    limit: int | None = None,
    out: Path | None = None,
    overwrite: bool = False,
    accelerator: str = "auto",
    interruption: Interruption | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Robustness:
    """Test a network of classes or labels on corrupted images, and write what it loses.

    Args:
        run: The run, by folder or name.
        checkpoint: `best`, `last` or a file; None is the best of the run.
        split: `train`, `val` or `test`.
        corruptions: Names, or corruptions with strengths of their own, or names in a text with commas between; None is
            every one that applies.
        severities: Of 1 to 5, or a text of them; None is all. A corruption that has one only is always run at that.
        seed: Seed of what the corruptions draw.
        baseline: Another run, or its checkpoint file, that the mean corruption error is divided by.
        limit: Look at so many of the first images only; None takes all.
        out: The folder; None is one in the evaluations of the run, or in the working folder for a lone checkpoint.
        overwrite: Replace what an earlier call wrote there.
        accelerator: `auto`, `cpu`, `gpu`, `cuda` or `mps`.
        interruption: Handles the signals; None leaves them alone.
        progress: Told how many images were looked at, and how many there are in all.

    Raises:
        VisionForgeError: For every mistake that the user can mend.
    """
    wanted = _checked(split, severities, seed, limit)
    target = find_target("robustness", run, checkpoint)
    other = None if baseline is None else _baseline_target(baseline)
    folder = out or _default_folder(target, split)
    owned = OwnedFolder(folder, DESCRIPTION, _listed, _OURS)
    owned.require((TABLE, PAGE), overwrite)

    from visionforge.engine.corrupted_split import CorruptedSplit

    images = CorruptedSplit(target, split, limit, accelerator)
    chosen = chosen_corruptions(_parts(corruptions), images.channels, images.spec.flags)
    cases = [(each, severity) for each in chosen for severity in _severities_of(each, wanted)]
    against = None if other is None else CorruptedSplit(other, split, limit, accelerator)
    if against is not None and not images.same_images(against):
        raise SettingsError(f"baseline: {baseline} is not of the same images and classes; name a run of the same data")
    sides = [side for side in (images, against) if side is not None]

    def told(place: int) -> Callable[[int, int], None]:
        return lambda done, total: progress(place * total + done, len(sides) * total)

    found = [side.observe(cases, seed, interruption or Interruption(), told(n)) for n, side in enumerate(sides)]
    content = {**_origin(target, other, images, split, seed, limit), **_numbers(images, cases, found)}
    with owned.writing(overwrite) as staged:
        _write(staged, content, found[0])
    return Robustness(folder, content)


def _parts(given: str | Sequence[Any] | None) -> Sequence[Any] | None:
    """Return what a text names, with commas between."""
    return [part.strip() for part in given.split(",") if part.strip()] if isinstance(given, str) else given


def _checked(split: str, severities: str | Sequence[int] | None, seed: int, limit: int | None) -> tuple[int, ...]:
    """Return the severities, ascending and each once.

    Raises:
        SettingsError: If an argument is not allowed.
    """
    allowed = {str(severity): severity for severity in range(1, MOST_SEVERITIES + 1)}
    given = [str(each) for each in (allowed if severities is None else _parts(severities) or ())]
    if split not in SPLITS:
        raise SettingsError(f"split: {split} is not allowed; allowed: {', '.join(SPLITS)}")
    wrong = [each for each in given if each not in allowed]
    if wrong or not given:
        raise SettingsError(f"severities: {', '.join(wrong) or 'none'} is not allowed; allowed: {', '.join(allowed)}")
    if not 0 <= seed <= MOST_SEED:
        raise SettingsError(f"seed: {seed} is not allowed; allowed: 0 to {MOST_SEED}")
    if limit is not None and limit < 1:
        raise SettingsError(f"limit: {limit} is not allowed; allowed: from 1")
    return tuple(sorted({allowed[each] for each in given}))


def _severities_of(corruption: Corruption, wanted: Sequence[int]) -> list[int]:
    """Return at which severities a corruption is run: the wanted ones that it has, or its only one."""
    most = len(corruption.severities)
    return [1] if most == 1 else [severity for severity in wanted if severity <= most]


def _baseline_target(baseline: str) -> Target:
    """Return the network that another is compared with.

    Raises:
        VisionForgeError: If it cannot be found; the message names the argument.
    """
    is_file = baseline.endswith(".ckpt")
    try:
        return find_target("robustness", None if is_file else baseline, baseline if is_file else None)
    except VisionForgeError as error:
        flag = "--ckpt_path:" if is_file else "--run:"
        error.problems = tuple(problem.replace(flag, "baseline:", 1) for problem in error.problems)
        raise


def _default_folder(target: Target, split: Split) -> Path:
    name = "robustness" if split == "test" else f"robustness_{split}"
    if target.run is None:
        return Path(name)
    return target.run.path / "evaluations" / f"{name}_{target.checkpoint.stem}"


def _listed(description: str) -> Listed:
    content = read_json_text(description)
    if "conditions" not in content:
        raise ValueError("no description of a network's robustness")
    return {str(entry["file"]): str(entry["sha256"]) for entry in content["files"]}


def _origin(
    target: Target, other: Target | None, images: "CorruptedSplit", split: Split, seed: int, limit: int | None
) -> dict[str, Any]:
    """Return what was measured."""
    whole = images.images == images.of
    return {
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "run": _name(target),
        "config_hash": target.config_hash,
        "checkpoint": target.checkpoint.name,
        "against": None if other is None else {"run": _name(other), "checkpoint": other.checkpoint.name},
        "dataset": images.spec.dataset,
        "task": images.spec.task,
        "resolution": images.spec.resolution,
        "split": split,
        "images": images.images,
        "partial": None if whole else {"images": images.images, "of": images.of, "reason": f"limit {limit}"},
        "tta": images.averages,
        "seed": seed,
    }


def _name(target: Target) -> str:
    return target.checkpoint.name if target.run is None else target.run.path.name


def _numbers(images: "CorruptedSplit", cases: Sequence[tuple[Corruption, int]], found: Sequence["Observed"]) -> Any:
    from visionforge.evaluation.robustness import summary

    usual = EvaluationSettings()
    one, *others = [(each.clean, each.corrupted) for each in found]
    numbers = summary(
        images.conditions(cases),
        *one,
        images.labels,
        usual.resamples,
        usual.confidence,
        baseline=others[0] if others else None,
        clusters=images.clusters,
    )
    return {"resamples": usual.resamples, "confidence": usual.confidence, **numbers}


def _write(folder: Path, content: dict[str, Any], found: "Observed") -> None:
    from visionforge.evaluation.robustness_text import csv_table
    from visionforge.reporting.robustness_page import write_robustness_page

    write_atomic(folder / TABLE, csv_table(content))
    write_robustness_page(folder / PAGE, content, found.sample, found.picture, found.pictures)
    content["files"] = [described(path) for path in sorted(folder.iterdir())]
    write_atomic(folder / DESCRIPTION, json.dumps(content, indent=2, allow_nan=False) + "\n")
