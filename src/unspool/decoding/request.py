"""The arguments of a request, in one frozen dataclass for each loop. Python, the command line and servers build them.

What can be refused without a model is refused here: types, ranges and combinations when one is made, methods and
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
"""Arguments that say what a text must fit: options of the default constraint."""


@dataclass(frozen=True)
class GenerationArguments(GenerationOptions):
    """What ``Model.generate`` takes.

    Attributes:
        method: How to decode, such as token_recycling:nodes=8, see ``unspool methods``.
        acceptance: Acceptance rule. Default: greedy, or same_noise above temperature 0.
        shapers: Another logits shaper, such as rpg. They come after the built-in ones; transformers'
            ``LogitsProcessor`` objects are accepted too.
        json_schema: The text is JSON that fits this schema.
        regex: The whole text matches this regular expression.
        grammar: The text fits this Lark grammar.
        choices: The text is this one, or another that is given so.
        constraint: Another constraint: with monitor:project=DIR the text is Python that uses the packages of that
            directory, and only names that exist follow a dot.
        chat: Use the chat template. Default: if the model has one.
        seed: The same seed gives the same text, by every ``identical`` method. Row 0 of a batch has it, the others
            seeds that are derived from it; a list gives each row its own.
        probes: A probe, which reads the states of every token. The readings are events of the trace and in
            ``Result.readings``.
        batch: A batch plan, such as ``exspec:window=32``: which rows share a pass. Default: all.
        memories: What methods learn, by method name. Default: the model's own, kept across requests.
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
        """Those of ``GRAMMARS`` that are given."""
        return {name: value for name in GRAMMARS if (value := getattr(self, name)) is not None}

    @property
    def template(self) -> bool | None:
        """``chat``, or False where a constraint reads the prompt as code."""
        raw = self.chat is None and self.constraint is not None
        return False if raw and methods.choose(self.constraint, CONSTRAINT).row.raw_prompt else self.chat

    @property
    def constrained(self) -> methods.Chosen[Any] | None:
        """The constraint that is asked for."""
        if self.texts:
            return methods.choose(methods.DEFAULTS[CONSTRAINT], CONSTRAINT, self.texts)
        return None if self.constraint is None else methods.choose(self.constraint, CONSTRAINT)

    @property
    def by_grammar(self) -> bool:
        """Whether a text that is complete fits a grammar."""
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
    """What ``DiffusionModel.generate`` takes.

    Attributes:
        method: Parts joined by +, such as credit:alpha=0.5+threshold. At most one a kind, but several transforms.
        max_new_tokens: Slots of the canvas. Default: as many as the model was trained on.
        canvas: What is on the canvas: texts, which stay, and numbers, which are holes of so many slots.
        grammar: Every canvas fits it.
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
                "a diffusion model takes no draft model; leave out --assistant-model (assistant_model=...)"
            )
        chosen(self.method)
        if self.grammar is not None:
            Grammar(self.grammar)


Arguments = TypeVar("Arguments", GenerationArguments, CanvasArguments)


def arguments(kind: type[Arguments], given: Mapping[str, Any], model: str = "this model") -> Arguments:
    """The arguments of a request from keyword arguments.

    Args:
        kind: for which loop.
        given: by name.
        model: its name, for messages.

    Raises:
        UnsupportedError: for an argument of the other loop.
        UnspoolError: for an unknown one, and for values that are not of the argument's type or range.
    """
    check_names(kind, given, model)
    return kind(**given)


def check_names(kind: type[Any], given: Mapping[str, Any], model: str, write: Callable[[str], str] = str) -> None:
    """Refuse arguments that a loop does not have.

    Args:
        write: how a message writes an argument.
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
            raise UnsupportedError(f"{model} is a diffusion model, for which there is no {write(name)}; leave it out")
        raise UnsupportedError(
            f"{write(name)} is for diffusion models; leave it out, or use one, such as tiny-diffusion"
        )


def _check_canvas(canvas: Sequence[Any], max_new_tokens: int | None) -> None:
    if max_new_tokens is not None:
        raise UnspoolError("canvas says how many slots there are; leave max_new_tokens out")
    for piece in canvas:
        if not isinstance(piece, str) and (isinstance(piece, bool) or not isinstance(piece, int) or piece < 1):
            raise UnspoolError(f"a canvas is made of texts and of numbers of slots, at least 1, not of {piece!r}")
        if isinstance(piece, int) and piece > MOST_TOKENS:
            raise UnspoolError(f"a hole of the canvas has {MOST_TOKENS:,} slots at most, not {piece}")
    if all(isinstance(piece, str) for piece in canvas):
        raise UnspoolError('the canvas has no hole to fill; give one as a number: ["def f0(", 3, "):"]')
