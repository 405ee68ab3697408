"""Check that a tag is ready to be released: `python .ci/check_release.py v0.1.0 [--notes FILE]`.

Tag, project file, citation and changelog have to name the same version, the changelog its day, and what that version
writes has to be kept in tests/upgrades. Exit status 1, with a line for each problem, if that is not so.
"""

import argparse
import re
import sys
import tomllib
from collections.abc import Iterator
from datetime import date
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
VERSION = re.compile(r"\d+\.\d+\.\d+(?:(?:a|b|rc)\d+)?")  # as PEP 440 writes it, without what nobody releases
HEADING = re.compile(r"^## (\S+) - (.+)$", re.MULTILINE)


def newest(changelog: str) -> tuple[str, str, str]:
    """Return version, day and text of the topmost section of a changelog; empty texts if there is none."""
    found = list(HEADING.finditer(changelog))
    if not found:
        return "", "", ""
    end = found[1].start() if len(found) > 1 else len(changelog)
    return found[0][1], found[0][2].strip(), changelog[found[0].end() : end].strip()


def problems(tag: str, repository: Path = REPOSITORY) -> Iterator[str]:
    """Yield a line for everything that keeps a tag from being released."""
    version = tag.removeprefix("v")
    if not tag.startswith("v") or not VERSION.fullmatch(version):
        yield f"{tag}: is no tag of a release; they are written v0.1.0"
        return
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    cited = re.search(r"^version: (\S+)$", (repository / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    found, day, text = newest((repository / "CHANGELOG.md").read_text(encoding="utf-8"))
    named = {"pyproject.toml": project, "CITATION.cff": cited[1] if cited else "", "CHANGELOG.md": found}
    for name, other in named.items():
        if other != version:
            yield f"{name}: has version {other or 'none'}, the tag {tag}"
    if not _is_day(day):
        yield f"CHANGELOG.md: {found} says {day or 'nothing'} where its day belongs, as in ## {version} - 2026-12-01"
    if not text:
        yield f"CHANGELOG.md: {found} names no change"
    if not (repository / "tests" / "upgrades" / version / "run" / "run.json").is_file():
        yield f"tests/upgrades/{version}: is not there; `python -m tests.upgrades.make` writes it"


def _is_day(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def main(arguments: list[str] | None = None) -> int:
    """Print the problems of a tag, or write its section of the changelog, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("tag", help="such as v0.1.0")
    parser.add_argument("--notes", type=Path, metavar="FILE", help="write the version's section of the changelog here")
    options = parser.parse_args(arguments)
    found = list(problems(options.tag))
    for line in found:
        sys.stderr.write(f"{line}\n")
    if not found and options.notes is not None:
        changelog = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
        options.notes.write_text(newest(changelog)[2] + "\n", encoding="utf-8")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
