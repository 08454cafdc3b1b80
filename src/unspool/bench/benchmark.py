"""One ``unspool bench`` from its options to its result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unspool import suites
from unspool.bench import verdicts
from unspool.bench.about import about, versions
from unspool.bench.contestants import PEERS, Contestant, contestants
from unspool.bench.engines import Settings
from unspool.bench.partial import Partial
from unspool.bench.process import ContestantError, Worker
from unspool.bench.result import Bench
from unspool.bench.runner import WARM_UP, Plan, Progress, measure
from unspool.engine.cpu import usable_cores
from unspool.engine.method import DRAFTER
from unspool.engine.options import GenerationOptions
from unspool.errors import UnspoolError
from unspool.methods import DEFAULTS, PLAIN
from unspool.storage import cache as store
from unspool.storage.text_files import check_file
from unspool.suites import quality

if TYPE_CHECKING:
    from unspool.models.resolve import ModelSource
    from unspool.models.tokenizer import Tokenizer


@dataclass(frozen=True)
class Options:
    """Options of a benchmark.

    Attributes:
        model: for ``unspool.load``; None: the default model.
        methods: drafters, each with ``@weights`` if not with the default weights.
        peers: names of ``contestants.PEERS``.
        weights: default weight format.
        suite: see ``suites.load``.
        limit: maximum number of prompts per category; None: all.
        repeats: at least 1.
        max_new_tokens: at least 2, since a single token has no speed.
        temperature, seed: as in ``GenerationOptions``.
        threads: for every contestant; None: the physical cores that this process may use.
        assistant_model: draft model for ``unspool.load``, for the methods that need one.
    """

    model: str | None = None
    methods: Sequence[str] = (DEFAULTS[DRAFTER],)
    peers: Sequence[str] = ()
    weights: str = "int8"
    suite: str = "mixed"
    limit: int | None = None
    repeats: int = 1
    max_new_tokens: int = 128
    temperature: float = 0.0
    seed: int = 0
    threads: int | None = None
    assistant_model: str | None = None

    def __post_init__(self) -> None:
        GenerationOptions(max_new_tokens=self.max_new_tokens, temperature=self.temperature, seed=self.seed)
        for name, least in (("max_new_tokens", 2), ("repeats", 1), ("limit", 1), ("threads", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UnspoolError(f"{name} must be at least {least}, not {value}")
        if self.peers and self.temperature:
            raise UnspoolError("peers are compared only at temperature 0; leave out the peers or the temperature")


def benchmark(options: Options, command: str, progress: Progress, json_file: Path | None = None) -> Bench:
    """Measure, and write the result to ``json_file`` if given.

    With a file, finished runs are kept next to it until it is written, and the same options resume an interrupted
    benchmark.

    Args:
        command: the command line, recorded in the result.

    Raises:
        UnspoolError: if the options cannot be served, before any measurement; or if a method of unspool fails.
    """
    from unspool.backends import prepare
    from unspool.bench.peers.genai_export import directory
    from unspool.decoding.load import split_weights
    from unspool.models.catalogue import default_model
    from unspool.models.resolve import resolve

    chosen = contestants(options.methods, options.peers, options.weights, options.assistant_model)
    left_out = {contestant.name: contestant.missing for contestant in chosen if contestant.missing is not None}
    for contestant, why in left_out.items():
        progress.say(f"{contestant} is left out: {why}")
    chosen = [contestant for contestant in chosen if contestant.name not in left_out]
    suite = suites.load(options.suite, options.limit, options.seed)
    name = options.model or default_model()
    source = resolve(name)
    assistant = None
    if options.assistant_model is not None:
        base, own = split_weights(options.assistant_model)
        assistant = resolve(base)
    if json_file is not None:
        check_file(json_file)
    threads = options.threads or usable_cores()
    header = asdict(options) | {
        "model": source.key,
        "suite": f"{suite.name} {_digest(suite)}",
        "threads": threads,
        "versions": versions(),
    }
    with closing(Partial(json_file, header, about())) as partial:
        tokenizer = _prepare(source, chosen, progress)
        if assistant is not None:
            prepare.converted(assistant, own or options.weights, progress.say)
        ids = {"": _encode(tokenizer, WARM_UP)} | {p.id: _encode(tokenizer, p.text) for p in suite.prompts}
        settings = Settings(
            name, threads, max(map(len, ids.values())) + options.max_new_tokens, options.assistant_model
        )
        limits, curve = _calibrate(chosen, settings, fresh=not partial.runs, progress=progress)
        if settings.context > limits["max_length"]:
            longest = max(ids, key=lambda prompt: len(ids[prompt]))
            raise UnspoolError(
                f"prompt {longest} ({len(ids[longest])} tokens) and max_new_tokens ({options.max_new_tokens}) exceed "
                f"the model's context of {limits['max_length']} tokens; lower --max-new-tokens or use another suite"
            )
        plan = Plan(
            contestants=chosen,
            prompts=suite.prompts,
            ids=ids,
            decode=tokenizer.decode,
            repeats=options.repeats,
            seed=options.seed,
            max_new_tokens=options.max_new_tokens,
            temperature=options.temperature,
            eos=limits["eos"],
        )

        def start(contestant: Contestant) -> Worker:
            if (
                contestant.is_peer
                and PEERS[contestant.peer].module == "openvino_genai"
                and not directory(source).is_dir()
            ):
                # Its first start exports the model, which must not count towards its memory.
                Worker(contestant, settings).close()
            return Worker(contestant, settings)

        measured = measure(plan, start, progress, partial.runs, partial.add)
        judged = verdicts.judge(plan, measured.runs, lambda: Worker(chosen[0], settings), progress)
        bench = Bench(
            about=partial.about,
            command=command,
            model=source.name,
            suite=suite.name,
            settings=measured.settings,
            options={
                key: getattr(options, key)
                for key in ("limit", "repeats", "seed", "max_new_tokens", "temperature", "assistant_model")
            }
            | quality.protection(suite.prompts),
            left_out=left_out | measured.left_out,
            curve=curve,
            memory={name: peak for name, peak in partial.memory.items() if name in measured.settings},
            verdicts=judged,
            runs=measured.runs,
        )
        if json_file is not None:
            with store.atomic_file(json_file) as temporary:
                temporary.write_text(json.dumps(bench.to_json(), indent=1) + "\n", encoding="utf-8")
        partial.remove()
    return bench


def _prepare(source: ModelSource, chosen: Sequence[Contestant], progress: Progress) -> Tokenizer:
    """Convert the model first: in a contestant's process, conversion would count towards its memory."""
    from unspool.backends import prepare

    tokenizer = prepare.read_tokenizer(source, prepare.tokenizer_directory(source))
    for weights in dict.fromkeys(contestant.weights for contestant in chosen if contestant.weights is not None):
        prepare.converted(source, weights, progress.say)
    return tokenizer


def _encode(tokenizer: Tokenizer, text: str) -> list[int]:
    if tokenizer.has_chat_template:
        return tokenizer.chat([{"role": "user", "content": text}])
    return tokenizer.encode(text)


def _calibrate(
    chosen: Sequence[Contestant], settings: Settings, fresh: bool, progress: Progress
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Limits of the model, and plain's cost curve. Curves of other weights go to the cache, where ``auto`` finds them.

    In separate processes, so that wide passes do not count towards a contestant's memory.
    """
    found: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
    for contestant in chosen:
        weights = contestant.weights
        if weights is None or weights in found:
            continue
        progress.say(f"measuring the cost curve of {weights}")
        try:
            with closing(Worker(Contestant(PLAIN, PLAIN, weights), settings)) as worker:
                found[weights] = worker.ask("limits"), worker.ask("curve", fresh=fresh)
        except ContestantError as error:
            raise UnspoolError(f"{contestant.name}: {error}") from error
    return next(iter(found.values()))


def _digest(suite: suites.Suite) -> str:
    return hashlib.sha256(repr(suite.prompts).encode()).hexdigest()[:16]
