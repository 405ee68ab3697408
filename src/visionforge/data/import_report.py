"""What an import gave."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from visionforge.data.info import DatasetInfo
from visionforge.data.positive import Positive

GONE = "is not there"  # of a file that only a table can name


@dataclass(frozen=True)
class ImportReport:
    """What an import gave.

    Attributes:
        info: The new catalog entry.
        archive: The archive.
        entry: The file of the entry.
        broken: Pictures that could not be read, and why.
        notes: What was left out, taken from elsewhere, or looks odd, a line each.
        positive: Which of two classes is to be found, and why; None for other tasks.
    """

    info: DatasetInfo
    archive: Path
    entry: Path
    broken: list[tuple[Path, str]]
    notes: list[str] = field(default_factory=list)
    positive: Positive | None = None

    def lines(self, root: str | None = None, then: bool = True) -> list[str]:
        """Return it as a terminal shows it, with the command that trains on the data.

        Args:
            root: Folder of the archives, if it is not where they lie by default.
            then: Whether somebody asks what comes next.
        """
        info = self.info
        sizes = " / ".join(f"{count:,} {split}" for split, count in info.splits.model_dump().items())
        gone = [path for path, reason in self.broken if reason == GONE]
        lines = [f"✗ {path}: {reason}; left out" for path, reason in self.broken if reason != GONE]
        if gone:
            lines.append(
                f"✗ {len(gone):,} of the table's files {'are' if len(gone) > 1 else 'is'} not there (the first: "
                f"{gone[0]}); left out; correct the paths, which begin in the folder of the table"
            )
        lines.append(f"✓ {info.name}: {info.task}, {len(info.classes)} classes, {sizes}; {len(self.broken)} broken")
        lines += [f"! {note}" for note in self.notes]
        lines += [f"  archive  {self.archive}", f"  entry    {self.entry}"]
        if self.positive is not None:
            sign = " " if self.positive.certain else "!"
            lines.append(f"{sign} positive {self.positive.name}, {self.positive.reason}; --positive CLASS changes it")
        if then:
            where = f" --data.root {root}" if root else ""
            lines.append(f"  next     visionforge fit {info.name}{where}")
        return lines

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "archive": str(self.archive),
            "entry": str(self.entry),
            "info": self.info.model_dump(mode="json"),
            "broken": [{"file": str(path), "reason": reason} for path, reason in self.broken],
            "notes": self.notes,
            "positive": None if self.positive is None else asdict(self.positive),
        }
