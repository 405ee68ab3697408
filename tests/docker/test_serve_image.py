"""The stage that serves: what it installs is enough, its command is valid, its compose file gives no rights away."""

import contextlib
import http.client
import json
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires

import pytest
from packaging.requirements import Requirement

from tests.conftest import REPOSITORY
from tests.docker.compose import interpolated
from tests.docker.dockerfile import parse
from tests.evaluation.test_explain import model_of
from tests.export.test_formats import export
from tests.serving.helpers import encoded, png
from visionforge.cli.commands import serve

pytest.importorskip("starlette")
pytest.importorskip("onnxruntime")

FOLDER = REPOSITORY / "docker"
COMPOSE = FOLDER / "compose.serve.yaml"
_, STAGES = parse((FOLDER / "Dockerfile").read_text(encoding="utf-8"))

# Nothing can be imported but what Python has and what is named
ALONE = """
import json, sys
from importlib.machinery import PathFinder

allowed = set(json.loads(sys.argv.pop(1))) | set(sys.stdlib_module_names) | {"visionforge"}

class Alone(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        known = name.partition(".")[0] in allowed or name.startswith("_sysconfigdata")
        return super().find_spec(name, path, target) if known else None

sys.meta_path[:] = [Alone if finder is PathFinder else finder for finder in sys.meta_path]
from visionforge.cli.main import main
sys.exit(main())
"""


def modules() -> list[str]:
    """Return the modules that the packages of serve.txt bring, and those that these need."""
    lines = (FOLDER / "serve.txt").read_text(encoding="utf-8").splitlines()
    waiting, found = [line for line in lines if not line.startswith("#")], set()
    while waiting:
        name = waiting.pop().lower().replace("_", "-")
        if name in found:
            continue
        found.add(name)
        with contextlib.suppress(PackageNotFoundError):  # of another system
            needed = map(Requirement, requires(name) or ())
            waiting += [each.name for each in needed if each.marker is None or each.marker.evaluate({"extra": ""})]
    return [
        module
        for module, distributions in packages_distributions().items()
        if any(each.lower().replace("_", "-") in found for each in distributions)
    ]


@pytest.mark.slow
def test_what_is_installed_is_enough(tmp_path):
    export(model_of("mini_cnn"), tmp_path, formats=("onnx",))
    command = [sys.executable, "-c", ALONE, json.dumps(modules()), "serve", str(tmp_path / "model.onnx"), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        found = re.search(r"127\.0\.0\.1:(\d+)", process.stdout.readline())
        assert found, process.stderr.read()
        connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=30)
        content = json.dumps({"images": [encoded(png())]})
        connection.request("POST", "/predict", content, {"content-type": "application/json"})
        assert connection.getresponse().status == 200
    finally:
        process.kill()
        process.communicate()


def test_command_of_the_image_is_valid():
    stage = STAGES["serve"]
    assert stage.last("ENTRYPOINT").words == ["visionforge"]
    name, *arguments = stage.last("CMD").words
    assert name == "serve"
    options = serve.parser().parse_args(arguments)
    assert (options.source, options.host, options.port) == ("/model.onnx", "0.0.0.0", 8000)
    assert stage.last("EXPOSE").text == "8000"
    assert ":8000/health" in stage.last("HEALTHCHECK").text


def test_compose_gives_no_rights_away():
    with pytest.raises(KeyError, match="MODEL"):
        interpolated(COMPOSE)
    (service,) = interpolated(COMPOSE, MODEL="model.onnx")["services"].values()
    assert service["build"]["target"] in STAGES
    assert service["ports"] == ["127.0.0.1:8000:8000"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    (volume,) = service["volumes"]
    assert (volume["source"], volume["read_only"]) == ("model.onnx", True)
    name, *arguments = service["command"]
    options = serve.parser().parse_args(arguments)
    assert (name, options.source) == ("serve", volume["target"])
    assert options.allowed_hosts == ["localhost", "127.0.0.1"]
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    for variable in re.findall(r"\$\{(\w+)", COMPOSE.read_text(encoding="utf-8")):
        assert f"`{variable}`" in readme
