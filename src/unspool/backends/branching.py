"""Decides from its configuration whether a torch model can score token trees; used by both backends.

Whether it scores them correctly is measured: see ``conversion_check``.
"""

from __future__ import annotations

import inspect
from typing import Any

from unspool.errors import UnsupportedError

FULL, SLIDING = "full_attention", "sliding_attention"


def windows(model: Any) -> dict[str, int | None]:
    """The model's kinds of attention layers, each with its window in positions; None: full attention.

    Raises:
        UnsupportedError: if the model cannot score a tree exactly; with the reason.
    """
    name, config = type(model).__name__, model.config.get_text_config(decoder=True)
    kinds = set(getattr(config, "layer_types", None) or ())
    window = getattr(config, "sliding_window", None)
    if not kinds:  # transformers' convention: without a list, a window applies to all layers
        kinds = {FULL if window is None else SLIDING}
    refusals = (
        (model.config.is_encoder_decoder, "it is an encoder-decoder"),
        (model._is_stateful, "its state is recurrent and cannot branch"),
        (not kinds <= {FULL, SLIDING}, f"of its layers {sorted(kinds)} only full and sliding attention can branch"),
        ("position_ids" not in inspect.signature(model.forward).parameters, "it takes no position ids"),
        (SLIDING in kinds and not isinstance(window, int), "its sliding layers have no single window"),
        (model.get_output_embeddings() is None, "it has no output layer"),
    )
    for refused, reason in refusals:
        if refused:
            raise UnsupportedError(f"{name} cannot score token trees: {reason}")
    return {kind: window if kind == SLIDING else None for kind in sorted(kinds)}


def max_length(model: Any) -> int:
    """The maximum text length in tokens.

    Raises:
        UnsupportedError: if the configuration does not say.
    """
    config = model.config.get_text_config(decoder=True)
    limit = getattr(config, "max_position_embeddings", None)
    if limit is None:
        raise UnsupportedError(
            f"the configuration of {type(model).__name__} has no max_position_embeddings; add it to config.json"
        )
    # Dynamic scaling changes all rotary frequencies once the text exceeds the original length. In a tree, one deep node
    # would change those of shallower nodes, which plain decoding would not do yet. Up to that length they are exact.
    rope = getattr(config, "rope_parameters", None) or {}
    for part in (rope, *rope.values()):  # one set of parameters, or one per kind of layer
        if isinstance(part, dict) and part.get("rope_type") == "longrope":
            limit = min(limit, part.get("original_max_position_embeddings") or limit)
    return int(limit)
