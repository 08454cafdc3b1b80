"""Taps: the hidden states and attention that a method reads; they come with the scores of the same pass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from unspool.errors import UnspoolError, UnsupportedError

if TYPE_CHECKING:
    from unspool.engine.contracts import LanguageModel

OUTPUT = -1
"""The output layer: its inputs are the states that the logits are computed from."""

Hidden = Mapping[int, NDArray[np.float32]]
"""By layer, [nodes, hidden size]: the layer's input at each node."""


@dataclass(frozen=True)
class Taps:
    """The layers and nodes to read.

    Attributes:
        layers: whose inputs to read, in any order: 0 is the embeddings, ``i`` the output of layer ``i - 1`` (the index
            of transformers' ``output_hidden_states``), ``OUTPUT`` the input of the output layer.
        attention: layers whose attention to read, 0 the first.
        positions: which nodes: ``rows``, those whose logits are requested, or ``all`` nodes of the tree.
    """

    layers: tuple[int, ...] = (OUTPUT,)
    attention: tuple[int, ...] = ()
    positions: Literal["rows", "all"] = "rows"

    def __post_init__(self) -> None:
        if not self.layers and not self.attention:
            raise UnspoolError("taps need at least one layer; name a layer, or leave the taps out")
        if min(self.layers, default=0) < OUTPUT or min(self.attention, default=0) < 0:
            raise UnspoolError(f"layers are counted from 0, and {OUTPUT} is the output layer, not {min(self.layers)}")
        if self.positions == "all" and OUTPUT in self.layers:
            raise UnspoolError("the output layer reads only the requested rows; use positions='rows'")

    def __bool__(self) -> bool:
        return True


def joined(taps: Iterable[Taps | None]) -> Taps | None:
    """The union of taps; None if there are none.

    Raises:
        UnspoolError: if they read different positions.
    """
    known = [one for one in taps if one is not None]
    if not known:
        return None
    if len({one.positions for one in known}) > 1:
        raise UnspoolError("these methods read states at different positions; run them one at a time")
    layers, attention = (
        tuple(sorted({layer for one in known for layer in getattr(one, name)})) for name in ("layers", "attention")
    )
    return Taps(layers, attention, known[0].positions)


def check(model: LanguageModel, taps: Taps | None, who: str) -> None:
    """Reject taps that a model does not have, before any work.

    Args:
        who: the reader, for the message.

    Raises:
        UnsupportedError: with what to do.
    """
    from unspool.engine.contracts import Ability

    if taps is None:
        return
    backend = model.settings["backend"]
    for wanted, ability in ((taps.layers, Ability.HIDDEN_STATES), (taps.attention, Ability.ATTENTION_MAPS)):
        if wanted and ability not in model.abilities:
            raise UnsupportedError(
                f"{who} needs {ability.value}, which the {backend} backend does not offer; try --backend transformers"
            )
    if (last := max(*taps.layers, *taps.attention, OUTPUT)) >= model.layers:
        raise UnsupportedError(f"{who} reads layer {last}, but the model has layers 0 to {model.layers - 1}")
