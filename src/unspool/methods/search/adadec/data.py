"""Problems from the functions of Python files: signature and docstring are the prompt, the body is the solution."""

from __future__ import annotations

import ast
import random
import textwrap
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

from unspool.errors import UnspoolError

_PER_FILE = 5  # so that no large file dominates


def problems(paths: Iterable[Path], limit: int, seed: int = 0) -> list[tuple[str, str]]:
    """(prompt, solution) of functions with a docstring and a body, drawn at random.

    Args:
        paths: Python files, and directories to search for them. Files that are not Python 3 are skipped.
        limit: maximum number of problems.

    Raises:
        UnspoolError: if a path does not exist or no such function is found.
    """
    files: list[Path] = []
    for path in paths:
        if not path.exists():
            raise UnspoolError(f"{path} does not exist; give Python files or directories of them")
        files += sorted(path.rglob("*.py")) if path.is_dir() else [path]
    # Files in random order, so that not all of a large tree has to be parsed.
    generator = random.Random(seed)
    generator.shuffle(files)
    found: list[tuple[str, str]] = []
    for file in files:
        if len(found) >= limit:
            break
        functions = list(_functions(file))
        found += generator.sample(functions, min(len(functions), _PER_FILE))
    if not found:
        raise UnspoolError("these files contain no function with a docstring and a body; give others")
    return found[:limit]


def _functions(file: Path) -> Iterator[tuple[str, str]]:
    try:
        source = file.read_text("utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about strings in the files read
            tree = ast.parse(source)
    except (OSError, ValueError, SyntaxError, RecursionError):
        return
    lines = source.splitlines(keepends=True)
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef) or ast.get_docstring(node) is None or len(node.body) < 2:
            continue
        end, last = node.body[0].end_lineno, node.end_lineno
        if end is None or last is None or node.body[1].lineno <= end:
            continue
        text = textwrap.dedent("".join(lines[node.lineno - 1 : last]))
        split = text.splitlines(keepends=True)
        at = end - node.lineno + 1
        yield "".join(split[:at]), "".join(split[at:])
