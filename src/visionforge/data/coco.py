"""COCO: one JSON file of pictures, categories and boxes for each split.

Lin et al., 2014, Microsoft COCO: Common Objects in Context. A box is its left upper corner, width and height in pixels
from 0.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from visionforge.data.boxes import MAX_BOXES, PictureBoxes, check_box, check_size, stacked
from visionforge.data.info import MAX_TEXT
from visionforge.data.listing import class_name
from visionforge.reading import UnreadableError, read_json

MAX_JSON_BYTES = 1 << 29  # the largest file of COCO 2017 has 450 million
Corners = tuple[float, float, float, float]


@dataclass(frozen=True)
class CocoFile:
    """One JSON file.

    Attributes:
        pictures: Name of each picture as the file says, which may be anything, and its boxes.
        categories: Names of all classes, in the order of their numbers.
        crowds: Boxes of groups (`iscrowd`) that were left out.
        flat: Boxes of width or height 0 that were left out; COCO 2017 itself has some among its 900,000.
    """

    pictures: list[tuple[str, PictureBoxes]]
    categories: tuple[str, ...]
    crowds: int
    flat: int


def read_coco(path: Path) -> CocoFile:
    """Read one JSON file of boxes.

    Args:
        path: The file; it may come from strangers.

    Raises:
        OSError: If it is not there, or cannot be opened.
        UnreadableError: If it is no such file, or a box of it is none.
    """
    content = read_json(path, MAX_JSON_BYTES)
    if not isinstance(content, Mapping):
        raise UnreadableError("is no JSON object with images, annotations and categories")
    categories = _categories(content)
    images = {_id(image, "image"): image for image in _entries(content, "images")}
    if len(images) < len(content["images"]):
        raise UnreadableError("has two images with the same id")
    boxes: dict[int | str, list[tuple[str, Corners]]] = {number: [] for number in images}
    crowds = flat = 0
    for entry in _entries(content, "annotations"):
        what = f"annotation {_id(entry, 'annotation')}"
        image, category = entry.get("image_id"), entry.get("category_id")
        if not _is_id(image) or image not in boxes:
            raise UnreadableError(f"{what} is of the image {_short(image)}, which is not in images")
        if not _is_whole(category) or category not in categories:
            raise UnreadableError(
                f"{what} is of the category {_short(category)}, which is not in categories; allowed: "
                f"{', '.join(map(str, list(categories)[:20]))}"
            )
        if entry.get("iscrowd") == 1:
            crowds += 1
            continue
        corners = _corners(entry.get("bbox"), what)
        if corners is None:
            flat += 1
            continue
        boxes[image].append((categories[category], corners))
        if len(boxes[image]) > MAX_BOXES:
            raise UnreadableError(f"image {_short(image)} has more than {MAX_BOXES:,} boxes")
    pictures = []
    for number, image in images.items():
        name = image.get("file_name")
        if not isinstance(name, str) or not name:
            raise UnreadableError(f"image {_short(number)} has no file_name")
        where = f"{path}, image {_short(number)}"
        try:
            size = check_size(image.get("width"), image.get("height"))
        except UnreadableError as error:
            raise UnreadableError(f"image {_short(number)} {error}") from error
        found = boxes[number]
        names = tuple(each for each, _ in found)
        pictures.append((name, PictureBoxes(where, size, names, stacked([corners for _, corners in found]))))
    return CocoFile(pictures, tuple(categories.values()), crowds, flat)


def _entries(content: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    entries = content.get(key)
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        raise UnreadableError(f"has no list of objects {key}; COCO has images, annotations and categories")
    return entries


def _categories(content: Mapping[str, Any]) -> dict[int, str]:
    """Return number → name, in the order of the numbers."""
    names: dict[int, str] = {}
    for entry in _entries(content, "categories"):
        number, name = entry.get("id"), entry.get("name")
        name = class_name(name) if isinstance(name, str) else ""
        if not _is_whole(number) or not 0 < len(name) <= MAX_TEXT:
            raise UnreadableError("has a category without a whole number `id` and a `name`")
        if number in names or name in names.values():
            raise UnreadableError(f"has the category {number} ({name}) twice")
        names[number] = name
    return dict(sorted(names.items()))


def _id(entry: Mapping[str, Any], kind: str) -> int | str:
    number = entry.get("id")
    if not _is_id(number):
        raise UnreadableError(f"has an {kind} without an id, a number or a text")
    return number


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_id(value: object) -> TypeGuard[int | str]:
    return isinstance(value, str) or _is_whole(value)


def _corners(box: Any, what: str) -> Corners | None:
    """Return the corners of a box; None if it is a line or a point."""
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        raise UnreadableError(
            f"{what} has the bbox {_short(box)}; four finite numbers are allowed: x, y, width, height"
        )
    left, top, width, height = map(float, box)
    if min(width, height) == 0:
        return None
    check_box(left, top, left + width, top + height, what)
    return left, top, left + width, top + height


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 1e9 if isinstance(value, int) else math.isfinite(value)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}…"
