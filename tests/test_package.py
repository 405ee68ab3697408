"""What is built holds every file, and works where there is no checkout."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, run_folders
from visionforge.distribution import DISTRIBUTION, how_to_install

pytestmark = pytest.mark.slow

DATA = (
    "data/catalog/*.yaml",
    "reporting/templates/*",
    "py.typed",
    "config/suites/*.yaml",
    "reporting/published/*.yaml",
)
COPIED = ("pyproject.toml", "README.md", "LICENSE", "configs", "src")


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """The folder with the source distribution and the wheel, built from a copy, which then has no build folders."""
    folder = tmp_path_factory.mktemp("package")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *COPIED],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        target = folder / "source" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((REPOSITORY / name).read_bytes())
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", folder / "source"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "would be ignored" not in done.stdout + done.stderr  # setuptools, of a package that the list lacks
    return folder / "dist"


def expected() -> dict[str, bytes]:
    """Return what belongs into the package: path below `visionforge`, and content."""
    package = REPOSITORY / "src" / "visionforge"
    files = [*package.rglob("*.py"), *(path for pattern in DATA for path in package.glob(pattern))]
    configs = [path for path in (REPOSITORY / "configs").rglob("*") if path.is_file()]
    shipped = {path.relative_to(REPOSITORY).as_posix(): path.read_bytes() for path in configs}
    return {path.relative_to(package).as_posix(): path.read_bytes() for path in files if path.is_file()} | shipped


def test_wheel_holds_every_file(built):
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}
    assert held == {f"visionforge/{name}": content for name, content in expected().items()}


def test_hints_find_what_was_built(built, tmp_path):
    """In an empty environment pip takes a hint for this package, and no other one."""
    venv.create(tmp_path / "venv", with_pip=True)
    hint = how_to_install("onnx").removeprefix("pip install ").strip('"')
    options = ["--dry-run", "--no-deps", "--no-index", "--find-links", built]
    done = subprocess.run(
        [tmp_path / "venv" / "bin" / "pip", "install", *options, hint], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"Would install {DISTRIBUTION}-" in done.stdout


def test_source_distribution_holds_every_file_in_its_place(built):
    (source,) = built.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        held = {member.name.partition("/")[2]: member for member in archive.getmembers() if member.isfile()}
        for name, content in expected().items():
            place = name if name.startswith("configs/") else f"src/visionforge/{name}"
            file = archive.extractfile(held[place])
            assert file is not None
            assert file.read() == content, place
    assert {"pyproject.toml", "README.md", "LICENSE"} <= held.keys()


def environment_with(package: list[str | Path], folder: Path) -> Path:
    """Make an environment that has the dependencies of this one and one package, and return its Python."""
    venv.create(folder, with_pip=False)
    paths = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (own,) = folder.glob("lib/python*/site-packages")
    # a folder named in a .pth file is searched, but its own .pth files, of editable installations, are not read
    (own / "dependencies.pth").write_text("".join(f"{path}\n" for path in sorted(paths)))
    python = folder / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index"]
    done = subprocess.run([*install, *package], capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    return python


def run(python: Path, folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run `visionforge` of an environment in an empty folder."""
    folder.mkdir(exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [python.with_name("visionforge"), *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_wheel_runs_the_quickstart_outside_of_a_checkout(built, tmp_path):
    (wheel,) = built.glob("*.whl")
    python = environment_with([wheel], tmp_path / "venv")
    done = run(python, tmp_path / "empty", "fit", "--config", "quickstart", "--trainer.max_epochs", "1")
    assert done.returncode == 0, done.stderr
    (folder,) = run_folders(tmp_path / "empty" / "outputs")
    assert (folder / "report.html").is_file()
    where = subprocess.run(
        [python, "-I", "-c", "import visionforge; print(visionforge.__file__)"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert Path(where.stdout).is_relative_to(tmp_path / "venv")


def test_editable_installation_finds_the_configurations(built, tmp_path):
    source = built.parent / "source"
    python = environment_with(["--no-build-isolation", "--editable", source], tmp_path / "venv")
    done = run(python, tmp_path / "empty", "fit", "--config", "resnet18_28", "--data.batchsize", "3")
    assert done.returncode == 2
    assert done.stderr.startswith("error: data.batchsize: unknown setting")
    done = run(python, tmp_path / "empty", "fit", "--config", "quikstart")
    assert "nearest: quickstart" in done.stderr
