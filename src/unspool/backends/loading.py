"""The backends by name, and how each one loads a named model.

``openvino`` and ``transformers`` accept every kind of source. Backends of installed packages are found by the
entry-point group ``unspool.backends`` and receive directories in Hugging Face layout.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from unspool.backends import prepare
from unspool.engine.contracts import LanguageModel
from unspool.engine.cpu import check_threads
from unspool.engine.typed import arguments_of
from unspool.errors import UnknownNameError, UnspoolError, UnsupportedError
from unspool.models import ends, gguf_header
from unspool.models.resolve import ModelSource
from unspool.storage.text_files import read_json

Report = Callable[[str], None]


@dataclass(frozen=True)
class Loaded:
    """A loaded model, the directory of its tokenizer, and the ids that end a text."""

    model: LanguageModel
    tokenizer: Path
    eos_token_ids: tuple[int, ...]


def load(source: ModelSource, backend: str, report: Report, options: Mapping[str, Any]) -> Loaded:
    """Load a model with a backend by name. The options are the backend's own.

    Raises:
        UnspoolError: as ``check``.
    """
    options = check(backend, options)
    loaded = backends()[backend](source, report, **options)
    # Ids without a logit, such as the -1 that some files write for none, never occur.
    ends_of_text = {end for end in loaded.eos_token_ids if 0 <= end < loaded.model.vocab_size}
    return replace(loaded, eos_token_ids=tuple(sorted(ends_of_text)))


def check(backend: str, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """A backend's options, converted to their declared types. Needs no model, so errors come before any work.

    Raises:
        UnknownNameError: if the backend or, where the backend declares its options, an option does not exist.
        UnspoolError: if a value is not of the option's type.
    """
    loaders = backends()
    if backend not in loaders:
        raise UnknownNameError("backend", backend, loaders)
    loader = loaders[backend]
    known = inspect.signature(loader).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
        return options
    for name in options:
        if name not in known:
            raise UnknownNameError(f"option of the {backend} backend", name, set(known) - {"source", "report"})
    options = arguments_of(loader, options)
    check_threads(options.get("threads"))
    return options


def check_length(source: ModelSource, max_new_tokens: int) -> None:
    """Refuse a text that exceeds the model's context, if the model's files give its length without loading.

    Raises:
        UnspoolError: with the number of tokens that fit.
    """
    if not source.path.exists():
        return  # not downloaded yet
    if source.kind == "gguf":
        limit = gguf_header.read(source.path).settings().get("context_length")
    else:
        config = read_json(source.path / "config.json")
        limit = (config.get("text_config") or config).get("max_position_embeddings")
    if isinstance(limit, int) and max_new_tokens >= limit:
        raise UnspoolError(
            f"max_new_tokens is {max_new_tokens}, and the context of {source.name} has {limit} tokens, prompt "
            f"included; set max_new_tokens to less than {limit}"
        )


@cache
def backends() -> Mapping[str, Callable[..., Loaded]]:
    """Loaders by backend name: the built-in ones, then those of installed packages."""
    table: dict[str, Callable[..., Loaded]] = {"openvino": _openvino, "transformers": _transformers}
    for entry in entry_points(group="unspool.backends"):
        if entry.name in table:
            raise UnspoolError(f"the installed backend {entry.value!r} reuses the name {entry.name!r}; uninstall it")
        table[entry.name] = partial(_installed, entry)
    return table


def _openvino(source: ModelSource, report: Report, weights: str = "int8", threads: int | None = None) -> Loaded:
    from unspool.backends.openvino.model import OpenVINOModel

    directory = prepare.converted(source, weights, report)
    model = OpenVINOModel(directory, threads)
    return Loaded(model, directory, model.info.eos_token_ids)


def _transformers(source: ModelSource, report: Report, device: str = "cpu", dtype: str = "float32") -> Loaded:
    from unspool.backends.torch.model import TransformersModel

    target = prepare.torch_device(device)
    report("loading the weights into torch")
    model = prepare.load_torch(source, dtype).to(target)
    return Loaded(
        TransformersModel.from_pretrained_model(model), prepare.tokenizer_directory(source), ends.of_torch(model)
    )


def _installed(entry: EntryPoint, source: ModelSource, report: Report, **options: Any) -> Loaded:
    if source.kind == "gguf":
        raise UnsupportedError(
            f"the {entry.name} backend takes directories in Hugging Face layout, not GGUF; use --backend openvino"
        )
    report(f"loading {source.name} with {entry.name}")
    model = entry.load()().load(source.path, **options)
    return Loaded(model, prepare.tokenizer_directory(source), ends.of_directory(source.path))
