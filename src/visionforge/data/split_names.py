"""What people call training, validation and test data."""

from visionforge.data.info import SPLITS, Split

SYNONYMS: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
_SPLIT_OF = {word: split for split, words in SYNONYMS.items() for word in words}
ALLOWED = ", ".join(word for split in SPLITS for word in SYNONYMS[split])


def split_of(name: str) -> Split | None:
    """Return the split that a folder or a cell names, in any case, or None if it names none."""
    return _SPLIT_OF.get(name.strip().casefold())
