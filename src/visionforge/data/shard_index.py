"""What a sharded archive consists of: an index, the labels of all images, and the images in many files of equal size.

The index ``NAME.shards.json`` lies beside the folder ``NAME.shards``, or an address ends in these names. Each file of
the folder has its size and its SHA-256 in the index, and the MD5 of the index stands in the catalog, so that one line
of the catalog vouches for terabytes. A shard is a ``.npy`` file of uint8 images, which anything reads; the labels of
all splits, names, groups and columns are an NPZ archive without images.
"""

import hashlib
from math import prod
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, ValidationError, model_validator

from visionforge.config.problems import validation_problems
from visionforge.config.schema.base import Section
from visionforge.data.info import SHARDS, SPLITS, DatasetInfo, Split
from visionforge.errors import DataError
from visionforge.fetch import Checksum
from visionforge.reading import UnreadableError, read_json_text, read_text

LABELS = "labels.npz"
FORMAT = 1
MAX_INDEX = 1 << 26  # bytes; of 250,000 shards
MAX_SHARDS = 1 << 18  # of a split
MAX_SHARD_BYTES = 1 << 40
MAX_HEADER = 1 << 12  # bytes before the first image of a shard

_NAME = r"^[A-Za-z0-9_][A-Za-z0-9_-]{0,99}"
MAX_VALUES = 4_000_000  # brackets and commas of an index


class ShardFile(Section):
    """A file of the folder."""

    file: str = Field(pattern=rf"{_NAME}\.(npy|npz)$", description="Its name.")
    bytes: int = Field(ge=1, le=MAX_SHARD_BYTES, description="Its size.")
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="Its SHA-256.")

    @property
    def checksum(self) -> Checksum:
        """Its checksum, as a download compares it."""
        return Checksum("sha256", self.sha256)


class Shard(ShardFile):
    """Some images of a split, one after the other."""

    file: str = Field(pattern=rf"{_NAME}\.npy$", description="Its name.")
    images: int = Field(ge=1, description="Number of images.")
    offset: int = Field(ge=0, le=MAX_HEADER, description="Bytes before the first one.")


class ShardIndex(Section):
    """The index of a sharded archive."""

    format: Literal[1] = Field(description="Version of this format.")
    shape: tuple[int, ...] = Field(min_length=2, max_length=4, description="Shape of an image.")
    labels: ShardFile = Field(description="Labels of all images, and what else is known of them.")
    train: tuple[Shard, ...] = Field(max_length=MAX_SHARDS, description="Training images.")
    val: tuple[Shard, ...] = Field(max_length=MAX_SHARDS, description="Validation images.")
    test: tuple[Shard, ...] = Field(max_length=MAX_SHARDS, description="Test images.")

    @model_validator(mode="after")
    def _sizes_agree(self) -> Self:
        each, names = prod(self.shape), [shard.file for split in SPLITS for shard in self.of(split)]
        if len(set(names)) < len(names):
            raise ValueError("a shard stands there twice")
        for split in SPLITS:
            for shard in self.of(split):
                if shard.bytes != shard.offset + shard.images * each:
                    raise ValueError(f"{shard.file}: {shard.bytes:,} bytes are not those of {shard.images:,} images")
        return self

    def of(self, split: Split) -> tuple[Shard, ...]:
        """Return the shards of a split, in order."""
        found: tuple[Shard, ...] = getattr(self, split)
        return found

    def images_of(self, split: Split) -> int:
        """Return the number of images of a split."""
        return sum(shard.images for shard in self.of(split))

    @property
    def files(self) -> tuple[ShardFile, ...]:
        """All files of the folder."""
        return (self.labels, *(shard for split in SPLITS for shard in self.of(split)))

    def problems(self, info: DatasetInfo, resolution: int) -> list[str]:
        """Return in what it differs from a catalog entry."""
        wanted, counts = info.image_shape(resolution), info.splits.model_dump()
        found = [] if self.shape == wanted else [f"images have the shape {self.shape}, the catalog says {wanted}"]
        if self.labels.file != LABELS or self.labels.bytes > info.max_archive_bytes(resolution):
            found.append(f"{self.labels.file} of {self.labels.bytes:,} bytes, expected {LABELS} of this data set")
        return found + [
            f"{self.images_of(split):,} images of {split}, the catalog says {counts[split]:,}"
            for split in SPLITS
            if self.images_of(split) != counts[split]
        ]


def is_sharded(path: Path | str) -> bool:
    """Return whether an archive of that name is the index of a sharded one."""
    return str(path).endswith(SHARDS)


def shard_folder(index: Path) -> Path:
    """Return the folder of the files of an index."""
    return index.with_name(index.name.removesuffix(".json"))


def shard_address(index: str, file: str) -> str:
    """Return the address of a file of the folder, from that of the index."""
    return f"{index.removesuffix('.json')}/{file}"


def index_md5(path: Path) -> str:
    """Return the MD5 of an index.

    Raises:
        DataError: If it is none.
    """
    return _parsed(path)[1]


def read_index(path: Path, info: DatasetInfo, resolution: int, md5: str | None) -> ShardIndex:
    """Return the index of a sharded archive, which may come from strangers.

    Args:
        path: The index.
        info: The catalog entry.
        resolution: Height and width of the images, and depth of volumes.
        md5: Its MD5 as the catalog says it; None is not checked.

    Raises:
        DataError: If it is not what the catalog says.
    """
    index, actual = _parsed(path)
    problems = index.problems(info, resolution)
    if md5 is not None and actual != md5:
        problems.insert(0, f"MD5 is {actual}, the catalog says {md5}")
    if problems:
        raise DataError(f"{path}: not the archive of {info.name}: {'; '.join(problems)}; get it again")
    return index


_read: dict[Path, tuple[tuple[int, int], ShardIndex, str]] = {}  # of this process; every split asks for its index


def _parsed(path: Path) -> tuple[ShardIndex, str]:
    """Return an index and its MD5."""
    try:
        found = path.stat()
        state, kept = (found.st_size, found.st_mtime_ns), _read.get(path)
        if kept is not None and kept[0] == state:
            return kept[1:]
        text = read_text(path, MAX_INDEX)
        if sum(map(text.count, "[{,")) > MAX_VALUES:
            raise UnreadableError(f"holds more than {MAX_VALUES:,} values")
        index = ShardIndex.model_validate(read_json_text(text))
    except ValidationError as error:
        raise DataError([f"{path}: {line}" for line in validation_problems(error, ShardIndex)[:3]]) from error
    except (OSError, UnreadableError) as error:
        raise DataError(f"{path}: cannot be read as an index of shards ({error})") from error
    _read[path] = (state, index, hashlib.md5(text.encode()).hexdigest())
    return _read[path][1:]
