"""Embeddings as files: arrays in an NPZ archive, or a row per image in a table; each appears whole or not at all."""

import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from visionforge.data.side_table import well_formed
from visionforge.engine.picture_outputs import errors_of, require_errors, require_place
from visionforge.errors import SettingsError
from visionforge.evaluation.table_writers import FORMATS, Column, open_table, require_format
from visionforge.runs.files import replacing
from visionforge.runs.paths import shown

if TYPE_CHECKING:
    import pandas as pd

    from visionforge.engine.embeddings import Embeddings

METADATA = "metadata"  # name of the array, and of the key of a Parquet file
_ROWS = 1024  # of a table that are in memory as Python numbers
Columns = Mapping[str, npt.NDArray[Any]]


def require_output(path: Path, overwrite: bool, made: bool, pictures: bool) -> None:
    """Refuse what cannot be written, before there is work to lose.

    Args:
        path: The file.
        overwrite: Whether a file that exists may be replaced.
        made: Whether the folder is made if need be.
        pictures: Whether there may be a table of pictures that could not be read, too.

    Raises:
        SettingsError: If the suffix means no format, a package is missing, or a file would be lost.
        RunError: If the folder cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix != ".npz":
        if suffix not in FORMATS:
            raise SettingsError(
                f"output: {path} has the suffix {path.suffix!r}, which means no file of features; allowed: .npz, "
                f"{', '.join(FORMATS)}"
            )
        require_format(path, "output")
    if path.is_dir():
        raise SettingsError(f"output: {shown(path)} is a folder; name a file in it")
    for each in (path, errors_of(path)) if pictures else (path,):
        if os.path.lexists(each) and not overwrite:
            raise SettingsError(f"output: {shown(each)} exists already; name another file, or add `overwrite`")
    if pictures:
        require_errors(path, "output", "embed")
    require_place(path, "output", made)


def write_embeddings(made: "Embeddings", path: Path) -> "Embeddings":
    """Write features, and what is known of their images, and return them with the path of the file.

    Raises:
        OSError: If the file cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix == ".npz":
        _write_npz(made, path)
    elif suffix == ".parquet":
        _write_parquet(made, path)
    else:
        _write_rows(columns_of(made), path)
    return replace(made, path=path)


def columns_of(made: "Embeddings") -> Columns:
    """Return heading → (N,) cells: name, split and label as far as they are known, and the features."""
    columns: dict[str, npt.NDArray[Any]] = {}
    if made.names is not None:
        columns["name"] = _texts(made.names)
    if made.splits is not None:
        columns["split"] = made.splits
    if made.labels is not None and made.labels.ndim == 1:
        columns["label"] = made.labels.astype(np.int64)
    elif made.labels is not None:
        columns |= {f"label_{place}": each.astype(np.int64) for place, each in enumerate(made.labels.T)}
    return {**columns, **{f"feature_{place}": each for place, each in enumerate(made.features.T)}}


def frame_of(columns: Columns) -> "pd.DataFrame":
    """Return columns as a table."""
    import pandas as pd

    return pd.DataFrame(dict(columns))


def _texts(given: npt.NDArray[np.str_]) -> npt.NDArray[np.str_]:
    return np.array([well_formed(text) for text in given.tolist()], dtype=np.str_)


def _write_npz(made: "Embeddings", path: Path) -> None:
    """Write `features`, `labels`, `splits`, `names` as far as they are known, and `metadata`, which is JSON."""
    arrays: dict[str, npt.NDArray[Any] | None] = {
        "features": made.features,
        "labels": made.labels,
        "splits": made.splits,
        "names": None if made.names is None else _texts(made.names),
        METADATA: np.array(json.dumps(made.metadata, sort_keys=True)),
    }
    with replacing(path) as (file, _), zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            if array is None:
                continue
            member = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))  # the same features give the same file
            member.compress_type = zipfile.ZIP_DEFLATED if array.dtype.kind == "U" else zipfile.ZIP_STORED
            with archive.open(member, "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, array, allow_pickle=False)


def _write_parquet(made: "Embeddings", path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    columns = {name: pa.array(np.ascontiguousarray(cells)) for name, cells in columns_of(made).items()}
    table = pa.table(columns).replace_schema_metadata({METADATA: json.dumps(made.metadata, sort_keys=True)})
    with replacing(path) as (file, _):
        parquet.write_table(table, file)


def _write_rows(columns: Columns, path: Path) -> None:
    kinds = {"U": "text", "i": "integer", "f": "number"}
    headings = [Column(name, kinds[cells.dtype.kind]) for name, cells in columns.items()]  # type: ignore[arg-type]
    count = len(next(iter(columns.values())))
    with open_table(path, headings) as writer:
        for start in range(0, count, _ROWS):
            cells = [each[start : start + _ROWS].tolist() for each in columns.values()]
            writer.write(list(zip(*cells, strict=True)))
