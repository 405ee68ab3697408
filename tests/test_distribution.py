"""One name for what is installed: that of the project file, of every hint in code and pages, and of what is built."""

import re
import tomllib

import visionforge
from tests.conftest import REPOSITORY
from visionforge.distribution import DISTRIBUTION, distributed_as, how_to_install, own_version

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
TEXTS = sorted(
    path
    for folder, kinds in {"src": ("*.py", "*.yaml", "*.j2"), "docs": ("*.md",), "configs": ("*.yaml",)}.items()
    for kind in kinds
    for path in (REPOSITORY / folder).rglob(kind)
)
HINT = re.compile(r"pip install [\"'`]*(visionforge[\w-]*)(?:\[([\w,]+)\])?")


def test_the_name_is_that_of_the_project():
    assert PROJECT["name"] == DISTRIBUTION
    assert visionforge.__version__ == own_version() == PROJECT["version"]
    assert (distributed_as("visionforge"), distributed_as("torch")) == (DISTRIBUTION, "torch")


def test_hints_name_it_and_an_extra_that_exists():
    found = {}
    for path in [*TEXTS, *REPOSITORY.glob("*.md")]:
        for name, extras in HINT.findall(path.read_text(encoding="utf-8")):
            known = set(filter(None, extras.split(","))) <= set(PROJECT["optional-dependencies"])
            found[path.name, name, extras] = name == DISTRIBUTION and known
    assert len(found) > 10
    assert [place for place, right in found.items() if not right] == []


def test_code_has_no_hint_of_its_own():
    found = {
        extra
        for path in (REPOSITORY / "src").rglob("*.py")
        for extra in re.findall(r"how_to_install\(['\"](\w+)['\"]\)", path.read_text(encoding="utf-8"))
    }
    assert found >= {"onnx", "timm", "hub", "parquet", "umap", "nifti", "hdf5", "dicom"}
    assert found <= set(PROJECT["optional-dependencies"])
    assert how_to_install("onnx") == f'pip install "{DISTRIBUTION}[onnx]"'
