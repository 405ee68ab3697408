"""What these tests need before they look at what is written where."""

import subprocess
import sys

import pytest


@pytest.fixture(autouse=True, scope="session")
def fonts_are_listed(font_cache):
    """matplotlib writes its list of fonts when it is first imported."""
    subprocess.run([sys.executable, "-c", "import matplotlib.font_manager"], check=True)
