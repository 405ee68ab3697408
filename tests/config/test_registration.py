"""What is registered again is told apart by module, name and code."""

from functools import partial

import pytest

from visionforge.config.registration import same_definition

CELLS = {
    "function": "def build(size, *, depth=2):\n    return [size] * depth\n",
    "class": "class Build:\n    depth = 2\n    def __call__(self, size):\n        return [size] * self.depth\n",
    "closure": "def make(depth):\n    def inner(n):\n        return [n] * depth\n    return inner\nbuild = make(2)\n",
    "lambda": "build = lambda size: [size] * 2\n",
}


def run(cell: str) -> object:
    names: dict[str, object] = {"__name__": "__main__"}
    exec(compile(cell, "<cell>", "exec"), names)
    return names.get("build", names.get("Build"))


@pytest.mark.parametrize("kind", CELLS)
def test_a_cell_that_is_run_again_defines_the_same(kind):
    one, moved = run(CELLS[kind]), run("# a comment\n\n" + CELLS[kind])
    assert one is not moved
    assert same_definition(one, moved)
    assert same_definition(partial(one, 3), partial(moved, 3))


@pytest.mark.parametrize("kind", CELLS)
def test_a_cell_that_was_changed_defines_another(kind):
    one, changed = run(CELLS[kind]), run(CELLS[kind].replace("2", "3"))
    assert not same_definition(one, changed)
    assert not same_definition(partial(one, 3), partial(one, 4))


def test_a_method_belongs_to_its_object():
    kind = run(CELLS["class"])
    one, other = kind(), kind()
    assert same_definition(one.__call__, one.__call__)
    assert not same_definition(one.__call__, other.__call__)


def test_another_name_or_kind_is_another():
    one = run(CELLS["function"])
    assert not same_definition(one, run(CELLS["function"].replace("build", "make") + "build = make\n"))
    assert not same_definition(one, "module:build")
    assert same_definition("module:build", "module:build")
