"""Whether identifiers under a monitor exist: fixed classes, judged by the syntax tree of their file."""

from __future__ import annotations

import ast
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unspool.decoding.model import Model

JUDGE = "the syntax tree of the package"

CLASSES = {
    "Lantern": ("weigh_brass", "light_wick", "oil_left"),
    "Ledger": ("strike_line", "total_of_page", "carry_forward"),
    "Orchard": ("count_ripe", "prune_row", "yield_last_year"),
    "Turbine": ("spin_down", "blade_count", "read_gauge"),
}


def outcomes(model: Model, options: Mapping[str, Any]) -> Iterator[tuple[bool | None, int]]:
    """For each class, whether the name after its dot is a member (None if it was cut), and the number of tokens."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, "workshop.py")
        file.write_text("\n\n".join(map(_class_of, CLASSES)), "utf-8")
        for cls in ast.parse(file.read_text("utf-8")).body:
            assert isinstance(cls, ast.ClassDef)
            members = {node.name for node in cls.body if isinstance(node, ast.FunctionDef)}
            thing = cls.name.lower()
            code = f"from workshop import {cls.name}\n\n{thing} = {cls.name}()\n{thing}."
            result = model.generate(code, constraint=f"monitor(project={directory!r})", **options)
            (name,) = re.findall(r"^\w*", result.text)
            ended = result.finish_reason == "stop" or name != result.text
            yield (name in members or hasattr(object, name)) if ended else None, len(result.token_ids)


def _class_of(name: str) -> str:
    return f"class {name}:\n" + "\n".join(f"    def {member}(self):\n        pass\n" for member in CLASSES[name])
