"""Files of tensors that may come from strangers: no code is run, nothing is unpacked that is larger than the file."""

import io
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from visionforge.reading import zip_directory_bytes

MAX_MEMBERS = 100_000  # of the ZIP file that torch writes; each tensor is one
MAX_DIRECTORY = 1 << 24  # bytes that list them
MAX_PICKLE = 1 << 22  # bytes that describe the tensors; a checkpoint of a large network has some hundred thousand
MAX_DEPTH = 32  # of dictionaries and lists around the tensors
_ZIP = b"PK\x03\x04"  # by which torch tells its format from the one before
_SIZED = b"\nbytearray\n"  # in a pickle: the one thing that torch would make in any size that is named


def load_tensors(path: Path) -> Any:
    """Read what `torch.save` or safetensors has written: tensors and plain values, on the CPU.

    Args:
        path: The file; the suffix `.safetensors` chooses that format.

    Raises:
        ValueError: If its tensors would be larger than the file, or it is nested too deep.
        Exception: Whatever the readers raise on a damaged file.
    """
    if path.suffix == ".safetensors":
        return load_file(path)
    if _is_zip(path):
        require_plain_members(path)
    else:
        _require_plain_pickle(path)
    content = torch.load(path, map_location="cpu", weights_only=True)
    _require_held(content, path.stat().st_size)
    return content


def require_plain_members(path: Path) -> None:
    """Check that a file is what torch writes: members that are stored as they are, so together no larger than the file.

    Raises:
        ValueError: If it is not.
        zipfile.BadZipFile: If it is damaged.
    """
    if not _is_zip(path):
        raise ValueError("it has the format of torch before 1.6; save it anew: torch.save(torch.load(OLD), NEW)")
    with path.open("rb") as file:
        if zip_directory_bytes(file.fileno()) > MAX_DIRECTORY:
            raise ValueError(f"its directory has more than {MAX_DIRECTORY:,} bytes")
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            _require_plain(members, path.stat().st_size)
            for member in members:
                if _is_pickle(member) and _SIZED in archive.read(member):
                    raise ValueError(f"{member.filename} makes a bytearray, which no checkpoint has")


def _require_plain(members: list[zipfile.ZipInfo], size: int) -> None:
    if len(members) > MAX_MEMBERS:
        raise ValueError(f"it has {len(members):,} members, more than {MAX_MEMBERS:,}")
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED or member.file_size > member.compress_size:
            raise ValueError(f"{member.filename} is compressed, which torch does not write")
        if _is_pickle(member) and member.file_size > MAX_PICKLE:
            raise ValueError(f"{member.filename} has {member.file_size:,} bytes, more than {MAX_PICKLE:,}")
    if sum(member.compress_size for member in members) > size:
        raise ValueError("its members would be larger than the file")


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_ZIP)) == _ZIP


def _is_pickle(member: zipfile.ZipInfo) -> bool:
    return member.filename.lower().endswith(".pkl")  # torch looks its name up in any case


# --- files of torch before 1.6, which some published weights still are


def _require_plain_pickle(path: Path) -> None:
    """Check how large the tensors of a file say they are, before there is memory for them.

    Raises:
        ValueError: If they are larger than the file.
        Exception: Whatever torch raises on a damaged file.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    with path.open("rb") as file:
        beginning = file.read(MAX_PICKLE)  # the tensors come last, and are not looked at
    if _SIZED in beginning:
        raise ValueError("it makes a bytearray, which no weight file has")
    described = io.BytesIO(beginning)
    try:
        with FakeTensorMode():
            content = torch.load(described, map_location="cpu", weights_only=True)
    except Exception as error:
        if described.tell() == MAX_PICKLE:
            raise ValueError(f"more than {MAX_PICKLE:,} bytes describe its tensors") from error
        raise
    _require_held(content, path.stat().st_size)


# --- tensors


def _require_held(content: Any, size: int) -> None:
    """Check that the tensors have no more values than a file of this size can hold.

    Raises:
        ValueError: If they have, or are nested too deep.
    """
    storages: dict[int, int] = {}
    for tensor in _tensors(content, set()):
        storage = tensor.untyped_storage()
        if tensor.numel() * tensor.element_size() > storage.nbytes():
            raise ValueError(f"a tensor of the shape {tuple(tensor.shape)} has fewer values than that in the file")
        storages[storage._cdata] = storage.nbytes()
    if sum(storages.values()) > size:
        raise ValueError(f"its tensors have {sum(storages.values()):,} bytes, the file {size:,}")


def _tensors(content: Any, seen: set[int], depth: int = 0) -> Iterator[Tensor]:
    if depth > MAX_DEPTH:
        raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
    if isinstance(content, Tensor):
        yield content
    elif isinstance(content, Mapping | list | tuple) and id(content) not in seen:  # a list may stand in many others
        seen.add(id(content))
        for value in content.values() if isinstance(content, Mapping) else content:
            yield from _tensors(value, seen, depth + 1)
