"""unspool: one engine that decodes language models by every published method, each proven against plain decoding."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

try:
    __version__ = version("unspool")
except PackageNotFoundError:  # a checkout that is not installed
    __version__ = "0+unknown"

if TYPE_CHECKING:
    from unspool.decoding.canvas import DiffusionModel
    from unspool.decoding.edit import EditableText, EditedResult
    from unspool.decoding.extract import Extraction
    from unspool.decoding.load import load
    from unspool.decoding.model import Model
    from unspool.decoding.results import Result, Stream
    from unspool.engine.options import GenerationOptions
    from unspool.errors import UnspoolError
    from unspool.integrations.transformers import transformers_method

_HOMES = {
    "load": "unspool.decoding.load",
    "Model": "unspool.decoding.model",
    "Result": "unspool.decoding.results",
    "Stream": "unspool.decoding.results",
    "DiffusionModel": "unspool.decoding.canvas",
    "GenerationOptions": "unspool.engine.options",
    "UnspoolError": "unspool.errors",
    "transformers_method": "unspool.integrations.transformers",
    "EditableText": "unspool.decoding.edit",
    "EditedResult": "unspool.decoding.edit",
    "Extraction": "unspool.decoding.extract",
}

__all__ = [
    "DiffusionModel",
    "EditableText",
    "EditedResult",
    "Extraction",
    "GenerationOptions",
    "Model",
    "Result",
    "Stream",
    "UnspoolError",
    "__version__",
    "load",
    "transformers_method",
]


def __getattr__(name: str) -> Any:
    # Imported on first use: `import unspool` and `unspool --help` load neither numpy nor torch.
    if name not in _HOMES:
        raise AttributeError(f"module 'unspool' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
