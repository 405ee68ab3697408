"""Groups, such as patients, that lie in several splits although they must stay together."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from visionforge.data.info import SPLITS, Split
from visionforge.data.side_table import SideTable
from visionforge.printable import printable

_EXAMPLES, _LONGEST = 3, 40  # groups that a line names, and most characters of a name


@dataclass(frozen=True)
class SharedGroups:
    """The groups that two splits share.

    Attributes:
        first: One split.
        second: The other.
        groups: Group → its images in the one and in the other; empty if they share none.
    """

    first: Split
    second: Split
    groups: Mapping[str, tuple[int, int]]

    @property
    def images(self) -> tuple[int, int]:
        """Number of images of such groups in the one split and in the other."""
        return sum(count for count, _ in self.groups.values()), sum(count for _, count in self.groups.values())

    def __str__(self) -> str:
        if not self.groups:
            return "no group in both"
        ones, others = self.images
        examples = "; ".join(
            f"{printable(name, _LONGEST)}: {one:,} + {other:,}"
            for name, (one, other) in list(self.groups.items())[:_EXAMPLES]
        )
        count = f"{len(self.groups):,} group{'s' if len(self.groups) > 1 else ''} in both"
        return f"{count}, {ones:,} images of {self.first} and {others:,} of {self.second} ({examples})"

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {"first": self.first, "second": self.second, "groups": {k: list(v) for k, v in self.groups.items()}}


def shared_groups(tables: Mapping[Split, SideTable]) -> list[SharedGroups]:
    """Return what every two splits share whose groups are known; an empty text is no group.

    Args:
        tables: Split → names and groups of its images.

    >>> tables = {"train": SideTable(groups=("p1", "p1", "p2", "")), "test": SideTable(groups=("p1", ""))}
    >>> [str(shared) for shared in shared_groups(tables)]
    ['1 group in both, 2 images of train and 1 of test (p1: 2 + 1)']
    """
    counts = {
        split: Counter(group for group in tables[split].groups or () if group)
        for split in SPLITS
        if split in tables and tables[split].groups is not None
    }
    found = []
    for one, two in combinations(counts, 2):
        both = {group: (count, counts[two][group]) for group, count in counts[one].items() if group in counts[two]}
        found.append(SharedGroups(one, two, both))
    return found
