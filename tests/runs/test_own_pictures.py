"""A picture is ours if it says so as a PNG; whatever else lies there is not, and raises nothing."""

import struct
import zlib

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from visionforge.evaluation.mask_files import write_mask
from visionforge.reporting.figures.static import save_figure
from visionforge.runs.own_pictures import SOFTWARE, is_own_picture


def test_figures_and_masks_are_ours(tmp_path):
    save_figure(Figure(), tmp_path / "figure.png")
    write_mask(tmp_path / "mask.png", np.zeros((4, 5), np.uint8), np.zeros((2, 3), np.uint8))
    assert is_own_picture(tmp_path / "figure.png")
    assert is_own_picture(tmp_path / "mask.png")


def named(value: str) -> PngInfo:
    info = PngInfo()
    info.add_text("Software", value)
    return info


def huge() -> bytes:
    """Return a PNG that says to be ours, and to have more pixels than Pillow opens."""
    chunks = [(b"IHDR", struct.pack(">2L5B", 60_000, 60_000, 8, 0, 0, 0, 0)), (b"tEXt", b"Software\0visionforge")]
    chunks += [(b"IDAT", b""), (b"IEND", b"")]
    parts = (
        struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("kind", ["plain", "other", "jpeg", "text", "empty", "cut", "huge", "folder", "missing"])
def test_everything_else_is_not(tmp_path, kind):
    path = tmp_path / "one.png"
    picture = Image.new("L", (8, 8))
    match kind:
        case "plain":
            picture.save(path)
        case "other":
            picture.save(path, pnginfo=named(f"{SOFTWARE} and others"))
        case "jpeg":
            picture.save(path, "JPEG", comment=f"Software={SOFTWARE}")
        case "text":
            path.write_text(SOFTWARE)
        case "empty":
            path.touch()
        case "cut":
            picture.save(path, pnginfo=named(SOFTWARE))
            path.write_bytes(path.read_bytes()[:20])
        case "huge":
            path.write_bytes(huge())
        case "folder":
            path.mkdir()
    assert not is_own_picture(path)
