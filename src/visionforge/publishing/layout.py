"""The files of a published network, and `visionforge.json`, which lists them; both may come from a stranger."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from visionforge.distribution import newer
from visionforge.errors import RunError
from visionforge.printable import printable
from visionforge.reading import UnreadableError, read_json_text

FORMAT = 1
DESCRIPTION, CARD, CONTRACT = "visionforge.json", "README.md", "config.json"
SETTINGS, METRICS = "config.yaml", "metrics.json"
PULLED = "pulled.json"  # where the files came from; in the folder of a pull only
ARTIFACTS = {"safetensors": "model.safetensors", "onnx": "model.onnx"}  # by format, the first for `predict` first
MOST_TEXT = 8_000_000  # bytes; of ten thousand classes a contract has five million
MOST_MODEL = 2_000_000_000  # as much as an artifact may have that is loaded
LARGEST = {name: MOST_MODEL for name in ARTIFACTS.values()} | dict.fromkeys(
    (CARD, CONTRACT, SETTINGS, METRICS), MOST_TEXT
)
REQUIRED = (CARD, CONTRACT)

Word = Annotated[str, Field(max_length=500)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")  # a later version may write more


class ListedFile(_Part):
    """A file as it is listed."""

    file: Word
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Description(_Part):
    """What `visionforge.json` holds, as far as it is read; see `contents.write_contents` for the rest."""

    format: int
    version: Word
    run: Word | None = None
    config_hash: Word | None = None
    dataset: Word
    task: Word
    backbone: Word
    files: tuple[ListedFile, ...] = Field(max_length=len(LARGEST))

    @property
    def artifacts(self) -> list[str]:
        """Return the names of the files that predict, the one to take first."""
        names = {each.file for each in self.files}
        return [name for name in ARTIFACTS.values() if name in names]

    @property
    def size(self) -> int:
        """Return the bytes of all files."""
        return sum(each.bytes for each in self.files)


def read_description(text: str, where: str) -> Description:
    """Return what a `visionforge.json` says, looked at: known names, sizes that such files have, all that is needed.

    Args:
        text: Its text.
        where: Whose it is, for messages.

    Raises:
        RunError: If it is none, is of a later version, or lists what is not taken.
    """
    try:
        content = read_json_text(text)
    except UnreadableError as error:
        raise RunError(f"{where}: {DESCRIPTION} cannot be read ({error})") from error
    written: dict[str, Any] = content if isinstance(content, dict) else {}
    if problem := newer(written.get("format"), FORMAT, written.get("version")):
        raise RunError(f"{where}: {problem}")
    try:
        found = Description.model_validate(content, strict=False)
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(map(str, first["loc"]))
        raise RunError(f"{where}: {DESCRIPTION} cannot be read ({printable(at)}: {first['msg']})") from error
    _require_known(found, where)
    return found


def _require_known(found: Description, where: str) -> None:
    names = [each.file for each in found.files]
    for each in found.files:
        if each.file not in LARGEST:
            allowed = ", ".join(LARGEST)
            raise RunError(f"{where}: {DESCRIPTION} lists {each.file}, which is not taken; allowed: {allowed}")
        if each.bytes > LARGEST[each.file]:
            raise RunError(f"{where}: {each.file} is of {each.bytes:,} bytes; at most {LARGEST[each.file]:,} are taken")
    if len(set(names)) < len(names):
        raise RunError(f"{where}: {DESCRIPTION} lists a file twice")
    missing = [name for name in REQUIRED if name not in names]
    if missing or not found.artifacts:
        needed = ", ".join(missing) or f"{' or '.join(ARTIFACTS.values())}"
        raise RunError(f"{where}: {DESCRIPTION} does not list {needed}, so there is no whole network")
