"""What a loader does not understand is never ignored: a model with random or left-out weights is another model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from unspool.errors import UnspoolError

_MASK = ".attn.masked_bias"  # a constant of the mask, which old checkpoints of GPT-2 carry


def refuse(name: str, model: Any, told: Mapping[str, Any], untaken: Iterable[str] = ()) -> None:
    """Refuse a model whose files and weights differ.

    Args:
        name: of the model, for people.
        told: transformers' ``output_loading_info``. It leaves out what the architecture declares to be no weight.
        untaken: further tensors of the file that no weight took.

    Raises:
        UnspoolError: naming the first weight that is missing, has another size, or has no place.
    """
    if missing := sorted(told["missing_keys"]):
        raise UnspoolError(f"{name} lacks {len(missing)} weights, first {missing[0]}; fetch it again, or take another")
    if wrong := sorted(told["mismatched_keys"]):
        weight, held, wanted = wrong[0]
        raise UnspoolError(
            f"{len(wrong)} weights of {name} have another size than its configuration tells, first {weight}: "
            f"{list(held)} instead of {list(wanted)}; fetch weights and configuration of one model"
        )
    if unknown := sorted(key for key in (*told["unexpected_keys"], *untaken) if not key.endswith(_MASK)):
        raise UnspoolError(
            f"{name} holds {len(unknown)} tensors that {type(model).__name__} has no place for, first {unknown[0]}; "
            "the text would be another model's, so take a model that transformers reads whole"
        )
    if errors := told["error_msgs"]:
        raise UnspoolError(f"cannot load {name}: {errors[0]}")
