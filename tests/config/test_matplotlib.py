"""What a notebook or a file in the working folder asks of matplotlib changes no picture, and stops no command."""

import sys

import pytest

from tests.security.harness import attack

SHOW = ("datasets", "show", "synthetic", "--resolution", "28", "--output", "sheet.png")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    outcome = attack(*SHOW, folder=folder)
    assert outcome.status == 0, outcome.err
    return (folder / "sheet.png").read_bytes()


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="audits a process")
@pytest.mark.parametrize("settings", [b"text.usetex: True\nfont.size: 40\nbackend: module://evil\n", b"\xff\xfe\x00: "])
def test_pictures_do_not_depend_on_the_environment(tmp_path, plain, settings):
    (tmp_path / "matplotlibrc").write_bytes(settings)
    outcome = attack(*SHOW, folder=tmp_path, environment={"MPLBACKEND": "module://matplotlib_inline.backend_inline"})
    assert outcome.status == 0, outcome.err
    assert not outcome.programs
    assert (tmp_path / "sheet.png").read_bytes() == plain
