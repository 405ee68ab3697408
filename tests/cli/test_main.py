"""Light commands answer without torch; every mistake is one line and exit status 2."""

import ast
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import REPOSITORY, flags
from tests.runs.helpers import small_disk
from visionforge.cli.main import COMMANDS, USAGE, main
from visionforge.data.registry import dataset_info
from visionforge.distribution import DISTRIBUTION

HEAVY = ("torch", "lightning", "torchvision", "sklearn", "pandas", "matplotlib", "optuna")


FRONT = REPOSITORY / "src" / "visionforge" / "cli"
MOST_LINES, MOST_LINES_OF_A_FILE = 3_220, 250


def test_the_command_line_is_small():
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in FRONT.rglob("*.py")}
    assert sum(lines.values()) <= MOST_LINES
    assert not {path.name: count for path, count in lines.items() if count > MOST_LINES_OF_A_FILE}


def test_the_command_line_names_neither_networks_nor_file_formats():
    kept_out = {*HEAVY, "numpy", "PIL", "openpyxl", "onnx", "onnxruntime", "safetensors", "pyarrow", "zipfile", "csv"}
    for path in FRONT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not kept_out & {name.partition(".")[0] for name in names}, f"{path.name}, line {node.lineno}"


def test_a_command_is_a_file():
    from visionforge.cli.commands import commands

    files = {path.stem for path in (FRONT / "commands").glob("*.py")} - {"__init__"}
    assert files == {name.replace("-", "_") for name in commands()}
    assert all(command.summary and command.place for command in commands().values())


@pytest.mark.parametrize(
    "arguments",
    [
        ["--version"],
        ["--help"],
        [],
        ["datasets", "list"],
        ["datasets", "info", "bloodmnist"],
        ["smoke", "--help"],
        *(
            [command, "--help"]
            for command in ("fit", "validate", "test", "predict", "tune", "runs", "doctor", "reproduce")
        ),
        ["runs", "list"],
    ],
)
def test_light_commands_import_nothing_heavy(arguments):
    code = (
        "import sys; from visionforge.cli.main import main; status = main(sys.argv[1:]); "
        f"heavy = [name for name in {HEAVY} if name in sys.modules]; assert not heavy, heavy; sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_importing_the_package_loads_no_torch():
    code = "import sys, visionforge, visionforge.data, visionforge.models; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_public_names_load():
    import visionforge

    for name in visionforge.__all__:
        assert getattr(visionforge, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        visionforge.nothing  # noqa: B018


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"visionforge {version(DISTRIBUTION)}\n"
    done = subprocess.run(
        [sys.executable, "-m", "visionforge", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"visionforge {version(DISTRIBUTION)}\n"


def test_usage_names_every_command():
    for name in COMMANDS:
        assert re.search(rf"^  {name} ", USAGE, re.MULTILINE), name


def test_help_of_fit_names_every_setting(capsys):
    from visionforge.config import RunSettings
    from visionforge.config.problems import flatten
    from visionforge.engine.settings_help import OF_ONE_COMMAND

    assert main(["fit", "--help", "all"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for path, field in flatten(RunSettings).items():
        if path.partition(".")[0] in OF_ONE_COMMAND or hasattr(field.annotation, "model_fields"):
            continue  # the help of those commands lists them
        assert f"--{path}" in shown, path
        if not path.startswith("trainer."):
            assert field.description.split(";")[0].split(":")[0] in shown, path


def test_print_config_is_a_configuration(capsys, tmp_path):
    assert main(["fit", *flags(model__optimizer__learning_rate=0.123), "--print_config"]) == 0
    (tmp_path / "printed.yaml").write_text(capsys.readouterr().out)
    assert main(["fit", "--config", "printed.yaml", "--model.optimizer.momentum", "0.5", "--print_config"]) == 0
    shown = capsys.readouterr().out
    assert "learning_rate: 0.123" in shown
    assert "momentum: 0.5" in shown
    assert not (tmp_path / "outputs").exists()


MISTAKES = {
    "unknown command": (["fitt"], "fitt: unknown command; nearest: fit"),
    "misspelt key": (["fit", "--data.batchsize", "3"], "data.batchsize: unknown setting (on the command line); nearest: data.batch_size"),
    "abbreviated key": (["fit", "--data.batch", "3"], "data.batch: unknown setting"),
    "misspelt trainer flag": (["fit", "--trainer.max_epoch", "3"], "nearest: trainer.max_epochs"),
    "out of range": (["fit", "--data.batch_size", "0"], "data.batch_size: 0 is not allowed (on the command line); allowed: an integer, 1 to 2048"),
    "wrong type": (["fit", "--trainer.max_epochs", "many"], "trainer.max_epochs: 'many' is not allowed"),
    "wrong type of a trainer flag": (
        ["fit", *flags(trainer__gradient_clip_val="abc")],
        "trainer.gradient_clip_val: 'abc' is not allowed (on the command line); allowed: a number, at least 0 or null",
    ),
    "min_lr at learning rate": (["fit", *flags(model__schedule__min_lr=0.008)], "model.schedule.min_lr: 0.008 is not allowed; it must be below"),
    "unknown data set": (["fit", "--data.dataset", "brestmnist"], "data.dataset: 'brestmnist' is unknown; nearest: breastmnist"),
    "unknown backbone": (["fit", *flags(model__backbone__name="resnet81")], "model.backbone.name: 'resnet81' is unknown; nearest: resnet18"),
    "unsupported resolution": (["fit", "--data.dataset", "breastmnist", "--data.resolution", "32"], "data.resolution: 32 is not offered by breastmnist; allowed: 28, 64, 128, 224"),
    "batch too large": (["fit", *flags(data__batch_size=65)], "data.batch_size: 65 leaves no training step"),
    "half precision on a CPU": (["fit", *flags(trainer__precision="16-mixed")], "trainer.precision: '16-mixed' needs a GPU"),
    "unknown accelerator": (["fit", *flags(trainer__accelerator="gppu")], "trainer: You selected an invalid accelerator name"),
    "unknown callback": (["fit", *flags(trainer__callbacks="Nothing")], "trainer.callbacks: the class Nothing does not exist"),
    "no published weights": (["fit", *flags(model__backbone__pretrained="true")], "no published weights for mini_cnn"),
    "missing weight file": (
        ["fit", *flags(model__backbone__pretrained="true", model__backbone__weights="none.pth")],
        "model.backbone.weights: 'none.pth' does not exist",
    ),
    "missing configuration": (["fit", "--config", "none.yaml"], "none.yaml: no such configuration file"),
    "missing value": (["fit", "--data.batch_size"], "--data.batch_size: needs a value"),
    "pictures without a flag": (
        ["predict", "a b.png", "new/"],
        "predict: a b.png needs the flag that says what it is; type: "
        "visionforge predict --run latest --images 'a b.png' new/",
    ),
    "pictures of a run": (["explain", "a.png", "--run", "x"], "type: visionforge explain --images a.png --run x"),
    "a run without a flag": (["test", "latest", "--json"], "type: visionforge test --run latest --json"),
    "a run and pictures": (["predict", "latest", "a.png"], "type: visionforge predict --run latest --images a.png"),
    "a run to export": (["export", "latest"], "type: visionforge export --run latest"),
    "no run yet": (["validate", "--run", "latest"], "--run: there are no runs in outputs; `visionforge fit` begins one"),
    "flag of nobody": (["fit", "--gpu"], "gpu: unknown setting (on the command line); nearest: trainer.devices"),
    "word of another tool": (["fit", "--model.optimizer.lr", "1"], "nearest: model.optimizer.learning_rate"),
    "nothing to train on": (["fit"], "fit: say what is trained on; type: visionforge fit --config quickstart"),
    "nothing to go on with": (["fit", "--resume", "auto"], "fit: say what is trained on"),
    "stray argument": (["test", "breastmnist"], "breastmnist: unexpected argument"),
    "stray argument of a fit": (["fit", "digits", "more"], "more: unexpected argument"),
    "missing checkpoint to continue": (["fit", *flags(), "--ckpt_path", "last"], "ckpt_path: last does not exist"),
    "nothing to evaluate": (["test", *flags()], "untrained weights are not evaluated"),
    "nothing to predict": (["predict"], "untrained weights are not evaluated"),
    "missing run": (["test", "--run", "outputs/none"], "outputs/none is no folder"),
    "missing checkpoint": (["test", "--ckpt_path", "none.ckpt"], "--ckpt_path: none.ckpt does not exist"),
    "best of nothing": (["validate", "--ckpt_path", "best"], "'best' needs --run FOLDER"),
    "unknown datasets command": (["datasets", "show-all"], "datasets: argument command: invalid choice"),
    "unknown data set to show": (["datasets", "info", "brest"], "nearest: breastmnist"),
    "nothing to check": (["datasets", "check", "digits"], "there is no archive to check"),
    "missing archive to check": (["datasets", "check", "bloodmnist", "--root", "."], "bloodmnist.npz: missing"),
    "smoke takes nothing": (["smoke", "--fast"], "smoke: unrecognized arguments: --fast"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_one_line(refuse, name):
    arguments, complaint = MISTAKES[name]
    (line,) = refuse(*arguments)
    assert complaint in line


def test_a_gpu_that_is_not_here_is_told_with_the_other_mistakes(refuse, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    given = ["--config", "quickstart", "--trainer.accelerator", "gpu", "--trainer.max_epoch", "3"]
    lines = refuse("fit", *given)
    assert lines[1:] == ["trainer.accelerator: gpu is not here; allowed here: auto, cpu"]


def test_all_mistakes_of_a_file_are_told_at_once(refuse, tmp_path):
    (tmp_path / "bad.yaml").write_text(
        "data: {batchsize: 12, dataset: digit, resolution: 3}\n"
        "model: {optimizer: {learning_rate: 2, nam: sgd}, mixup: 3, backbone: {name: resnet81}}\n"
        "trainer: {max_epoch: 3, max_epochs: 0}\nseed: 3\n"
    )
    lines = refuse("fit", "--config", "bad.yaml")
    starts = {line.split(":")[0] for line in lines}
    assert starts == {
        "data.batchsize",
        "data.dataset",
        "data.resolution",
        "model.optimizer.learning_rate",
        "model.optimizer.nam",
        "model.mixup",
        "model.backbone.name",
        "trainer.max_epoch",
        "trainer.max_epochs",
        "seed",
    }
    assert len(lines) == 10


def test_unknown_names_do_not_hide_other_mistakes(refuse):
    names = ["--data.dataset", "brestmnist", "--model.backbone.name", "resnet81", "--trainer.max_epoch", "3"]
    starts = sorted(line.split(":")[0] for line in refuse("fit", *names))
    assert starts == ["data.dataset", "model.backbone.name", "trainer.max_epoch"]


def test_mistake_in_a_file_names_the_file(refuse, tmp_path):
    (tmp_path / "bad.yaml").write_text("data: {batch_size: 0}\n")
    (line,) = refuse("fit", "--config", "bad.yaml")
    assert "(in bad.yaml)" in line


def test_debug_adds_the_traceback(capsys):
    assert main(["fit", "--data.batch_size", "0", "--debug"]) == 2
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert "error: data.batch_size" in shown


@pytest.mark.parametrize(
    "kind", ["missing", "truncated", "wrong MD5", "pickled", "wrong keys", "wrong dtype", "wrong shape", "labels"]
)
def test_bad_archive_leaves_nothing(refuse, archives, tmp_path, kind):
    folder = tmp_path / "archives"
    folder.mkdir()
    path, source = folder / "breastmnist.npz", archives / "breastmnist.npz"
    content = dict(np.load(source))
    match kind:
        case "truncated":
            path.write_bytes(source.read_bytes()[:100_000])
        case "wrong MD5":
            shutil.copyfile(source, path)
            with path.open("ab") as file:
                file.write(b"\0")
        case "pickled":
            content["train_labels"] = np.array([object()] * 546)
        case "wrong keys":
            content["training_images"] = content.pop("train_images")
        case "wrong dtype":
            content["train_images"] = content["train_images"].astype(np.float32)
        case "wrong shape":
            content["train_images"] = content["train_images"][:, :14]
        case "labels":
            content["train_labels"] = content["train_labels"] + 7
    if kind not in ("missing", "truncated", "wrong MD5"):
        np.savez(path, **content)
    (line,) = refuse(
        "fit", *flags(data__dataset="breastmnist", data__resolution=28, data__root=folder, data__download="false")
    )
    expected = {
        "missing": "missing, and data.download is false",
        "truncated": "no complete ZIP file",
        "wrong MD5": "MD5 is",
        "pickled": "pickle",
        "wrong keys": "missing keys: train_images",
        "wrong dtype": "dtype is float32",
        "wrong shape": "shape is (546, 14, 28)",
        "labels": "MD5 is",
    }
    assert expected[kind] in line
    assert "breastmnist.npz" in line


def test_offline_without_the_archive_is_one_line(refuse, tmp_path):
    from visionforge.data.download import ensure_archive
    from visionforge.data.info import Archive
    from visionforge.errors import DataError
    from visionforge.fetch import Retries

    archive = Archive(url="https://localhost:1/breastmnist.npz", md5="0" * 32)
    info = dataset_info("breastmnist").model_copy(update={"archives": {28: archive}})
    with pytest.raises(
        DataError, match=r"download failed .*place https://localhost:1/breastmnist.npz \(at most 3.3 MB, MD5 0+\) at"
    ):
        ensure_archive(info, 28, str(tmp_path / "archives"), download=True, retries=Retries(backoff_s=0.01))
    assert not (tmp_path / "archives").exists()


def test_damaged_checkpoint_is_one_line(refuse, quick_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(quick_run, run)
    (run / "checkpoints" / "best.ckpt").write_bytes(b"PK damaged")
    (line,) = refuse("test", "--run", str(run))
    assert "best.ckpt: cannot be read as a checkpoint" in line
    torch.save({"weights": 1}, run / "checkpoints" / "best.ckpt")
    (line,) = refuse("test", "--run", str(run))
    assert "it holds no state_dict" in line
    (run / "checkpoints" / "best.ckpt").unlink()
    (line,) = refuse("test", "--run", str(run))
    assert "the run has only last-previous.ckpt, last.ckpt" in line
    for name in ("last.ckpt", "last-previous.ckpt"):
        (run / "checkpoints" / name).unlink()
    (line,) = refuse("test", "--run", str(run))
    assert "no checkpoint, so it was not trained" in line
    (run / "config.yaml").unlink()
    (line,) = refuse("test", "--run", str(run))
    assert "holds no config.yaml" in line


def test_checkpoint_of_another_network_is_refused(refuse, quick_run):
    (line,) = refuse("test", "--run", str(quick_run), "--model.backbone.name", "resnet18")
    assert "model.backbone.name: resnet18 asked for, the checkpoint has mini_cnn" in line
    (line,) = refuse("test", "--run", str(quick_run), "--data.synthetic.classes", "6")
    assert "classes" in line


def test_outputs_that_cannot_be_written(refuse, tmp_path):
    (tmp_path / "file").write_text("")
    (line,) = refuse("fit", *flags(trainer__default_root_dir=tmp_path / "file"))
    assert "no run folder can be made here" in line


@pytest.mark.slow
def test_full_disk_leaves_nothing(tmp_path):
    """A real, full file system: a small tmpfs, where this machine lets us mount one."""
    with small_disk(tmp_path / "disk", "2m") as disk:
        done = subprocess.run(
            [sys.executable, "-m", "visionforge", "fit", *flags(trainer__default_root_dir=disk / "outputs")],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2, done.stderr
        assert "no disk space" in done.stderr
        assert "Traceback" not in done.stderr
        assert list(disk.iterdir()) == []


def test_readme_configurations_exist():
    for name in re.findall(r"configs/[a-z0-9_]+\.yaml", (REPOSITORY / "README.md").read_text() + USAGE):
        assert Path(REPOSITORY / name).is_file(), name
