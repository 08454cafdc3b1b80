"""The Python API of masked-diffusion models: load one, fill canvases, with every pass in the result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, overload

from unspool import methods
from unspool.engine.canvas import Denoiser
from unspool.engine.canvas_request import Cache, CanvasOptions, CanvasRequest
from unspool.engine.denoise import denoise
from unspool.engine.method import UNMASK
from unspool.engine.options import MOST_TOKENS
from unspool.engine.trace import CanvasEvent, EndEvent, Event, FinishReason
from unspool.engine.typed import typed_options
from unspool.errors import UnspoolError
from unspool.methods import Resources
from unspool.methods._compose import composed, written
from unspool.methods.constraints._cfg_canvas import CFGCanvas
from unspool.methods.constraints._cfg_canvas.cfg import Grammar
from unspool.models.diffusion import key as diffusion_key
from unspool.models.tokenizer import Tokenizer

BACKEND = "transformers"
"""The reference: it runs the checkpoint as it is, without a second copy of the weights on the disk."""
CANVAS_LENGTH = 128
"""Slots of a canvas for models that were trained on no particular length."""


@dataclass(frozen=True)
class CanvasStatistics:
    """Computed from the trace alone.

    Attributes:
        tokens: of the text, the end token included.
        passes: over the model.
        commits: slots that each pass filled.
        fed: positions that all passes scored; what passes cost where caches leave out positions.
        seconds: in the model.
    """

    tokens: int
    passes: int
    commits: tuple[int, ...]
    fed: int
    seconds: float

    @property
    def tokens_per_pass(self) -> float:
        """Tokens of the text, not of the filling behind it."""
        return self.tokens / self.passes if self.passes else 0.0

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class CanvasResult:
    """What one prompt gave.

    Attributes:
        text: up to the end token, special tokens left out.
        token_ids: up to and with the end token.
        finish_reason: ``stop`` if the canvas holds an end token, else ``length``.
        statistics: counts and times.
        prompt_token_ids: what was decoded from.
        trace: all events of this canvas.
    """

    text: str
    token_ids: list[int]
    finish_reason: FinishReason
    statistics: CanvasStatistics
    prompt_token_ids: list[int]
    trace: list[Event] = field(repr=False)


class DiffusionModel:
    """A masked-diffusion model with its tokenizer.

    Attributes:
        name: what it was loaded by.
        denoiser: the model.
        tokenizer: of its directory.
        directory: where it lies, with what was trained for it; None: nowhere.
        canvas_length: slots of a canvas unless a request says otherwise.
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

    @property
    def resources(self) -> Resources:
        """What methods are built from."""
        return Resources(delimiters=self._newlines, directory=self.directory, keys=self._keys)

    def encode(self, prompt: str | Sequence[int]) -> list[int]:
        """Ids of a prompt, in the chat template if the model has one, padded if it was trained with padding.

        Raises:
            UnspoolError: if the tokenizer does not know a part of it, or it is too long.
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
        except Exception as error:  # the library has no kinds of errors
            raise UnspoolError(f"{self.name} does not know all symbols of {text!r} ({error})") from error

    def _slots(self, canvas: Sequence[str | int] | None, max_new_tokens: int | None) -> list[int | None]:
        check_canvas(canvas, max_new_tokens)
        if canvas is None:
            return [None] * (self.canvas_length if max_new_tokens is None else max_new_tokens)
        slots: list[int | None] = []
        for piece in canvas:
            slots += self._ids(piece, add_special_tokens=False) if isinstance(piece, str) else [None] * piece
        return slots

    @overload
    def generate(self, prompt: str | Sequence[int], **options: Any) -> CanvasResult: ...

    @overload
    def generate(self, prompt: Sequence[str] | Sequence[Sequence[int]], **options: Any) -> list[CanvasResult]: ...

    def generate(self, prompt: Any, **options: Any) -> CanvasResult | list[CanvasResult]:
        """Fill a canvas behind each prompt.

        Args:
            prompt: a text, token ids, or a list of either: one batch, whose rows decode as they would alone.
            method: specs joined by ``+``, such as ``credit:alpha=0.5+threshold+adablock``: at most one a kind, but
                several transforms.
            max_new_tokens: slots of the canvas.
            canvas: instead, what stands on it: texts, which stay, and numbers, which are holes of so many slots:
                ``["def f0(", 3, "):", 20]``.
            temperature, seed, cache, stop_at_eos, truncate_at_eos, guidance_scale: see ``CanvasOptions``.
            grammar: in Lark's form; what every text fits, see ``methods.constraints._cfg_canvas.cfg``.
            on_event: told every event.

        Raises:
            UnspoolError: for options or prompts that do not fit, before any pass.
        """
        if isinstance(prompt, str) or (prompt and isinstance(prompt[0], int)):
            return self._batch([prompt], **options)[0]
        return self._batch(list(prompt), **options)

    @typed_options("self", "prompts")
    def _batch(
        self,
        prompts: Sequence[str | Sequence[int]],
        *,
        method: str = methods.DEFAULTS[UNMASK],
        max_new_tokens: int | None = None,
        canvas: Sequence[Any] | None = None,
        temperature: float = 0.0,
        seed: int = 0,
        cache: Cache = "none",
        stop_at_eos: bool = False,
        truncate_at_eos: float | None = None,
        guidance_scale: float = 0.0,
        grammar: str | None = None,
        on_event: Callable[[Event], None] = lambda event: None,
    ) -> list[CanvasResult]:
        options = CanvasOptions(temperature, seed, cache, stop_at_eos, truncate_at_eos, guidance_scale)
        slots = self._slots(canvas, max_new_tokens)
        constraint = None
        if grammar is not None:
            if self.denoiser.eos_token_id is None:
                raise UnspoolError(f"a grammar needs an end token, and {self.name} has none")
            constraint = CFGCanvas(Grammar(grammar), self._texts, self.denoiser.eos_token_id)
        parts = composed(method, self.resources, constraint)
        name = written(method)
        requests = [CanvasRequest(self.encode(prompt), slots, parts(), options, name) for prompt in prompts]
        traces: list[list[Event]] = [[] for _ in requests]

        def record(event: Event) -> None:
            traces[event.row].append(event)
            on_event(event)

        filled = denoise(self.denoiser, requests, record)
        return [
            self._result(request, tokens, trace)
            for request, tokens, trace in zip(requests, filled, traces, strict=True)
        ]

    def _result(self, request: CanvasRequest, slots: list[int], trace: list[Event]) -> CanvasResult:
        eos = self.denoiser.eos_token_id
        ids = slots[: slots.index(eos) + 1] if eos is not None and eos in slots else slots
        passes = [event for event in trace if isinstance(event, CanvasEvent)]
        end = next(event for event in trace if isinstance(event, EndEvent))
        statistics = CanvasStatistics(
            len(ids),
            len(passes) * request.options.passes_per_step,
            tuple(len(event.committed) for event in passes),
            sum(event.fed for event in passes),
            sum(event.ms for event in passes) / 1000,
        )
        return CanvasResult(self.tokenizer.decode(ids), ids, end.reason, statistics, list(request.prompt), trace)

    @cached_property
    def _texts(self) -> list[str | None]:
        """The text of every token; None for special ones and parts of characters."""
        texts = (self.tokenizer.decode([token]) for token in range(self.denoiser.vocab_size))
        return [text if text and "\ufffd" not in text else None for text in texts]

    def _keys(self) -> list[str]:
        return [] if self.directory is None else [diffusion_key(self.directory)]

    def _newlines(self) -> list[int]:
        return [token for token, text in enumerate(self._texts) if text is not None and "\n" in text]


def check_canvas(canvas: Sequence[str | int] | None, max_new_tokens: int | None) -> None:
    """Refuse what is no canvas, before a model is loaded.

    Args:
        canvas, max_new_tokens: as ``DiffusionModel.generate`` takes them.

    Raises:
        UnspoolError: with what to do.
    """
    if max_new_tokens is not None and max_new_tokens < 1:
        raise UnspoolError(f"max_new_tokens must be at least 1, not {max_new_tokens}")
    if max_new_tokens is not None and max_new_tokens > MOST_TOKENS:
        raise UnspoolError(f"max_new_tokens must be at most {MOST_TOKENS:,}, not {max_new_tokens}")
    if canvas is None:
        return
    if max_new_tokens is not None:
        raise UnspoolError("canvas says how many slots there are; leave max_new_tokens out")
    for piece in canvas:
        if not isinstance(piece, str) and (isinstance(piece, bool) or not isinstance(piece, int) or piece < 1):
            raise UnspoolError(f"a canvas is made of texts and of numbers of slots, at least 1, not of {piece!r}")
        if isinstance(piece, int) and piece > MOST_TOKENS:
            raise UnspoolError(f"a hole of the canvas has {MOST_TOKENS:,} slots at most, not {piece}")
    if all(isinstance(piece, str) for piece in canvas):
        raise UnspoolError('the canvas has no hole to fill; give one as a number: ["def f0(", 3, "):"]')


def load_diffusion(
    name: str, backend: str = BACKEND, *, report: Callable[[str], None] = lambda message: None, **options: Any
) -> DiffusionModel:
    """Load a masked-diffusion model; convert it first if need be.

    Args:
        name: a directory in Hugging Face layout: a checkpoint of LLaDA or Dream, or one that ``unspool train
            diffusion`` wrote.
        backend: ``"transformers"`` (torch), the reference, in the checkpoint's own precision; or ``"openvino"``, for
            CPUs.
        report: told in a few words what happens during long work.
        **options: of the backend. torch: ``device`` (``"cpu"``; CUDA is untested here). openvino: ``weights``
            (``"fp32"`` or ``"int8"``) and ``threads`` (by default the physical cores that this
            process may use).

    Raises:
        UnspoolError: if there is no such directory, it holds no diffusion model, or an option does not fit.
    """
    from unspool.backends import diffusion as diffusion_models
    from unspool.models import diffusion as diffusion_files

    directory = diffusion_files.find(name)
    denoiser = diffusion_models.load(directory, backend, report, options)
    layout = diffusion_files.layout(directory)
    tokenizer = diffusion_models.tokenizer(directory)
    return DiffusionModel(denoiser, tokenizer, name, directory=directory, **layout)
