"""Pascal VOC: an XML file of boxes for each picture, and text files that name the pictures of each split.

Everingham et al., 2010, The Pascal Visual Object Classes (VOC) Challenge. Its pixels are counted from 1, and the last
column and row of a box are part of it.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from visionforge.data.boxes import MAX_BOXES, PictureBoxes, check_box, check_size, stacked
from visionforge.data.info import MAX_TEXT, Split
from visionforge.data.listing import class_name
from visionforge.errors import DataError
from visionforge.reading import UnreadableError, read_text

MAX_XML_BYTES = 1 << 22  # of one file; a box takes some 300
MAX_LIST_BYTES = 1 << 26  # of a list of names
MAX_NUMBER = 40  # characters of a number
SIDES = ("xmin", "ymin", "xmax", "ymax")
LISTS: tuple[tuple[str, Split], ...] = (("train", "train"), ("val", "val"), ("test", "test"))


@dataclass(frozen=True)
class VocFile:
    """One XML file.

    Attributes:
        picture: Name of the picture as the file says; it may be anything.
        found: Its boxes.
    """

    picture: str
    found: PictureBoxes


def read_voc(path: Path) -> VocFile:
    """Read one XML file of a picture's boxes.

    Documents that declare anything (DOCTYPE, ENTITY) are refused before they are parsed: such declarations can stand
    for gigabytes, or for other files, and no program writes them here.

    Args:
        path: The file; it may come from strangers.

    Raises:
        OSError: If it is not there, or cannot be opened.
        UnreadableError: If it is no such file, or a box of it is none.
    """
    text = read_text(path, MAX_XML_BYTES)
    if re.search(r"<!\s*(DOCTYPE|ENTITY)", text, re.IGNORECASE):
        raise UnreadableError("declares a document type or entities (<!DOCTYPE>), which is not read; remove them")
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # of encodings that nobody knows
        raise UnreadableError(f"is no valid XML ({error})") from error
    if root.tag != "annotation":
        raise UnreadableError(f"begins with <{root.tag[:MAX_TEXT]}>; files of Pascal VOC begin with <annotation>")
    objects = root.findall("object")
    if len(objects) > MAX_BOXES:
        raise UnreadableError(f"has {len(objects):,} boxes, more than {MAX_BOXES:,}")
    names, boxes = [], []
    for number, each in enumerate(objects, 1):
        name = class_name(each.findtext("name") or "")
        if not 0 < len(name) <= MAX_TEXT:
            raise UnreadableError(f"object {number} has no name of 1 to {MAX_TEXT} characters")
        names.append(name)
        boxes.append(_box(each, f"object {number} ({name})"))
    size = root.find("size")
    sides = (None, None) if size is None else (_whole(size, "width"), _whole(size, "height"))
    found = PictureBoxes(str(path), check_size(*sides), tuple(names), stacked(boxes))
    return VocFile((root.findtext("filename") or "").strip(), found)


def _box(each: ElementTree.Element, what: str) -> tuple[float, float, float, float]:
    box = each.find("bndbox")
    if box is None:
        raise UnreadableError(f"{what} has no <bndbox>")
    left, top, right, bottom = (_number(box.findtext(side), f"{what}: {side}") for side in SIDES)
    check_box(left - 1, top - 1, right, bottom, what)
    return left - 1, top - 1, right, bottom


def _number(text: str | None, what: str) -> float:
    text = (text or "").strip()
    try:
        value = float(text) if len(text) <= MAX_NUMBER else math.nan
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UnreadableError(f"{what} is {text[:MAX_NUMBER]!r}, which is no finite number")
    return value


def _whole(size: ElementTree.Element, side: str) -> int | float:
    value = _number(size.findtext(side) or "0", side)
    return int(value) if value.is_integer() else value


def read_splits(folder: Path) -> dict[str, Split] | None:
    """Return name of a picture, without suffix → split, of the lists in ``ImageSets/Main``; None if there are none.

    ``trainval`` is for training as far as its pictures are in no other list.

    Raises:
        DataError: If a list cannot be read, or a picture is in two of them.
    """
    listed = {name: _names(folder / f"{name}.txt") for name in ("train", "val", "test", "trainval")}
    split_of: dict[str, Split] = {}
    for name, split in LISTS:
        for picture in listed[name] or ():
            if split_of.setdefault(picture, split) != split:
                raise DataError(
                    f"{folder / name}.txt: {picture} is in {split_of[picture]}.txt, too; remove one of them"
                )
    for picture in listed["trainval"] or ():
        split_of.setdefault(picture, "train")
    return split_of or None


def _names(path: Path) -> list[str] | None:
    if not path.is_file():
        return None
    try:
        lines = read_text(path, MAX_LIST_BYTES).splitlines()
    except (OSError, UnreadableError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    return [line.strip() for line in lines if line.strip()]
