"""Facts on the machine, the code and the environment of a process, for the manifest; imports no torch."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

import visionforge
from visionforge.runs.anchors import project_folder

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


def package_versions() -> dict[str, str]:
    """Return the versions of Python, the system and the packages that can change a number."""
    found = {"python": platform.python_version(), "system": platform.platform()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
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
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
    }


def _processor_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def code_state() -> dict[str, Any]:
    """Return the version of visionforge, and commit and state of the work trees of the package and of the project."""
    package = Path(visionforge.__file__).parent
    found: dict[str, Any] = {"version": version("visionforge"), "package": git_state(package)}
    project = project_folder()
    if project is not None and not package.is_relative_to(project):
        found["project"] = git_state(project)
    return found


def git_state(folder: Path) -> dict[str, Any] | None:
    """Return commit, branch and number of changed files of the work tree that holds a folder; None if none does."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no") or ""
    return {
        "commit": commit,
        "branch": _git(folder, "rev-parse", "--abbrev-ref", "HEAD"),
        "changed_files": len(changes.splitlines()),
    }


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        # the configuration of a work tree can name programs that git then starts; these three are the known ones
        guards = ("-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "diff.external=")
        done = subprocess.run(
            ["git", *guards, "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=GIT_TIMEOUT_S,
            check=False,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
