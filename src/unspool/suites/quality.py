"""Answer checks: valid JSON, the right number, a program that passes its tests."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

from unspool.errors import UnknownNameError, UnspoolError
from unspool.sandbox import run as sandbox
from unspool.suites.prompts import Prompt

_FENCED = re.compile(r"```[^\n`]*\n(.*?)```", re.DOTALL)
_NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?")
_PROBLEM = {"prompt", "test", "entry_point"}


def check(prompt: Prompt) -> None:
    """Refuse a prompt whose checker does not exist or cannot use its reference.

    Raises:
        UnspoolError: names the prompt.
    """
    if prompt.checker is None:
        return
    if prompt.checker not in CHECKERS:
        raise UnknownNameError(f"checker of prompt {prompt.id}", prompt.checker, CHECKERS)
    if prompt.checker == "number" and _NUMBER.fullmatch(prompt.reference) is None:
        raise UnspoolError(f'prompt {prompt.id}: the checker "number" needs a number as "reference"')
    if prompt.checker == "humaneval":
        try:
            problem = json.loads(prompt.reference)
        except json.JSONDecodeError:
            problem = None
        if not isinstance(problem, dict) or not problem.keys() >= _PROBLEM:
            raise UnspoolError(
                f'prompt {prompt.id}: the checker "humaneval" needs {", ".join(sorted(_PROBLEM))} as JSON'
            )
        sandbox.require()


def score(prompt: Prompt, answer: str) -> float | None:
    """1.0 if the prompt's checker approves the answer, 0.0 if not, None without a checker."""
    if prompt.checker is None:
        return None
    return float(CHECKERS[prompt.checker](answer, prompt.reference))


def protection(prompts: Iterable[Prompt]) -> dict[str, list[str]]:
    """For results: the kernel guards under which programs run to check these prompts; empty if none runs."""
    return {"sandbox": list(sandbox.guards())} if any(p.checker == "humaneval" for p in prompts) else {}


def is_json(answer: str, _reference: str = "") -> bool:
    """Whether the answer, or the first fenced block in it, is a JSON object or array."""
    block = _FENCED.search(answer)
    try:
        value = json.loads(block[1] if block else answer, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict | list)


def is_number(answer: str, reference: str) -> bool:
    """Whether the last number of the answer is the reference; commas between digits are thousands separators."""
    found = _NUMBER.findall(answer)
    return bool(found) and float(found[-1].replace(",", "")) == float(reference.replace(",", ""))


def passes_tests(answer: str, reference: str, seconds: float = sandbox.SECONDS) -> bool:
    """Whether HumanEval's tests pass on the program in the answer, run in the sandbox for at most ``seconds``."""
    problem: dict[str, Any] = json.loads(reference)
    block = _FENCED.search(answer)
    code = block[1] if block else answer
    # A whole function, or the body that belongs below the problem's signature.
    whole = re.search(rf"^def {re.escape(problem['entry_point'])}\b", code, re.MULTILINE)
    # The problem first, so that its imports and definitions are there in both cases.
    program = f"{problem['prompt']}\n    pass\n\n{code}" if whole else problem["prompt"] + code
    return sandbox.run(f"{program}\n\n{problem['test']}\n\ncheck({problem['entry_point']})\n", seconds)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


CHECKERS: dict[str, Callable[[str, str], bool]] = {"json": is_json, "number": is_number, "humaneval": passes_tests}
"""Checkers, by the names that prompts use."""
