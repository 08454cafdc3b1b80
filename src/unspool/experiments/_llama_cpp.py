"""llama.cpp's quantiser and dequantiser, through the shared libraries of llama-cpp-python."""

from __future__ import annotations

import ctypes
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unspool.errors import UnspoolError
from unspool.experiments._gguf_files import Values, write


class _Parameters(ctypes.Structure):
    """``llama_model_quantize_params``: its first two fields, which are old, and room for the rest."""

    _fields_ = (("threads", ctypes.c_int32), ("type", ctypes.c_int32), ("rest", ctypes.c_int64 * 64))


class _Traits(ctypes.Structure):
    """``ggml_type_traits``."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("block", ctypes.c_int64),
        ("interleaved", ctypes.c_int64),
        ("size", ctypes.c_size_t),
        ("quantised", ctypes.c_bool),
        ("to_float", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)),
    )


class LlamaCpp:
    """The quantiser and dequantiser of llama.cpp."""

    def __init__(self) -> None:
        folder = _folder()
        self._base = ctypes.CDLL(str(_library(folder, "ggml-base")), ctypes.RTLD_GLOBAL)
        for path in sorted(folder.glob("libggml.*")):
            ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)
        self._llama = ctypes.CDLL(str(_library(folder, "llama")))
        self._llama.llama_model_quantize_default_params.restype = _Parameters
        self._llama.llama_model_quantize.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)
        self._llama.llama_model_quantize.restype = ctypes.c_uint32
        self._base.ggml_get_type_traits.restype = ctypes.POINTER(_Traits)
        # Its log goes to stderr, hundreds of lines.
        self._silent = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *line: None)
        self._llama.llama_log_set(self._silent, None)

    def write(self, path: Path, model: Any, name: str, kind: int) -> None:
        source = path.with_name("source.gguf")
        write(source, model)
        parameters = self._llama.llama_model_quantize_default_params()
        parameters.threads, parameters.type = 1, kind
        code = self._llama.llama_model_quantize(str(source).encode(), str(path).encode(), ctypes.byref(parameters))
        if code:
            raise UnspoolError(f"llama.cpp cannot quantise to {name}")

    def values(self, data: NDArray[np.uint8], kind: int, n: int) -> Values:
        if kind == 0:
            return data.view(np.float32)
        out = np.empty(n, np.float32)
        self._base.ggml_get_type_traits(kind).contents.to_float(data.ctypes.data, out.ctypes.data, n)
        return out


def _library(folder: Path, name: str) -> Path:
    found = sorted(path for path in folder.glob(f"lib{name}.*") if path.suffix in (".so", ".dylib", ".dll"))
    if not found:
        raise UnspoolError(f"{folder} has no lib{name}; install llama-cpp-python again")
    return found[0]


def _folder() -> Path:
    """Of the installed llama-cpp-python, without importing it."""
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or spec.origin is None:
        raise UnspoolError('llama-cpp-python is not installed; pip install "unspool[peers]"')
    return Path(spec.origin).parent / "lib"
