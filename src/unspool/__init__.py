"""unspool: one engine that decodes language models by every published method, each proven against plain decoding."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

try:
    __version__ = version("unspool")
except PackageNotFoundError:  # a checkout that is not installed
    __version__ = "0+unknown"

if TYPE_CHECKING:
    from unspool.api import Model, load
    from unspool.cache.api import EditableText, EditedResult, edit
    from unspool.canvas_api import CanvasResult, DiffusionModel, load_diffusion
    from unspool.engine.options import GenerationOptions
    from unspool.errors import UnspoolError
    from unspool.integrations.transformers import transformers_method
    from unspool.results import Result, Stream
    from unspool.spans.api import Extraction, extract

_HOMES = {
    "load": "unspool.api",
    "Model": "unspool.api",
    "Result": "unspool.api",
    "Stream": "unspool.api",
    "load_diffusion": "unspool.canvas_api",
    "DiffusionModel": "unspool.canvas_api",
    "CanvasResult": "unspool.canvas_api",
    "GenerationOptions": "unspool.engine.options",
    "UnspoolError": "unspool.errors",
    "transformers_method": "unspool.integrations.transformers",
    "edit": "unspool.cache.api",
    "EditableText": "unspool.cache.api",
    "EditedResult": "unspool.cache.api",
    "extract": "unspool.spans.api",
    "Extraction": "unspool.spans.api",
}

__all__ = [
    "CanvasResult",
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
    "edit",
    "extract",
    "load",
    "load_diffusion",
    "transformers_method",
]


def __getattr__(name: str) -> Any:
    # Imported on first use: `import unspool` and `unspool --help` load neither numpy nor torch.
    if name not in _HOMES:
        raise AttributeError(f"module 'unspool' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
