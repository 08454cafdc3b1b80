"""Load a model, generate, stream. The whole public Python interface besides the registry."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, cast, overload

from unspool import methods
from unspool.backends import loading, prepare
from unspool.backends.openvino.convert import WEIGHTS
from unspool.decoding.parsing import read
from unspool.decoding.results import Result, Stream
from unspool.decoding.sample import Samples, sample
from unspool.decoding.search import SearchResult, search
from unspool.engine.autoregressive import Request, decode
from unspool.engine.contracts import Ability, Constraint, LanguageModel, Memory, SeparableModel
from unspool.engine.cost import CostCurve, PassCosts
from unspool.engine.method import BATCH, CONSTRAINT, DRAFTER, SHAPER
from unspool.engine.noise import row_seed
from unspool.engine.options import GenerationOptions
from unspool.engine.statistics import summarise
from unspool.engine.trace import EndEvent, Event, StepEvent
from unspool.engine.turns import turn
from unspool.engine.typed import typed_options
from unspool.errors import UnknownNameError, UnspoolError, UnsupportedError
from unspool.methods.constraints.grammar import GrammarConstraint
from unspool.methods.shaping._built_in import build as build_shapers
from unspool.models import calibration, identity, prompt_check
from unspool.models.catalogue import default_model
from unspool.models.resolve import resolve
from unspool.models.tokenizer import Message, StopStrings, Tokenizer, vocabulary_fingerprint

Prompt = str | Sequence[Message] | Sequence[int]
Report = Callable[[str], None]


class Model:
    """A loaded model with its tokenizer, its draft model if it has one, and what methods have learned (``memories``).

    Made by ``load``. Threads may share it: they take turns, a pass each, and each gets the text that it would get
    alone. A process that was forked must load a model of its own.
    """

    def __init__(self, name: str, key: str, model: LanguageModel, tokenizer: Tokenizer, eos: Sequence[int]) -> None:
        self.name = name
        self.key = key
        self.language_model = model
        self.tokenizer = tokenizer
        self.eos_token_ids = frozenset(eos)
        self.assistant: Model | None = None
        self.memories: dict[str, Memory] = {}
        self.report: Report = lambda message: None
        self._costs: PassCosts | None = None
        self._building = threading.RLock()  # drafters make the memories that they do not find

    def cost_curve(self, progress: Callable[[float], None] = lambda done: None, fresh: bool = False) -> CostCurve:
        """Milliseconds per number of nodes on this machine; measured (under 10 s) if the cache holds no curve."""
        return self._pass_costs(progress, fresh).curve

    def _pass_costs(self, progress: Callable[[float], None] = lambda done: None, fresh: bool = False) -> PassCosts:
        known = self._costs
        if known is not None and not fresh:
            return known
        with turn(self.language_model):
            if self._costs is not known and self._costs is not None:
                return self._costs  # another thread has measured meanwhile
            curve = None if fresh else calibration.load(self.language_model, self.key)
            if curve is None:
                self.report("measuring this machine's cost curve, once (10 s)")
                curve = calibration.calibrate(self.language_model, self.key, progress)
            separable = Ability.SEPARATE_WIDTHS in self.language_model.abilities
            model = cast("SeparableModel", self.language_model) if separable else None

            def tell(message: str) -> None:
                self.report(message)  # whoever listens then

            self._costs = PassCosts(curve, model, tell)
            return self._costs

    def surroundings(
        self, memories: dict[str, Memory] | None = None, eos: frozenset[int] | None = None
    ) -> methods.Resources:
        """What methods are built from.

        Args:
            memories: what methods have learned; the model's own if None.
            eos: ids that end a text; the model's own if None.
        """
        return methods.Resources(
            self.language_model,
            self.memories if memories is None else memories,
            self._pass_costs,
            self.assistant.language_model if self.assistant else None,
            lambda: vocabulary_fingerprint(self.tokenizer.vocabulary),
            self.tokenizer,
            self.eos_token_ids if eos is None else eos,
            keys=lambda: [
                identity.loaded(model.key, model.language_model.settings) for model in (self, self.assistant) if model
            ],
        )

    def encode(self, prompt: Prompt, chat: bool | None = None) -> list[int]:
        """Ids of a prompt.

        Args:
            prompt: text, a conversation (list of ``{"role", "content"}``), or ids, which are taken as they are.
            chat: whether text is put into the chat template; by default if the model has one.

        Raises:
            UnspoolError: if the prompt is empty or none of these, or holds a token that the tokenizer knows and the
                model does not.
        """
        prompt = prompt_check.checked(prompt)
        if isinstance(prompt, str):
            if chat or (chat is None and self.tokenizer.has_chat_template):
                ids = self.tokenizer.chat([{"role": "user", "content": prompt}])
            else:
                ids = self.tokenizer.encode(prompt)
        elif isinstance(prompt[0], Mapping):
            ids = self.tokenizer.chat(prompt)  # type: ignore[arg-type]
        else:
            return [int(token) for token in prompt]  # type: ignore[arg-type]
        size = self.language_model.vocab_size
        if unknown := sorted({self.tokenizer.token(token) for token in ids if token >= size}):
            raise UnspoolError(
                f"the tokenizer has tokens that the model has not, and the prompt holds {unknown[0]!r}; leave it out"
            )
        return ids

    @overload
    def generate(self, prompt: Prompt, **options: Any) -> Result: ...

    @overload
    def generate(self, prompt: list[str] | list[list[int]], **options: Any) -> list[Result]: ...

    @typed_options("self", "prompt")
    def generate(self, prompt: Any, *, batch: Any = None, **options: Any) -> Any:
        """Decode one prompt, or a list of prompts as one batch whose rows equal the rows alone.

        Args:
            prompt: see ``encode``; a list of texts, or of lists of ids, is a batch.
            batch: a batch plan (``"eqspec"``, ``"exspec:window=32"``): which rows share a pass; by default all.
            method: a drafter, ``"auto"`` by default. This and the other methods are named by specs, such as
                ``"token_recycling:nodes=8"``, or by an object of their options, see ``methods.spec``.
            acceptance: an acceptance rule; by default ``greedy`` or, above temperature 0, ``same_noise``.
            chat: see ``encode``.
            memories: what methods learn, by method name; by default the model's own, kept across requests.
            json_schema, regex, grammar, choices: what the text must fit, see ``GrammarOptions``; at most one of them.
            shapers: more logits shapers, or specs of the registry's.
            constraint: a constraint, where it is not ``grammar``.
            seed: of the noise. Row 0 of a batch has it, the others seeds that are derived from it, so that rows of one
                prompt differ; a list gives each row its own. ``Result.seed`` tells them.
            **options: fields of ``GenerationOptions`` (``max_new_tokens``, ``temperature``, ...).

        Raises:
            UnspoolError: for a request that cannot be served, before any work.
        """
        rows = prompt_check.batch(prompt)
        if batch is not None and rows is None:
            raise UnspoolError(f"the batch plan {batch} needs a batch; give a list of texts")
        plan = None if batch is None else methods.build(batch, BATCH, methods.Resources())
        requests, stops = self._requests([prompt] if rows is None else rows, **options)
        events = list(decode(self.language_model, requests, plan))
        results = [
            self._result([event for event in events if event.row == row], request, stop)
            for row, (request, stop) in enumerate(zip(requests, stops, strict=True))
        ]
        return results[0] if rows is None else results

    def stream(self, prompt: Prompt, **options: Any) -> Stream:
        """Like ``generate`` for one prompt, giving the text piece by piece."""
        requests, (stop,) = self._requests([prompt], **options)
        source = decode(self.language_model, requests)
        events: list[Event] = []

        def pieces() -> Generator[str, None, None]:
            shown = 0
            decoder = self.tokenizer.stream(self._context(requests[0]))
            for event in source:
                events.append(event)
                if not isinstance(event, StepEvent):
                    continue
                if stop is None:
                    piece = "".join(decoder.push(token) for token in event.emitted)
                else:
                    # What could be the beginning of a stop string is held back until it is decided.
                    piece = stop.text[shown : stop.safe]
                if piece:
                    shown += len(piece)
                    yield piece
            # What was held back: part of a stop string that did not come, or of a character.
            if rest := finish().text[shown:]:
                yield rest

        @cache
        def finish() -> Result:
            return self._result(events, requests[0], stop)

        return Stream(pieces(), finish)

    def search(self, prompt: Prompt, **options: Any) -> SearchResult:
        """Search behind one prompt for a better text than greedy decoding's, see ``decoding.search``."""
        return search(self, prompt, **options)

    def sample(self, prompt: Prompt, num_samples: int, **options: Any) -> Samples:
        """Draw texts of a grammar with the probabilities that the model itself gives them, see ``decoding.sample``."""
        return sample(self, prompt, num_samples, **options)

    @typed_options("self", "prompts")
    def _requests(
        self,
        prompts: Sequence[Prompt],
        *,
        seed: int | Sequence[int] = 0,
        method: Any = methods.DEFAULTS[DRAFTER],
        acceptance: Any = None,
        chat: bool | None = None,
        memories: dict[str, Memory] | None = None,
        json_schema: Any = None,
        regex: str | None = None,
        grammar: str | None = None,
        choices: Sequence[str] | None = None,
        constraint: Any = None,
        **options: Any,
    ) -> tuple[list[Request], list[StopStrings | None]]:
        known = GenerationOptions.__dataclass_fields__
        for name in options:
            if name not in known:
                raise UnknownNameError("generation option", name, known)
        seeds = [seed] * len(prompts) if isinstance(seed, int) else list(seed)
        if len(seeds) != len(prompts):
            raise UnspoolError(
                f"seed holds {len(seeds)} seeds for {len(prompts)} prompts; give one, or one for each row"
            )
        alike = [GenerationOptions(**options, seed=one) for one in dict.fromkeys(seeds)]
        settings = alike[0]
        settings.check_ids(self.language_model.vocab_size)
        if isinstance(seed, int):
            seeds = [row_seed(seed, row) for row in range(len(prompts))]
        eos = self.eos_token_ids if settings.eos_token_id is None else frozenset(settings.eos_token_id)
        settings = replace(settings, eos_token_id=sorted(eos))
        surroundings = self.surroundings(memories, eos)
        texts = {"json_schema": json_schema, "regex": regex, "grammar": grammar, "choices": choices}
        constrain = _constraint(constraint, texts, surroundings)
        chosen = methods.choose(method, DRAFTER)
        rule = methods.acceptance_rule(acceptance, settings.greedy, surroundings)
        named = [
            shaper if callable(shaper) else methods.build(shaper, SHAPER, surroundings) for shaper in settings.shapers
        ]
        shapers = build_shapers(replace(settings, shapers=named))
        assistants = (self.assistant.language_model,) if self.assistant else ()
        requests, stops = [], []
        if chat is None and constraint is not None and methods.choose(constraint, CONSTRAINT).row.raw_prompt:
            chat = False
        for prompt, own_seed in zip(prompts, seeds, strict=True):
            tokens = self.encode(prompt, chat)
            with self._building:
                drafter = chosen.build(surroundings)
            request = Request(
                tokens=tokens,
                drafter=drafter,
                rule=rule,
                options=replace(settings, seed=own_seed),
                shapers=shapers,
                eos=eos,
                method=chosen.label_of(drafter),
                constraint=constrain(tokens) if constrain else None,
                assistants=assistants,
            )
            stop = StopStrings(self.tokenizer, settings.stop, self._context(request)) if settings.stop else None
            requests.append(replace(request, stopping=stop))
            stops.append(stop)
        return requests, stops

    def _context(self, request: Request) -> list[int]:
        """What decides how the output of a request is written."""
        return self.tokenizer.context(request.tokens, exact=request.constraint is not None)

    def _result(self, events: list[Event], request: Request, stop: StopStrings | None) -> Result:
        steps = [event for event in events if isinstance(event, StepEvent)]
        ids = [token for step in steps for token in step.emitted]
        (end,) = (event for event in events if isinstance(event, EndEvent))
        cut = stop is not None and end.reason == "stop_string"
        text = stop.text if stop is not None and cut else self.tokenizer.text(ids, self._context(request))
        parsed = parse_error = None
        if isinstance(request.constraint, GrammarConstraint) and end.reason == "stop":
            parsed, parse_error = read(request.constraint.parse, text)
        return Result(
            text=text,
            token_ids=ids,
            logprobs=[p for step in steps for p in step.logprobs or ()] if request.options.logprobs else None,
            finish_reason=end.reason,
            statistics=summarise(events, end.row),
            prompt_token_ids=list(request.tokens),
            trace=events,
            method=request.method,
            parsed=parsed,
            parse_error=parse_error,
            seed=request.options.seed,
        )


@typed_options()
def load(
    name: str | None = None,
    *,
    backend: str = "openvino",
    assistant_model: str | Model | None = None,
    report: Report = lambda message: None,
    **options: Any,
) -> Model:
    """Load a model; download and convert it first if need be.

    Args:
        name: catalogue name, Hugging Face directory or hub name, or GGUF file; the default model if None.
        backend: ``"openvino"`` (CPU, fast), ``"transformers"`` (torch, reference, GPU), or one of an installed package.
        assistant_model: draft model for the methods that need one: a loaded model, or a name as above, which is loaded
            with the same backend and options (``name@int4``: with weights of its own).
        report: told in a few words what happens during long work.
        **options: of the backend. openvino: ``weights`` (``"int8"``, ``"int4"`` or ``"fp32"``), ``threads`` (by
            default the physical cores that this process may use). transformers: ``device`` (``"cpu"``) and ``dtype``
            (``"float32"``).

    Raises:
        UnspoolError: with one line that says what to do.
    """
    loading.check(backend, options)
    source = resolve(name or default_model())
    if isinstance(assistant_model, str):
        assistant, own = split_weights(assistant_model)
        resolve(assistant)  # a mistake in its name is told before any work
    loaded = loading.load(source, backend, report, options)
    tokenizer = prepare.read_tokenizer(source, loaded.tokenizer)
    model = Model(source.name, source.key, loaded.model, tokenizer, loaded.eos_token_ids)
    model.report = report
    if isinstance(assistant_model, str):
        weights = {"weights": own} if own else {}
        assistant_model = load(assistant, backend=backend, report=report, **{**options, **weights})
    if assistant_model is not None:
        _check_tokenizers(model, assistant_model)
        model.assistant = assistant_model
    return model


def _constraint(
    spec: Any, texts: Mapping[str, Any], resources: methods.Resources
) -> Callable[[Sequence[int]], Constraint] | None:
    """What makes the constraint of a prompt; ``texts`` are the options of a grammar, None where not given."""
    given = {key: value for key, value in texts.items() if value is not None}
    if given and spec is not None:
        raise UnspoolError(f"{spec} and {next(iter(given))} cannot be combined; leave one of them out")
    if given:
        return methods.build(methods.DEFAULTS[CONSTRAINT], CONSTRAINT, resources, given)
    return None if spec is None else methods.build(spec, CONSTRAINT, resources)


def split_weights(name: str) -> tuple[str, str | None]:
    """A model's name and the weight format that it may carry: ``"name@int4"``."""
    base, _, weights = name.rpartition("@")
    return (base, weights) if base and weights in WEIGHTS else (name, None)


def _check_tokenizers(model: Model, assistant: Model) -> None:
    if model.tokenizer.vocabulary != assistant.tokenizer.vocabulary:
        raise UnsupportedError(
            f"{assistant.name} cannot draft for {model.name}: their tokenizers differ; "
            "use a smaller model of the same family"
        )
