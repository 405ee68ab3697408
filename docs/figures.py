"""The drawings of the documentation, as SVG text: the same bytes wherever they are made.

`python docs/generate.py` writes them.
"""

from collections.abc import Mapping, Sequence
from html import escape

INK, MUTED, FILL, ACCENT = "#1f2933", "#52606d", "#d9e8fb", "#1a6fd4"
FONT = "font-family='Helvetica, Arial, sans-serif'"

# Rows of the architecture from top to bottom; imports go downwards only
LAYERS: tuple[tuple[str, ...], ...] = (
    ("cli", "api"),
    ("benchmarking", "publishing"),
    ("tuning", "exporting", "serving"),
    ("engine", "tasks"),
    ("reporting",),
    ("evaluation",),
    ("inference",),
    ("training",),
    ("models", "data", "scoring"),
    ("runs", "fetch", "config"),
)


def _text(x: float, y: float, text: str, size: int = 16, anchor: str = "middle", colour: str = INK) -> str:
    return (
        f"<text x='{x:g}' y='{y:g}' {FONT} font-size='{size}' text-anchor='{anchor}' fill='{colour}'>"
        f"{escape(text)}</text>"
    )


def _svg(width: int, height: int, title: str, parts: Sequence[str]) -> str:
    head = (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' width='{width}' height='{height}' "
        f"role='img'>\n<title>{escape(title)}</title>\n<rect width='{width}' height='{height}' fill='#ffffff'/>"
    )
    return "\n".join([head, *parts, "</svg>", ""])


def reduced(imports: Mapping[str, Mapping[str, int]]) -> list[tuple[str, str]]:
    """Return the imports that no chain of other imports implies, sorted.

    Args:
        imports: Package → package that it imports → number of its modules that do.
    """

    def reachable(start: str) -> set[str]:
        found: set[str] = set()
        queue = list(imports.get(start, {}))
        while queue:
            name = queue.pop()
            if name not in found:
                found.add(name)
                queue += imports.get(name, {})
        return found

    return sorted(
        (one, two)
        for one, targets in imports.items()
        for two in targets
        if not any(two in reachable(other) for other in targets if other != two)
    )


def architecture(imports: Mapping[str, Mapping[str, int]]) -> str:
    """Draw the packages in their layers, and the imports that no chain of others implies.

    Args:
        imports: Package → package that it imports → number of its modules that do.

    Raises:
        ValueError: If a package has no place in `LAYERS`, or an import goes upwards.
    """
    width, box_width, box_height, gap = 640, 150, 44, 92
    places: dict[str, tuple[float, float]] = {}
    for row, names in enumerate(LAYERS):
        for column, name in enumerate(names):
            spread = (210 if len(names) == 3 else 300) * (column - (len(names) - 1) / 2)
            places[name] = (width / 2 + spread, 40 + row * gap)
    level = {name: row for row, names in enumerate(LAYERS) for name in names}
    if missing := sorted({*imports} - {*places}):
        raise ValueError(f"{', '.join(missing)}: no place in LAYERS of docs/figures.py")
    for one, targets in imports.items():
        for two in targets:
            if level[two] <= level[one]:
                raise ValueError(f"{one} imports {two}, which is not below it")
    parts = [
        "<defs><marker id='tip' viewBox='0 0 10 10' refX='9' refY='5' markerWidth='8' markerHeight='8' "
        f"orient='auto'><path d='M0,0 L10,5 L0,10 z' fill='{ACCENT}'/></marker></defs>"
    ]
    for one, two in reduced(imports):
        (x1, y1), (x2, y2) = places[one], places[two]
        lean = max(-30.0, min(30.0, (x2 - x1) / 4))  # arrows leave and arrive a little to the side
        path = f"M{x1 + lean:g},{y1 + box_height / 2:g} L{x2 - lean:g},{y2 - box_height / 2:g}"
        parts.append(f"<path d='{path}' fill='none' stroke='{ACCENT}' stroke-width='2' marker-end='url(#tip)'/>")
    for name, (x, y) in places.items():
        parts.append(
            f"<rect x='{x - box_width / 2:g}' y='{y - box_height / 2:g}' width='{box_width}' height='{box_height}' "
            f"rx='6' fill='{FILL}' stroke='{INK}'/>"
        )
        parts.append(_text(x, y + 6, name, 18))
    return _svg(width, 40 + (len(LAYERS) - 1) * gap + 40, "Packages of visionforge and what they import", parts)


def stem(rows: Sequence[tuple[str, int, Sequence[int]]], stages: Sequence[str]) -> str:
    """Draw the image and the feature map after each stage, to one scale.

    Args:
        rows: (label, side of the image in pixels, side of the map after each stage).
        stages: Headings of the maps.
    """
    pixel, step, top, label, foot = 1.4, 104, 34, 34, 30
    width, parts, y = step * (len(stages) + 1), [], float(top)
    for column, text in enumerate(("image", *stages)):
        parts.append(_text(step * (column + 0.5), 24, text, 17, colour=MUTED))
    for text, image, maps in rows:
        parts.append(f"<line x1='0' y1='{y:g}' x2='{width}' y2='{y:g}' stroke='{FILL}'/>")
        parts.append(_text(12, y + 24, text, 17, "start"))
        longest = max(image, *maps) * pixel
        middle = y + label + longest / 2
        for column, side in enumerate((image, *maps)):
            x, length = step * (column + 0.5), side * pixel
            colour, edge = ("#ffffff", INK) if column == 0 else (FILL, ACCENT)
            parts.append(
                f"<rect x='{x - length / 2:g}' y='{middle - length / 2:g}' width='{length:g}' height='{length:g}' "
                f"fill='{colour}' stroke='{edge}'/>"
            )
            parts.append(_text(x, middle + longest / 2 + 20, str(side), 17))
        y += label + longest + foot
    title = "Feature maps of ResNet-18 with and without the adapted stem"
    return _svg(width, round(y), title, parts)
