"""A loaded masked-diffusion model; it fills canvases and records every pass in the result."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, overload

from unspool.decoding.request import CanvasArguments, arguments
from unspool.decoding.results import Result
from unspool.engine.canvas import Denoiser
from unspool.engine.canvas_request import CanvasRequest
from unspool.engine.denoise import denoise
from unspool.engine.statistics import CanvasStatistics, summarise_canvas
from unspool.engine.trace import EndEvent, Event
from unspool.errors import UnspoolError
from unspool.methods import Resources
from unspool.methods._compose import composed, written
from unspool.methods.constraints._cfg_canvas import CFGCanvas
from unspool.methods.constraints._cfg_canvas.cfg import Grammar
from unspool.models.diffusion import key as diffusion_key
from unspool.models.tokenizer import Tokenizer

CANVAS_LENGTH = 128
"""Default number of canvas slots for models without a training length."""


class DiffusionModel:
    """A masked-diffusion model with its tokenizer.

    Attributes:
        name: the name given to ``load``.
        denoiser: the model.
        tokenizer: from its directory.
        directory: of the model and of what was trained for it; None if there is no directory.
        canvas_length: default number of slots of a canvas.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        tokenizer: Tokenizer,
        name: str,
        prompt_length: int | None = None,
        canvas_length: int | None = None,
        pad_token_id: int | None = None,
        directory: Path | None = None,
    ) -> None:
        self.name = name
        self.directory = directory
        self.denoiser = denoiser
        self.tokenizer = tokenizer
        self.canvas_length = canvas_length or CANVAS_LENGTH
        self._prompt_length = prompt_length
        self._pad = pad_token_id

    def resources(self) -> Resources:
        """The resources that methods are built from."""
        return Resources(delimiters=self._newlines, directory=self.directory, keys=self._keys)

    def encode(self, prompt: str | Sequence[int]) -> list[int]:
        """Ids of a prompt, in the chat template if the model has one, padded if it was trained with padding.

        Raises:
            UnspoolError: if the tokenizer cannot encode a part of it, or it is too long.
        """
        if not isinstance(prompt, str):
            ids = list(prompt)
        elif self.tokenizer.has_chat_template:
            ids = self.tokenizer.chat([{"role": "user", "content": prompt}])
        else:
            ids = self._ids(prompt)
        if self._prompt_length is None or self._pad is None:
            return ids
        if len(ids) > self._prompt_length:
            raise UnspoolError(
                f"the prompt has {len(ids)} tokens, and {self.name} was trained on {self._prompt_length}; shorten it"
            )
        return ids + [self._pad] * (self._prompt_length - len(ids))

    def _ids(self, text: str, add_special_tokens: bool = True) -> list[int]:
        try:
            return self.tokenizer.encode(text, add_special_tokens)
        except Exception as error:  # the library raises no specific exception type
            raise UnspoolError(f"{self.name} cannot encode {text!r} ({error})") from error

    def slots(self, canvas: Sequence[str | int] | None, max_new_tokens: int | None) -> list[int | None]:
        """The canvas of a request: token ids, None for a mask."""
        if canvas is None:
            return [None] * (self.canvas_length if max_new_tokens is None else max_new_tokens)
        slots: list[int | None] = []
        for piece in canvas:
            slots += self._ids(piece, add_special_tokens=False) if isinstance(piece, str) else [None] * piece
        return slots

    @overload
    def generate(self, prompt: str | Sequence[int], **options: Any) -> Result[CanvasStatistics]: ...

    @overload
    def generate(
        self, prompt: Sequence[str] | Sequence[Sequence[int]], **options: Any
    ) -> list[Result[CanvasStatistics]]: ...

    def generate(self, prompt: Any, **options: Any) -> Any:
        """Fill a canvas after each prompt.

        Args:
            prompt: a text, token ids, or a list of either as one batch, each row of which decodes as it would alone.
            **options: fields of ``CanvasArguments``: ``method``, ``max_new_tokens`` or ``canvas``, ``grammar``, ...

        Raises:
            UnspoolError: for invalid options or prompts, before any pass.
        """
        return generate(self, prompt, arguments(CanvasArguments, options, self.name))

    @cached_property
    def texts(self) -> list[str | None]:
        """The text of every token; None for special tokens and parts of characters."""
        texts = (self.tokenizer.decode([token]) for token in range(self.denoiser.vocab_size))
        return [text if text and "\ufffd" not in text else None for text in texts]

    def _keys(self) -> list[str]:
        return [] if self.directory is None else [diffusion_key(self.directory)]

    def _newlines(self) -> list[int]:
        return [token for token, text in enumerate(self.texts) if text is not None and "\n" in text]


def requests(
    model: DiffusionModel, prompts: Sequence[str | Sequence[int]], arguments: CanvasArguments
) -> list[CanvasRequest]:
    """One canvas per prompt.

    Raises:
        UnspoolError: for invalid requests, before any pass.
    """
    slots = model.slots(arguments.canvas, arguments.max_new_tokens)
    constraint = None
    if arguments.grammar is not None:
        if model.denoiser.eos_token_id is None:
            raise UnspoolError(f"a grammar needs an end token, and {model.name} has none")
        constraint = CFGCanvas(Grammar(arguments.grammar), model.texts, model.denoiser.eos_token_id)
    parts = composed(arguments.method, model.resources(), constraint)
    options, name = arguments.engine_options(), written(arguments.method)
    return [CanvasRequest(model.encode(prompt), slots, parts(), options, name) for prompt in prompts]


def generate(
    model: DiffusionModel, prompt: Any, arguments: CanvasArguments
) -> Result[CanvasStatistics] | list[Result[CanvasStatistics]]:
    """Fill a canvas after each prompt; see ``DiffusionModel.generate``."""
    if isinstance(prompt, str) or (prompt and isinstance(prompt[0], int)):
        return generate_batch(model, [prompt], arguments)[0]
    return generate_batch(model, prompt, arguments)


def generate_batch(
    model: DiffusionModel, prompts: Sequence[str | Sequence[int]], arguments: CanvasArguments
) -> list[Result[CanvasStatistics]]:
    """Fill a canvas after each prompt, as one batch."""
    canvases = requests(model, prompts, arguments)
    traces: list[list[Event]] = [[] for _ in canvases]

    def record(event: Event) -> None:
        traces[event.row].append(event)
        if arguments.on_event is not None:
            arguments.on_event(event)

    filled = denoise(model.denoiser, canvases, record)
    return [
        _result(model, request, tokens, trace) for request, tokens, trace in zip(canvases, filled, traces, strict=True)
    ]


def _result(
    model: DiffusionModel, request: CanvasRequest, slots: list[int], trace: list[Event]
) -> Result[CanvasStatistics]:
    eos = model.denoiser.eos_token_id
    ids = slots[: slots.index(eos) + 1] if eos is not None and eos in slots else slots
    return Result(
        text=model.tokenizer.decode(ids),
        token_ids=ids,
        logprobs=None,
        finish_reason=next(event for event in trace if isinstance(event, EndEvent)).reason,
        statistics=summarise_canvas(trace, len(ids), request.options.passes_per_step),
        prompt_token_ids=list(request.prompt),
        trace=trace,
        method=request.name,
        model=model.name,
        seed=request.options.seed,
    )
