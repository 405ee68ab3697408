"""The folder of a study."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class StudyFolder:
    """Where a study lies.

    Attributes:
        path: ``OUTPUTS/studies/NAME``.
    """

    path: Path

    @property
    def database(self) -> Path:
        """The SQLite file of the study, if it is kept there."""
        return self.path / "database" / "study.db"

    @property
    def journal(self) -> Path:
        """The journal file of the study, if it is kept there."""
        return self.path / "database" / "study.journal"

    @property
    def trials(self) -> Path:
        """Folder of the trials' runs."""
        return self.path / "trials"

    @property
    def reports(self) -> Path:
        """Folder of tables and configurations."""
        return self.path / "reports"

    @property
    def figures(self) -> Path:
        """Folder of figures."""
        return self.path / "figures"

    @property
    def asking(self) -> Path:
        """Lock file of the one who takes the next trial."""
        return self.path / ".ask.lock"

    @property
    def settings(self) -> Path:
        """The configuration of the study."""
        return self.path / "config.yaml"

    @property
    def log(self) -> Path:
        """Everything that was logged."""
        return self.path / "tune.log"
