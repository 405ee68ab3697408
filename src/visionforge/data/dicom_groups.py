"""Which files of an import are of one patient or one series, as DICOM headers say; who the patient is, is not kept."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from visionforge.data.dicom import has_pydicom, is_dicom
from visionforge.data.dicom_header import DicomError, read_identity
from visionforge.data.dicom_series import stand_ins
from visionforge.data.import_settings import ImportSettings
from visionforge.data.info import SPLITS
from visionforge.data.listing import Listing, some
from visionforge.data.pictures import MAX_FILE, PictureError, opened_file
from visionforge.errors import DataError

LEAST_SLICES = 5  # of a series that is taken for a volume


@dataclass(frozen=True)
class Found:
    """The groups of pictures.

    Attributes:
        kind: What each is, `patient` or `study`.
        groups: One a picture: the kind, and a number in the order in which they come.
    """

    kind: str
    groups: list[str]


def with_patients(listing: Listing, settings: ImportSettings) -> list[str]:
    """Group a listing of DICOM files by patients, where it has no groups and nobody wants none.

    Args:
        listing: The pictures; its groups are set.
        settings: `no_groups` leaves them out.

    Returns:
        A line that tells of it; none where nothing was found.

    Raises:
        DataError: If a patient lies in several of the splits that the source gives, or there are too few.
    """
    if listing.groups is not None or settings.no_groups or not listing.paths:
        return []
    found = groups_of(listing.paths) if all(map(is_dicom, listing.paths)) else None
    if found is None:
        return []
    count, files = len(set(found.groups)), len(listing.paths)
    kinds = {"patient": "patients", "study": "studies"}[found.kind]
    otherwise = "`no_groups` divides the files one by one"
    _refuse_spread(listing, found, kinds, settings)
    if listing.splits is None and count < len(SPLITS):
        raise DataError(
            f"{settings.source}: its {files:,} files are of {count} {kinds}, as their headers say, which cannot be "
            f"spread over {len(SPLITS)} splits; {otherwise}"
        )
    listing.groups = found.groups
    return [f"{files:,} files of {count:,} {kinds}, as their headers say: those of one stay in one split; {otherwise}"]


def with_series(listing: Listing, settings: ImportSettings) -> Listing:
    """Return a listing of DICOM files in which one stands for all slices of its series, as a volume.

    Where each is a picture of its own, a line says how else they could be taken.

    Raises:
        DataError: If a table says different things of the slices of a series.
    """
    if not has_pydicom() or not all(map(is_dicom, listing.paths)):  # which is told elsewhere
        return listing
    stands = stand_ins(listing.paths)
    if settings.frames != "volume":
        slices = Counter(stands)
        if scans := [first for first, count in slices.items() if count >= LEAST_SLICES]:
            listing.notes.append(
                f"{sum(slices[first] for first in scans):,} files are slices of {len(scans):,} series, and each is a "
                "picture of its own; `frames` volume makes a volume of each series"
            )
        return listing
    said: list[Sequence[object]] = [listing.labels, *listing.columns.values()]
    said += [each for each in (listing.splits, listing.groups) if each is not None]
    others = [k for k, first in enumerate(stands) if any(each[k] != each[first] for each in said)]
    if others:
        one, two = listing.names[stands[others[0]]], listing.names[others[0]]
        raise DataError(
            f"{settings.source}: {one} and {two} are slices of one series, which is a volume, and have different "
            "labels or other values"
        )
    kept = [k for k, first in enumerate(stands) if first == k]
    if len(kept) == len(stands):
        return listing
    series = len({first for k, first in enumerate(stands) if first != k})
    listing.notes.append(
        f"{len(stands) - len(kept) + series:,} files are the slices of {series:,} series; each series is a volume"
    )
    return listing.pick(kept)


def groups_of(paths: Sequence[Path]) -> Found | None:
    """Return which files are of one patient, or of one study where the patients are not told apart.

    Files that do not say it, or cannot be read, are groups of their own.

    Args:
        paths: DICOM files.

    Returns:
        The groups; None if every file is one, or all say the same, as after a removal of identities.
    """
    patients, studies = zip(*map(_identity, paths), strict=True)
    for kind, texts in (("patient", patients), ("study", studies)):
        known = [text for text in texts if text]
        if len(set(known)) < 2:
            continue
        if len(set(known)) == len(known):  # each is one: there is nothing to keep together
            return None
        keys = [text or str(position) for position, text in enumerate(texts)]
        number = {key: count for count, key in enumerate(dict.fromkeys(keys), start=1)}
        return Found(kind, [f"{kind} {number[key]}" for key in keys])
    return None


def _identity(path: Path) -> tuple[str, str]:
    try:
        with opened_file(path, MAX_FILE) as file:  # a table may name a pipe, which would be waited for
            return read_identity(file)
    except (OSError, DicomError, PictureError):  # told where it is read as a picture
        return "", ""


def _refuse_spread(listing: Listing, found: Found, kinds: str, settings: ImportSettings) -> None:
    """Raise DataError if the splits that a source gives share a patient; who is told by files, not by identity."""
    if listing.splits is None:
        return
    first: dict[str, dict[str, str]] = {}
    for group, split, name in zip(found.groups, listing.splits, listing.names, strict=True):
        first.setdefault(group, {}).setdefault(split, name)
    spread = [" and ".join(names.values()) for names in first.values() if len(names) > 1]
    if spread:
        raise DataError(
            f"{settings.source}: {len(spread):,} of {len(first):,} {kinds}, as the headers say, lie in several splits, "
            f"which makes results look better than they are: {some(spread)}; mend the splits, or take them as they are "
            "with `no_groups`"
        )
