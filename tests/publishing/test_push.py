"""`visionforge push`: what is published of a run and what is not; one commit or none; nothing of others is replaced."""

import getpass
import hashlib
import json
import shutil
import socket
from pathlib import Path

import pytest
import yaml

import visionforge as vf
from tests.publishing.hub_server import TOKEN
from visionforge.cli.main import main
from visionforge.config.publishable import last_part, publishable
from visionforge.errors import RunError, SettingsError
from visionforge.inference.contract import contract_of
from visionforge.publishing.layout import ARTIFACTS, MOST_MODEL

NAME = "me/net"
FILES = {"README.md", "config.json", "config.yaml", "metrics.json", "model.safetensors", "visionforge.json"}


def pushed(hub, name=NAME, branch="main"):
    return hub.repositories[name].files(branch)


def push(run, *arguments: str) -> int:
    return main(["push", str(run), NAME, *arguments])


def writes(hub) -> list[str]:
    """Return the requests that change something."""
    return [each for each in hub.requests if each.startswith(("POST", "PUT")) and "validate" not in each]


@pytest.fixture
def own_run(plain_run, tmp_path):
    return shutil.copytree(plain_run, tmp_path / "outputs" / plain_run.name, symlinks=True)


# --- what is published


def test_a_folder_holds_what_is_needed_and_nothing_else(published, plain_run):
    assert {path.name for path in published.iterdir()} == FILES
    listed = json.loads((published / "visionforge.json").read_text())
    for each in listed["files"]:
        content = (published / each["file"]).read_bytes()
        assert (each["bytes"], each["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert {each["file"] for each in listed["files"]} == FILES - {"visionforge.json"}
    assert (listed["format"], listed["run"], listed["checkpoint"]) == (1, plain_run.name, "best.ckpt")
    (artifact,) = listed["artifacts"]
    assert artifact["parity"]["largest_deviation"] < 1e-4
    assert artifact["parity"]["source"] == "synthetic, test split"


def test_the_card_is_one_that_the_hub_reads(published, plain_run):
    cards = pytest.importorskip("huggingface_hub").ModelCard
    card = cards.load(published / "README.md")
    data, metrics = card.data, json.loads((plain_run / "metrics.json").read_text())
    assert (data.library_name, data.pipeline_tag, data.license) == ("visionforge", "image-classification", None)
    assert data.datasets == ["synthetic"]
    assert set(data.tags) == {"visionforge", "mini_cnn", "multi-class"}
    found = {each.metric_type: each for each in data.eval_results}
    assert found["accuracy"].metric_value == pytest.approx(metrics["with_tta"]["accuracy"], abs=1e-6)
    assert found["roc_auc"].metric_value == pytest.approx(metrics["with_tta"]["auc"], abs=1e-6)
    assert {(each.dataset_type, each.dataset_split) for each in data.eval_results} == {("synthetic", "test")}
    assert "## The artifact against the network" in card.text
    assert "visionforge pull me/net" in card.text


def test_settings_of_the_command_are_in_the_files(plain_run, tmp_path):
    pytest.importorskip("onnxruntime")
    both = ("--format", "onnx", "--format", "safetensors", "--license", "cc-by-4.0")
    assert main(["push", str(plain_run), "--folder", "out", *both]) == 0
    assert {path.name for path in Path("out").iterdir()} == FILES | {"model.onnx"}
    text = (tmp_path / "out" / "README.md").read_text()
    front = yaml.safe_load(text.split("---\n")[1])
    assert (front["license"], front["model-index"][0]["name"]) == ("cc-by-4.0", plain_run.name)
    assert "visionforge pull" not in text
    assert text.count("test split) |") == 2


def test_published_settings_train_the_same_network_again(published, plain_run):
    ours = yaml.safe_load((published / "config.yaml").read_text())
    theirs = yaml.safe_load((plain_run / "config.yaml").read_text())
    assert ours["model"] == theirs["model"]
    assert ours["seed_everything"] == theirs["seed_everything"]
    assert not {"tune", "benchmark", "imports", "ckpt_path"} & set(ours)
    assert main(["fit", "--config", str(published / "config.yaml"), "--trainer.max_epochs", "1", "--print_config"]) == 0


def test_nothing_depends_on_when_and_where_it_is_written(plain_run, published, tmp_path):
    assert main(["push", str(plain_run), NAME, "--folder", str(tmp_path / "again")]) == 0
    for name in FILES:
        assert (tmp_path / "again" / name).read_bytes() == (published / name).read_bytes(), name


SECRETS = ("alice", "hospital", "pw0", "tok0", "photo_of_a_patient", "Ward 7")


def test_no_secret_path_host_or_person_leaves(own_run):
    """Planted wherever a run may hold one: settings, results, weights, the manifest."""
    import torch

    config = yaml.safe_load((own_run / "config.yaml").read_text())
    config["trainer"] |= {
        "default_root_dir": "/home/alice/out",
        "logger": [{"class_path": "MLFlowLogger", "init_args": {"tracking_uri": "http://tok0@mlflow.hospital:5000"}}],
        "callbacks": [
            {"class_path": "my.Callback", "init_args": {"path": "/home/alice/x"}},
            {"class_path": "EarlyStopping", "init_args": {"monitor": "val/auc"}},
        ],
        "plugins": "alice.Plugin",
    }
    config |= {"imports": ["/home/alice/own.py"], "tune": {"storage": "postgresql://alice:pw0@db.hospital/x"}}
    config["model"]["backbone"]["weights"] = "/home/alice/weights/imagenet.pth"
    config["model"]["distillation"]["teacher"] = "project://alice/teacher"
    config["data"]["root"] = "//nas.hospital/share"
    (own_run / "config.yaml").write_text(yaml.safe_dump(config))
    metrics = json.loads((own_run / "metrics.json").read_text())
    metrics |= {"subgroups": {"columns": {"site": {"Ward 7": {}}}}, "warnings": ["site Ward 7 is far apart"]}
    (own_run / "metrics.json").write_text(json.dumps(metrics))
    with (own_run / "predictions.csv").open("a") as file:
        file.write("photo_of_a_patient\n")
    checkpoint = own_run / "checkpoints" / "best.ckpt"
    content = torch.load(checkpoint, weights_only=True)
    content["hyper_parameters"]["backbone"]["weights"] = "/home/alice/weights/imagenet.pth"
    content["hyper_parameters"]["distillation"]["teacher"] = "/home/alice/outputs/teacher"
    torch.save(content, checkpoint)

    assert main(["push", str(own_run), "--folder", "out"]) == 0
    told = b"".join(path.read_bytes() for path in Path("out").iterdir())
    for secret in (*SECRETS, str(Path.home()), str(own_run.parent), str(Path.cwd())):
        assert secret.encode() not in told, secret
    texts = [path.read_text() for path in Path("out").iterdir() if path.suffix != ".safetensors"]
    words = {word for text in texts for word in text.split()}
    assert not {socket.gethostname(), getpass.getuser()} & words
    written = yaml.safe_load(Path("out/config.yaml").read_text())
    assert written["model"]["backbone"]["weights"] == "imagenet.pth"
    assert written["model"]["distillation"]["teacher"] == "teacher"
    assert written["trainer"]["callbacks"] == [{"class_path": "EarlyStopping", "init_args": {"monitor": "val/auc"}}]
    assert "| pretrained weights | imagenet.pth |" in Path("out/README.md").read_text()


@pytest.mark.parametrize(
    ("place", "left"),
    [
        ("/home/alice/x.pth", "x.pth"),
        ("~alice", "…"),
        ("~/weights/x.pth", "x.pth"),
        (r"C:\Users\alice\x.pth", "x.pth"),
        (r"\\nas\alice\x.pth", "x.pth"),
        ("../alice/..", "alice"),
        ("https://tok0@host.hospital", "…"),
        ("https://host.hospital/a/x.pth?token=tok0#sha256=12", "x.pth"),
        ("project://alice/x.pth", "x.pth"),
        ("hf-hub:owner/net@main", "hf-hub:owner/net@main"),
        ("hf-hub:/home/alice/net", "net"),
        ("IMAGENET1K_V1", "IMAGENET1K_V1"),
    ],
)
def test_of_a_place_the_last_part_is_left(place, left):
    assert last_part(place) == left


def test_names_with_a_slash_are_no_places():
    model = {"backbone": {"name": "timm/resnet18", "weights": None}, "monitor": "val/auc"}
    assert publishable({"model": model, "data": {"dataset": "x", "root": "/a"}}) == {
        "model": model,
        "data": {"dataset": "x"},
    }


def test_exports_tell_no_places_either():
    from tests.evaluation.test_explain import model_of

    model = model_of("mini_cnn")
    backbone = model.settings.backbone.model_copy(update={"weights": "/home/alice/x.pth"})
    model.settings = model.settings.model_copy(update={"backbone": backbone})
    assert contract_of(model, "uint8", None, None, None).settings.backbone.weights == "x.pth"


# --- runs that are not published


@pytest.mark.parametrize("state", ["running", "interrupted", "failed", "pruned"])
def test_a_run_that_did_not_end_well_is_refused(own_run, refuse, state):
    manifest = json.loads((own_run / "run.json").read_text())
    (own_run / "run.json").write_text(json.dumps({**manifest, "state": state}))
    (line,) = refuse("push", str(own_run), "--folder", "out")
    assert line.startswith(f"run: outputs/{own_run.name} is ")
    assert "a complete run is published" in line


def test_a_run_without_a_network_is_refused(own_run, refuse):
    (own_run / "checkpoints" / "best.ckpt").unlink()
    (line,) = refuse("push", str(own_run), "--folder", "out")
    assert "has no checkpoints/best.ckpt, so there is no trained network" in line


def test_a_run_that_was_not_tested_says_so(own_run):
    (own_run / "metrics.json").unlink()
    assert main(["push", str(own_run), "--folder", "out"]) == 0
    text = Path("out/README.md").read_text()
    assert "model-index" not in text
    assert "The run was not tested" in text
    assert not Path("out/metrics.json").exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "repository: name OWNER/NAME, or a folder to write with --folder"),
        (["net"], "repository: net is not allowed; allowed: OWNER/NAME"),
        (["a/../b"], "repository: a/../b is not allowed"),
        (["a--b/c"], "repository: a--b/c is not allowed"),
        (["me/net.git"], "repository: me/net.git is not allowed"),
        (["me/net", "--revision", "../x"], "--revision: ../x is not allowed"),
        (["me/net", "--license", "My Own!"], "--license: My Own! is not allowed"),
        (["me/net", "--message", ""], "--message: has 0 characters"),
        (["--folder", "out", "--private"], "--private: is of a repository"),
        (["--folder", "out", "--revision", "x"], "--revision: is of a repository"),
        (["--folder", "out", "--message", "x"], "--message: is of a repository"),
        (["x", "--folder", "out"], "repository: x is not allowed"),
        (["me/net", "--format", "onnx", "--format", "onnx"], "--format: onnx, onnx is not allowed"),
    ],
)
def test_arguments_that_are_not_allowed(plain_run, refuse, arguments, complaint):
    pytest.importorskip("huggingface_hub")
    (line,) = refuse("push", str(plain_run), *arguments)
    assert line.startswith(complaint)


def test_sizes_that_can_be_pulled_can_be_loaded():
    from visionforge.exporting import formats
    from visionforge.inference.artifacts import LOADERS, MAX_BYTES

    assert MOST_MODEL == MAX_BYTES
    for kind, name in ARTIFACTS.items():
        assert formats.FILES[kind] == name
        assert Path(name).suffix in LOADERS


# --- a folder


def test_a_folder_keeps_what_is_of_others(plain_run, published, tmp_path, refuse):
    folder = shutil.copytree(published, tmp_path / "mine")
    (folder / "notes.txt").write_text("mine")
    push_it = ("push", str(plain_run), "--folder", "mine")
    assert "has a visionforge.json already" in refuse(*push_it)[0]
    (folder / "README.md").write_text("edited")
    assert "mine/README.md is not as this command wrote it" in refuse(*push_it, "--overwrite")[0]
    shutil.copy(published / "README.md", folder)
    assert main([*push_it, "--overwrite"]) == 0
    assert {path.name for path in folder.iterdir()} - {".visionforge.json.lock"} == FILES | {"notes.txt"}
    assert "visionforge pull" not in (folder / "README.md").read_text()


def test_a_dry_run_writes_and_asks_nothing(hub, plain_run, tmp_path, capsys):
    for arguments in ([NAME, "--private"], ["--folder", "out"]):
        assert main(["push", str(plain_run), *arguments, "--dry-run"]) == 0
        said = capsys.readouterr().out
        assert all(name in said for name in FILES)
        assert said.endswith("nothing was sent or written\n")
    assert hub.requests == []
    assert list(tmp_path.iterdir()) == []


# --- the hub


def test_one_commit_of_all_files(hub, plain_run, published, capsys):
    assert push(plain_run, "--message", "the first") == 0
    said = capsys.readouterr().out
    assert pushed(hub) == {
        ".gitattributes": pushed(hub)[".gitattributes"],
        **{name: (published / name).read_bytes() for name in FILES},
    }
    repository = hub.repositories[NAME]
    assert repository.messages == ["initial", "the first"]
    assert not repository.private
    size = len(pushed(hub)["model.safetensors"])
    assert said.splitlines()[0].startswith("to me/net, branch main: 6 files, ")
    assert f"  model.safetensors  {size:>13,} bytes" in said.splitlines()
    assert said.endswith(f"{hub.url}/me/net is at {repository.branches['main'][:12]}\n")
    assert TOKEN not in said

    assert push(plain_run) == 0
    assert len(repository.messages) == 2, "the same files again are no commit"
    assert "has all of it already" in capsys.readouterr().out


def test_a_private_repository_and_a_branch(hub, plain_run, refuse):
    assert push(plain_run, "--private", "--revision", "v1") == 0
    assert hub.repositories[NAME].private
    assert set(pushed(hub)) == {".gitattributes"}
    assert set(pushed(hub, branch="v1")) >= FILES
    hub.repositories[NAME].private = False
    (line,) = refuse("push", str(plain_run), NAME, "--private")
    assert line.startswith("--private: me/net exists, and is public")


def test_a_new_branch_begins_with_the_main_one(hub, plain_run, own, refuse):
    files = {path.name: path.read_bytes() for path in own.iterdir()}
    main_commit = hub.made(NAME, {**files, "README.md": b"edited"}).branches["main"]
    assert "README.md was edited" in refuse("push", str(plain_run), NAME, "--revision", "v2")[0]
    assert set(hub.repositories[NAME].branches) == {"main"}
    assert push(plain_run, "--revision", "v2", "--overwrite") == 0
    assert pushed(hub, branch="v2") == files
    assert hub.repositories[NAME].branches["main"] == main_commit


def test_what_the_hub_finds_odd_is_a_warning(hub, plain_run, capsys):
    hub.answers["validate-yaml"] = (200, {}, b'{"warnings": [{"message": "no such data set"}]}')
    assert push(plain_run) == 0
    said = capsys.readouterr().err
    assert said == "warning: Warnings while validating metadata in README.md: - no such data set\n"


def test_what_others_have_written_is_replaced_only_if_asked(hub, plain_run, refuse):
    hub.made(NAME, {"README.md": b"of somebody", "model.safetensors": b"x", "other.bin": b"y"})
    (line,) = refuse("push", str(plain_run), NAME)
    assert line == (
        "repository: me/net has README.md, model.safetensors, which no push has written; name another repository, or "
        "add --overwrite"
    )
    assert writes(hub) == []
    assert push(plain_run, "--overwrite") == 0
    assert set(pushed(hub)) == FILES | {"other.bin"}


def test_a_card_that_was_edited_is_replaced_only_if_asked(hub, plain_run, published, refuse):
    files = {path.name: path.read_bytes() for path in published.iterdir()}
    repository = hub.made(NAME, files)
    repository.commit("main", {**files, "README.md": files["README.md"] + b"\nby hand\n"})
    (line,) = refuse("push", str(plain_run), NAME)
    assert "README.md was edited since it was pushed; --overwrite replaces it" in line
    assert push(plain_run, "--overwrite") == 0
    assert pushed(hub) == files


def test_files_of_the_last_push_that_are_no_more_go_with_the_commit(hub, plain_run, own, capsys):
    listed = json.loads((own / "visionforge.json").read_text())
    (own / "model.onnx").write_bytes(b"of another network")
    listed["files"].append({"file": "model.onnx", "bytes": 18, "sha256": "0" * 64})
    (own / "visionforge.json").write_text(json.dumps(listed))
    hub.made(NAME, {**{path.name: path.read_bytes() for path in own.iterdir()}, "mine.txt": b""})
    assert push(plain_run) == 0
    assert set(pushed(hub)) == FILES | {"mine.txt"}
    assert "model.onnx         of the last push is removed" in capsys.readouterr().out


FAILURES = {
    "commit": ("POST /api/models/me/net/commit", 503, {}, "the Hub failed (503); try again later"),
    "upload": ("PUT /lfs/", 403, {}, "Error while uploading 'model.safetensors' to the Hub: the token may not do this"),
    "write": (
        "preupload",
        403,
        {"X-Error-Message": "you may only read"},
        "the token may not do this (403",
    ),
    "token": (
        "GET /api/models",
        401,
        {"X-Error-Message": "Invalid credentials in Authorization header"},
        "the token was rejected (401",
    ),
    "changed": ("POST /api/models/me/net/commit", 412, {}, "somebody else has changed it meanwhile (412); push again"),
    "page": ("GET /api/models", 200, {"Content-Type": "text/html"}, "is not that of a hub ("),
    "list": ("GET /api/models", 200, {}, "is not that of a hub ("),
    "card": ("validate-yaml", 400, {}, 'the Hub does not take the card (Invalid metadata in README.md. - "license"'),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_push_that_fails_changes_nothing(hub, plain_run, refuse, monkeypatch, name):
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # of the client, which tries again
    part, status, headers, complaint = FAILURES[name]
    hub.made(NAME, {".gitattributes": b""})
    bodies = {
        "page": b"<html>log in</html>",
        "list": b"[]",
        "card": b'{"errors": [{"message": "\\"license\\" is odd"}]}',
    }
    hub.answers[part] = (status, headers, bodies.get(name, b""))
    (line,) = refuse("push", str(plain_run), NAME)
    assert line.startswith("repository: me/net: ")
    assert complaint in line
    assert TOKEN not in line
    assert pushed(hub) == {".gitattributes": b""}
    assert len(hub.repositories[NAME].messages) == 1


def test_what_was_pushed_meanwhile_is_not_replaced(hub, plain_run, refuse, monkeypatch):
    from visionforge.publishing import push as module

    repository, write = hub.made(NAME, {".gitattributes": b""}), module.write_contents

    def while_others_push(wanted, folder):
        repository.commit("main", {"README.md": b"of somebody"})
        return write(wanted, folder)

    monkeypatch.setattr(module, "write_contents", while_others_push)
    assert (
        "somebody else has changed it meanwhile (412: A commit has happened" in refuse("push", str(plain_run), NAME)[0]
    )
    assert pushed(hub) == {"README.md": b"of somebody"}


def test_a_new_repository_whose_push_fails_is_empty_and_that_is_said(hub, plain_run, refuse):
    hub.answers["POST /api/models/me/net/commit"] = (409, {}, b"")
    (line,) = refuse("push", str(plain_run), NAME)
    assert line.endswith("the Hub refused (409); the repository was made, and is empty")
    assert set(pushed(hub)) == {".gitattributes"}


def test_without_a_token_nothing_is_exported_or_asked(hub, plain_run, refuse, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    (line,) = refuse("push", str(plain_run), NAME)
    assert "is written to with a token, and there is none; `hf auth login`, or set HF_TOKEN" in line
    assert hub.requests == []


def test_offline(hub, plain_run, refuse, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in refuse("push", str(plain_run), NAME)[0]


def test_without_the_extra(plain_run, refuse, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", None)
    assert 'pip install "visionforge-lightning[hub]"' in refuse("push", str(plain_run), NAME)[0]
    assert main(["push", str(plain_run), NAME, "--folder", "out"]) == 0, "a folder needs no client"


# --- Python


def test_from_python(hub, plain_run, tmp_path):
    result = vf.push(plain_run, NAME, private=True, message="from Python")
    assert (result.repository, result.url, result.changed) == (NAME, f"{hub.url}/me/net", True)
    assert result.commit == hub.repositories[NAME].branches["main"]
    assert set(result.files) == FILES
    again = vf.push(vf.open_run(plain_run), NAME)
    assert (again.changed, again.commit) == (False, result.commit)
    assert vf.push(plain_run, folder=tmp_path / "out").folder == tmp_path / "out"
    with pytest.raises(SettingsError, match="formats: pickle is not allowed"):
        vf.push(plain_run, NAME, formats=["pickle"])
    with pytest.raises(RunError, match="run: nowhere is no folder"):
        vf.push("nowhere", NAME)
