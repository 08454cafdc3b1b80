"""The layers of the source tree, and a diagram of its imports. ``tests/test_architecture.py`` reads both."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2] / "src" / "unspool"

LAYERS = (
    ("errors",),
    ("engine", "storage", "sandbox"),
    ("models",),
    ("backends", "training"),
    ("methods",),
    ("decoding",),
    ("recipes", "suites", "trace", "conformance"),
    ("proof", "bench"),
    ("reproduce", "report"),
    ("experiments",),
    ("cli", "integrations"),
)
"""From the bottom up: a package may import itself, its layer and lower layers."""

_WIDTH, _ROW, _BOX = 720, 64, (120, 30)


def imports(text: str) -> Iterator[list[str]]:
    """The unspool modules that a file imports, also inside functions; imports for annotations only are omitted."""

    def visit(node: ast.AST) -> Iterator[list[str]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if isinstance(child, ast.ImportFrom) and (child.module or "").split(".")[0] == "unspool":
                parts = (child.module or "").split(".")[1:]
                for name in child.names:
                    deeper = [*parts, name.name]
                    known = (ROOT.joinpath(*deeper).with_suffix(".py").exists(), ROOT.joinpath(*deeper).is_dir())
                    yield deeper if any(known) else parts
            yield from visit(child)

    return visit(ast.parse(text))


def sources() -> list[Path]:
    """Files in rooms."""
    return sorted(path for path in ROOT.rglob("*.py") if path.parent != ROOT)


def arrows() -> Counter[tuple[str, str]]:
    """Number of imports from each package to each other package."""
    found: Counter[tuple[str, str]] = Counter()
    for path in sources():
        room = path.relative_to(ROOT).parts[0]
        found.update((room, there[0]) for there in imports(path.read_text("utf-8")) if there and there[0] != room)
    return found


def picture() -> str:
    """An inline SVG of the packages in their layers, with a line for every pair connected by imports."""
    places: dict[str, tuple[float, float]] = {}
    for level, rooms in enumerate(reversed(LAYERS)):
        for i, room in enumerate(rooms):
            places[room] = (_WIDTH * (i + 1) / (len(rooms) + 1), 24 + _ROW * level)
    lines = []
    for (one, other), count in sorted(arrows().items()):
        if one in places and other in places:
            (x, y), (u, v) = places[one], places[other]
            lines.append(
                f'<path d="M{x:.0f} {y:.0f} C{x:.0f} {(y + v) / 2:.0f} {u:.0f} {(y + v) / 2:.0f} {u:.0f} {v:.0f}" '
                f'fill="none" stroke="currentColor" opacity="0.25" stroke-width="{min(0.5 + count / 20, 4):.1f}">'
                f"<title>{one} imports {other}: {count}</title></path>"
            )
    width, height = _BOX
    boxes = [
        f'<g><rect x="{x - width / 2:.0f}" y="{y - height / 2:.0f}" width="{width}" height="{height}" rx="4" '
        f'fill="var(--md-default-bg-color, white)" stroke="currentColor"/>'
        f'<text x="{x:.0f}" y="{y + 5:.0f}" text-anchor="middle" fill="currentColor">{room}</text></g>'
        for room, (x, y) in places.items()
    ]
    body = "".join([*lines, *boxes])
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_ROW * len(LAYERS)}" role="img" aria-label="Rooms in layers; lines are imports, '
        f'which run down" style="max-width: 100%; font-size: 14px">{body}</svg>'
    )
