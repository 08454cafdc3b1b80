"""Edits of sources of installed packages far before the cursor, and what should follow.

After an ordinary edit the package's own code follows, so the true next line is known. Before the edit a function is
missing or superfluous, or a local name differs. An adversarial edit changes a definition that the continuation depends
on and that nothing near the cursor repeats. In ``value``, ``rename``, ``signature`` and ``derived`` the model can look
up the definition itself. In the others the tokens between also carry information about it: about the old one until
they are encoded again.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from unspool.decoding.model import Model
from unspool.methods.cache.edit import Change

MODULES = (
    "jinja2.loaders", "rich.table", "typer.core", "lark.tree", "jsonschema.validators", "jinja2.lexer", "rich.text",
    "rich.syntax", "jinja2.environment", "psutil._common", "rich.progress", "lark.lexer", "jsonschema._utils",
    "jinja2.runtime", "rich.markdown", "platformdirs.api", "rich.layout", "lark.load_grammar", "jinja2.nodes",
    "typer.main",
)  # fmt: skip
_BETWEEN = 400  # tokens of source between the definition and the cursor of an adversarial edit
_ADVERSARIAL = {
    "value": ("RETRY_LIMIT = {}\n\n\n", "3", "8", "\n\n# the value given at the top\nassert RETRY_LIMIT =="),
    "rename": ("def probe_{}(path):\n    return open(path)\n\n\n", "colour", "weight", "\n\nresult = probe_"),
    "signature": ("def combine(left, {}=1):\n    pass\n\n\n", "apple", "cherry", "\n\n\ncombine(left,"),
    "derived": ("FIRST = {}\nSECOND = FIRST\n\n\n", "3", "8", "\n\n# the value given at the top\nassert SECOND =="),
    "passed on": ("FIRST = {}\n\n\n", "3", "8", "\n\nSECOND = FIRST\nTHIRD = SECOND\nprint(THIRD)  # prints"),
    "printed": ('MODE = "{}"\n\n\n', "read", "write", '\n\nprint("The mode is", MODE)\n# The output is: The mode is'),
    "type": (
        "seen = {}\n\n\n",
        "[]",
        "set()",
        "\n\nfor item in stream:\n    if item not in seen:\n        seen.",
        "add",
    ),
    "unit": ("# Lengths are in {}.\n\n\n", "metres", "inches", '\n\nprint(f"The box is {length} long, in'),
}
"""For each kind: a definition, the content of its gap before and after the edit, and the end of the prompt. The model
should continue with the content of the gap, or with the last text."""


@dataclass(frozen=True)
class EditCase:
    """One edit.

    Attributes:
        kind: ``insert``, ``delete``, ``rename``; of the adversarial ones what changes.
        before: text that is cached.
        changes: the edit.
        line: what truly follows the edited text, without indentation; of an adversarial edit its beginning.
    """

    kind: str
    before: str
    changes: list[Change]
    line: str


def ordinary(model: Model, module: str, far: int) -> Iterator[EditCase]:
    """One edit of each kind that the module has a place for.

    Args:
        far: longest prompt in tokens; edits are at least a fifth of it before the cursor.
    """
    source, other = _source(module), _source(MODULES[(MODULES.index(module) + 1) % len(MODULES)])
    text, line = _prompt(model, source, far)
    spans = [span for span in _functions(source) if span[1] <= len(text)]
    spans = [span for span in spans if far // 5 <= len(model.tokenizer.encode(text[span[0] :])) <= far]
    if not spans:
        return
    start, stop = spans[len(spans) // 2]
    block = text[start:stop]
    yield EditCase("insert", text[:start] + text[stop:], [(start, start, block)], line)
    foreign = next(other[a:b] for a, b in _functions(other))
    yield EditCase("delete", text[:start] + foreign + text[start:], [(start, start + len(foreign), "")], line)
    if name := _local(block):
        places = [start + match.start() for match in re.finditer(rf"\b{name}\b", block)]
        yield EditCase("rename", *_renamed(text, name, places), line)


def adversarial(model: Model, module: str, far: int) -> Iterator[EditCase]:
    """One edit of each adversarial kind.

    Args:
        far: tokens of the module's source from which what is between the definition and the cursor is taken.
    """
    text, _ = _prompt(model, _source(module), far)
    body = model.tokenizer.decode(model.tokenizer.encode(text)[-_BETWEEN:])
    for kind, (definition, old, new, end, *answer) in _ADVERSARIAL.items():
        at = definition.index("{}")
        before = definition.replace("{}", old) + body + end
        yield EditCase(kind, before, [(at, at + len(old), new)], answer[0] if answer else new)


def _source(module: str) -> str:
    spec = find_spec(module)
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).read_text(encoding="utf-8")


def _prompt(model: Model, source: str, far: int) -> tuple[str, str]:
    """The longest beginning of at most ``far`` tokens that ends at the end of a line before one of code, and that."""
    head = model.tokenizer.decode(model.tokenizer.encode(source)[:far])
    lines = source.splitlines(keepends=True)
    last = min(head.count("\n"), len(lines) - 1)
    index = next(i for i in range(last, 0, -1) if _is_code(lines[i]) and _is_code(lines[i - 1]))
    return "".join(lines[:index]).removesuffix("\n"), lines[index].strip()


def _is_code(line: str) -> bool:
    return line.startswith("    ") and len(line.strip()) >= 10 and not line.strip().startswith(("#", '"'))


def _functions(source: str) -> list[tuple[int, int]]:
    """Spans of the functions of 4 to 30 lines, whole lines and the blank ones after them."""
    lines = source.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    spans = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and node.end_lineno is not None:
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)]) - 1
            last = node.end_lineno
            if 4 <= last - first <= 30:
                while last < len(lines) and not lines[last].strip():
                    last += 1
                spans.append((starts[first], starts[last]))
    return sorted(spans)


def _local(block: str) -> str | None:
    """A name that the block assigns to and that occurs 3 times, or the fewest times more that there are."""
    count = Counter(re.findall(r"(?<![\w.\"'])[a-z_]{3,}\b(?!\s*\()", block))
    names = [name for name in count if count[name] >= 3 and re.search(rf"\b{name} = ", block)]
    return min(names, key=lambda name: (count[name], name), default=None)


def _renamed(text: str, name: str, places: list[int]) -> tuple[str, list[Change]]:
    """The text with another name at these places, and the changes that bring the name back."""
    other, changes = f"old_{name}", []
    before, at = "", 0
    for place in places:
        before += text[at:place]
        changes.append((len(before), len(before) + len(other), name))
        before += other
        at = place + len(name)
    return before + text[at:], changes
