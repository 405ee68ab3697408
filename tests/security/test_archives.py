"""An archive or a catalog entry from a stranger is read or refused in a line: nothing else comes out of it."""

import io
import struct
import warnings
import zipfile

import numpy as np
import pytest
import yaml

from tests.security.damage import HEADERS, damaged, npy, zipped
from tests.security.harness import attack, refused
from visionforge.data.archive import check_split_labels, read_split, verify_archive
from visionforge.data.info import SPLITS, DatasetInfo
from visionforge.data.npy import read_array, read_header
from visionforge.data.picture_sources import list_pictures
from visionforge.data.registry import dataset_info
from visionforge.data.side_table import read_side_table
from visionforge.data.store import open_archive
from visionforge.data.stream import picture_batches
from visionforge.errors import DataError

SIZES = {"train": 12, "val": 4, "test": 4}


def entry() -> DatasetInfo:
    return DatasetInfo.model_validate(
        {
            **dataset_info("breastmnist").model_dump(),
            "name": "strange",
            "splits": SIZES,
            "archives": {8: {"url": None}},
            "resolutions": [8],
        }
    )


def members() -> dict[str, bytes]:
    out = {}
    for split, count in SIZES.items():
        for kind, array in (
            ("images", np.arange(count * 64, dtype=np.uint8).reshape(count, 8, 8)),
            ("labels", (np.arange(count) % 2).astype(np.uint8)[:, None]),
            ("names", np.array([f"{split}/{k}.png" for k in range(count)])),
        ):
            file = io.BytesIO()
            np.save(file, array)
            out[f"{split}_{kind}.npy"] = file.getvalue()
    return out


def read_everything(path) -> list[str]:
    """Use every reader of archives; return what each complained of. Anything but DataError leaves this function."""
    info = entry()

    def stream():
        return sum(len(batch.names) for batch in picture_batches(list_pictures([path]), 8, 1, 16, 1))

    complaints = []
    for read in (
        lambda: verify_archive(path, info, 8),
        lambda: [read_split(path, info, split) for split in SPLITS],
        lambda: [check_split_labels(path, info, split, 28) for split in SPLITS],
        lambda: [read_side_table(path, split, SIZES[split]) for split in SPLITS],
        lambda: open_archive(path, info, 8),
        stream,
    ):
        try:
            read()
        except DataError as error:
            complaints += error.problems
    assert all(line.isprintable() for line in complaints)
    return complaints


def test_whole_archive_is_read(tmp_path):
    (tmp_path / "x.npz").write_bytes(zipped(members()))
    assert read_everything(tmp_path / "x.npz") == []


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_damaged_archives_are_read_or_refused(tmp_path, compression):
    path, complained = tmp_path / "x.npz", 0
    for data in damaged(zipped(members(), compression), 120, seed=1):
        path.write_bytes(data)
        complained += bool(read_everything(path))
    assert complained > 60


@pytest.mark.parametrize("member", ["train_images", "test_images", "val_labels", "test_names"])
def test_headers_that_describe_no_array_are_refused(tmp_path, member):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of Python's parser
        for header in HEADERS:
            (tmp_path / "x.npz").write_bytes(zipped({**members(), f"{member}.npy": npy(header, bytes(768))}))
            assert read_everything(tmp_path / "x.npz"), header


def test_headers_of_numpy_and_of_others_are_read():
    for array in (
        np.zeros((3, 4, 5), np.uint8),
        np.arange(7, dtype=">i4"),
        np.array(5.0),
        np.zeros((0, 3), bool),
        np.array(["a", "bc"]),
        np.arange(6).reshape(1, 6).T,
    ):
        for version in ((1, 0), (2, 0), (3, 0)):
            file = io.BytesIO()
            np.lib.format.write_array(file, np.ascontiguousarray(array).reshape(array.shape), version)
            data = file.getvalue()
            got = read_array(io.BytesIO(data), len(data), 1000)
            assert got.dtype == array.dtype
            np.testing.assert_array_equal(got, array)
    for text in (
        '{"descr": "<f4", "fortran_order": False, "shape": (2,)}\n',
        "{'shape': (2L, ), 'fortran_order': False, 'descr': '<f4'}",  # Python 2
        "{'descr':'<f4','fortran_order':False,'shape':(2,),}",
    ):
        assert read_header(io.BytesIO(npy(text))) == ((2,), np.dtype("<f4"))
    for start in (b"", b"\x93NUMPY", npy("x", version=(9, 9)), npy("{", length=4000), npy("{", b"", (2, 0), 1 << 31)):
        with pytest.raises(ValueError, match=r"header|version|begin"):
            read_header(io.BytesIO(start))


def encrypted(data: bytes) -> bytes:
    """Return a ZIP file whose directory says that all members are encrypted."""
    out, at = bytearray(data), 0
    while (at := out.find(b"PK\x01\x02", at)) >= 0:
        out[at + 8] |= 1
        at += 4
    return bytes(out)


def twice(data: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w") as archive:
        warnings.simplefilter("ignore")
        for name, content in [*data.items(), ("train_labels.npy", data["train_labels.npy"])]:
            archive.writestr(name, content)
    return file.getvalue()


def test_tricks_of_zip_files_are_refused(tmp_path):
    whole = zipped(members())
    end = whole.rfind(b"PK\x05\x06")
    for data, complaint in (
        (twice(members()), "train_labels.npy is there twice"),
        (encrypted(whole), "is encrypted"),
        (zipped(members(), zipfile.ZIP_LZMA), "packed in an uncommon way"),
        (
            whole[: end + 12] + struct.pack("<L", 1 << 30) + whole[end + 16 :],
            "its directory has more than 1,048,576 bytes",
        ),
        (zipped({f"{k}.npy": b"" for k in range(30_000)}), "its directory has more than 1,048,576 bytes"),
        (zipped({f"/{name}": data for name, data in members().items()}), "missing keys"),
    ):
        (tmp_path / "x.npz").write_bytes(data)
        assert any(complaint in line for line in read_everything(tmp_path / "x.npz")), complaint


@pytest.mark.slow
def test_members_that_unpack_to_gigabytes_take_no_memory(tmp_path):
    header = npy("{'descr': '|u1', 'fortran_order': False, 'shape': (12, 8, 8), }")
    names = npy("{'descr': '<U128', 'fortran_order': False, 'shape': (12,), }")
    for name, start in (("train_images", header), ("train_names", names)):
        content = {**members(), f"{name}.npy": start + bytes(500_000_000)}
        (tmp_path / "strange_8.npz").write_bytes(zipped(content))
        catalog = tmp_path / ".attack" / "catalog"
        catalog.mkdir(parents=True, exist_ok=True)
        (catalog / "strange.yaml").write_text(yaml.safe_dump(entry().model_dump(mode="json")))
        outcome = attack("datasets", "check", "strange", "--root", str(tmp_path), folder=tmp_path, memory_mb=2_500)
        assert outcome.status == 1, outcome.err
        assert outcome.peak_mb < 700  # about 480 of which are the program
        assert not outcome.changed_outside(tmp_path / ".attack")
    image = npy("{'descr': '|u1', 'fortran_order': False, 'shape': (1, 40000, 40000), }")
    (tmp_path / "huge.npz").write_bytes(zipped({"images.npy": image}))
    with pytest.raises(DataError, match="40000×40000 pixels, more than 16,777,216"):
        list_pictures([tmp_path / "huge.npz"])


# --- catalog entries


def laughs() -> str:
    lines = ["a: &a [x, x]"]
    for first, then in zip("abcdefgh", "bcdefghi", strict=True):
        lines.append(f"{then}: &{then} [{', '.join([f'*{first}'] * 9)}]")
    return "\n".join([*lines, "classes: *i"])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (laughs(), "more than 100,000 values"),
        ("[" * 500, "nested deeper than 64"),
        ("a: " * 40, "not valid YAML"),
        ("name: 2026-99-99", "name: '2026-99-99' is not allowed"),
        ("name: !!python/object/apply:os.system ['true']", "not valid YAML"),
        ("#" * (1 << 20) + "\n", "larger than 1,000,000 bytes"),
        ("\x00", "not valid YAML"),
    ],
)
def test_entries_that_are_traps_are_refused(tmp_path, monkeypatch, text, complaint):
    monkeypatch.setenv("VISIONFORGE_CATALOG", str(tmp_path))
    (tmp_path / "trap.yaml").write_text(text)
    with pytest.raises(DataError, match=complaint):
        dataset_info("trap")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"archives": {5_000_000: {"url": None}}}, "archives.5000000"),
        ({"resolutions": [5_000_000]}, "resolutions"),
        ({"splits": {**SIZES, "train": 1 << 40}}, r"splits\.train"),
        ({"classes": [str(k) for k in range(20_000)], "positive": None}, "classes"),
        ({"classes": ["a", "a"], "positive": None}, "stands there twice"),
        ({"positive": "unknown"}, "positive: 'unknown' is not allowed; allowed: malignant"),
        ({"task": "multi-class"}, "a multi-class task has no positive class"),
        ({"normalisation": {"mean": [0.5], "std": [0.0], "source": "computed"}}, "std 0.0 is not allowed"),
        ({"normalisation": {"mean": [float("nan")], "std": [0.5], "source": "computed"}}, ".nan is no finite number"),
        ({"archives": {8: {"url": None, "file": "../x.npz"}}}, "file"),
        ({"archives": {8: {"url": None, "file": "a/b.npz"}}}, "file"),
        ({"source": "synthetic"}, "source: 'synthetic' is not allowed"),
    ],
)
def test_entries_beyond_their_bounds_are_refused(tmp_path, monkeypatch, change, complaint):
    monkeypatch.setenv("VISIONFORGE_CATALOG", str(tmp_path))
    content = {**entry().model_dump(mode="json"), **change}
    if "archives" in change:
        content["resolutions"] = None
    (tmp_path / "strange.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(DataError, match=complaint):
        dataset_info("strange")


def test_trap_in_the_catalog_is_one_line_on_the_command_line(tmp_path):
    catalog = tmp_path / ".attack" / "catalog"
    catalog.mkdir(parents=True)
    (catalog / "trap.yaml").write_text(laughs())
    (line,) = refused(attack("datasets", "info", "trap", folder=tmp_path))
    assert "trap.yaml: holds more than 100,000 values" in line
