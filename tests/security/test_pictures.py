"""A picture from a stranger is read or refused: nothing is started, and no more memory is taken than it needs."""

import io
import resource
import struct
import subprocess
import sys
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.security.damage import damaged, pictures
from tests.security.harness import SOURCES, attack
from visionforge.data.pictures import PictureError, read_picture

DAMAGED = 40  # of every kind of picture


@pytest.mark.parametrize("name", ["CT_small", "SC_rgb_rle_2frame", "SC_rgb_jpeg_dcmtk", "examples_palette"])
def test_damaged_dicom_files_are_read_or_refused(tmp_path, name):
    import pydicom

    whole = (Path(pydicom.__file__).parent / "data" / "test_files" / f"{name}.dcm").read_bytes()
    path = tmp_path / "a.dcm"
    for data in damaged(whole, DAMAGED, seed=len(name)):
        path.write_bytes(data)
        try:
            picture = read_picture(path, 16)
        except PictureError as error:
            said = str(error)
        else:
            said = ""
            assert picture.shape[:2] == (16, 16)
        assert said.isprintable()


@pytest.mark.parametrize("name", sorted(pictures()))
@pytest.mark.filterwarnings("ignore::UserWarning")  # of Pillow, on damaged tags
def test_damaged_pictures_are_read_or_refused(tmp_path, name):
    path = tmp_path / name
    whole = pictures()[name]
    path.write_bytes(whole)
    assert read_picture(path, 16).shape[:2] == (16, 16)
    refused = 0
    for data in damaged(whole, DAMAGED, seed=len(name)):
        path.write_bytes(data)
        try:
            picture = read_picture(path, 16)
        except PictureError:
            refused += 1
        else:
            assert picture.shape[:2] == (16, 16)
            assert picture.dtype == np.uint8
    assert refused


def png(width: int, height: int, *chunks: tuple[bytes, bytes], rows: bytes = b"") -> bytes:
    parts = [b"\x89PNG\r\n\x1a\n"]
    header = (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    for kind, data in (header, *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        parts.append(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))
    return b"".join(parts)


@cache
def bombs() -> dict[str, bytes]:
    """Return files of some kilobytes that ask for gigabytes, or for hours."""
    text = zlib.compress(bytes(1 << 29), 9)
    rows = (b"\0" + bytes(9)) * 9
    tags = b"".join(struct.pack("<HHLL", 1000 + k, 1, 900_000, 8) for k in range(60_000))
    tiff = b"II*\0" + struct.pack("<LH", 8, 60_000) + tags + bytes(900_000)
    strip = b"".join(
        struct.pack("<HHLL", *entry)
        for entry in (
            *((256, 4, 1, 60_000), (257, 4, 1, 60_000), (258, 3, 1, 8), (259, 3, 1, 8)),
            *((262, 3, 1, 1), (273, 4, 1, 8), (278, 4, 1, 60_000), (279, 4, 1, 9)),
        )
    )
    webp = b"VP8X\x0a\0\0\0\x02\0\0\0" + b"\xfe\x3f\0" * 2 + b"ANIM\x06\0\0\0" + bytes(6)
    frames = [Image.new("L", (9, 9), value) for value in (1, 200)] * 500
    animation = io.BytesIO()
    frames[0].save(animation, "GIF", save_all=True, append_images=frames[1:])
    return {
        "text.png": png(9, 9, (b"zTXt", b"a\0\0" + text), rows=rows),
        "profile.png": png(9, 9, (b"iCCP", b"a\0\0" + text), rows=rows),
        "size.png": png(60_000, 60_000),
        "line.png": png(1, 20_000, rows=bytes(2) * 20_000),
        "wide.png": png(2_000_000, 40),
        "tags.tif": tiff,
        "strip.tif": b"II*\0" + struct.pack("<LH", 8, 8) + strip + bytes(4),
        "size.webp": b"RIFF" + struct.pack("<L", len(webp) + 4) + b"WEBP" + webp,
        "size.gif": b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0x80, 0, 0) + bytes(6) + b",",
        "size.bmp": b"BM" + struct.pack("<LLLLllHHLLllLL", 54, 0, 54, 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0),
        "frames.gif": animation.getvalue(),
    }


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_bombs_take_neither_memory_nor_time(tmp_path):
    for name, data in bombs().items():
        (tmp_path / name).write_bytes(data)
    script = (
        "import sys\nfrom pathlib import Path\nfrom visionforge.data.pictures import *\n"
        "for path in sorted(Path(sys.argv[1]).iterdir()):\n"
        "    try: said = str(read_picture(path, 224).shape)\n"
        "    except PictureError as error: said = f'refused: {error}'\n"
        "    print(path.name, said)\n"
        "(peak,) = [line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')]\n"
        "print(int(peak) // 1024)\n"  # since it was started; ru_maxrss counts this process, too
    )

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (60, 60))

    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, str(tmp_path)],
        capture_output=True,
        text=True,
        preexec_fn=limit,
        timeout=120,
        env={"PYTHONPATH": str(SOURCES), "OMP_NUM_THREADS": "1"},
    )
    *lines, peak = done.stdout.splitlines()
    said = dict(line.split(" ", 1) for line in lines)
    assert said.keys() == bombs().keys(), done.stderr
    assert said.pop("frames.gif").startswith("(224, 224")  # the first of them
    assert all(line.startswith("refused: ") for line in said.values()), said
    assert int(peak) < 400, peak


@pytest.mark.slow
def test_import_of_hostile_pictures_starts_nothing(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        folder = tmp_path / "pics" / name
        folder.mkdir(parents=True)
        for number in range(10):
            Image.fromarray(rng.integers(0, 255, (20, 20, 3)).astype(np.uint8)).save(folder / f"{number}.png")
    (tmp_path / "pics" / "cat" / "a.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    )
    (tmp_path / "pics" / "cat" / "line.png").write_bytes(bombs()["line.png"])
    (tmp_path / "pics" / "loop").symlink_to(tmp_path / "pics")
    (tmp_path / "pics" / "cat" / "out.png").symlink_to("/dev/zero")
    (tmp_path / "pics" / "dog" / "loop.png").symlink_to("loop.png")
    outcome = attack("datasets", "import", "pics", "--name", "mine", folder=tmp_path)
    assert outcome.status == 0, outcome.err
    assert "✓ mine: binary, 2 classes, 14 train / 2 val / 4 test; 2 broken" in outcome.out
    assert "a.png: is no picture" in outcome.out
    assert not outcome.programs
    assert not outcome.connections
    assert not outcome.changed_outside(tmp_path / ".attack")
