"""Load a model by name: a language model or a masked-diffusion model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, overload

from unspool.backends import diffusion as diffusion_models
from unspool.backends import loading, prepare
from unspool.backends.openvino.convert import WEIGHTS
from unspool.decoding.canvas import DiffusionModel
from unspool.decoding.model import Model
from unspool.engine.typed import typed_options
from unspool.errors import UnsupportedError
from unspool.models import diffusion as diffusion_files
from unspool.models.catalogue import default_model
from unspool.models.resolve import resolve

BACKEND = "openvino"
"""The default backend of language models."""
CANVAS_BACKEND = "transformers"
"""The default for masked-diffusion models: it runs the checkpoint without a second copy of the weights on disk."""

_Loaded = TypeVar("_Loaded", Model, DiffusionModel)


def _silent(message: str) -> None: ...


@overload
def load(
    name: str | None = None,
    *,
    expect: type[_Loaded],
    backend: str | None = None,
    assistant_model: str | Model | None = None,
    report: Callable[[str], None] = _silent,
    **options: Any,
) -> _Loaded: ...


# ``Any`` replaces DiffusionModel: with the plain union, every user of a language model would have to narrow it.
# Typed code that loads a canvas model passes ``expect=DiffusionModel``.
@overload
def load(
    name: str | None = None,
    *,
    backend: str | None = None,
    assistant_model: str | Model | None = None,
    report: Callable[[str], None] = _silent,
    **options: Any,
) -> Model | Any: ...


@typed_options()
def load(
    name: str | None = None,
    *,
    expect: type[Any] | None = None,
    backend: str | None = None,
    assistant_model: str | Model | None = None,
    report: Callable[[str], None] = _silent,
    **options: Any,
) -> Model | DiffusionModel:
    """Load a model; download and convert it first if necessary.

    Args:
        name: catalogue name, Hugging Face directory or hub name, or GGUF file; or a masked-diffusion model: the name of
            a bundled one, or a checkpoint directory of LLaDA, Dream or ``unspool train diffusion``. The default model
            if None.
        expect: ``Model`` or ``DiffusionModel``: accept only this kind; the type checker uses it too.
        backend: ``"openvino"`` (CPU, fast), ``"transformers"`` (torch, reference, GPU), or one of an installed package.
            Default: ``"openvino"``; for masked-diffusion models ``"transformers"``.
        assistant_model: draft model for methods that need one: a loaded model, or a name as above, which is loaded
            with the same backend and options (``name@int4`` sets its weight format).
        report: receives a short description of each step of long work.
        **options: of the backend. openvino: ``weights`` (``"int8"``, ``"int4"`` or ``"fp32"``; canvases: ``"fp32"`` or
            ``"int8"``), ``threads`` (default: the physical cores available to this process). transformers:
            ``device`` (``"cpu"``) and ``dtype`` (``"float32"``; not for canvases, which use the checkpoint's own).

    Returns:
        A ``DiffusionModel`` for a masked-diffusion model, else a ``Model``.

    Raises:
        UnspoolError: with one line that says what to do.
    """
    if expect is DiffusionModel or (expect is None and diffusion_files.is_diffusion(name)):
        name = name or default_model()
        if assistant_model is not None:
            raise UnsupportedError(f"{name} is a diffusion model, which does not take a draft model; leave it out")
        return _canvas_model(name, backend or CANVAS_BACKEND, report, options)
    if diffusion_files.is_diffusion(name):
        raise UnsupportedError(f"{name} is a diffusion model, but a language model is needed; name one")
    return _language_model(name or default_model(), backend or BACKEND, assistant_model, report, options)


def _language_model(
    name: str,
    backend: str,
    assistant_model: str | Model | None,
    report: Callable[[str], None],
    options: dict[str, Any],
) -> Model:
    loading.check(backend, options)
    source = resolve(name)
    if isinstance(assistant_model, str):
        assistant, own = split_weights(assistant_model)
        resolve(assistant)  # fail before any work
    loaded = loading.load(source, backend, report, options)
    tokenizer = prepare.read_tokenizer(source, loaded.tokenizer)
    model = Model(source.name, source.key, loaded.model, tokenizer, loaded.eos_token_ids)
    model.report = report
    if isinstance(assistant_model, str):
        weights = {"weights": own} if own else {}
        assistant_model = _language_model(assistant, backend, None, report, {**options, **weights})
    if assistant_model is not None:
        _check_tokenizers(model, assistant_model)
        model.assistant = assistant_model
    return model


def _canvas_model(name: str, backend: str, report: Callable[[str], None], options: dict[str, Any]) -> DiffusionModel:
    directory = diffusion_files.find(name)
    denoiser = diffusion_models.load(directory, backend, report, options)
    layout = diffusion_files.layout(directory)
    tokenizer = diffusion_models.tokenizer(directory)
    return DiffusionModel(denoiser, tokenizer, name, directory=directory, **layout)


def split_weights(name: str) -> tuple[str, str | None]:
    """Split ``"name@int4"`` into a model's name and its optional weight format."""
    base, _, weights = name.rpartition("@")
    return (base, weights) if base and weights in WEIGHTS else (name, None)


def _check_tokenizers(model: Model, assistant: Model) -> None:
    if model.tokenizer.vocabulary != assistant.tokenizer.vocabulary:
        raise UnsupportedError(
            f"{assistant.name} cannot draft for {model.name}: their tokenizers differ; "
            "use a smaller model of the same family"
        )
