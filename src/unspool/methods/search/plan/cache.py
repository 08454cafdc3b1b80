"""What PG-TD already knows: completed programs and the model's top tokens along them, in one tree of prefixes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from unspool.engine.search import Output
from unspool.engine.trace import FinishReason

Alternatives = tuple[tuple[int, float], ...]
"""The top-k (token, log-probability) after a prefix, most likely first."""


@dataclass(frozen=True)
class Program:
    """A complete output.

    Attributes:
        logprob: log-probability under the model.
    """

    output: Output
    logprob: float
    finish_reason: FinishReason


@dataclass
class _Prefix:
    children: dict[int, _Prefix] = field(default_factory=dict)
    alternatives: Alternatives | None = None
    program: Program | None = None


class PlanCache:
    """Tree-structure cache and sequence cache of one search."""

    def __init__(self) -> None:
        self._root = _Prefix()

    def record(self, program: Program, start: int, alternatives: Mapping[Output, Alternatives]) -> None:
        """Keep a program that was completed greedily from its first ``start`` tokens.

        Args:
            alternatives: the model's top tokens after prefixes of it.
        """
        prefix = self._root
        for length, token in enumerate(program.output, 1):
            prefix = prefix.children.setdefault(token, _Prefix())
            if length >= start:
                prefix.program = prefix.program or program
                prefix.alternatives = prefix.alternatives or alternatives.get(program.output[:length])

    def alternatives(self, output: Output) -> Alternatives | None:
        """The model's top tokens after a prefix, if a completion passed it."""
        prefix = self._find(output)
        return None if prefix is None else prefix.alternatives

    def program(self, output: Output) -> Program | None:
        """The greedy completion of a prefix, if it is known."""
        prefix = self._find(output)
        return None if prefix is None else prefix.program

    def _find(self, output: Output) -> _Prefix | None:
        prefix: _Prefix | None = self._root
        for token in output:
            if prefix is None:
                return None
            prefix = prefix.children.get(token)
        return prefix
