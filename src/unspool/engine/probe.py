"""Probes: read figures from the hidden states of a decoded text, without changing the text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from unspool.engine.taps import Hidden, Taps

if TYPE_CHECKING:
    from unspool.training.artifact import Artifact


@dataclass(frozen=True)
class States:
    """The input of a probe from one pass: one entry per emitted token, from the node before it.

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
    """The output of a probe for the emitted tokens of one pass.

    Attributes:
        values: one per token.
        labels: one per token if the probe has classes, else empty.
    """

    values: tuple[float, ...]
    labels: tuple[str, ...] = ()


class Probe(Protocol):
    """Computes a figure from the hidden states of each token.

    Attributes:
        taps: the states that it reads.
    """

    taps: Taps

    def read(self, states: States) -> Reading:
        """A pure function of the states: equal states give equal readings, whatever was read before."""
        ...

    def fit(self, examples: Iterable[tuple[States, Any]]) -> Artifact:
        """Train on states and target readings; returns a new probe and leaves this one unchanged."""
        ...


def states_of(
    hidden: Hidden, attention: Hidden | None, taps: Taps, nodes: Sequence[int], tokens: Sequence[int], position: int
) -> States:
    """The scores that a probe taps, at the nodes after which tokens were emitted."""
    places = list(nodes)
    return States(
        tuple(tokens),
        position,
        {layer: hidden[layer][places] for layer in taps.layers},
        {layer: (attention or {})[layer][places] for layer in taps.attention},
    )
