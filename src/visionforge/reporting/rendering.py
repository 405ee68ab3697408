"""Pages from the templates beside this file; what is put into them is escaped."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from jinja2 import Environment


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes:
        text: What it says.
        kind: How it is set: a number, code, or a text that may be broken anywhere.
        small: What stands below in small letters.
    """

    text: str
    kind: Literal["", "number", "code", "long"] = ""
    small: str = ""


@dataclass(frozen=True)
class Table:
    """A table of a page.

    Attributes:
        headings: Names of the columns; none leaves the line out.
        rows: Cells of every line.
    """

    headings: Sequence[Cell]
    rows: Sequence[Sequence[Cell]]


def render(template: str, **shown: Any) -> str:
    """Return a page.

    Args:
        template: Name of a file in `templates/`.
        shown: What it shows, by the names that it uses; all text is escaped.

    Raises:
        jinja2.UndefinedError: If the template uses a name that is not given.

    >>> render("notebook_study.html.j2", headline="<i>", curves="", table="", link="")
    '<div><b>&lt;i&gt;</b><br></div>'
    """
    return _environment().get_template(template).render(shown)


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("visionforge.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    environment.globals["plotly"] = _plotly
    return environment


def _plotly() -> str:
    """Return the source of the plotting library."""
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())
