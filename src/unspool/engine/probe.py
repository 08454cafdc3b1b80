"""Probes: what can be read off the states that a text was decoded from. They change nothing of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from unspool.engine.taps import Hidden, Taps

if TYPE_CHECKING:
    from unspool.training.artifact import Artifact


@dataclass(frozen=True)
class States:
    """What a probe reads of one pass: one entry for each emitted token, of the node that it was chosen after.

    Attributes:
        tokens: the emitted ids.
        position: absolute position of the first of them.
        hidden, attention: as in ``Scores``, by tapped layer; valid only during ``read``.
    """

    tokens: Sequence[int]
    position: int
    hidden: Hidden
    attention: Hidden


@dataclass(frozen=True)
class Reading:
    """What a probe says of the emitted tokens of one pass.

    Attributes:
        values: one for each of them.
        labels: one for each of them, where the probe has classes; else empty.
    """

    values: tuple[float, ...]
    labels: tuple[str, ...] = ()


class Probe(Protocol):
    """Reads a figure off the states of each token.

    Attributes:
        taps: the states that it reads.
    """

    taps: Taps

    def read(self, states: States) -> Reading:
        """A pure function of the states: the same ones give the same reading, whatever was read before."""
        ...

    def fit(self, examples: Iterable[tuple[States, Any]]) -> Artifact:
        """Train on states and what the reading should be; this probe stays as it is."""
        ...


def states_of(
    hidden: Hidden, attention: Hidden | None, taps: Taps, nodes: Sequence[int], tokens: Sequence[int], position: int
) -> States:
    """The part of a pass's scores that a probe asked for, at the nodes after which tokens were emitted."""
    places = list(nodes)
    return States(
        tuple(tokens),
        position,
        {layer: hidden[layer][places] for layer in taps.layers},
        {layer: (attention or {})[layer][places] for layer in taps.attention},
    )
