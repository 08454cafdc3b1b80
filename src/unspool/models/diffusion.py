"""Recognises masked-diffusion models and reads what their files say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unspool.errors import UnspoolError, UnsupportedError
from unspool.models import identity
from unspool.storage.text_files import parse_json, read_text

CANVAS = "canvas.json"
"""File next to the weights for what no transformers configuration has: the mask, the lengths, the training."""

_CHECKPOINTS = ("llada", "dream", "diffusion_gemma")  # the last one is refused, with the reason

SHIPPED = Path(__file__).parents[1] / "recipes" / "tiny_diffusion" / "models"
"""Directories of the built-in models, by name."""


def shipped() -> list[str]:
    """Names of the built-in models."""
    return sorted(path.parent.name for path in SHIPPED.glob(f"*/{CANVAS}"))


def is_diffusion(name: str | None) -> bool:
    """Whether ``name`` is a built-in masked-diffusion model, or a directory that contains one."""
    if name is None:
        return False
    try:
        if (Path(name) / CANVAS).is_file() or name in shipped():
            return True
        config = Path(name) / "config.json"
        return config.is_file() and str(_object(config).get("model_type", "")).lower() in _CHECKPOINTS
    except (OSError, UnspoolError):
        return False  # reported on loading


def find(name: str) -> Path:
    """The directory of ``name``: on this disk, or of a built-in model.

    Raises:
        UnspoolError: if there is none.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if name in shipped():
        return SHIPPED / name
    known = ", ".join(shipped()) or "none"
    raise UnspoolError(
        f"no such diffusion model: {name} (known: {known}); name one, a directory that contains one, or make one with "
        "`unspool train diffusion`"
    )


def key(directory: Path) -> str:
    """64 hex digits of the weights, by which what was trained for a model knows it."""
    from unspool.models.resolve import weight_files

    return identity.of_directory(directory, weight_files(directory))


def layout(directory: Path) -> dict[str, Any]:
    """Lengths that a model of ``unspool train diffusion`` was trained on; empty for other models."""
    file = directory / CANVAS
    about = _object(file) if file.is_file() else {}
    return {key: about[key] for key in ("prompt_length", "canvas_length", "pad_token_id") if key in about}


def task_set(directory: Path) -> str:
    """Name of the tasks on which a model was trained.

    Raises:
        UnsupportedError: if it was not made by ``unspool train diffusion``.
    """
    file = directory / CANVAS
    training = _object(file).get("training") if file.is_file() else None
    if not isinstance(training, dict) or "task_set" not in training:
        raise UnsupportedError(
            f"{directory.name} was not trained on tasks with checkers; name a model of `unspool train`"
        )
    return str(training["task_set"])


def _object(file: Path) -> dict[str, Any]:
    try:
        found = parse_json(read_text(file))
    except ValueError as error:
        raise UnspoolError(f"{file} is damaged: {error}; make it again, or fetch it again") from error
    if not isinstance(found, dict):
        raise UnspoolError(f"{file} is damaged: it is not a JSON object; make it again, or fetch it again")
    return found
