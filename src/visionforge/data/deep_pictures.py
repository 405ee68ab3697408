"""Which grey values of more than eight bits become 0 and 255 in pictures that are imported together."""

from collections.abc import Sequence
from pathlib import Path

from visionforge.data.dicom import is_dicom
from visionforge.data.import_settings import ImportSettings
from visionforge.data.intensity import Range, shared_range
from visionforge.data.pictures import deep_range, is_deep, says_how_it_is_shown


def intensity_of(paths: Sequence[Path], settings: ImportSettings) -> tuple[Range | None, list[str]]:
    """Return one range for the pictures of a source, and what there is to say of it, a line each.

    None if a range is given, no picture is deep, or some are DICOM files that say themselves how they are shown.

    Args:
        paths: The pictures; those that are deep are decoded once more for it.
        settings: What to import.
    """
    if settings.intensity is not None:
        plain = not any(is_dicom(path) or is_deep(path) for path in paths)
        return None, ["`intensity` changes nothing: all pictures have 8 bits"] if plain else []
    if any(map(says_how_it_is_shown, paths)):
        count = sum(map(is_dicom, paths))
        return None, [f"{count:,} DICOM files are shown by their own windows, or by what each has; see `intensity`"]
    found = [found for path in paths if (found := deep_range(path)) is not None]
    if not found:
        return None, []
    low, high = shared_range(found)
    told = f"{len(found):,} pictures have more than 8 bits: {low:g} to {high:g} become 0 to 255 (`intensity`: others)"
    return (low, high), [told]
