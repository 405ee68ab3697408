"""Files that claim more than they hold: refused in a line before there is memory for it."""

import json
import os
import pickle
import shutil
import sqlite3
import zipfile

import optuna
import pytest
import torch
import yaml
from safetensors.torch import save_file

from tests.security.harness import attack, refused
from tests.security.test_run_folders import COMMANDS
from visionforge.cli.main import main
from visionforge.config.schema import ModelSettings
from visionforge.data.info import TaskSpec
from visionforge.data.registry import dataset_info
from visionforge.errors import WeightsError
from visionforge.inference.contract import KEY, Contract
from visionforge.models.build import require_brought
from visionforge.models.registry import backbone_names
from visionforge.models.tensor_files import load_tensors
from visionforge.models.weight_files import read_weight_file
from visionforge.tuning.stored import require_plain_database

pytestmark = pytest.mark.slow

LARGE = ("torchvision/vit_h_14", "torchvision/regnet_y_128gf", "timm/eva_giant_patch14_224")
BYTES = 3_000_000_000


@pytest.fixture
def theirs(quick_run, tmp_path):
    """A copy of a run beside a pictures archive, for a stranger to change."""
    import numpy as np

    shutil.copytree(quick_run, tmp_path / "theirs")
    np.savez(tmp_path / "pictures.npz", images=np.zeros((3, 28, 28, 3), np.uint8))
    return tmp_path / "theirs"


def told(capsys, *arguments):
    """Return the one line in which the command line refuses something."""
    capsys.readouterr()
    assert main(list(arguments)) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    return line


def sparse(path):
    path.unlink(missing_ok=True)
    with path.open("wb") as file:
        file.truncate(BYTES)


def row_of_a_mile(path):
    head = path.read_text().splitlines()[0]
    path.write_text(f'{head}\n"{"x" * 50}\n' * 40_000)  # a quotation that begins and does not end


# --- tables


@pytest.mark.parametrize("damage", [sparse, row_of_a_mile])
@pytest.mark.parametrize("table", ["predictions.csv", "metrics.csv"])
def test_a_run_whose_tables_are_endless_is_not_run_again(theirs, tmp_path, table, damage):
    damage(theirs / table)
    outcome = attack("reproduce", "theirs", "--check", folder=tmp_path, memory_mb=2_500)
    (line,) = refused(outcome)
    assert table in line
    assert "cannot be read as a table of the run" in line
    assert outcome.peak_mb < 600


@pytest.mark.parametrize("damage", [sparse, row_of_a_mile])
def test_a_comparison_says_which_table_is_endless(theirs, quick_run, tmp_path, damage):
    damage(theirs / "predictions.csv")
    shutil.copytree(quick_run, tmp_path / "mine")
    config = yaml.safe_load((tmp_path / "mine" / "config.yaml").read_text())
    config["model"]["optimizer"]["learning_rate"] = 0.5
    (tmp_path / "mine" / "config.yaml").write_text(yaml.safe_dump(config))
    outcome = attack("runs", "compare", "theirs", "mine", folder=tmp_path, memory_mb=4_500)
    assert outcome.status == 0, outcome.err
    assert "not comparable: " in outcome.out
    assert "predictions.csv: cannot be read" in " ".join(outcome.out.split())
    assert outcome.peak_mb < 1_500


@pytest.mark.parametrize("damage", [sparse, row_of_a_mile, lambda path: path.write_text("epoch\n1e999\n")])
@pytest.mark.parametrize("arguments", [["fit", "--resume", "theirs"], COMMANDS["test"]])
def test_a_table_of_epochs_is_bounded_wherever_it_is_taken_up(theirs, tmp_path, capsys, monkeypatch, damage, arguments):
    monkeypatch.chdir(tmp_path)
    manifest = json.loads((theirs / "run.json").read_text())
    (theirs / "run.json").write_text(json.dumps({**manifest, "state": "interrupted"}))
    damage(theirs / "metrics.csv")
    assert "metrics.csv: cannot be read as the table of epochs" in told(capsys, *arguments)


@pytest.mark.parametrize("content", ["[" * 100_000, "sparse", "fifo", "9" * 100_000])
def test_a_description_of_an_export_is_read_like_all_json(theirs, tmp_path, capsys, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "out" / "export.json"
    path.parent.mkdir()
    if content == "fifo":
        os.mkfifo(path)
    elif content == "sparse":
        sparse(path)
    else:
        path.write_text(content)
    line = told(capsys, *COMMANDS["export"], "--out", "out", "--overwrite")
    assert "export.json was not written by this command" in line


# --- networks


def _contract(backbone):
    spec = TaskSpec.of(dataset_info("retinamnist"), 28, force_rgb=True).model_copy(update={"resolution": 224})
    settings = ModelSettings.model_validate({"backbone": {"name": backbone, "pretrained": False}})
    return Contract(spec=spec, settings=settings, temperature=None)


@pytest.mark.parametrize("backbone", LARGE)
def test_a_weight_file_cannot_ask_for_a_network_that_it_does_not_hold(theirs, tmp_path, backbone):
    if backbone.startswith("timm/"):
        pytest.importorskip("timm")
    metadata = {KEY: _contract(backbone).model_dump_json()}
    save_file({"x": torch.zeros(100)}, str(tmp_path / "small.safetensors"), metadata=metadata)
    command = ["predict", "--model", "small.safetensors", "--images", "pictures.npz", "--accelerator", "cpu"]
    outcome = attack(*command, folder=tmp_path, memory_mb=6_000)
    (line,) = refused(outcome)
    assert f"small.safetensors: its tensors are not those of {backbone}: they have 400 bytes" in line
    assert outcome.peak_mb < 1_200


@pytest.mark.parametrize("views", [False, True])
@pytest.mark.parametrize("command", ["pictures", "export", "test of a file"])
def test_a_checkpoint_cannot_either(theirs, tmp_path, command, views):
    backbone = LARGE[0]
    if command == "test of a file":  # which looks at the resolution first, and this one takes any
        pytest.importorskip("timm")
        backbone = LARGE[2]
        (theirs / "config.yaml").unlink()
    path = theirs / "checkpoints" / "best.ckpt"
    content = torch.load(path, weights_only=True)
    content["hyper_parameters"]["backbone"]["name"] = backbone
    if views:  # the same thousand values again and again
        one = torch.zeros(1000)
        content["state_dict"] = {str(number): one.view(1000) for number in range(50_000)}
    torch.save(content, path)
    outcome = attack(*COMMANDS[command], folder=tmp_path, memory_mb=6_000)
    (line,) = refused(outcome)
    assert f"best.ckpt: its tensors are not those of {backbone}" in line
    assert outcome.peak_mb < 1_500


def test_every_network_of_torchvision_is_measured_without_memory():
    settings = ModelSettings().backbone
    for name in backbone_names("torchvision/*") + backbone_names():
        backbone = settings.model_copy(update={"name": name})
        with pytest.raises(WeightsError, match="are not those of"):
            require_brought(backbone, 3, 5, 224, {"x": torch.zeros(10)})


# --- tensors


def _legacy(path, change):
    """Write a file as torch did before 1.6, with another number of values than it holds."""
    torch.save({"x": torch.zeros(10)}, path, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    assert data.count(b"K\nN") == 1  # the size of the storage
    path.write_bytes(change(data))


def _claimed(data):
    count = (750_000_000).to_bytes(4, "little")
    return data.replace(b"K\nN", b"J" + count + b"N").replace(b"K\n\x85", b"J" + count + b"\x85")


class _Sized:
    def __reduce__(self):
        return bytearray, (BYTES,)


def _in_zip(path, data):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/DATA.PKL", data)
        archive.writestr("archive/version", "3\n")


@pytest.mark.parametrize("form", ["claimed", "sized, legacy", "sized, zip", "pickle", "shared lists"])
def test_a_file_of_tensors_makes_nothing_larger_than_itself(theirs, tmp_path, form):
    path = theirs / "checkpoints" / "best.ckpt"
    path.unlink()
    if form == "claimed":
        _legacy(path, _claimed)
    elif form == "sized, legacy":
        torch.save({"state_dict": {}, "x": _Sized()}, path, _use_new_zipfile_serialization=False)
    elif form == "sized, zip":
        _in_zip(path, pickle.dumps({"state_dict": {}, "x": _Sized()}, protocol=2))
    elif form == "pickle":
        path.write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2) + b"\x80\x02(" + b"]" * 30_000_000)
    else:
        lists = [0]
        for _ in range(30):
            lists = [lists, lists, lists]
        torch.save({"state_dict": {}, "x": lists}, path)
    outcome = attack(*COMMANDS["pictures"], folder=tmp_path, memory_mb=4_000, timeout_s=60)
    (line,) = refused(outcome)
    assert "best.ckpt" in line
    assert outcome.peak_mb < 1_200


def test_weights_of_the_old_format_are_still_read(tmp_path):
    state = {"a": torch.randn(7, 5), "b": torch.arange(3)}
    state["c"] = state["a"].T
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    found = read_weight_file(tmp_path / "old.pth")
    assert all(torch.equal(found[name], value) for name, value in state.items())


def test_members_that_overlap_are_larger_than_the_file(tmp_path):
    path = tmp_path / "x.pth"
    torch.save({"a": torch.zeros(1000)}, path)
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        size = archive.getinfo("x/data/0").file_size.to_bytes(4, "little")
    at = data.rfind(b"PK\x01\x02", 0, data.rfind(b"x/data/0"))
    path.write_bytes(data[:at] + data[at:].replace(size * 2, b"\xff\xff\xff\x00" * 2))
    with pytest.raises(ValueError, match="larger than the file"):
        load_tensors(path)


# --- studies

BOMB = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 100000000) SELECT n"
CHANGES = {
    "view": ["DROP TABLE studies", f"CREATE VIEW studies AS {BOMB} AS study_id, 'study' AS study_name FROM c"],
    "view of trials": ["DROP TABLE trials", f"CREATE VIEW trials AS {BOMB} AS trial_id, n AS number FROM c"],
    "trigger": [
        "CREATE TRIGGER t AFTER INSERT ON trials BEGIN "
        "INSERT INTO trial_user_attributes VALUES (1, 1, 'x', hex(zeroblob(500000000))); END"
    ],
    "virtual": ["DROP TABLE trial_params", "CREATE VIRTUAL TABLE trial_params USING fts5(x)"],
    "computed": [
        "DROP TABLE trial_user_attributes",
        'CREATE TABLE trial_user_attributes (trial_user_attribute_id INTEGER, trial_id INTEGER, "key" TEXT, '
        "value_json TEXT GENERATED ALWAYS AS (hex(zeroblob(400000000))))",
    ],
    "index": ["CREATE INDEX ix ON trials (hex(zeroblob(9)))"],
    "rows": [
        "INSERT INTO trial_values (trial_id, objective, value_type) "
        "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 2100000) SELECT n, n, 'FINITE' FROM c"
    ],
    "other table": ["CREATE TABLE other (x)"],
}


@pytest.fixture
def study(tmp_path):
    folder = tmp_path / "study"
    (folder / "database").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"trainer": {"max_epochs": 1}, "tune": {"storage": None}}))
    return folder


def _made(url):
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    made = optuna.create_study(storage=url, study_name="study", direction="maximize")
    made.add_trial(optuna.trial.create_trial(value=0.5))


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_database_holds_the_tables_of_optuna_and_nothing_else(study, tmp_path, capsys, monkeypatch, change):
    path = study / "database" / "study.db"
    _made(f"sqlite:///{path}")
    require_plain_database(path, 1.0, writable=False)
    with sqlite3.connect(path) as database:
        for sql in change:
            database.execute(sql)
    monkeypatch.chdir(tmp_path)
    assert "study.db: is no study as Optuna keeps it: " in told(capsys, "tune", "--report", "study")


def test_a_database_that_computes_takes_no_memory(study, tmp_path):
    path = study / "database" / "study.db"
    _made(f"sqlite:///{path}")
    with sqlite3.connect(path) as database:
        for sql in CHANGES["view"]:
            database.execute(sql)
    outcome = attack("tune", "--report", "study", folder=tmp_path, memory_mb=4_000, timeout_s=60)
    (line,) = refused(outcome)
    assert "it holds the view studies" in line
    assert outcome.peak_mb < 1_200


@pytest.mark.parametrize("storage", [None, "journal"])
def test_a_search_does_not_go_on_in_a_file_that_is_no_study(tmp_path, capsys, monkeypatch, storage):
    from tests.cli.test_tune import arguments

    folder = tmp_path / "outputs" / "studies" / "s" / "database"
    folder.mkdir(parents=True)
    if storage is None:
        with sqlite3.connect(folder / "study.db") as database:
            database.execute("CREATE VIEW studies AS SELECT hex(zeroblob(400000000)) AS study_name")
    else:
        (folder / "study.journal").write_bytes(b'{"op_code":0,"x":"' + bytes(2_000_000) + b'"}\n')
    line = told(capsys, "tune", *arguments(tmp_path / "outputs", tune__storage=storage or "null"))
    assert "is no study as Optuna keeps it" in line


@pytest.mark.parametrize("damage", ["sparse", "line"])
@pytest.mark.parametrize("name", ["study.db", "study.journal"])
def test_the_file_of_a_study_is_bounded(study, tmp_path, name, damage):
    storage = "journal" if name == "study.journal" else None
    (study / "config.yaml").write_text(yaml.safe_dump({"trainer": {"max_epochs": 1}, "tune": {"storage": storage}}))
    path = study / "database" / name
    sparse(path) if damage == "sparse" else path.write_bytes(bytes(50_000_000))
    outcome = attack("tune", "--report", "study", folder=tmp_path, memory_mb=4_000, timeout_s=60)
    (line,) = refused(outcome)
    assert name in line
    assert outcome.peak_mb < 1_200
