"""The arguments of a request, in one frozen dataclass per loop. Python, the command line and servers build them.

Everything that can be checked without a model is checked here: types, ranges and combinations on creation, methods and
grammars in ``check``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from unspool import methods
from unspool.engine.canvas_request import CanvasOptions
from unspool.engine.contracts import Memory
from unspool.engine.method import (
    ACCEPTANCE,
    CONSTRAINT,
    DRAFTER,
    PROBE,
    SHAPER,
    UNMASK,
    check_assisted,
    check_installed,
)
from unspool.engine.noise import SEEDS
from unspool.engine.option import option
from unspool.engine.options import MOST_TOKENS, GenerationOptions
from unspool.engine.trace import Event
from unspool.errors import UnknownNameError, UnspoolError, UnsupportedError

GRAMMARS = ("json_schema", "regex", "grammar", "choices")
"""Arguments that constrain the text: options of the default constraint."""


@dataclass(frozen=True)
class GenerationArguments(GenerationOptions):
    """The arguments of ``Model.generate``.

    Attributes:
        method: Decoding method, such as token_recycling:nodes=8, see ``unspool methods``.
        acceptance: Acceptance rule. Default: greedy, or same_noise above temperature 0.
        shapers: Additional logits shaper, such as rpg. Applied after the built-in ones; transformers'
            ``LogitsProcessor`` objects are accepted too.
        json_schema: The text is JSON that matches this schema.
        regex: The whole text matches this regular expression.
        grammar: The text matches this Lark grammar.
        choices: The text is one of the given choices.
        constraint: Another constraint: with monitor:project=DIR the text is Python code that uses the packages in that
            directory, and only existing names follow a dot.
        chat: Use the chat template. Default: if the model has one.
        seed: The same seed gives the same text with every ``identical`` method. In a batch, row 0 uses it and the
            other rows use seeds derived from it; a list gives each row its own.
        probes: Probe that reads the hidden states of every token. Its readings are events of the trace and in
            ``Result.readings``.
        batch: Batch plan, such as ``exspec:window=32``: decides which rows share a pass. Default: all.
        memories: What methods have learned, by method name. Default: the model's own, kept across requests.
    """

    method: Any = methods.DEFAULTS[DRAFTER]
    acceptance: Any = None
    json_schema: Any = None
    regex: str | None = None
    grammar: str | None = None
    choices: Sequence[str] | None = None
    constraint: Any = None
    chat: bool | None = None
    seed: int | Sequence[int] = option(0, least=0, most=SEEDS[-1])  # type: ignore[assignment]  # a batch's
    probes: Sequence[Any] = ()
    batch: Any = None
    memories: dict[str, Memory] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        given = list(self.texts)
        if given and self.constraint is not None:
            raise UnspoolError(f"{self.constraint} and {given[0]} cannot be combined; leave one of them out")

    @property
    def texts(self) -> dict[str, Any]:
        """The given ones of ``GRAMMARS``."""
        return {name: value for name in GRAMMARS if (value := getattr(self, name)) is not None}

    @property
    def template(self) -> bool | None:
        """``chat``, or False where a constraint reads the prompt as code."""
        raw = self.chat is None and self.constraint is not None
        return False if raw and methods.choose(self.constraint, CONSTRAINT).row.raw_prompt else self.chat

    @property
    def constrained(self) -> methods.Chosen[Any] | None:
        """The requested constraint."""
        if self.texts:
            return methods.choose(methods.DEFAULTS[CONSTRAINT], CONSTRAINT, self.texts)
        return None if self.constraint is None else methods.choose(self.constraint, CONSTRAINT)

    @property
    def by_grammar(self) -> bool:
        """Whether a complete text matches a grammar."""
        from unspool.methods.constraints.grammar import GrammarOptions

        return self.constrained is not None and isinstance(self.constrained.options, GrammarOptions)

    def engine_options(self, **changes: Any) -> GenerationOptions:
        """The part that the loop reads; ``changes`` has the seed of one row."""
        own = {field.name: getattr(self, field.name) for field in fields(GenerationOptions)}
        return GenerationOptions(**own | changes)

    def check(self, assistant: object | None = None) -> None:
        """Refuse methods and grammars that cannot be used, before a model is loaded.

        Args:
            assistant: the draft model or its name; None: there is none.

        Raises:
            UnspoolError: with what to do.
        """
        from unspool.methods.constraints.grammar import GrammarOptions, check

        check_assisted(methods.choose(self.method, DRAFTER).row, assistant)
        if self.acceptance is not None:
            methods.check_acceptance(methods.choose(self.acceptance, ACCEPTANCE).row, self.greedy)
        for shaper in self.shapers:
            if not callable(shaper):
                check_installed(methods.choose(shaper, SHAPER).row)
        for probe in self.probes:
            check_installed(methods.choose(probe, PROBE).row)
        if (constraint := self.constrained) is not None:
            check_installed(constraint.row)
            if isinstance(constraint.options, GrammarOptions):
                check(constraint.options)


@dataclass(frozen=True)
class CanvasArguments(CanvasOptions):
    """The arguments of ``DiffusionModel.generate``.

    Attributes:
        method: Parts joined by +, such as credit:alpha=0.5+threshold. At most one of each kind, but several transforms.
        max_new_tokens: Slots of the canvas. Default: the number that the model was trained on.
        canvas: Contents of the canvas: fixed texts, and numbers for holes of n slots.
        grammar: Every canvas matches it.
        on_event: Called with each trace event as it happens.
    """

    method: str = methods.DEFAULTS[UNMASK]
    max_new_tokens: int | None = option(None, least=1, most=MOST_TOKENS)
    canvas: Sequence[Any] | None = None
    grammar: str | None = None
    on_event: Callable[[Event], None] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.canvas is not None:
            _check_canvas(self.canvas, self.max_new_tokens)

    def engine_options(self) -> CanvasOptions:
        """The part that the loop reads."""
        return CanvasOptions(**{field.name: getattr(self, field.name) for field in fields(CanvasOptions)})

    def check(self, assistant: object | None = None) -> None:
        """Refuse methods and grammars that cannot be used, before a model is loaded.

        Args:
            assistant: must be None.

        Raises:
            UnspoolError: with what to do.
        """
        from unspool.methods._compose import chosen
        from unspool.methods.constraints._cfg_canvas.cfg import Grammar

        if assistant is not None:
            raise UnsupportedError(
                "a diffusion model does not take a draft model; leave out --assistant-model (assistant_model=...)"
            )
        chosen(self.method)
        if self.grammar is not None:
            Grammar(self.grammar)


Arguments = TypeVar("Arguments", GenerationArguments, CanvasArguments)


def arguments(kind: type[Arguments], given: Mapping[str, Any], model: str = "this model") -> Arguments:
    """The arguments of a request from keyword arguments.

    Args:
        kind: arguments of which loop.
        given: values by name.
        model: its name, for messages.

    Raises:
        UnsupportedError: for an argument of the other loop.
        UnspoolError: for an unknown argument, or a value of the wrong type or out of range.
    """
    check_names(kind, given, model)
    return kind(**given)


def check_names(kind: type[Any], given: Mapping[str, Any], model: str, write: Callable[[str], str] = str) -> None:
    """Reject arguments that a loop does not have.

    Args:
        write: formats an argument's name for a message.
    """
    on_canvas = kind is CanvasArguments
    known = {field.name for field in fields(kind)}
    other = {field.name for field in fields(GenerationArguments if on_canvas else CanvasArguments)}
    for name in given:
        if name in known:
            continue
        if name not in other:
            raise UnknownNameError("generation option", name, known)
        if on_canvas:
            raise UnsupportedError(f"{model} is a diffusion model, which does not support {write(name)}; leave it out")
        raise UnsupportedError(
            f"{write(name)} is for diffusion models; leave it out, or use one, such as tiny-diffusion"
        )


def _check_canvas(canvas: Sequence[Any], max_new_tokens: int | None) -> None:
    if max_new_tokens is not None:
        raise UnspoolError("canvas sets the number of slots; leave max_new_tokens out")
    for piece in canvas:
        if not isinstance(piece, str) and (isinstance(piece, bool) or not isinstance(piece, int) or piece < 1):
            raise UnspoolError(f"a canvas consists of texts and numbers of slots, at least 1, not of {piece!r}")
        if isinstance(piece, int) and piece > MOST_TOKENS:
            raise UnspoolError(f"a hole of the canvas can have at most {MOST_TOKENS:,} slots, not {piece}")
    if all(isinstance(piece, str) for piece in canvas):
        raise UnspoolError('the canvas has no hole to fill; give one as a number of slots: ["def f0(", 3, "):"]')
