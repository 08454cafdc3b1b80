"""How each backend loads a masked-diffusion model. ``models.diffusion`` recognises the directories."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Fast

from unspool.engine.canvas import Denoiser
from unspool.engine.cpu import check_threads
from unspool.errors import UnknownNameError, UnspoolError
from unspool.models.diffusion import CANVAS
from unspool.models.tokenizer import Tokenizer

Report = Callable[[str], None]


def tokenizer(directory: Path) -> Tokenizer:
    """The tokenizer of a masked-diffusion model.

    Raises:
        UnspoolError: if it cannot be read.
    """
    if not (directory / CANVAS).is_file():
        from unspool.backends import prepare  # resolves names too, those of built-in models among them

        return prepare.directory_tokenizer(directory)
    try:
        # `unspool train diffusion` writes a plain tokenizer.json; transformers would convert it to the model type's
        # tokenizer.
        return Tokenizer.of(Fast.from_file(str(directory / "tokenizer.json")))
    except Exception as error:  # the library has no exception types
        raise UnspoolError(f"cannot read {directory / 'tokenizer.json'}: {error}; train the model again") from error


def load(directory: Path, backend: str, report: Report, options: Mapping[str, Any]) -> Denoiser:
    """Load a model with a backend by name. The options are the backend's own.

    Raises:
        UnknownNameError: if the backend or an option does not exist.
        UnspoolError: if an option's value is wrong, or the directory does not contain a diffusion model.
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
