"""Pages of the site that lie outside of docs/: they are taken over, and links to them are turned."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

TAKEN_OVER = {  # path in the repository → page of the site
    "benchmarks/README.md": "benchmarks.md",
    "docker/README.md": "containers.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
}
LINK = re.compile(r"\[([^\]]*)\]\(([^)#\s]+)((?:#[^)\s]*)?)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie elsewhere."""
    top = Path(config.config_file_path).parent
    for source, page in TAKEN_OVER.items():
        files.append(File.generated(config, page, content=(top / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links between the repository's files into links between the site's pages."""
    sources = {target: source for source, target in TAKEN_OVER.items()}
    own = page.file.src_uri
    folder = posixpath.dirname(sources.get(own, f"docs/{own}"))

    def turn(match: re.Match[str]) -> str:
        text, target, anchor = match.groups()
        if "://" in target:
            return match[0]
        found = posixpath.normpath(posixpath.join(folder, target))
        wanted = TAKEN_OVER.get(found, found.removeprefix("docs/") if found.startswith("docs/") else None)
        if wanted is None:  # a file of the repository that the site does not have
            return text if own in sources else match[0]
        return f"[{text}]({posixpath.relpath(wanted, posixpath.dirname(own) or '.')}{anchor})"

    return LINK.sub(turn, markdown)
