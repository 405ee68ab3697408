"""The environment of a process: how it keeps memory, and of containers a mode in which runs repeat, and caches."""

import contextlib
import ctypes
import logging
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from visionforge.config.seeding import STRICT_VARIABLE
from visionforge.errors import SettingsError

log = logging.getLogger(__name__)

STRICT_MODE = "DOCKER_REPRODUCIBILITY_MODE"
CONTAINER = "IN_DOCKER"
HASH_SEED = "PYTHONHASHSEED"
WORKSPACES = (STRICT_VARIABLE[1], ":16:8")  # with any other, PyTorch refuses to multiply matrices deterministically
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")
# In strict mode these come before everything the user gives; a file or a flag can still change the second
STRICT_DEFAULTS = {"trainer.deterministic": True, "data.num_workers": 0}
_MATPLOTLIB = "matplotlibrc"  # matplotlib reads a file of this name in the working folder
# Folders that libraries write into, and where they lie below the cache
_CACHES = {"TORCH_HOME": "torch", "MPLCONFIGDIR": "matplotlib"}

# Parameters of glibc's mallopt
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_KEPT_BYTES, _GROWN_BYTES, _MAPPED_BYTES = 1 << 30, 64 << 20, 1 << 30


def keep_freed_memory() -> bool:
    """Let this process reuse the memory that it frees, up to 1 GiB, where it would return it to the system.

    Batches and activations are made and freed at every step. glibc maps each block of more than 128 KiB to 32 MiB, or
    the end of its heap, anew, and every page costs a fault: up to two fifths of the time of predicting small pictures.
    Nothing is changed under another C library, or where the user has chosen how to allocate (`MALLOC_…`,
    `GLIBC_TUNABLES`, `LD_PRELOAD`).

    Returns:
        Whether it is kept.
    """
    chosen = [name for name in os.environ if name.startswith("MALLOC_")]
    given = " ".join(os.environ.get(name, "") for name in ("GLIBC_TUNABLES", "LD_PRELOAD"))
    if chosen or "malloc" in given or not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is None:
        return False
    wanted = ((_MMAP_THRESHOLD, _MAPPED_BYTES), (_TRIM_THRESHOLD, _KEPT_BYTES), (_TOP_PAD, _GROWN_BYTES))
    return all([mallopt(parameter, value) == 1 for parameter, value in wanted])


def is_strict() -> bool:
    """Return whether $DOCKER_REPRODUCIBILITY_MODE asks for runs that repeat exactly.

    Raises:
        SettingsError: If it is neither true nor false.
    """
    return _switch(STRICT_MODE)


def in_container() -> bool:
    """Return whether $IN_DOCKER says that this is a container.

    Raises:
        SettingsError: If it is neither true nor false.
    """
    return _switch(CONTAINER)


def _switch(name: str) -> bool:
    value = os.environ.get(name, "").strip().lower()
    if value not in (*_TRUE, *_FALSE):
        raise SettingsError(f"${name}: {os.environ[name]!r} is not allowed; allowed: TRUE, FALSE")
    return value in _TRUE


def strict_defaults() -> dict[str, Any]:
    """Return what strict mode puts underneath the settings that are given, and tell cuBLAS to repeat.

    Raises:
        SettingsError: If a variable of the environment has a value that is not allowed.
    """
    if not is_strict():
        return {}
    name, usual = STRICT_VARIABLE
    if os.environ.setdefault(name, usual) not in WORKSPACES:
        raise SettingsError(
            f"${name}: {os.environ[name]!r} is not allowed, because {STRICT_MODE} is set; allowed: "
            f"{', '.join(WORKSPACES)}"
        )
    return STRICT_DEFAULTS


def strict_problems(values: Mapping[str, Any], sources: Mapping[str, str]) -> list[str]:
    """Return a line if the settings ask for something else than strict mode does.

    Args:
        values: Nested settings, as written.
        sources: Dotted path → where it was written.
    """
    trainer = values.get("trainer")
    if not isinstance(trainer, Mapping) or trainer.get("deterministic", True) is True or not is_strict():
        return []
    value = trainer["deterministic"]
    shown = "null" if value is None else "false" if value is False else repr(value)
    where = f" ({sources['trainer.deterministic']})" if "trainer.deterministic" in sources else ""
    return [f"trainer.deterministic: {shown} is not allowed{where}, because {STRICT_MODE} is set; allowed: true"]


def warn_of_environment() -> None:
    """Say what keeps strict mode from being as strict as it can be; what is said goes to the log."""
    if is_strict() and os.environ.get(HASH_SEED, "random") in ("", "random"):
        log.warning(
            "%s is not set, so the order of sets of text differs between processes; set it before Python starts, for "
            "instance %s=42",
            HASH_SEED,
            HASH_SEED,
        )


def prepare_environment() -> None:
    """Give a process in a container folders that it may write, where the image or the user has not named any.

    A container may run as a user who is in no list of users and has no home folder. To be called before torch and
    matplotlib are imported, which read these variables once.

    Raises:
        SettingsError: If a variable of the environment has a value that is not allowed.
    """
    if not in_container():
        return
    home = os.environ.get("HOME")
    if not home or not _usable(Path(home)):
        os.environ["HOME"] = tempfile.gettempdir()
    cache = os.environ.get("XDG_CACHE_HOME")
    if not cache or not _usable(Path(cache)):
        cache = os.environ["XDG_CACHE_HOME"] = str(Path(os.environ["HOME"]) / ".cache")
    for name, folder in _CACHES.items():
        os.environ.setdefault(name, str(Path(cache) / folder))
    os.environ.setdefault("LOGNAME", "visionforge")  # a library that asks for the user's name finds no other


def _usable(folder: Path) -> bool:
    """Return whether a folder can be written, or made."""
    # os.access, because Path.exists fails below a folder that must not be looked into
    existing = next((path for path in (folder, *folder.parents) if os.access(path, os.F_OK)), folder)
    return folder.is_absolute() and existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)


def shield_matplotlib() -> None:
    """Let matplotlib draw into files only, and read no settings from the working folder, whoever has put them there.

    Notebooks name a backend for every program that they start; where it is not installed, the import of matplotlib
    fails. To be called before anything imports it.
    """
    os.environ["MPLBACKEND"] = "agg"
    if "matplotlib" not in sys.modules and os.path.lexists(_MATPLOTLIB):
        with contextlib.chdir(Path(__file__).parent):
            import matplotlib  # noqa: F401  # reads its settings now, once
