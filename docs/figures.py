"""The drawings of the documentation, as SVG text: the same bytes wherever they are made.

`python docs/generate.py` writes them.
"""

from collections.abc import Mapping, Sequence
from html import escape

INK, MUTED, FILL, ACCENT = "#1f2933", "#52606d", "#d9e8fb", "#1a6fd4"
FONT = "font-family='Helvetica, Arial, sans-serif'"

# Rows of the architecture from top to bottom; imports go downwards only
LAYERS: tuple[tuple[str, ...], ...] = (
    ("cli",),
    ("tuning", "export"),
    ("evaluation",),
    ("training",),
    ("models", "data"),
    ("fetch",),
    ("runs", "config"),
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
            offset = 0.0 if len(names) == 1 else 150.0 * (2 * column - 1)
            places[name] = (width / 2 + offset, 40 + row * gap)
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
        start, end = y1 + box_height / 2, y2 - box_height / 2
        lean = 0.0 if x1 == x2 else 30.0 if x2 > x1 else -30.0
        path = f"M{x1 + lean:g},{start:g} L{x2 - lean:g},{end:g}"
        if level[two] - level[one] > 1:
            # around the boxes between: out to the side on which the lower one lies
            side = 24.0 if x2 < width / 2 else width - 24.0 if x2 > width / 2 else width - 70.0
            path = (
                f"M{x1 + (box_width / 2 if side > x1 else -box_width / 2):g},{y1:g} "
                f"C{side:g},{y1:g} {side:g},{y1 + 20:g} {side:g},{(y1 + y2) / 2:g} "
                f"S{side:g},{y2:g} {x2 + (box_width / 2 if side > x2 else -box_width / 2):g},{y2:g}"
            )
        parts.append(f"<path d='{path}' fill='none' stroke='{ACCENT}' stroke-width='2' marker-end='url(#tip)'/>")
    for name, (x, y) in places.items():
        parts.append(
            f"<rect x='{x - box_width / 2:g}' y='{y - box_height / 2:g}' width='{box_width}' height='{box_height}' "
            f"rx='6' fill='{FILL}' stroke='{INK}'/>"
        )
        parts.append(_text(x, y + 6, name, 18))
    return _svg(width, 40 + (len(LAYERS) - 1) * gap + 40, "Packages of visionforge and what they import", parts)


def stem(rows: Sequence[tuple[str, str, int, Sequence[int]]], stages: Sequence[str]) -> str:
    """Draw the image and the feature map after each stage, to one scale.

    Args:
        rows: (first line of the label, second line, side of the image in pixels, side of the map after each stage).
        stages: Headings of the maps.
    """
    pixel, left, step, height = 1.5, 190, 100, 126
    width = left + step * (len(stages) + 1)
    parts = [_text(left + step * (i + 0.5), 26, text, 15, colour=MUTED) for i, text in enumerate(("image", *stages))]
    for row, (first, second, image, maps) in enumerate(rows):
        middle = 40 + height * row + height / 2 - 10
        parts.append(_text(12, middle - 4, first, 16, "start"))
        parts.append(_text(12, middle + 18, second, 14, "start", MUTED))
        for column, side in enumerate((image, *maps)):
            x, length = left + step * (column + 0.5), side * pixel
            colour = "#ffffff" if column == 0 else FILL
            parts.append(
                f"<rect x='{x - length / 2:g}' y='{middle - length / 2:g}' width='{length:g}' height='{length:g}' "
                f"fill='{colour}' stroke='{INK if column == 0 else ACCENT}'/>"
            )
            parts.append(_text(x, middle + max(length / 2, 8) + 18, str(side), 15))
    return _svg(width, 40 + height * len(rows), "Feature maps of ResNet-18 with and without the adapted stem", parts)
