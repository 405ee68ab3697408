"""Passwords, tokens and keys of addresses, arguments and settings are written into no file and no message."""

import json
import logging
from pathlib import Path

import pytest
import yaml
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger
from sqlalchemy.engine import make_url

from tests.conftest import flags, run_folders
from visionforge.cli.main import main
from visionforge.config.problems import flatten
from visionforge.config.schema import RunSettings
from visionforge.errors import VisionForgeError
from visionforge.redaction import (
    hidden_settings,
    is_secret_name,
    redact_arguments,
    redact_settings,
    redact_text,
    redact_url,
)
from visionforge.runs.config_hash import digest
from visionforge.runs.logfile import RunLog

SECRET = "s3cr3t"
ADDRESSES = {
    "postgresql://me:s3cr3t@host/db": "postgresql://me:…@host/db",
    "postgresql://me:s3cr3t@host:5432/db?sslmode=require": "postgresql://me:…@host:5432/db?sslmode=require",
    "postgresql+psycopg2://me:a@s3cr3t@host/db": "postgresql+psycopg2://me:…@host/db",
    "postgresql://me:a@b@s3cr3t@host/db": "postgresql://me:…@host/db",
    "postgresql://me:a/s3cr3t@host/db": "postgresql://me:…@host/db",
    "postgresql://me:a#s3cr3t@host/db": "postgresql://me:…@host/db",
    "postgresql://me:a?s3cr3t@host/db": "postgresql://me:…@host/db",
    "postgresql://me:12/s3cr3t@host/db": "postgresql://me:…@host/db",
    "postgresql://me:s3cr3t%40@host/db": "postgresql://me:…@host/db",
    "postgresql://:s3cr3t@host/db": "postgresql://:…@host/db",
    "postgresql://me@host/db?password=s3cr3t": "postgresql://me@host/db?password=…",
    "postgresql://host/db?user=me&password=s3cr3t&x=1": "postgresql://host/db?user=me&password=…&x=1",
    "mysql://me:s3cr3t@[::1]:3306/db": "mysql://me:…@[::1]:3306/db",
    "postgresql://me@host/db?sslpassword=s3cr3t": "postgresql://me@host/db?sslpassword=…",
    "redis://:s3cr3t@host:6379/0": "redis://:…@host:6379/0",
    "mssql+pyodbc:///?odbc_connect=SERVER%3Dx%3BUID%3Dme%3BPWD%3Ds3cr3t": "mssql+pyodbc:///?odbc_connect=…",
    "https://s3cr3t@host/file.pth": "https://…@host/file.pth",
    "https://me:s3cr3t@host/file.pth#sha256=ab": "https://…@host/file.pth#sha256=ab",
    "https://s3cr3t:x-oauth-basic@github.com/a/b": "https://…@github.com/a/b",
    "git+https://oauth2:s3cr3t@host/a.git": "git+https://…@host/a.git",
    "https://host/f?token=s3cr3t#sha256=ab": "https://host/f?token=…#sha256=ab",
    "https://host/f?a=1;api_key=s3cr3t;b=2": "https://host/f?a=1;api_key=…;b=2",
    "https://host/f?X-Amz-Algorithm=A&X-Amz-Credential=s3cr3t&X-Amz-Signature=s3cr3t": (
        "https://host/f?X-Amz-Algorithm=A&X-Amz-Credential=…&X-Amz-Signature=…"
    ),
    "https://host/f?sv=2020&sig=s3cr3t%3D": "https://host/f?sv=2020&sig=…",
    "https://host/f?%70assword=s3cr3t": "https://host/f?%70assword=…",
    "https://host/f#access_token=s3cr3t&x=1": "https://host/f#access_token=…&x=1",
    "https://host/f?next=https%3A%2F%2Fme%3As3cr3t%40other": "https://host/f?next=https://…@other",
    "https://host/@scope/package@1.2.3?email=a@b": "https://host/@scope/package@1.2.3?email=a@b",
    "https://host:8080/a@b": "https://host:8080/a@b",
    "s3://bucket/a@b.npz": "s3://bucket/a@b.npz",
    "sqlite:////home/me@work/study.db": "sqlite:////home/me@work/study.db",
    "ssh://git@host/a.git": "ssh://git@host/a.git",
    "postgresql://me:${PGPASSWORD}@host/db": "postgresql://me:${PGPASSWORD}@host/db",
    "https://host/f?token=$TOKEN": "https://host/f?token=$TOKEN",
    "no address": "no address",
}
ARGUMENTS = {
    ("--trainer.logger.api_key", "s3cr3t", "--data.root", "x"): ["--trainer.logger.api_key", "…", "--data.root", "x"],
    ("--trainer.logger.init_args.api_key=s3cr3t",): ["--trainer.logger.init_args.api_key=…"],
    ("--trainer.logger.apiKey", "s3cr3t"): ["--trainer.logger.apiKey", "…"],
    ("--trainer.logger.api_key", "$WANDB_API_KEY"): ["--trainer.logger.api_key", "$WANDB_API_KEY"],
    ("--trainer.logger.api_key=${oc.env:KEY}",): ["--trainer.logger.api_key=${oc.env:KEY}"],
    ("--tune.storage=postgresql://me:s3 cr3t@host/db",): ["--tune.storage=postgresql://me:…@host/db"],
    ("--tune.storage", "postgresql://me:s3cr3t@host/db"): ["--tune.storage", "postgresql://me:…@host/db"],
    ("--trainer.logger", "{class_path: X, init_args: {password: s3cr3t, save_dir: a}}"): [
        "--trainer.logger",
        '{"class_path": "X", "init_args": {"password": "…", "save_dir": "a"}}',
    ],
    ("--trainer.logger+={api_key: s3cr3t",): ["--trainer.logger+={api_key: s3cr3t"],  # no YAML, refused anyway
    ("--trainer.callbacks", "[{init_args: {url: 'https://s3cr3t@host'}}]"): [
        "--trainer.callbacks",
        '[{"init_args": {"url": "https://…@host"}}]',
    ],
    ("--x.class_token", "true", "--x.token=null"): ["--x.class_token", "true", "--x.token=null"],
    ("--tokenizer", "x", "--max_tokens=3", "--key_size", "3"): [
        "--tokenizer",
        "x",
        "--max_tokens=3",
        "--key_size",
        "3",
    ],
    ("WANDB_API_KEY=s3cr3t",): ["WANDB_API_KEY=…"],
}


@pytest.mark.parametrize("url", ADDRESSES)
def test_addresses(url):
    assert redact_url(url) == ADDRESSES[url]
    assert redact_url(ADDRESSES[url]) == ADDRESSES[url]
    sentence = redact_text(f"cannot reach ({url}), 'try again'.")
    assert SECRET not in sentence
    assert sentence.endswith("'try again'.")


def test_database_addresses_as_sqlalchemy_reads_them():
    """An independent reference: what SQLAlchemy takes for the password is what is left out."""
    for url in ADDRESSES:
        if url.startswith(("postgresql://me:", "mysql", "redis")) and "$" not in url and "a@" not in url:
            password = make_url(url).password
            assert password
            assert str(password) not in redact_url(url)


@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_arguments(arguments):
    clean = redact_arguments(arguments)
    assert clean == ARGUMENTS[arguments]
    assert redact_arguments(clean) == clean


def test_settings():
    tree = {
        "api_key": SECRET,
        "password": 1234,
        "credentials": {"user": "me", "list": [SECRET, None]},
        "url": f"https://me:{SECRET}@host",
        "nested": [{"AccessKey": SECRET}, {"x": f"https://host?sig={SECRET}"}],
        "env": {"token": "$TOKEN", "secret": "${SECRET}", "pwd": "${oc.env:PWD}", "auth": True, "signature": None},
        "kept": {
            "tokenizer": "a",
            "tokens": 3,
            "monkey": "b",
            "keyword": "c",
            "author": "d",
            "passes": 2,
            "key_size": 3,
        },
        "class_weights": {"signature": 2, "key": 1.5},
    }
    clean = redact_settings(tree)
    assert SECRET not in json.dumps(clean)
    assert clean["password"] == "…"
    assert clean["env"] == tree["env"]
    assert clean["kept"] == tree["kept"]
    assert clean["class_weights"] == tree["class_weights"]
    assert redact_settings(clean) == clean
    assert set(hidden_settings(clean)) == {
        "api_key",
        "password",
        "credentials.user",
        "credentials.list",
        "url",
        "nested.AccessKey",
        "nested.x",
    }
    assert list(hidden_settings(tree["kept"])) == []


def test_no_setting_of_ours_is_taken_for_a_secret():
    assert not [path for path in flatten(RunSettings) if is_secret_name(path.rpartition(".")[2])]
    settings = RunSettings().model_dump(mode="json")
    assert redact_settings(settings) == settings


def test_messages():
    url = f"postgresql://me:{SECRET}@host/db"
    (line,) = VisionForgeError(f"tune.storage: {url} cannot be opened").problems
    assert line == "tune.storage: postgresql://me:…@host/db cannot be opened"
    for text in (f"api_key='{SECRET}'", f'{{"password": "{SECRET}"}}', f"x.api_key: '{SECRET}' is", f"token={SECRET}"):
        assert SECRET not in redact_text(text), text
    for text in ("the key: value", "keys, shapes: 3", "author=me", "the token of a class", "pass: 3"):
        assert redact_text(text) == text


def test_log_lines(tmp_path, capsys):
    log = RunLog()
    log.start()
    log.attach(tmp_path / "run.log")
    try:
        logging.getLogger("visionforge.x").warning("kept in %s", f"postgresql://me:{SECRET}@host/db")
        raise ValueError(f"https://host/f?token={SECRET} is away")
    except ValueError:
        logging.getLogger("visionforge.x").exception("failed")
    finally:
        log.stop()
    told = (tmp_path / "run.log").read_text() + capsys.readouterr().err
    assert SECRET not in told
    assert told.count("postgresql://me:…@host/db") == 2


class Keyed(CSVLogger):
    """A logger that needs a key, as those of services do."""

    def __init__(self, save_dir: str, api_key: str, url: str = "") -> None:
        super().__init__(save_dir)
        assert api_key == SECRET


def grep(folder: Path) -> list[Path]:
    """Return the files that hold the secret."""
    return [path for path in folder.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


def test_no_file_of_a_run_holds_a_secret(tmp_path, monkeypatch, capsys):
    chosen = {
        "class_path": f"{__name__}.Keyed",
        "init_args": {"save_dir": "logs", "api_key": SECRET, "url": f"https://me:{SECRET}@host"},
    }
    (tmp_path / "x.yaml").write_text(yaml.safe_dump({"trainer": {"logger": chosen}}))
    arguments = flags(trainer__default_root_dir=tmp_path / "outputs", evaluation__report="true")
    arguments = ["fit", "--config", "x.yaml", *arguments]
    monkeypatch.setattr("sys.argv", ["visionforge", *arguments, "--trainer.logger.init_args.api_key", SECRET])
    assert main(arguments) == 0
    (run,) = run_folders(tmp_path / "outputs")
    assert grep(run) == []
    assert grep(tmp_path / "logs") == []
    output = capsys.readouterr()
    assert SECRET not in output.out + output.err
    manifest = json.loads((run / "run.json").read_text())
    assert manifest["sessions"][0]["command"][-1] == "…"
    stored = yaml.safe_load((run / "config.yaml").read_text())
    assert stored["trainer"]["logger"]["init_args"]["api_key"] == "…"
    assert digest(stored) == manifest["hash"]


class Away(Callback):
    """A callback whose service does not answer, and says so with its address."""

    def on_train_epoch_end(self, trainer, pl_module):
        raise RuntimeError(f"https://me:{SECRET}@host/f?token={SECRET} is away")


def test_run_that_fails_with_an_address(tmp_path):
    arguments = flags(trainer__default_root_dir=tmp_path / "outputs", trainer__max_epochs=2)
    with pytest.raises(RuntimeError, match="is away"):
        main(["fit", *arguments, "--trainer.callbacks", f"{__name__}.Away"])
    (run,) = run_folders(tmp_path / "outputs")
    assert "https://…@host/f?token=… is away" in json.loads((run / "run.json").read_text())["error"]
    assert "https://…@host/f?token=… is away" in (run / "run.log").read_text()
    assert grep(run) == []


def test_digest_does_not_depend_on_a_secret():
    def config(key: str) -> dict:
        callback = {"class_path": "X", "init_args": {"api_key": key, "y": 1}}
        return {**RunSettings().model_dump(mode="json"), "trainer": {"callbacks": [callback]}}

    assert digest(config("one")) == digest(config("two")) == digest(redact_settings(config("one")))
    plain = RunSettings().model_dump(mode="json")
    assert digest(plain) == digest(redact_settings(plain))


def test_run_that_needs_its_key_again(refuse, tmp_path):
    """What was left out of a stored configuration is asked for, instead of being sent to a service."""
    chosen = {"class_path": f"{__name__}.Keyed", "init_args": {"save_dir": "logs", "api_key": "…"}}
    (tmp_path / "x.yaml").write_text(yaml.safe_dump({"trainer": {"logger": chosen}}))
    (line,) = refuse("fit", "--config", "x.yaml", *flags(trainer__default_root_dir=tmp_path / "outputs"))
    assert line.startswith("trainer.logger.init_args.api_key: a secret that is not stored")
