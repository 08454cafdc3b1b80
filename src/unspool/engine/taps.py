"""What of a model's inside a method reads: states of layers, given with the scores of the same pass."""

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
"""The layer whose input are the states that the output layer reads: those that the logits are made of."""

Hidden = Mapping[int, NDArray[np.float32]]
"""By layer, [nodes, hidden size]: what the layer reads at each node."""


@dataclass(frozen=True)
class Taps:
    """What is read.

    Attributes:
        layers: whose inputs are read, in any order: 0 reads the embeddings, ``i`` what layer ``i - 1`` wrote (the same
            index as in ``output_hidden_states`` of transformers), ``OUTPUT`` what the output layer reads.
        attention: layers whose attention is read, 0 the first.
        positions: of which nodes: ``rows``, those whose logits are asked for, or ``all`` nodes of the tree.
    """

    layers: tuple[int, ...] = (OUTPUT,)
    attention: tuple[int, ...] = ()
    positions: Literal["rows", "all"] = "rows"

    def __post_init__(self) -> None:
        if not self.layers and not self.attention:
            raise UnspoolError("taps without layers read nothing; name a layer, or leave the taps out")
        if min(self.layers, default=0) < OUTPUT or min(self.attention, default=0) < 0:
            raise UnspoolError(f"layers are counted from 0, and {OUTPUT} is the output layer, not {min(self.layers)}")
        if self.positions == "all" and OUTPUT in self.layers:
            raise UnspoolError("the output layer reads only the rows that are asked for; take positions='rows'")

    def __bool__(self) -> bool:
        return True


def joined(taps: Iterable[Taps | None]) -> Taps | None:
    """One that reads what all of them read; None where there are none.

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
    """Refuse taps that a model does not have, before any work.

    Args:
        who: asks, for the message.

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
        raise UnsupportedError(f"{who} reads layer {last}, and the model has layers 0 to {model.layers - 1}")
