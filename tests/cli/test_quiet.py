"""Every command takes `--quiet`, and with `--json` its result is one JSON document with nothing beside it."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.cli.test_benchmark import arguments as cells
from tests.cli.test_help import GROUPS
from tests.conftest import flags, run_folders
from visionforge.cli.main import COMMANDS, main
from visionforge.engine import smoke

CPU = ["--trainer.accelerator", "cpu", "--evaluation.resamples", "50"]
FIT = flags(trainer__max_epochs=1)
CELL = cells("outputs", trainer__max_epochs=1)
WITH_JSON = {  # command → its shortest work; RUN and OTHER are runs
    "init": ["digits"],
    "fit": FIT,
    "fit --seeds 2": FIT,
    "fit --folds 2": FIT,
    "probe": ["--run", "RUN", "--probe.classifier", "knn", *CPU],
    "tune": [*FIT, "--tune.n_trials", "1", "--tune.preset", "quick", "--tune.refit", "false"],
    "benchmark": CELL,
    "benchmark --list": CELL,
    "validate": ["--run", "RUN", *CPU],
    "test": ["--run", "RUN", *CPU],
    "ensemble": ["RUN", "OTHER"],
    "predict": ["--run", "RUN", "--trainer.accelerator", "cpu"],
    "predict --images": ["pictures", "--run", "RUN", "--accelerator", "cpu"],
    "embed": ["--run", "RUN", "--split", "test", "--trainer.accelerator", "cpu"],
    "explain": ["--run", "RUN", "--images", "pictures", "--accelerator", "cpu"],
    "audit": ["digits", "--folds", "2", "--limit", "1"],
    "robustness": ["RUN", "--corruptions", "gaussian_noise", "--severities", "1", "--accelerator", "cpu"],
    "export": ["--run", "RUN", "--format", "safetensors"],
    "push": ["RUN", "me/net", "--folder", "published"],
    "pull": ["./pushed"],
    "runs list": [],
    "runs show": ["RUN"],
    "runs diff": ["RUN", "OTHER"],
    "runs compare": ["RUN", "OTHER", "--resamples", "50"],
    "runs page": [],
    "runs clean": ["--incomplete"],
    "reproduce": ["RUN", "--check"],
    "explain-setting": ["model.mixup.alpha"],
    "submit": ["--print", "--", "fit", "--config", "quickstart"],
    "doctor": [],
    "datasets list": [],
    "datasets info": ["digits"],
    "datasets download": ["ours"],
    "datasets check": ["ours"],
    "datasets stats": ["digits"],
    "datasets show": ["digits"],
    "datasets import": ["pictures", "--name", "mine", "--resolution", "16"],
    "datasets shard": ["digits", "--name", "shards"],
    "datasets remove": ["ours"],
    "models list": ["mini_*"],
    "models info": ["mini_cnn", "--resolution", "28"],
    "smoke": [],
}
SCRIPTS = {"completion": ["bash"]}  # whose result is a text
ENDLESS = ("serve",)  # whose results go over the network


@pytest.fixture(autouse=True)
def outputs(monkeypatch, tmp_path):
    """Runs go into the working folder, whatever lies above it."""
    monkeypatch.setenv("VISIONFORGE_OUTPUTS", str(tmp_path / "outputs"))


@pytest.fixture
def place(plain_run, tmp_path, monkeypatch):
    """A working folder with two runs, pictures, a data set and a published network; one stage is all of a smoke."""
    for name in ("RUN", "OTHER"):
        shutil.copytree(plain_run, tmp_path / "outputs" / name)
    for k in range(12):
        (tmp_path / "pictures" / "ab"[k % 2]).mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(k).integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / "ab"[k % 2] / f"{k}.png")
    for name in [name for name in smoke.STAGES if name != "data"]:
        monkeypatch.delitem(smoke.STAGES, name)
    return tmp_path


def prepared(name: str) -> None:
    if name in ("datasets download", "datasets check", "datasets remove"):
        assert main(["datasets", "import", "pictures", "--name", "ours", "--resolution", "16"]) == 0
    elif name == "pull":
        assert main(["push", "RUN", "me/net", "--folder", "pushed"]) == 0


def test_every_command_is_looked_at():
    assert {name.split()[0] for name in (*WITH_JSON, *SCRIPTS, *ENDLESS)} == set(COMMANDS)
    for name, module in GROUPS.items():
        choices = module.subcommands().parser._subparsers._group_actions[0].choices
        assert {f"{name} {choice}" for choice in choices} <= set(WITH_JSON)


@pytest.mark.parametrize("name", WITH_JSON)
def test_result_is_one_json_document_and_nothing_else_is_told(place, capsys, name):
    prepared(name)
    words, rest = name.split(), WITH_JSON[name]
    cut = rest.index("--") if "--" in rest else len(rest)
    capsys.readouterr()
    assert main([*words, *rest[:cut], "--json", "--quiet", *rest[cut:]]) == 0
    told = capsys.readouterr()
    json.loads(told.out)
    assert [line for line in told.err.splitlines() if "warning: " not in line] == []


def test_the_result_of_a_fit_is_that_of_its_folder_and_the_log_goes_to_standard_error(tmp_path, capsys):
    assert main(["fit", *FIT, "--json"]) == 0
    told = capsys.readouterr()
    found = json.loads(told.out)
    (run,) = run_folders(tmp_path / "outputs")
    content = json.loads((run / "metrics.json").read_text())
    assert (found["path"], found["run"], found["state"]) == (str(run), run.name, "complete")
    assert found["content"] == content
    assert found["metrics"]["accuracy"] == content["with_tta" if "with_tta" in content else "without_tta"]["accuracy"]
    assert found["checkpoint"] == str(run / "checkpoints" / "best.ckpt")
    assert "epoch 1, loss" in told.err
    assert "metric" not in told.err  # the table


def test_what_is_told_on_the_way_goes_to_standard_error(tmp_path, capsys):
    assert main(["fit", *FIT, "--seeds", "1,2", "--json"]) == 0
    told = capsys.readouterr()
    found = json.loads(told.out)
    assert {run["path"] for run in found["runs"]} == {str(run) for run in run_folders(tmp_path / "outputs")}
    assert found["comparison"]["runs"] == [run["run"] for run in found["runs"]]
    assert "seed 2 (2 of 2)" in told.err


def test_a_quiet_command_leaves_its_files_and_tells_of_warnings_and_errors_only(tmp_path, capsys):
    assert main(["fit", *FIT, "--quiet", "--trainer.enable_progress_bar", "true"]) == 0
    told = capsys.readouterr()
    assert (told.out, [line for line in told.err.splitlines() if "warning: " not in line]) == ("", [])
    (run,) = run_folders(tmp_path / "outputs")
    assert " INFO " in (run / "run.log").read_text()
    assert main(["runs", "list", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    (tmp_path / "outputs" / "damaged").mkdir()
    (tmp_path / "outputs" / "damaged" / "run.json").write_text("{")
    assert main(["runs", "list", "--quiet"]) == 0
    assert "warning: " in capsys.readouterr().err
    assert main(["--quiet", "fit", "--data.batch_size", "0"]) == 2
    assert capsys.readouterr().err.startswith("error: data.batch_size: 0 is not allowed")
    assert main(["runs", "list"]) == 0
    assert run.name in capsys.readouterr().out  # it was quiet for one command


@pytest.mark.parametrize(
    "arguments",
    [["--version"], ["--help"], ["fit", "--help"], ["runs", "--help"], ["fit", *FIT, "--print_config"]]
    + [[name, *rest] for name, rest in SCRIPTS.items()],
)
def test_a_quiet_command_prints_the_text_that_is_asked_for(capsys, arguments):
    assert main(arguments) == 0
    told = capsys.readouterr().out
    assert main([*arguments, "--quiet"]) == 0
    assert capsys.readouterr() == (told, "")


def test_flags_of_a_submitted_command_stay_with_it(capsys):
    command = ["fit", "--config", "quickstart", "--quiet", "--debug", "--json"]
    assert main(["submit", "--print", "--", *command]) == 0
    assert " ".join(command) in capsys.readouterr().out
