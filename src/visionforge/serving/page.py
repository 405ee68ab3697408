"""The page on which pictures are dropped, and what a browser may load for it: nothing but what is in it."""

import base64
import hashlib
import re

from visionforge.reporting.rendering import render
from visionforge.serving.network import ServedNetwork
from visionforge.serving.settings import ServingSettings

TEMPLATE = "serve.html.j2"
_PARTS = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)


def page_of(network: ServedNetwork, settings: ServingSettings) -> tuple[str, str]:
    """Return the page, and its Content-Security-Policy."""
    spec = network.spec
    ood = next((each for each in network.about["further_outputs"] if each["name"] == "ood_score"), None)
    facts = {
        "volumes": spec.spatial_dims == 3,
        "max_bytes": settings.max_bytes,
        "ood_threshold": None if ood is None else ood["threshold"],
    }
    page = render(
        TEMPLATE,
        title=network.name,
        classes=spec.classes,
        task=spec.task,
        size=spec.size_text,
        noun=spec.kind.nouns[1],
        suffixes=",".join(network.reader.suffixes),
        facts=facts,
    )
    hashes: dict[str, list[str]] = {"script": [], "style": []}
    for kind, text in _PARTS.findall(page):
        digest = base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
        hashes[kind].append(f"'sha256-{digest}'")
    rules = {
        "default-src": "'none'",
        "script-src": " ".join(hashes["script"]),
        "style-src": " ".join(hashes["style"]),
        "img-src": "blob: data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return page, "; ".join(f"{name} {value}" for name, value in rules.items())
