"""Randomness as a function of names and numbers, so that it never depends on the order in which things happen."""

import hashlib
import os

DEFAULT_SEED = 42
# Fixed workspaces, without which cuBLAS does not repeat; read once, when CUDA starts
STRICT_VARIABLE = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def derive_seed(seed: int, *parts: str | int) -> int:
    """Return a 63-bit seed for one purpose, for instance ``derive_seed(42, "augment", epoch, step)``.

    Different parts give independent streams; the same parts give the same seed on every machine.
    """
    text = "/".join(str(part) for part in (seed, *parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


class Seeded:
    """Has a seed: the one that it was given, or else `global_seed`."""

    _given_seed: int | None = None

    @property
    def seed(self) -> int:
        """The seed of everything in it that is random."""
        return global_seed() if self._given_seed is None else self._given_seed

    @seed.setter
    def seed(self, value: int | None) -> None:
        self._given_seed = value


def global_seed() -> int:
    """Return the seed that Lightning's `seed_everything` has set, or 42 if it was not called."""
    return int(os.environ.get("PL_GLOBAL_SEED", DEFAULT_SEED))
