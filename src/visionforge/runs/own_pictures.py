"""Pictures that visionforge has written, which say so of themselves, so that it may replace them."""

from pathlib import Path

SOFTWARE = "visionforge"  # what a PNG says of its origin, as the keyword `Software` of the format is for


def is_own_picture(path: Path) -> bool:
    """Return whether a file is a PNG that visionforge has written; no pixel of it is decoded."""
    from PIL import Image

    try:
        with Image.open(path, formats=["PNG"]) as picture:
            return picture.info.get("Software") == SOFTWARE
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False
