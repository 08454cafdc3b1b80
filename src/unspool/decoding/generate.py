"""``generate`` and ``stream``: decode prompts by a method. The only place that makes a ``Request`` of the loop."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from unspool import methods
from unspool.decoding.loaded import LoadedModel, Prompt
from unspool.decoding.parsing import read
from unspool.decoding.request import GenerationArguments
from unspool.decoding.results import Result, Stream
from unspool.engine.autoregressive import Request, decode
from unspool.engine.contracts import AcceptanceRule, Constraint, Drafter, Session, Shaper
from unspool.engine.method import BATCH, DRAFTER, PROBE, SHAPER
from unspool.engine.noise import row_seed
from unspool.engine.options import GenerationOptions
from unspool.engine.probe import Probe
from unspool.engine.statistics import Statistics, summarise
from unspool.engine.trace import EndEvent, Event, FinishReason, StepEvent
from unspool.errors import UnspoolError
from unspool.methods import Chosen, Resources
from unspool.methods.constraints.grammar import GrammarConstraint
from unspool.methods.shaping._built_in import build as build_shapers
from unspool.models import prompt_check
from unspool.models.tokenizer import StopStrings


def assemble(
    resources: Resources,
    tokens: Sequence[int],
    method: Chosen[Drafter],
    rule: AcceptanceRule,
    options: GenerationOptions,
    *,
    shapers: Sequence[Shaper] = (),
    eos: frozenset[int] = frozenset(),
    constraint: Constraint | None = None,
    stopping: Callable[[int], FinishReason | None] | None = None,
    session: Session | None = None,
    probes: Mapping[str, Probe] | None = None,
) -> Request:
    """A ``Request`` with its own drafter, and the label of the method in results.

    Args:
        tokens: ids of the prompt.
        method, rule, options, shapers, eos, constraint, stopping, session, probes: see ``Request``.

    Raises:
        UnspoolError: if the method needs something that is missing.
    """
    drafter = method.build(resources)
    return Request(
        tokens=tokens,
        drafter=drafter,
        rule=rule,
        options=options,
        shapers=shapers,
        eos=eos,
        method=method.label_of(drafter),
        constraint=constraint,
        stopping=stopping,
        session=session,
        assistants=(resources.assistant,) if resources.assistant else (),
        probes=probes or {},
    )


@dataclass(frozen=True)
class Prepared:
    """A request for the loop, with the means to turn its events into a result.

    Attributes:
        model: decodes it.
        request: of the loop.
        stop: finds stop strings; None if there are none.
    """

    model: LoadedModel
    request: Request
    stop: StopStrings | None = None

    @property
    def context(self) -> list[int]:
        """The settings that determine the output."""
        return _context(self.model, self.request)

    def result(self, events: list[Event]) -> Result:
        """The result of the events of this request."""
        request, stop = self.request, self.stop
        steps = [event for event in events if isinstance(event, StepEvent)]
        ids = [token for step in steps for token in step.emitted]
        (end,) = (event for event in events if isinstance(event, EndEvent))
        cut = stop is not None and end.reason == "stop_string"
        text = stop.text if stop is not None and cut else self.model.tokenizer.text(ids, self.context)
        parsed = parse_error = None
        if isinstance(request.constraint, GrammarConstraint) and end.reason == "stop":
            parsed, parse_error = read(request.constraint.parse, text)
        return Result[Statistics](
            text=text,
            token_ids=ids,
            logprobs=[p for step in steps for p in step.logprobs or ()] if request.options.logprobs else None,
            finish_reason=end.reason,
            statistics=summarise(events, end.row),
            prompt_token_ids=list(request.tokens),
            trace=events,
            method=request.method,
            model=self.model.name,
            parsed=parsed,
            parse_error=parse_error,
            seed=request.options.seed,
        )


def requests(model: LoadedModel, prompts: Sequence[Prompt], arguments: GenerationArguments) -> list[Prepared]:
    """One request per prompt.

    Raises:
        UnspoolError: for an invalid request, before any work.
    """
    seeds = _seeds(arguments.seed, len(prompts))
    arguments.engine_options(seed=0).check_ids(model.language_model.vocab_size)
    eos = model.eos_token_ids if arguments.eos_token_id is None else frozenset(arguments.eos_token_id)
    resources = model.resources(arguments.memories, eos)
    constraint = arguments.constrained
    begin = None if constraint is None else constraint.build(resources)
    method = methods.choose(arguments.method, DRAFTER)
    rule = methods.acceptance_rule(arguments.acceptance, arguments.greedy, resources)
    named = [shaper if callable(shaper) else methods.build(shaper, SHAPER, resources) for shaper in arguments.shapers]
    chosen = [methods.choose(probe, PROBE) for probe in arguments.probes]
    probes = {probe.spec: probe.build(resources) for probe in chosen}
    options = arguments.engine_options(seed=0, eos_token_id=sorted(eos), shapers=named)
    shapers = build_shapers(options)
    chat, made = arguments.template, []
    for prompt, seed in zip(prompts, seeds, strict=True):
        tokens = model.encode(prompt, chat)
        with model.building:
            request = assemble(
                resources,
                tokens,
                method,
                rule,
                replace(options, seed=seed),
                shapers=shapers,
                eos=eos,
                constraint=begin(tokens) if begin else None,
                probes=probes,
            )
        stop = StopStrings(model.tokenizer, options.stop, _context(model, request)) if options.stop else None
        made.append(Prepared(model, replace(request, stopping=stop), stop))
    return made


def generate(model: LoadedModel, prompt: Any, arguments: GenerationArguments) -> Result | list[Result]:
    """Decode one prompt, or a list of prompts as one batch whose rows equal the rows alone.

    Args:
        prompt: see ``LoadedModel.encode``; a list of texts, or of lists of ids, is a batch.

    Raises:
        UnspoolError: for an invalid request, before any work.
    """
    rows = prompt_check.batch(prompt)
    if arguments.batch is not None and rows is None:
        raise UnspoolError(f"the batch plan {arguments.batch} needs a batch; give a list of texts")
    return generate_batch(model, [prompt], arguments)[0] if rows is None else generate_batch(model, rows, arguments)


def generate_batch(model: LoadedModel, prompts: Sequence[Prompt], arguments: GenerationArguments) -> list[Result]:
    """Decode prompts as one batch; see ``generate``."""
    plan = None if arguments.batch is None else methods.build(arguments.batch, BATCH, Resources())
    prepared = requests(model, prompts, arguments)
    events = list(decode(model.language_model, [one.request for one in prepared], plan))
    return [one.result([event for event in events if event.row == row]) for row, one in enumerate(prepared)]


def stream(model: LoadedModel, prompt: Prompt, arguments: GenerationArguments) -> Stream:
    """Like ``generate`` for one prompt, but yields the text piece by piece."""
    if arguments.batch is not None:
        raise UnspoolError(f"the batch plan {arguments.batch} needs a batch, but a stream is one text; use generate")
    (prepared,) = requests(model, [prompt], arguments)
    stop = prepared.stop
    source = decode(model.language_model, [prepared.request])
    events: list[Event] = []

    def pieces() -> Generator[str, None, None]:
        shown = 0
        decoder = model.tokenizer.stream(prepared.context)
        for event in source:
            events.append(event)
            if not isinstance(event, StepEvent):
                continue
            if stop is None:
                piece = "".join(decoder.push(token) for token in event.emitted)
            else:
                # Text that may begin a stop string is held back until that is decided.
                piece = stop.text[shown : stop.safe]
            if piece:
                shown += len(piece)
                yield piece
        # Text held back: part of a character, or of a stop string that was not completed.
        if rest := finish().text[shown:]:
            yield rest

    @cache
    def finish() -> Result:
        return prepared.result(events)

    return Stream(pieces(), finish)


def _seeds(seed: int | Sequence[int], rows: int) -> list[int]:
    if isinstance(seed, int):
        return [row_seed(seed, row) for row in range(rows)]
    if len(seed) != rows:
        raise UnspoolError(f"seed has {len(seed)} seeds for {rows} prompts; give one, or one per row")
    return list(seed)


def _context(model: LoadedModel, request: Request) -> list[int]:
    return model.tokenizer.context(request.tokens, exact=request.constraint is not None)
