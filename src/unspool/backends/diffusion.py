"""How each backend loads a masked-diffusion model. Which directories are one is ``models.diffusion``."""

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
        from unspool.backends import prepare  # which resolves names, those of the shipped models among them

        return prepare.directory_tokenizer(directory)
    try:
        # `unspool train diffusion` writes the tokenizer as it is; to transformers it would be one of the model's kind.
        return Tokenizer.of(Fast.from_file(str(directory / "tokenizer.json")))
    except Exception as error:  # the library has no kinds of errors
        raise UnspoolError(f"cannot read {directory / 'tokenizer.json'}: {error}; train the model again") from error


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
