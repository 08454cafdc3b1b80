"""Answers that are Python functions, checked by running them: only integer arithmetic can be run."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Sequence
from typing import Any

from unspool.recipes.tiny_diffusion.tasks import Symbols

INDENT, NEWLINE = "    ", "\n"
DEF, RETURN, IF = "def ", "return ", "if "
"""Words with their trailing space, so that an answer's joined symbols are its text."""

NAMES = ("f0", "f1", "f2")
OPERATIONS: dict[str, Callable[[int, int], int]] = {"+": operator.add, "-": operator.sub, "*": operator.mul}

_ALLOWED = (
    *(ast.Module, ast.FunctionDef, ast.arguments, ast.arg, ast.Return, ast.Assign, ast.If, ast.Compare, ast.Lt, ast.Gt),
    *(ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Call, ast.Name, ast.Load, ast.Store),
)


def computes(answer: Symbols, name: str, meaning: Callable[..., int], arguments: Sequence[tuple[int, ...]]) -> bool:
    """Whether the answer defines a function of this name that agrees with ``meaning``.

    Only definitions, assignments, returns, conditions, arithmetic and calls of ``min`` and ``max`` are run: nothing
    that can take long or have side effects.
    """
    try:
        tree = ast.parse("".join(answer))
    except (SyntaxError, ValueError):
        return False
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    if not all(isinstance(node, _ALLOWED) for node in ast.walk(tree)) or not all(
        isinstance(function, ast.Name) and function.id in ("min", "max") for function in calls
    ):
        return False
    space: dict[str, Any] = {"__builtins__": {}, "min": min, "max": max}
    try:
        exec(compile(tree, "<answer>", "exec"), space)
        return all(space[name](*values) == meaning(*values) for values in arguments)
    except (NameError, TypeError, KeyError, SyntaxError):
        return False
