"""Refuses what a loader would ignore: a model with random or missing weights is another model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from unspool.errors import UnspoolError

_MASK = ".attn.masked_bias"  # a mask constant in old GPT-2 checkpoints


def refuse(name: str, model: Any, told: Mapping[str, Any], untaken: Iterable[str] = ()) -> None:
    """Refuse a model whose files and weights do not match.

    Args:
        name: of the model, for messages.
        told: transformers' ``output_loading_info``, without what the architecture declares not to be a weight.
        untaken: other tensors of the file that match no weight.

    Raises:
        UnspoolError: names the first weight that is missing, has another shape, or has no place.
    """
    if missing := sorted(told["missing_keys"]):
        raise UnspoolError(f"{name} lacks {len(missing)} weights, first {missing[0]}; fetch it again, or use another")
    if wrong := sorted(told["mismatched_keys"]):
        weight, held, wanted = wrong[0]
        raise UnspoolError(
            f"{len(wrong)} weights of {name} have another size than in its configuration, first {weight}: "
            f"{list(held)} instead of {list(wanted)}; fetch weights and configuration of one model"
        )
    if unknown := sorted(key for key in (*told["unexpected_keys"], *untaken) if not key.endswith(_MASK)):
        raise UnspoolError(
            f"{name} contains {len(unknown)} tensors that {type(model).__name__} has no place for, first {unknown[0]}; "
            "the text would be another model's, so use a model that transformers reads in full"
        )
    if errors := told["error_msgs"]:
        raise UnspoolError(f"cannot load {name}: {errors[0]}")
