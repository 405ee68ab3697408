"""A hub on loopback, and a run whose files are known."""

import shutil

import pytest

from tests.models.hub_server import point_to
from tests.publishing.hub_server import TOKEN, running
from visionforge.cli.main import main


@pytest.fixture
def hub(tmp_path_factory, monkeypatch):
    """A hub that this process asks, logged in as an owner."""
    pytest.importorskip("huggingface_hub", reason="needs the extra hub")
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path_factory.mktemp("login") / "token"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with running() as server:
        point_to(server.url, monkeypatch)
        yield server


@pytest.fixture(scope="session")
def published(plain_run, tmp_path_factory):
    """A published network as a folder; do not change it."""
    folder = tmp_path_factory.mktemp("published") / "net"
    assert main(["push", str(plain_run), "me/net", "--folder", str(folder)]) == 0
    return folder


@pytest.fixture
def own(published, tmp_path):
    """A copy of it, which a test may damage."""
    return shutil.copytree(published, tmp_path / "given" / "net")
