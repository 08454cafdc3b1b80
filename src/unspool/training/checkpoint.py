"""The saved state of an interrupted training: models, optimizers, steps and the learning curve."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unspool.errors import UnspoolError
from unspool.storage import cache as store

if TYPE_CHECKING:
    import torch

STATE = "training.pt"

MOST = {
    "batch_size": 65_536,
    "block_length": 65_536,
    "hidden_size": 65_536,
    "intermediate_size": 2**20,
    "max_steps": 10**8,
    "num_hidden_layers": 1024,
    "num_train_epochs": 10**6,
    "questions": 100_000,
    "save_steps": 10**8,
}
"""Maximum of each option that is a count; more is a typing error and would fill the memory."""

PIECE = 50
"""Steps between two points of the learning curve."""

Curve = list[tuple[int, float, float]]
"""Steps, mean loss since the last point, and seconds."""


def check_counts(options: Any, *names: str) -> None:
    """Reject options, given by name, that are below 1 or above ``MOST``."""
    for name in names:
        if not 1 <= getattr(options, name) <= MOST[name]:
            raise UnspoolError(f"{name} must lie in 1 to {MOST[name]:,}, not {getattr(options, name)}")


def resume(
    state: Path, told: str, optimizers: Sequence[torch.optim.Optimizer], **models: torch.nn.Module
) -> tuple[int, Curve]:
    """Load what ``save`` wrote into models and optimizers.

    Args:
        told: the options as JSON.

    Returns:
        The number of finished steps and their curve; 0 and empty without a state.

    Raises:
        UnspoolError: if the state belongs to other options.
    """
    import torch

    if not state.exists():
        return 0, []
    try:
        saved = torch.load(state, weights_only=True)
    except Exception as error:  # unpickling may raise anything
        raise UnspoolError(f"{state} is damaged; delete it to train from scratch") from error
    if json.loads(saved["options"]) != json.loads(told):
        raise UnspoolError(f"{state} belongs to training with other options; delete it, or use another directory")
    for name, model in models.items():
        model.load_state_dict(saved[name])
    for optimizer, kept in zip(optimizers, saved["optimizers"], strict=True):
        optimizer.load_state_dict(kept)
    return int(saved["steps"]), [(int(s), float(v), float(t)) for s, v, t in saved["curve"]]


def joined(before: Curve, curve: Curve) -> Curve:
    """The curve of a training joined with that of its continuation."""
    steps, _, seconds = before[-1] if before else (0, 0.0, 0.0)
    return [*before, *((s + steps, value, t + seconds) for s, value, t in curve)]


def save(
    state: Path,
    told: str,
    steps: int,
    curve: Curve,
    optimizers: Sequence[torch.optim.Optimizer],
    **models: torch.nn.Module,
) -> None:
    """Write the state atomically."""
    import torch

    saved = {
        "options": told,
        "steps": steps,
        "curve": curve,
        **{name: model.state_dict() for name, model in models.items()},
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
    }
    with store.atomic_file(state) as part:
        torch.save(saved, part)
