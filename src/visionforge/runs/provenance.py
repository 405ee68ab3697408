"""Facts on the machine, the code and the environment of a process, for the manifest; imports no torch."""

import contextlib
import hashlib
import os
import platform
import re
import stat
import subprocess
import time
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

import visionforge
from visionforge.distribution import distributed_as, own_version
from visionforge.runs.paths import project_folder

PACKAGES = (
    "visionforge",
    "torch",
    "torchvision",
    "lightning",
    "numpy",
    "torchmetrics",
    "scikit-learn",
    "scipy",
    "pandas",
    "pydantic",
    "jsonargparse",
    "optuna",
    "timm",
    "safetensors",
    "pillow",
)
# Variables that can change a number, by name or by how the name begins
VARIABLES = (
    "PYTHONHASHSEED",
    "CUBLAS_WORKSPACE_CONFIG",
    "CUDA_VISIBLE_DEVICES",
    "CUDA_LAUNCH_BLOCKING",
    "NVIDIA_TF32_OVERRIDE",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "ATEN_CPU_CAPABILITY",
    "ONEDNN_MAX_CPU_ISA",
    "DNNL_MAX_CPU_ISA",
    "MKL_CBWR",
    "PYTORCH_ENABLE_MPS_FALLBACK",
    "IN_DOCKER",
    "DOCKER_REPRODUCIBILITY_MODE",
)
GIT_TIMEOUT_S = 5.0
MOST_TRACKED = 50_000  # files; to look at these takes half a second
MOST_COMPARED_BYTES = 64_000_000  # of a file; a larger one whose time has changed counts as changed
_LINK, _SUBMODULE = "120000", "160000"  # modes
_ENTRY = re.compile(r"(\d{6}) ([0-9a-f]{40,64}) \d\t(.*)")
_MODIFIED = re.compile(r"  mtime: (\d+:\d+)")
_SIZE = re.compile(r"  size: (\d+)\tflags: [0-9a-f]+")


def package_versions() -> dict[str, str]:
    """Return the versions of Python, the system and the packages that can change a number."""
    found = {"python": platform.python_version(), "system": platform.platform()}
    for name in PACKAGES:
        try:
            found[name] = version(distributed_as(name))
        except PackageNotFoundError:
            continue
    return found


def environment_variables() -> dict[str, str]:
    """Return the environment variables that are set and can change a number."""
    return {name: os.environ[name] for name in VARIABLES if name in os.environ}


def processor() -> dict[str, Any]:
    """Return model, cores and memory of this machine."""
    return {
        "processor": _processor_name(),
        "cores": usable_cores(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "bfloat16": fast_bfloat16(),
    }


def usable_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def fast_bfloat16() -> bool:
    """Return whether the processor multiplies in bfloat16: AVX512-BF16, AMX-BF16, or that of Arm.

    Others, and those of which nothing is known, compute with it in float32, which gains nothing.
    """
    return any(each in _processor_facts().get(name, "").split() for name, each in _BFLOAT16)


_BFLOAT16 = (("flags", "avx512_bf16"), ("flags", "amx_bf16"), ("Features", "bf16"))  # as Linux names them


def _processor_name() -> str:
    return _processor_facts().get("model name") or platform.processor() or platform.machine()


@cache
def _processor_facts() -> dict[str, str]:
    """Return what Linux says of the first core; nothing elsewhere."""
    found: dict[str, str] = {}
    with contextlib.suppress(OSError):  # not Linux
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            found.setdefault(name.strip(), value.strip())
    return found


def code_state() -> dict[str, Any]:
    """Return the version of visionforge, and commit and state of the work trees of the package and of the project."""
    package = Path(visionforge.__file__).parent
    found: dict[str, Any] = {"version": own_version(), "package": git_state(package)}
    project = project_folder()
    if project is not None and not package.is_relative_to(project):
        found["project"] = git_state(project)
    return found


def git_state(folder: Path) -> dict[str, Any] | None:
    """Return commit, branch and number of changed files of the work tree that holds a folder; None if none does.

    Git is only asked for what it reads from its own files. To look for changes it would start the programs that the
    work tree's configuration names (filters, a file system monitor, those of submodules), so that is done here.
    """
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    return {
        "commit": commit,
        "branch": _git(folder, "rev-parse", "--abbrev-ref", "HEAD"),
        "changed_files": changed_files(folder),
    }


def changed_files(folder: Path) -> int | None:
    """Return how many tracked files of a work tree are not as they were staged, submodules aside.

    A file whose size and time are those of the index is unchanged, as git has it; of the others the content is compared
    with what is staged. Filters are not applied, so a file that one would change counts as changed.

    Returns:
        The number; None where there are too many files to look at in a moment.
    """
    top = _git(folder, "rev-parse", "--show-toplevel")
    listed = None if top is None else _git(Path(top), "ls-files", "--stage", "--debug")  # of all of it, by its paths
    if top is None or listed is None:
        return None
    staged = _staged(listed)
    if staged is None:
        return None
    deadline = time.monotonic() + GIT_TIMEOUT_S
    changed = 0
    for path, (mode, digest, size, modified) in staged.items():
        if time.monotonic() > deadline:
            return None
        changed += mode != _SUBMODULE and not _as_staged(Path(top) / path, mode, digest, size, modified)
    return changed


def _staged(listed: str) -> dict[str, tuple[str, str, int, str]] | None:
    """Return path → (mode, digest, size, time) of what `git ls-files --stage --debug` lists; None if it is too much."""
    found: dict[str, tuple[str, str, int, str]] = {}
    entry: tuple[str, str, str] | None = None
    modified = ""
    for line in listed.splitlines():
        if match := _ENTRY.fullmatch(line):
            entry = (match[3], match[1], match[2])
        elif match := _MODIFIED.fullmatch(line):
            modified = match[1]
        elif (match := _SIZE.fullmatch(line)) and entry is not None:
            found[entry[0]] = (entry[1], entry[2], int(match[1]), modified)
            if len(found) > MOST_TRACKED:
                return None
    return found if found or not listed else None  # None also where a later git lists it in another form


def _as_staged(path: Path, mode: str, digest: str, size: int, modified: str) -> bool:
    try:
        status = path.lstat()
        if mode == _LINK:
            content = os.fsencode(path.readlink())
        elif not stat.S_ISREG(status.st_mode):
            return False
        elif status.st_size == size and modified == f"{status.st_mtime_ns // 10**9}:{status.st_mtime_ns % 10**9}":
            return True
        elif status.st_size > MOST_COMPARED_BYTES:
            return False
        else:
            content = path.read_bytes()
    except OSError:
        return False
    algorithm = hashlib.sha1 if len(digest) == 40 else hashlib.sha256
    blob = b"blob %d\0" % len(content) + content
    return algorithm(blob, usedforsecurity=False).hexdigest() == digest


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        # the configuration of a work tree can name programs that git starts; variables reach its submodules, too
        guards = {"core.fsmonitor": "false", "core.hooksPath": os.devnull, "core.quotePath": "false"}
        variables = {f"GIT_CONFIG_KEY_{number}": key for number, key in enumerate(guards)}
        variables |= {f"GIT_CONFIG_VALUE_{number}": value for number, value in enumerate(guards.values())}
        done = subprocess.run(
            ["git", "--no-optional-locks", "-C", str(folder), *arguments],
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            timeout=GIT_TIMEOUT_S,
            check=False,
            env={
                **os.environ,
                "GIT_NO_LAZY_FETCH": "1",
                "GIT_ALLOW_PROTOCOL": "",
                "GIT_CONFIG_COUNT": str(len(guards)),
                **variables,
            },
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
