"""Lightning's experiment loggers receive the settings, the epochs, the final metrics, the figures and the report."""

import csv
import json
import shutil
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import matplotlib.image
import openpyxl
import pytest
import yaml
from lightning.pytorch.loggers import Logger

from tests.conftest import flags, run_folders
from visionforge.cli.main import main
from visionforge.engine.loggers import LONGEST_VALUE, final_metrics, hyperparameters
from visionforge.runs.config_hash import digest

SHOWN = {"evaluation__figures": "true", "evaluation__report": "true", "evaluation__figure_dpi": 72}
HIDDEN = ["--evaluation.figures", "false", "--evaluation.report", "false"]
EPOCHS = 2
STEPS = 8  # two epochs of 64 images, 16 at a time


def fit(outputs: Path, *arguments: str, **changes: object) -> Path:
    """Fit with quick settings and return the only run folder."""
    assert main(["fit", *flags(trainer__default_root_dir=outputs, **changes), *arguments]) == 0
    (run,) = run_folders(outputs)
    return run


def config_file(folder: Path, *loggers: tuple[str, dict]) -> list[str]:
    """Write a configuration of these loggers and return the arguments that read it."""
    chosen = [{"class_path": f"lightning.pytorch.loggers.{name}", "init_args": given} for name, given in loggers]
    path = folder / "loggers.yaml"
    path.write_text(yaml.safe_dump({"trainer": {"logger": chosen}}))
    return ["--config", str(path)]


def reported(run: Path) -> dict[str, float]:
    """Return the final metrics of a run, read from its file without the code that is tested."""
    content = json.loads((run / "metrics.json").read_text())
    names = {"test": content["without_tta"], "test_tta": content["with_tta"]}
    return {f"{prefix}/{key}": value for prefix, block in names.items() for key, value in block.items()}


def epochs(run: Path, column: str) -> list[float]:
    with (run / "metrics.csv").open(newline="") as file:
        return [float(row[column]) for row in csv.DictReader(file)]


def pictures(run: Path) -> set[str]:
    names = {path.stem for path in (run / "figures").glob("*.png")}
    assert {"training_curves", "confusion_matrix"} <= names
    return names


@pytest.fixture(scope="module")
def csv_run(tmp_path_factory) -> tuple[Path, Path]:
    """A run with a CSVLogger of the command line, and the folder of the logger."""
    folder = tmp_path_factory.mktemp("csv")
    chosen = ["--trainer.logger=CSVLogger", f"--trainer.logger.save_dir={folder / 'logs'}", "--trainer.logger.name=vf"]
    return fit(folder / "outputs", *chosen, **SHOWN), folder / "logs" / "vf" / "version_0"


def test_csv_from_the_command_line(csv_run):
    run, logs = csv_run
    with (logs / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["val/auc"]) for row in rows if row["val/auc"]] == pytest.approx(epochs(run, "val/auc"), abs=1e-5)
    (last,) = [row for row in rows if row["test/accuracy"]]
    assert {key: float(last[key]) for key in reported(run)} == pytest.approx(reported(run))
    settings = yaml.safe_load((logs / "hparams.yaml").read_text())
    assert settings["model.optimizer.learning_rate"] == pytest.approx(
        yaml.safe_load((run / "config.yaml").read_text())["model"]["optimizer"]["learning_rate"]
    )
    assert settings["run.name"] == run.name
    assert run.name.endswith(settings["run.hash"])
    for name in pictures(run):
        assert (logs / "figures" / f"{name}.png").read_bytes() == (run / "figures" / f"{name}.png").read_bytes()
    for name in ("report.html", "reports/training_summary.xlsx"):
        assert (logs / name).read_bytes() == (run / name).read_bytes()


def test_identity_does_not_depend_on_the_logger(csv_run):
    config = yaml.safe_load((csv_run[0] / "config.yaml").read_text())
    assert config["trainer"]["logger"]
    without = {**config, "trainer": {key: value for key, value in config["trainer"].items() if key != "logger"}}
    assert csv_run[0].name.endswith(digest(without))


@pytest.fixture
def copied(csv_run, tmp_path) -> tuple[Path, Path]:
    """A copy of that run, to be evaluated, and the logger's folder of the original."""
    shutil.copytree(csv_run[0], tmp_path / csv_run[0].name)
    return tmp_path / csv_run[0].name, csv_run[1]


def test_evaluation_does_not_log_where_the_fit_did(copied):
    run, logs = copied
    before = {path: path.read_bytes() for path in logs.parent.rglob("*") if path.is_file()}
    for stage in ("test", "validate", "predict"):
        assert main([stage, "--run", str(run), *HIDDEN]) == 0
    assert {path: path.read_bytes() for path in logs.parent.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(("stage", "split"), [("test", "test"), ("validate", "val")])
def test_evaluation_logs_where_it_is_told_to(copied, tmp_path, stage, split):
    run, _ = copied
    chosen = ["--trainer.logger=CSVLogger", "--trainer.logger.save_dir=again", "--trainer.logger.name=vf"]
    assert main([stage, "--run", str(run), *HIDDEN, *chosen]) == 0
    logs = tmp_path / "again" / "vf" / "version_0"
    settings = yaml.safe_load((logs / "hparams.yaml").read_text())
    assert (settings["run.name"], settings["run.stage"]) == (run.name, stage)
    with (logs / "metrics.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    (folder,) = (run / "evaluations").iterdir()
    content = json.loads((folder / "metrics.json").read_text())
    assert float(row[f"{split}/accuracy"]) == pytest.approx(content["without_tta"]["accuracy"])


@pytest.mark.slow
def test_mlflow_and_another_from_a_file(tmp_path):
    tracking = pytest.importorskip("mlflow.tracking")
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    chosen = {"experiment_name": "vf", "tracking_uri": store, "artifact_location": (tmp_path / "kept").as_uri()}
    arguments = config_file(tmp_path, ("MLFlowLogger", chosen), ("CSVLogger", {"save_dir": "logs", "name": "vf"}))
    run = fit(tmp_path / "outputs", *arguments, **SHOWN)
    client = tracking.MlflowClient(store)
    (found,) = client.search_runs([client.get_experiment_by_name("vf").experiment_id])
    assert found.info.status == "FINISHED"
    assert found.data.params["data.synthetic.train"] == "64"
    assert found.data.params["model.backbone.name"] == "mini_cnn"
    assert found.data.params["run.name"] == run.name
    assert run.name.endswith(found.data.params["run.hash"])
    assert not any(store in value for value in found.data.params.values())
    for name in ("train/loss", "val/loss", "val/auc", "lr"):
        history = client.get_metric_history(found.info.run_id, name)
        assert [point.value for point in history] == pytest.approx(epochs(run, name), rel=1e-4), name
        assert len({point.step for point in history}) == EPOCHS
    assert {key: found.data.metrics[key] for key in reported(run)} == pytest.approx(reported(run))
    (point,) = client.get_metric_history(found.info.run_id, "test/accuracy")
    assert point.step == STEPS
    artifacts = Path(client.download_artifacts(found.info.run_id, "", str(tmp_path)))
    assert {path.stem for path in (artifacts / "figures").iterdir()} == pictures(run)
    assert matplotlib.image.imread(artifacts / "figures" / "confusion_matrix.png").std() > 0.02
    assert run.name in (artifacts / "report.html").read_text(encoding="utf-8")
    assert openpyxl.load_workbook(artifacts / "reports" / "training_summary.xlsx").sheetnames
    assert (tmp_path / "logs" / "vf" / "version_0" / "metrics.csv").is_file()


def test_mlflow_run_goes_on_with_its_parameters(tmp_path):
    pytest.importorskip("mlflow")
    from lightning.pytorch.loggers import MLFlowLogger

    from visionforge.engine.loggers import log_hyperparameters

    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    first = MLFlowLogger(tracking_uri=store)
    log_hyperparameters([first], {"trainer": {"devices": 1}, "weights": {"naïve (A&B)": 2.0}}, {})
    again = MLFlowLogger(tracking_uri=store, run_id=first.run_id)
    log_hyperparameters([again], {"trainer": {"devices": 2, "max_epochs": 3}}, {})
    stored = again.experiment.get_run(first.run_id).data.params
    assert stored == {"trainer.devices": "1", "weights.na_ve _A_B_": "2.0", "trainer.max_epochs": "3"}


@pytest.mark.slow
def test_tensorboard_from_a_file(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    run = fit(tmp_path / "outputs", *config_file(tmp_path, ("TensorBoardLogger", {"save_dir": "tb"})), **SHOWN)
    logs = tmp_path / "tb" / "lightning_logs" / "version_0"
    events = EventAccumulator(str(logs), size_guidance={"images": 0, "scalars": 0}).Reload()
    points = events.Scalars("val/auc")
    assert [point.value for point in points] == pytest.approx(epochs(run, "val/auc"), rel=1e-4)
    for name, value in reported(run).items():
        (point,) = events.Scalars(name)
        assert (point.value, point.step) == (pytest.approx(value, rel=1e-5), STEPS)
    assert events.Scalars("hp_metric")[-1].value == pytest.approx(reported(run)["test_tta/auc"])
    assert set(events.Tags()["images"]) == {f"figures/{name}" for name in pictures(run)}
    (image,) = events.Images("figures/confusion_matrix")
    height, width = matplotlib.image.imread(run / "figures" / "confusion_matrix.png").shape[:2]
    assert (image.height, image.width) == (height, width)
    plugin = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    settings = HParamsPluginData.FromString(plugin).session_start_info.hparams
    assert settings["model.backbone.name"].string_value == "mini_cnn"
    assert settings["trainer.max_epochs"].number_value == EPOCHS
    assert settings["run.name"].string_value == run.name
    for name in ("report.html", "reports/training_summary.xlsx"):
        assert (logs / name).read_bytes() == (run / name).read_bytes()


def wandb_records(content: bytes) -> Iterator[bytes]:
    """Yield the records of an offline run: LevelDB's log format after a header of seven bytes."""
    position, block, record = 7, 32768, b""
    while position + 7 <= len(content):
        if block - position % block < 7:  # no room for a header: the rest of the block is empty
            position += block - position % block
            continue
        length, kind = struct.unpack_from("<HB", content, position + 4)
        record += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


@pytest.mark.slow
def test_wandb_offline(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "wb"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    (tmp_path / "wb").mkdir()
    chosen = {"project": "vf", "save_dir": str(tmp_path / "wb")}
    run = fit(tmp_path / "outputs", *config_file(tmp_path, ("WandbLogger", chosen)), **SHOWN)
    assert wandb.run is None  # so that the next fit of this process gets its own
    (folder,) = (tmp_path / "wb" / "wandb").glob("offline-run-*")
    assert {path.name.rpartition("_")[0].rpartition("_")[0] for path in (folder / "files").rglob("*.png")} == pictures(
        run
    )
    assert next((folder / "files").rglob("report_*.html")).read_text() == (run / "report.html").read_text()
    copy = folder / "files" / "reports" / "training_summary.xlsx"
    assert copy.read_bytes() == (run / "reports" / "training_summary.xlsx").read_bytes()
    assert not copy.is_symlink()

    (file,) = folder.glob("*.wandb")
    history, settings = [], {}
    for data in wandb_records(file.read_bytes()):
        record = Record.FromString(data)
        items = {item.key or ".".join(item.nested_key): item.value_json for item in record.history.item}
        history += [items] if items else []
        for update in (record.run.config.update, record.config.update):
            settings |= {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in update}
    seen = [float(items["val/auc"]) for items in history if "val/auc" in items]
    assert seen == pytest.approx(epochs(run, "val/auc"), rel=1e-4)
    (last,) = [items for items in history if "test/accuracy" in items]
    assert {key: float(last[key]) for key in reported(run)} == pytest.approx(reported(run))
    assert settings["model.backbone.name"] == "mini_cnn"
    assert settings["run.name"] == run.name


class OfSomebody(Logger):
    """A logger that visionforge does not know; it keeps what it is given."""

    name = "somebody"
    version = 0
    settings: dict = {}  # noqa: RUF012 - the test looks into it from outside
    metrics: dict = {}  # noqa: RUF012

    def log_hyperparams(self, params, *args, **kwargs):
        self.settings.update(params)

    def log_metrics(self, metrics, step=None):
        self.metrics.update(metrics)


class FullDisk(OfSomebody):
    """A logger whose disk is full as soon as there is something to write."""

    def log_metrics(self, metrics, step=None):
        raise OSError(28, "No space left on device")

    def finalize(self, status):
        raise OSError(28, "No space left on device")


class Away(OfSomebody):
    """A logger whose server does not answer."""

    def log_hyperparams(self, params, *args, **kwargs):
        raise ConnectionError("no answer\nfrom tracking.example")


def test_unknown_logger_gets_settings_and_metrics(tmp_path):
    run = fit(tmp_path / "outputs", f"--trainer.logger={__name__}.OfSomebody")
    assert OfSomebody.settings["run.name"] == run.name
    assert {key: OfSomebody.metrics[key] for key in reported(run)} == pytest.approx(reported(run))
    assert {"val/auc", "train/loss"} <= set(OfSomebody.metrics)
    text = (run / "run.log").read_text()
    assert text.count("OfSomebody receives settings and metrics; figures and report stay in the run") == 1


def test_logger_that_fails_does_not_end_the_run(tmp_path):
    run = fit(tmp_path / "outputs", f"--trainer.logger={__name__}.FullDisk")
    assert json.loads((run / "run.json").read_text())["state"] == "complete"
    assert (run / "metrics.json").is_file()
    warnings = [line for line in (run / "run.log").read_text().splitlines() if "WARNING" in line]
    assert all("trainer.logger: FullDisk: " in line and "No space left" in line for line in warnings)
    told = [line.partition("FullDisk: ")[2].partition(" (")[0] for line in warnings]
    assert told == [
        "log_metrics has failed, the training goes on",
        "finalize has failed, the training goes on",
        "it lacks some of the results",
        "its run may be incomplete",
    ]


def test_logger_that_cannot_begin_is_told_before_the_training(refuse, tmp_path):
    arguments = flags(trainer__default_root_dir=tmp_path / "outputs")
    (line,) = refuse("fit", *arguments, f"--trainer.logger={__name__}.Away")
    assert line.startswith("trainer.logger: Away cannot be used (no answer from tracking.example)")


@pytest.mark.parametrize(
    ("name", "packages", "extra"),
    [
        ("WandbLogger", ["wandb"], "wandb"),
        ("MLFlowLogger", ["mlflow"], "mlflow"),
        ("TensorBoardLogger", ["tensorboard", "tensorboardX"], "tensorboard"),
    ],
)
def test_missing_package_is_one_line(refuse, tmp_path, monkeypatch, name, packages, extra):
    for package in packages:
        monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    arguments = config_file(tmp_path, ("CSVLogger", {"save_dir": "logs"}), (name, {"save_dir": "logs"}))
    (line,) = refuse("fit", *flags(trainer__default_root_dir=tmp_path / "outputs"), *arguments)
    assert line.startswith(f"trainer.logger: {name} needs the package {packages[0]}, which is not installed")
    assert f'pip install "visionforge-lightning[{extra}]"' in line


def test_mistake_in_a_logger_is_one_line(refuse, tmp_path):
    pytest.importorskip("wandb")
    arguments = config_file(tmp_path, ("WandbLogger", {"offline": True, "log_model": True}))
    (line,) = refuse("fit", *flags(trainer__default_root_dir=tmp_path / "outputs"), *arguments)
    assert line.startswith("trainer.logger: Providing log_model=True and offline=True is an invalid configuration")


@pytest.mark.slow
def test_every_trial_has_its_own_version(tmp_path):
    chosen = ["--trainer.logger=CSVLogger", "--trainer.logger.save_dir=logs", "--trainer.logger.name=vf"]
    space = yaml.safe_dump({"tune": {"n_trials": 2, "sampler": "random", "pruner": "none"}})
    (tmp_path / "tune.yaml").write_text(space)
    arguments = flags(trainer__default_root_dir=tmp_path / "outputs", trainer__max_epochs=1)
    assert main(["tune", "--config", "tune.yaml", *arguments, *chosen]) == 0
    versions = sorted((tmp_path / "logs" / "vf").iterdir())
    settings = [yaml.safe_load((path / "hparams.yaml").read_text()) for path in versions]
    assert [entry["run.trial"] for entry in settings] == [0, 1]
    assert len({entry["model.optimizer.learning_rate"] for entry in settings}) == 2
    for path in versions:
        header = (path / "metrics.csv").read_text().splitlines()[0]
        assert "val/auc" in header
        assert "test/" not in header  # a trial does not see the test split


def test_hyperparameters_are_flat_and_short():
    config = {"a": {"b": 1, "none": None, "empty": {}}, "list": [1, 2], "trainer": {"logger": "secret", "devices": "x"}}
    values = hyperparameters({**config, "long": "y" * 7000}, {"run.name": "r"})
    long = values.pop("long")
    assert values == {
        "a.b": 1,
        "a.none": "null",
        "a.empty": "{}",
        "list": "[1, 2]",
        "trainer.devices": "x",
        "run.name": "r",
    }
    assert len(long) == LONGEST_VALUE
    assert long.endswith("…")


def test_final_metrics_are_finite_numbers():
    content = {"split": "val", "without_tta": {"auc": float("nan"), "loss": 1, "note": "x", "no": None, "yes": True}}
    assert final_metrics({**content, "with_tta": None}) == {"val/loss": 1.0}
