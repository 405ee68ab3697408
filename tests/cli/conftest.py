"""Fixtures of the tests of the command line."""

import pytest

from tests.cli.fleet import Fleet


@pytest.fixture(scope="session")
def fleet(tmp_path_factory):
    """Processes that run one command after the other, without importing anything first."""
    fleet = Fleet(tmp_path_factory.mktemp("fleet"))
    yield fleet
    fleet.close()
