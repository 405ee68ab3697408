"""Damaged files, made from whole ones: the same seed gives the same damage."""

import io
import random
import zipfile
from collections.abc import Iterator

import numpy as np
from PIL import Image

HEADERS = (  # what stands where an .npy file describes its array; each once broke a parser out of Python's own
    "",
    "{",
    "{'descr': '|u1'",
    "{'descr': '|u1', 'fortran_order': False, 'shape': (12, 28, 28), ",
    "  {'descr': '|u1',\n 'fortran_order': False,\n    'shape': (1,\n)}",
    "{'descr': '|u1', 'fortran_order': False, 'shape': (-12, 28, 28), }",
    "{'descr': '|u1', 'fortran_order': False, 'shape': (4611686018427387904, 28, 28), }",
    "{'descr': '|u1', 'fortran_order': False, 'shape': (9223372036854775808,), }",
    "{'descr': '|u1', 'fortran_order': False, 'shape': (9223372036854775807, 0), }",
    "{'descr': '|u1', 'fortran_order': False, 'shape': (" + "9" * 3000 + ",), }",
    "{'descr': '|u1', 'fortran_order': False, 'shape': (" + "1, " * 1000 + "), }",
    "{'descr': '|u1', 'fortran_order': False, 'shape': (1e3, 28, 28), }",
    "{'descr': '|u1', 'fortran_order': False, 'shape': 12, }",
    "{'descr': '|u1', 'fortran_order': False, 'shape': None, }",
    "{'descr': '|u1', 'fortran_order': False, 'shape': (), }",
    "{'descr': '|u1', 'fortran_order': 3, 'shape': (12, 28, 28), }",
    "{'descr': '|u1', 'descr': '|u1', 'shape': (12, 28, 28), }",
    "{'descr': '|O', 'fortran_order': False, 'shape': (12, 28, 28), }",
    "{'descr': '<U999999999', 'fortran_order': False, 'shape': (12, 28, 28), }",
    "{'descr': '<f7', 'fortran_order': False, 'shape': (12, 28, 28), }",
    "{'descr': '<M8[s]', 'fortran_order': False, 'shape': (12, 28, 28), }",
    "{'descr': ',', 'fortran_order': False, 'shape': (12, 28, 28), }",
    "{'descr': [('a', '|u1'), ('b', '<f8')], 'fortran_order': False, 'shape': (12,), }",
    "{'descr': [('a', '|O', (9999999, 9999999))], 'fortran_order': False, 'shape': (12,), }",
    "{'descr': (('a', 'b'), {}), 'fortran_order': False, 'shape': (12,), }",
    "__import__('os').system('true')",
    "-" * 4000,
    "(" * 4000,
    "{" * 1000 + "}" * 1000,
    "not " * 900,
    "\0" * 100,
    "'\\N{",
    "\xff\xfe" * 50,
    "[" * 90 + "]" * 90,
    "1" * 4090,
)


def npy(header: str, data: bytes = b"", version: tuple[int, int] = (1, 0), length: int | None = None) -> bytes:
    """Return an .npy file with this text as its header; `length` may lie."""
    text = header.encode("latin-1")
    size = len(text) if length is None else length
    return b"\x93NUMPY" + bytes(version) + size.to_bytes(2 if version == (1, 0) else 4, "little") + text + data


def damaged(whole: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Yield `count` damaged copies of a file: cut, with bits turned, bytes replaced, parts doubled or removed."""
    rng = random.Random(seed)
    for _ in range(count):
        data = bytearray(whole)
        for _ in range(rng.choice((1, 1, 2, 8))):
            at = rng.randrange(len(data)) if rng.random() < 0.5 else rng.randrange(min(len(data), 200))
            match rng.randrange(6):
                case 0:
                    del data[max(1, at) :]
                case 1:
                    data[at] ^= 1 << rng.randrange(8)
                case 2:
                    data[at : at + 4] = rng.choice(
                        (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\x80\0\0\0")
                    )
                case 3:
                    data[at : at + 8] = rng.randbytes(8)
                case 4:
                    data[at:at] = data[at : at + rng.randrange(1, 64)]
                case 5:
                    del data[at : at + rng.randrange(1, 16)]
            if not data:
                data = bytearray(b"\0")
        yield bytes(data)


def pictures() -> dict[str, bytes]:
    """Return a small whole picture of every format and of the modes that are read in ways of their own."""
    rng = np.random.default_rng(0)
    colour = Image.fromarray(rng.integers(0, 256, (24, 32, 3)).astype(np.uint8))
    deep = Image.fromarray(rng.integers(0, 4096, (24, 32)).astype(np.uint16))
    frames = [colour.convert("P"), colour.transpose(Image.Transpose.ROTATE_180).convert("P")]
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "a description"
    made = {
        "a.png": (colour, {"exif": exif}),
        "deep.png": (deep, {}),
        "palette.png": (colour.convert("P"), {"transparency": 3}),
        "a.jpg": (colour, {"exif": exif}),
        "grey.jpg": (colour.convert("L"), {"progressive": True}),
        "a.tif": (colour, {}),
        "packed.tif": (colour, {"compression": "tiff_lzw", "exif": exif}),
        "deep.tif": (deep, {}),
        "float.tif": (Image.fromarray(rng.normal(size=(24, 32)).astype(np.float32)), {}),
        "a.bmp": (colour, {}),
        "a.gif": (frames[0], {"save_all": True, "append_images": frames[1:]}),
        "a.webp": (colour, {"exif": exif}),
        "lossless.webp": (colour, {"lossless": True}),
    }
    whole = {}
    for name, (picture, options) in made.items():
        file = io.BytesIO()
        picture.save(file, {"jpg": "JPEG", "tif": "TIFF"}.get(name[-3:], name.rpartition(".")[2].upper()), **options)
        whole[name] = file.getvalue()
    return whole


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return a ZIP file of these members."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, compression)
    return file.getvalue()
