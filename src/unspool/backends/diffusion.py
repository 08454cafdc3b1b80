"""Which directories are masked-diffusion models, what is known of them, and how each backend loads one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Fast

from unspool.backends.torch.checkpoints import CANVAS
from unspool.engine.canvas import Denoiser
from unspool.engine.cpu import check_threads
from unspool.errors import UnknownNameError, UnspoolError, UnsupportedError
from unspool.models.tokenizer import Tokenizer
from unspool.storage.text_files import parse_json, read_text

Report = Callable[[str], None]

_CHECKPOINTS = ("llada", "dream", "diffusion_gemma")  # the last one is refused with its reason

SHIPPED = Path(__file__).parents[1] / "recipes" / "tiny_diffusion" / "models"
"""Directories of the models that come with unspool, by name."""


def shipped() -> list[str]:
    """Names of the models that come with unspool."""
    return sorted(path.parent.name for path in SHIPPED.glob(f"*/{CANVAS}"))


def is_diffusion(name: str | None) -> bool:
    """Whether ``name`` is a shipped masked-diffusion model, or a directory that holds one."""
    if name is None:
        return False
    if (Path(name) / CANVAS).is_file() or name in shipped():
        return True
    config = Path(name) / "config.json"
    if not config.is_file():
        return False
    try:
        return str(_object(config).get("model_type", "")).lower() in _CHECKPOINTS
    except UnspoolError:
        return False  # said by who loads it


def find(name: str) -> Path:
    """The directory that ``name`` means: one on this disk, or that of a shipped model.

    Raises:
        UnspoolError: if there is none.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if name in shipped():
        return SHIPPED / name
    known = ", ".join(shipped()) or "none ships"
    raise UnspoolError(
        f"no such diffusion model: {name} (known: {known}); name one, a directory that holds one, or make one with "
        "`unspool train diffusion`"
    )


def layout(directory: Path) -> dict[str, Any]:
    """Lengths that a model of ``unspool train diffusion`` was trained on; empty for others."""
    file = directory / CANVAS
    about = _object(file) if file.is_file() else {}
    return {key: about[key] for key in ("prompt_length", "canvas_length", "pad_token_id") if key in about}


def tokenizer(directory: Path) -> Tokenizer:
    """The tokenizer of a masked-diffusion model.

    Raises:
        UnspoolError: if it cannot be read.
    """
    if not (directory / CANVAS).is_file():
        from unspool.backends import prepare  # which resolves names, those of the shipped models among them

        return prepare.directory_tokenizer(directory)
    try:
        # `unspool train diffusion` writes the tokenizer as it is; to transformers it would be one of the model's kind.
        return Tokenizer.of(Fast.from_file(str(directory / "tokenizer.json")))
    except Exception as error:  # the library has no kinds of errors
        raise UnspoolError(f"cannot read {directory / 'tokenizer.json'}: {error}; train the model again") from error


def task_set(directory: Path) -> str:
    """Name of the tasks that a model was trained on.

    Raises:
        UnsupportedError: if ``unspool train diffusion`` did not write it.
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
        raise UnspoolError(f"{file} is damaged: {error}; make it anew, or fetch it again") from error
    if not isinstance(found, dict):
        raise UnspoolError(f"{file} is damaged: it holds no JSON object; make it anew, or fetch it again")
    return found


def load(directory: Path, backend: str, report: Report, options: Mapping[str, Any]) -> Denoiser:
    """Load a model with a backend by name; options are the backend's own.

    Raises:
        UnknownNameError: for a backend, or an option of it, that does not exist.
        UnspoolError: if an option's value is wrong, or the directory holds no diffusion model.
    """
    if backend not in _BACKENDS:
        raise UnknownNameError("backend for canvases", backend, _BACKENDS)
    loader = _BACKENDS[backend]
    known = set(inspect.signature(loader).parameters) - {"directory", "report"}
    for name in options:
        if name not in known:
            raise UnknownNameError(f"option of canvases on {backend}", name, known)
    return loader(directory, report, **options)


def _torch(directory: Path, report: Report, device: str = "cpu") -> Denoiser:
    from unspool.backends.prepare import quiet, torch_device
    from unspool.backends.torch.checkpoints import load_denoiser

    torch_device(device)
    report("loading the weights into torch")
    with quiet():
        return load_denoiser(directory, device)


def _openvino(directory: Path, report: Report, weights: str = "fp32", threads: int | None = None) -> Denoiser:
    from unspool.backends.openvino.canvas import OpenVINODenoiser
    from unspool.backends.openvino.canvas_convert import converted

    check_threads(threads)
    return OpenVINODenoiser(converted(directory, weights, report), threads)


_BACKENDS: Mapping[str, Callable[..., Denoiser]] = {"transformers": _torch, "openvino": _openvino}
