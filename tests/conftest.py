"""Shared fixtures: the real archives, the command line in this process, small and quick settings."""

import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from visionforge.cli.main import main
from visionforge.config.environment import keep_freed_memory
from visionforge.config.schema import metrics as registered
from visionforge.config.schema import tasks as registered_tasks

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the workers share the processor; before torch is imported
    os.environ.setdefault("NUMBA_NUM_THREADS", "1")  # where umap is installed, it would change torch's, too
keep_freed_memory()  # as commands do
os.environ["HF_HUB_OFFLINE"] = "1"  # before it is imported: no test waits for a hub

REPOSITORY = Path(__file__).resolve().parent.parent
EXHAUSTIVE = pytest.mark.skipif(
    not os.environ.get("VISIONFORGE_EXHAUSTIVE"), reason="takes minutes: set VISIONFORGE_EXHAUSTIVE=1"
)
QUICK = {  # a fit of a second or two
    "data.dataset": "synthetic",
    "data.resolution": 28,
    "data.batch_size": 16,
    "data.synthetic.train": 64,
    "data.synthetic.val": 32,
    "data.synthetic.test": 32,
    "model.backbone.name": "mini_cnn",
    "model.backbone.pretrained": "false",
    "trainer.max_epochs": 2,
    "trainer.accelerator": "cpu",
    "evaluation.resamples": 50,
    "evaluation.figures": "false",
    "evaluation.report": "false",
}


def flags(**changes: object) -> list[str]:
    """Return the quick settings as arguments; a change is written section__key=value."""
    settings = {**QUICK, **{key.replace("__", "."): value for key, value in changes.items()}}
    return [text for key, value in settings.items() for text in (f"--{key}", str(value))]


def run_folders(outputs: Path) -> list[Path]:
    """Return the run folders, without the link `latest` and without one that is being made under a hidden name."""
    return sorted(path.parent for path in outputs.glob("[!.]*/run.json") if not path.parent.is_symlink())


def real_data(name: str) -> Path:
    """Return the folder of a real data set; the test is skipped where it is not there."""
    folder = Path(os.environ.get("VISIONFORGE_TEST_DATA", REPOSITORY.parent / "shared" / "data")) / name
    if not folder.is_dir():
        pytest.skip(f"no {folder}; set VISIONFORGE_TEST_DATA to a folder that has {name}")
    return folder


def pytest_collection_finish() -> None:
    """What was imported and collected stays until the end; garbage collections are rarer and do not look through it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


@pytest.fixture(autouse=True, scope="session")
def no_process_arguments():
    """LightningCLI warns when it is given arguments while the process has others."""
    saved, sys.argv = sys.argv, sys.argv[:1]
    yield
    sys.argv = saved


@pytest.fixture(autouse=True, scope="session")
def font_cache(tmp_path_factory):
    """matplotlib makes its list of fonts once, outside the folders that the tests look into."""
    os.environ["MPLCONFIGDIR"] = str(tmp_path_factory.mktemp("matplotlib"))


@pytest.fixture(autouse=True, scope="session")
def user_data(tmp_path_factory):
    """Runs that several tests share are signed with a key of their own, not with that of whoever runs the tests."""
    saved = os.environ.get("XDG_DATA_HOME")
    os.environ["XDG_DATA_HOME"] = str(tmp_path_factory.mktemp("user"))
    yield
    os.environ.pop("XDG_DATA_HOME")
    if saved is not None:
        os.environ["XDG_DATA_HOME"] = saved


@pytest.fixture
def own_parts_forgotten(monkeypatch):
    """What a test registers of optimisers, losses and the like is forgotten afterwards."""
    import visionforge as vf

    own = (
        vf.Optimizer,
        vf.Schedule,
        vf.Loss,
        vf.Averaging,
        vf.Mixing,
        vf.Sampler,
        vf.AugmentationOperation,
        vf.Corruption,
    )
    for base in own:
        monkeypatch.setattr(base.family, "_kinds", base.family.kinds)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch, tmp_path):
    """Every test has its own working folder, cache and metrics, and the default seed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registered, "_METRICS", registered.metrics())  # what a test registers is forgotten
    monkeypatch.setattr(registered_tasks, "_TASKS", registered_tasks.tasks())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path.with_name(f"{tmp_path.name}-share")))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for name in (
        "VISIONFORGE_DATA",
        "VISIONFORGE_OUTPUTS",
        "VISIONFORGE_CACHE",
        "VISIONFORGE_CATALOG",
        "VISIONFORGE_ORIGINALS",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PL_GLOBAL_SEED", "42")


@pytest.fixture(scope="session")
def archives() -> Path:
    """The folder of the real archives; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("VISIONFORGE_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "breastmnist.npz").is_file():
        pytest.skip(f"no MedMNIST archives in {folder}; set VISIONFORGE_TEST_DATA to a folder that has breastmnist.npz")
    return folder.resolve()


@pytest.fixture
def refuse(capsys, tmp_path) -> Callable[..., list[str]]:
    """Run a command that must be refused: exit status 2, one line per problem, no traceback, nothing left behind."""

    def run(*arguments: str, keeps: tuple[str, ...] = ()) -> list[str]:
        before = sorted(path for path in tmp_path.rglob("*"))
        capsys.readouterr()
        status = main(list(arguments))
        output = capsys.readouterr()
        assert status == 2, output.err
        assert "Traceback" not in output.err + output.out
        lines = [line.removeprefix("error: ") for line in output.err.splitlines() if line.startswith("error: ")]
        assert lines, output.err
        assert sorted(path for path in tmp_path.rglob("*") if path.name not in keeps) == before
        return lines

    return run


@pytest.fixture(scope="session")
def quick_run(tmp_path_factory) -> Path:
    """The folder of one quick, finished fit; do not change it."""
    outputs = tmp_path_factory.mktemp("quick") / "outputs"
    shown = {"evaluation__figures": "true", "evaluation__report": "true"}
    assert main(["fit", *flags(trainer__default_root_dir=outputs, trainer__deterministic="true", **shown)]) == 0
    (run,) = run_folders(outputs)
    return run


@pytest.fixture(scope="session")
def plain_run(tmp_path_factory) -> Path:
    """The same fit without figures and report, which each command would draw again; do not change it."""
    outputs = tmp_path_factory.mktemp("plain") / "outputs"
    assert main(["fit", *flags(trainer__default_root_dir=outputs, trainer__deterministic="true")]) == 0
    (run,) = run_folders(outputs)
    return run
