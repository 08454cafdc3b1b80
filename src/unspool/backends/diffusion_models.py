"""Which directories are masked-diffusion models, and what is known of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from unspool.backends.diffusion_checkpoints import CANVAS
from unspool.errors import UnspoolError, UnsupportedError

_CHECKPOINTS = ("llada", "dream")


def is_diffusion(name: str | None) -> bool:
    """Whether ``name`` is a directory that holds a masked-diffusion model."""
    if name is None:
        return False
    if (Path(name) / CANVAS).is_file():
        return True
    config = Path(name) / "config.json"
    if not config.is_file():
        return False
    try:
        return str(json.loads(config.read_text("utf-8")).get("model_type", "")).lower() in _CHECKPOINTS
    except ValueError:
        return False


def find(name: str) -> Path:
    """The directory that ``name`` means.

    Raises:
        UnspoolError: if there is none.
    """
    path = Path(name).expanduser()
    if not path.is_dir():
        raise UnspoolError(
            f"no such directory: {name}; give that of a diffusion model, or make one with `unspool train diffusion`"
        )
    return path


def layout(directory: Path) -> dict[str, Any]:
    """Lengths that a model of ``unspool train diffusion`` was trained on; empty for others."""
    file = directory / CANVAS
    if not file.is_file():
        return {}
    about = json.loads(file.read_text("utf-8"))
    return {key: about[key] for key in ("prompt_length", "canvas_length", "pad_token_id") if key in about}


def task_set(directory: Path) -> str:
    """Name of the tasks that a model was trained on.

    Raises:
        UnsupportedError: if ``unspool train diffusion`` did not write it.
    """
    file = directory / CANVAS
    training = json.loads(file.read_text("utf-8")).get("training") if file.is_file() else None
    if training is None:
        raise UnsupportedError(
            f"{directory.name} was not trained on tasks with checkers; name a model of `unspool train`"
        )
    return str(training["task_set"])
