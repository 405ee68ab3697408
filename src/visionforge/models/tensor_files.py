"""Files of tensors that may come from strangers: no code is run, nothing is unpacked that is larger than the file."""

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

MAX_MEMBERS = 100_000  # of the ZIP file that torch writes; each tensor is one
MAX_PICKLE = 1 << 28  # bytes that describe the tensors; a checkpoint of a large network has some hundred thousand
MAX_DEPTH = 32  # of dictionaries and lists around the tensors


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
    require_plain_members(path)
    content = torch.load(path, map_location="cpu", weights_only=True)
    for tensor in _tensors(content):
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise ValueError(f"a tensor of the shape {tuple(tensor.shape)} has fewer values than that in the file")
    return content


def require_plain_members(path: Path) -> None:
    """Check that a ZIP file holds what torch writes: members that are stored as they are, so no larger than the file.

    Raises:
        ValueError: If it does not.
    """
    if not zipfile.is_zipfile(path):
        return  # of an old torch; its reader takes no more than there is
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    if len(members) > MAX_MEMBERS:
        raise ValueError(f"it has {len(members):,} members, more than {MAX_MEMBERS:,}")
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED or member.file_size > member.compress_size:
            raise ValueError(f"{member.filename} is compressed, which torch does not write")
        if member.filename.endswith(".pkl") and member.file_size > MAX_PICKLE:
            raise ValueError(f"{member.filename} has {member.file_size:,} bytes, more than {MAX_PICKLE:,}")


def _tensors(content: Any, depth: int = 0) -> Iterator[Tensor]:
    if depth > MAX_DEPTH:
        raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
    if isinstance(content, Tensor):
        yield content
    elif isinstance(content, Mapping):
        for value in content.values():
            yield from _tensors(value, depth + 1)
    elif isinstance(content, list | tuple):
        for value in content:
            yield from _tensors(value, depth + 1)
