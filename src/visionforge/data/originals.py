"""What the catalog says of files in another format, from which archives are made; nothing here reads them."""

from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from visionforge.config.problems import validation_problems
from visionforge.config.schema.base import Section
from visionforge.fetch import Checksum

MAX_FILE_BYTES = 1 << 40  # of one file, whoever wrote the entry
MAX_MEMBERS = 1000  # files in an archive that are read
MAX_NAME = 200  # characters
SPLIT_SEED = 20261129  # fixes which images are set aside for validation; changing it changes every published result

FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$", max_length=MAX_NAME)]
Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME)]


class OriginalFile(Section):
    """One file as its authors published it."""

    url: str = Field(max_length=2000, description="Where it is downloaded from, over HTTPS.")
    file: FileName = Field(description="Its name on this machine.")
    max_bytes: int = Field(ge=1, le=MAX_FILE_BYTES, description="Bytes that it has at most.")
    md5: str | None = Field(None, pattern="^[0-9a-f]{32}$", description="MD5 of the file.")
    sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$", description="SHA-256 of the file; goes before the MD5.")
    content_md5: str | None = Field(
        None,
        pattern="^[0-9a-f]{32}$",
        description="MD5 of what a .gz file unpacks to, by which a copy is known that others packed again.",
    )

    @model_validator(mode="after")
    def _is_checked(self) -> Self:
        if self.md5 is None and self.sha256 is None:
            raise ValueError(f"{self.file}: needs an md5 or a sha256")
        return self

    @property
    def checksum(self) -> Checksum:
        """The stronger one of its checksums."""
        return Checksum("md5", str(self.md5)) if self.sha256 is None else Checksum("sha256", self.sha256)


class Original(Section):
    """Files of another format, from which archives are made once.

    Which training images become the validation split, and which of all images the test split if the authors published
    none, is drawn by class from `split_seed`; what the authors published as test images stays that.
    """

    resolution: int = Field(ge=8, le=1024, description="Height and width of the published images.")
    split_seed: int = Field(
        SPLIT_SEED, ge=0, lt=1 << 32, description="Draws the splits that their authors did not publish."
    )
    folders: tuple[Annotated[str, Field(max_length=1000)], ...] = Field(
        (), max_length=20, description="Folders in which packages of an operating system put the files."
    )
    package: str | None = Field(None, max_length=MAX_NAME, description="The package that does, as messages name it.")

    @property
    def published(self) -> tuple[OriginalFile, ...]:
        """The files."""
        raise NotImplementedError

    @property
    def has_test(self) -> bool:
        """Whether the authors published test images apart."""
        return True


class IdxOriginal(Original):
    """Four IDX files, as MNIST's, plain or with gzip: images (N, H, W) and labels (N,) of training and test."""

    format: Literal["idx"] = Field(description="Format of the files.")
    train_images: OriginalFile = Field(description="Training images.")
    train_labels: OriginalFile = Field(description="Their labels.")
    test_images: OriginalFile = Field(description="Test images.")
    test_labels: OriginalFile = Field(description="Their labels.")

    @property
    def published(self) -> tuple[OriginalFile, ...]:
        """The files."""
        return (self.train_images, self.train_labels, self.test_images, self.test_labels)


class CifarOriginal(Original):
    """A .tar.gz of CIFAR's binary version: records of one or two labels, and the red, green and blue values."""

    format: Literal["cifar"] = Field(description="Format of the files.")
    archive: OriginalFile = Field(description="The .tar.gz file.")
    train: tuple[Name, ...] = Field(min_length=1, max_length=MAX_MEMBERS, description="Its training files, in order.")
    test: tuple[Name, ...] = Field(min_length=1, max_length=MAX_MEMBERS, description="Its test files, in order.")
    label_bytes: Literal[1, 2] = Field(description="Labels of a record, a byte each; the last one is the class.")

    @model_validator(mode="after")
    def _members_stay_inside(self) -> Self:
        names = (*self.train, *self.test)
        for name in names:
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise ValueError(f"{name}: leads out of the archive")
        if len(set(names)) < len(names):
            raise ValueError("train and test: a file stands there twice")
        return self

    @property
    def published(self) -> tuple[OriginalFile, ...]:
        """The file."""
        return (self.archive,)


class Hdf5Original(Original):
    """An HDF5 file with all images (N, H, W) or (N, H, W, 3), uint8, and their labels (N,); it has no splits."""

    format: Literal["hdf5"] = Field(description="Format of the files.")
    archive: OriginalFile = Field(description="The HDF5 file.")
    images: Name = Field(description="Name of the images in it.")
    labels: Name = Field(description="Name of the labels in it.")
    groups: tuple[Name, ...] = Field(
        (),
        max_length=10,
        description="Names of values in it, such as coordinates; images that agree in all of them show the same "
        "object, and all of these are training images.",
    )

    @property
    def published(self) -> tuple[OriginalFile, ...]:
        """The file."""
        return (self.archive,)

    @property
    def has_test(self) -> bool:
        """It has no test images apart."""
        return False


_FORMATS: dict[str, type[Original]] = {"idx": IdxOriginal, "cifar": CifarOriginal, "hdf5": Hdf5Original}


def _of_its_format(value: Any) -> Any:
    """Read what an entry says by the class of its format, so that messages are of that alone."""
    if not isinstance(value, dict):
        return value
    kind = _FORMATS.get(str(value.get("format")))
    if kind is None:
        raise ValueError(f"format: {value.get('format')!r} is not allowed; allowed: {', '.join(_FORMATS)}")
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise ValueError("; ".join(validation_problems(error, kind))) from error


AnyOriginal = Annotated[IdxOriginal | CifarOriginal | Hdf5Original, BeforeValidator(_of_its_format)]
