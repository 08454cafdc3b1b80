"""A reward for programs: the share of the examples in a prompt's docstring that pass, run in the sandbox.

The prompt is Python that ends with the signature and docstring of a function, as HumanEval's do; the body that follows
it is rewarded. Examples are doctests (``>>> f(1)`` and the result below, or ``>>> f(1) == 2``) and lines such
as ``f(1) == 2``, ``f(1) => 2`` or ``f(1) returns 2``. Results must be Python literals. Statements of doctests are run
before the examples that follow them.
"""

from __future__ import annotations

import ast
import doctest
import re
from typing import Any

from unspool.errors import UnspoolError
from unspool.sandbox import run as sandbox


class PublicTests:
    """The examples of one prompt; call it with a completion.

    Args:
        prompt: Python source that a function body completes.
        seconds: wall-clock limit for each example.

    Attributes:
        checks: source of each example, to be run after the program.
        guards: the kernel's guards on the programs, as ``sandbox.GUARDS`` explains them.

    Raises:
        UnspoolError: if the prompt is not the beginning of a Python function or its docstring has no example.
    """

    def __init__(self, prompt: str, seconds: float = sandbox.SECONDS) -> None:
        sandbox.require()
        self._prompt = prompt
        self._seconds = seconds
        self.checks = _checks(*_function(prompt))
        if not self.checks:
            raise UnspoolError(
                "the prompt's docstring has no example such as `>>> f(1)` with its result below; give another reward"
            )
        self.guards = sandbox.guards()

    def __call__(self, completion: str) -> float:
        """Share of the examples that pass, 0 to 1. Each runs in its own program, so one that hangs affects no other."""
        program = self._prompt + completion
        held = [sandbox.run(f"{program}\n\n{check}\n", self._seconds) for check in self.checks]
        return sum(held) / len(held)


def _function(prompt: str) -> tuple[str, str]:
    """Name and docstring."""
    try:
        last = ast.parse(f"{prompt}\n    pass\n").body[-1]
    except (SyntaxError, ValueError):
        last = None
    if not isinstance(last, ast.FunctionDef | ast.AsyncFunctionDef):
        raise UnspoolError("the prompt does not end with a Python function's signature and docstring; fix it")
    return last.name, ast.get_docstring(last) or ""


def _checks(name: str, docstring: str) -> list[str]:
    if ">>>" not in docstring:
        return _lines(name, docstring)
    setup = ""
    checks: list[str] = []
    for example in _examples(docstring):
        expression = _parsed(example.source)
        if expression is None:
            setup += example.source if _parsed(example.source, "exec") else ""
        elif isinstance(expression.body, ast.Compare) and not example.want:
            checks.append(f"{setup}assert {ast.unparse(expression)}")
        else:
            # If nothing is below, nothing is printed: the result is None.
            checks += [setup + check for check in _check(ast.unparse(expression), example.want or "None")]
    return checks


def _examples(docstring: str) -> list[doctest.Example]:
    """Each example by itself: doctest refuses the whole text if one is malformed."""
    parser = doctest.DocTestParser()
    found = []
    for part in docstring.split(">>>")[1:]:
        try:
            found += parser.get_examples(f">>>{part.rstrip(' ')}")
        except ValueError:
            continue
    return found


def _lines(name: str, docstring: str) -> list[str]:
    pattern = rf"\b({re.escape(name)}\(.*\))\s*(?:==|=>|=|->|\u279e|\u2192|should return|returns?)\s*(.+?)[.,;]?\s*$"
    found = re.findall(pattern, docstring, re.MULTILINE)
    return [check for call, want in found if _of_literals(call) for check in _check(call, want)]


def _of_literals(call: str) -> bool:
    """Whether a call outside a doctest is literal: some docstrings leave out the quotes of strings."""
    tree = _parsed(call)
    return tree is not None and not any(isinstance(node, ast.Name) for node in list(ast.walk(tree.body))[2:])


def _check(expression: str, want: str) -> list[str]:
    try:
        value = ast.literal_eval(want.strip())
    except (SyntaxError, ValueError):
        return []
    return [f"assert {expression} == {value!r}"]


def _parsed(source: str, mode: str = "eval") -> Any:
    """The syntax tree; None if it cannot be parsed."""
    try:
        return ast.parse(source.strip(), mode=mode)
    except (SyntaxError, ValueError):
        return None
