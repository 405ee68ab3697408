"""The errors that a user can cause and mend; the front door prints each problem as one line and exits with status 2."""

from collections.abc import Sequence

from visionforge.printable import printable
from visionforge.redaction import redact_text


class VisionForgeError(Exception):
    """A mistake in the settings, the data or the environment, told in lines that a user can act on.

    Args:
        problems: One line per problem, each saying what, where, what is allowed and what to do.
    """

    def __init__(self, problems: str | Sequence[str]) -> None:
        lines = (problems,) if isinstance(problems, str) else tuple(problems)
        self.problems: tuple[str, ...] = tuple(printable(redact_text(line)) for line in lines)
        super().__init__("\n".join(self.problems))


class SettingsError(VisionForgeError):
    """A setting is unknown, out of its range, or at odds with another setting."""


class DataError(VisionForgeError):
    """An archive is missing, damaged, or not what the catalog says it is."""


class WeightsError(VisionForgeError):
    """Pretrained weights are missing or do not fit the network."""


class TrainingError(VisionForgeError):
    """The training cannot go on."""


class RunError(VisionForgeError):
    """A run folder or checkpoint is missing, incomplete or cannot be written."""


class PeerEndedError(VisionForgeError):
    """Another process of the same training has ended, so this one cannot go on.

    Args:
        reason: Why.
        status: The exit status of both.
        mistake: It has refused what was asked for; otherwise the run may go on later.
        told: The user knows already.
        lost: It was killed, or its machine is gone.
    """

    def __init__(self, reason: str, status: int, mistake: bool = False, told: bool = True, lost: bool = False) -> None:
        self.status = status
        self.mistake = mistake
        self.told = told
        self.lost = lost
        super().__init__(reason)
