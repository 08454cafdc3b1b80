"""``unspool generate``."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unspool.cli.common import (
    AssistantOption,
    DeviceOption,
    ModelOption,
    Status,
    ThreadsOption,
    WeightsOption,
    loaded,
    print_json,
    read_prompt,
    show_page,
)
from unspool.engine.method import ACCEPTANCE, CONSTRAINT, DRAFTER, SHAPER, UNMASK
from unspool.errors import UnsupportedError
from unspool.storage.text_files import check_file, read_text

if TYPE_CHECKING:
    from unspool.decoding.model import Model
    from unspool.decoding.results import Result

_LENGTH = 256

CUT = 3
"""Exit code where the text under a grammar is not complete."""

_ALTERNATIVES = 8
"""Best tokens that a trace lists for each emitted one."""


def generate(
    prompt: Annotated[
        str | None, typer.Argument(help="The prompt; without it, --file or standard input is read.")
    ] = None,
    model: ModelOption = None,
    assistant_model: AssistantOption = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="How to decode, see `unspool methods`. Default: auto. For diffusion models names are joined by +, and "
            "threshold is the default.",
            show_default=False,
        ),
    ] = None,
    acceptance: Annotated[
        str | None, typer.Option(help="Acceptance rule. Default: greedy, or same_noise when sampling.")
    ] = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            help="Most tokens to emit, or slots of a canvas. Default: 256, or as many as a small diffusion model was "
            "trained on.",
            show_default=False,
        ),
    ] = None,
    temperature: Annotated[float, typer.Option(help="0 is greedy; above 0 tokens are sampled.")] = 0.0,
    top_k: Annotated[int, typer.Option(help="Sample among the k likeliest tokens; 0: all.")] = 0,
    top_p: Annotated[float, typer.Option(help="Sample among the likeliest tokens of this total probability.")] = 1.0,
    repetition_penalty: Annotated[float, typer.Option(help="Above 1 makes tokens of the text less likely.")] = 1.0,
    shaper: Annotated[
        list[str] | None,
        typer.Option(help="A logits shaper of `unspool methods`, such as rpg; may be repeated.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same text, by every `identical` method.")] = 0,
    stop: Annotated[list[str] | None, typer.Option(help="End the text at this string; may be repeated.")] = None,
    json_schema: Annotated[
        Path | None, typer.Option(help="The text is JSON that fits the schema in this file.", show_default=False)
    ] = None,
    regex: Annotated[
        str | None, typer.Option(help="The whole text matches this regular expression.", show_default=False)
    ] = None,
    grammar: Annotated[
        Path | None,
        typer.Option(help="The text fits the Lark grammar in this file; also on a canvas.", show_default=False),
    ] = None,
    choices: Annotated[
        list[str] | None, typer.Option(help="The text is this one or another that is given so.", show_default=False)
    ] = None,
    constraint: Annotated[
        str | None,
        typer.Option(
            help="Another constraint of `unspool methods`: with monitor:project=DIR the text is Python that uses the "
            "packages of that directory, and only names that exist follow a dot.",
            show_default=False,
        ),
    ] = None,
    cache: Annotated[
        str | None,
        typer.Option(
            help="On a canvas: none, or Fast-dLLM's prefix or dual, whose keys are as old as the block.",
            show_default=False,
        ),
    ] = None,
    canvas: Annotated[
        str | None,
        typer.Option(
            help="What stands on a canvas, as JSON: texts, which stay, and numbers, which are holes of so many tokens.",
            show_default=False,
        ),
    ] = None,
    guidance_scale: Annotated[
        float | None,
        typer.Option(
            help="On a canvas: classifier-free guidance, two passes a step; 0 is none.",
            show_default=False,
        ),
    ] = None,
    truncate_at_eos: Annotated[
        float | None,
        typer.Option(
            help="On a canvas: cut it behind an end token that has at least this probability; 0 is Learn2PD's rule.",
            show_default=False,
        ),
    ] = None,
    chat: Annotated[
        bool | None, typer.Option("--chat/--no-chat", help="Use the chat template. Default: if the model has one.")
    ] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="Read the prompt from this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of streaming.")] = False,
    trace: Annotated[Path | None, typer.Option(help="Write every pass to this file, for `unspool view`.")] = None,
    view: Annotated[bool, typer.Option("--view", help="Show the run in the browser when it is over.")] = False,
    backend: Annotated[
        str | None,
        typer.Option(
            help="openvino is fast on CPUs; transformers (torch) is the reference; installed packages add more. "
            "Default: openvino, or transformers for diffusion models.",
            show_default=False,
        ),
    ] = None,
    weights: WeightsOption = None,
    threads: ThreadsOption = None,
    device: DeviceOption = None,
) -> None:
    """Decode a prompt and stream the text.

    One line follows on stderr: tokens, tokens/s, mean accepted tokens a pass (bonus included), passes, method.
    Exit code 3 if a text under a schema, regex, grammar or choices was cut before it was complete.

    Examples:

      unspool generate "Why is the sky blue?"

      unspool generate -m qwen2.5-coder-0.5b --temperature 0.8 --seed 7 < prompt.txt

      unspool generate --method token_recycling --json "List the planets." | jq .statistics

      unspool generate -m qwen2.5-coder-1.5b --method draft_model --assistant-model qwen2.5-coder-0.5b < prompt.txt

      unspool generate --json-schema person.json "Make up a person." | jq .name

      unspool generate --choices yes --choices no "Is the sky blue?"

      unspool generate -m qwen2.5-coder-0.5b --constraint monitor:project=. --file unfinished.py

      unspool generate --trace run.jsonl --view "Count to twenty."

      unspool generate -m tiny-diffusion --method credit+threshold "<reverse> d a c b"

      unspool generate -m tiny-diffusion --canvas '["d,", 3, "e", 10]' "<sort> f d b e"
    """
    from unspool.cli.generate_canvas import pieces_of
    from unspool.engine.method import check_assisted, check_installed
    from unspool.engine.options import GenerationOptions
    from unspool.methods import DEFAULTS, check_acceptance, choose
    from unspool.methods.constraints.grammar import GrammarOptions, check
    from unspool.models.diffusion import is_diffusion

    text = read_prompt(prompt, file)
    pieces = None if canvas is None else pieces_of(canvas)
    on_canvas = {
        "cache": cache,
        "canvas": pieces,
        "guidance_scale": guidance_scale,
        "truncate_at_eos": truncate_at_eos,
    }
    on_canvas = {name: value for name, value in on_canvas.items() if value is not None}
    if is_diffusion(model):
        assert model is not None
        given: dict[str, object] = {
            "--chat": chat,
            "--assistant-model": assistant_model,
            "--acceptance": acceptance,
            "--stop": stop,
            "--json-schema": json_schema,
            "--regex": regex,
            "--choices": choices,
            "--constraint": constraint,
            "--shaper": shaper,
        }
        given |= {"--top-k": top_k or None, "--top-p": top_p if top_p != 1 else None}
        given |= {"--repetition-penalty": repetition_penalty if repetition_penalty != 1 else None}
        if wrong := [name for name, value in given.items() if value is not None]:
            raise UnsupportedError(f"{model} is a diffusion model, for which there is no {wrong[0]}; leave it out")
        settings = {
            "method": method,
            "max_new_tokens": max_new_tokens,
            "temperature": temperature,
            "seed": seed,
            "grammar": None if grammar is None else read_text(grammar),
            **on_canvas,
        }
        loading = {"device": device, "backend": backend, "weights": weights, "threads": threads}
        _fill(model, text, settings, loading, as_json, trace, view, (file, grammar))
        return
    if on_canvas:
        wrong_one = "--" + next(iter(on_canvas)).replace("_", "-")
        raise UnsupportedError(f"{wrong_one} is for diffusion models; leave it out, or use one, such as tiny-diffusion")
    method = method or DEFAULTS[DRAFTER]
    options: dict[str, Any] = {
        "max_new_tokens": _LENGTH if max_new_tokens is None else max_new_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "repetition_penalty": repetition_penalty,
        "seed": seed,
        "stop": tuple(stop or ()),
        "shapers": tuple(shaper or ()),
    }
    # Fail before a model is loaded.
    GenerationOptions(**options)
    constrained = _constraint(json_schema, regex, grammar, choices)
    options |= constrained
    by_grammar = bool(constrained)
    if constrained and constraint:
        raise UnsupportedError(f"--constraint and {next(iter(constrained))} cannot be combined; leave one of them out")
    check_assisted(choose(method, DRAFTER).row, assistant_model)
    if acceptance is not None:
        check_acceptance(choose(acceptance, ACCEPTANCE).row, temperature == 0)
    for spec in shaper or ():
        check_installed(choose(spec, SHAPER).row)
    if constraint is not None:
        options["constraint"] = constraint
        chosen = choose(constraint, CONSTRAINT)
        check_installed(chosen.row)
        if isinstance(chosen.options, GrammarOptions):
            check(chosen.options)
            by_grammar = True
    trace = _trace_file(trace, view, file, json_schema, grammar)
    options |= {"method": method, "acceptance": acceptance, "chat": chat}
    with loaded(
        model,
        backend or "openvino",
        assistant_model=assistant_model,
        max_new_tokens=options["max_new_tokens"],
        weights=weights,
        threads=threads,
        device=device,
    ) as decoder:
        if choose(method, DRAFTER).row.needs.costs:
            with Status() as status:
                decoder.report = status.say
                decoder.cost_curve()
        with _recorded(decoder, text, chat, trace) as recording:
            options |= recording
            if as_json:
                result = decoder.generate(text, **options)
                print_json(_as_json(decoder, result, by_grammar))
            else:
                stream = decoder.stream(text, **options)
                for piece in stream:
                    print(piece, end="", flush=True)
                print(flush=True)
                result = stream.result
                print(summary(result), file=sys.stderr)
    show_page(trace, view)
    if by_grammar:
        _check_complete(result)


def _fill(
    model: str,
    text: str,
    options: dict[str, Any],
    loading: dict[str, Any],
    as_json: bool,
    trace: Path | None,
    view: bool,
    read: tuple[Path | None, ...],
) -> None:
    from unspool.cli.generate_canvas import fill
    from unspool.decoding.canvas import check_canvas
    from unspool.engine.canvas_request import CanvasOptions
    from unspool.methods import DEFAULTS
    from unspool.methods.constraints._cfg_canvas.cfg import Grammar

    # Mistakes are told before a model is loaded.
    check_canvas(options.get("canvas"), options["max_new_tokens"])
    if options["grammar"] is not None:
        Grammar(options["grammar"])
    CanvasOptions(**{name: options[name] for name in CanvasOptions.__dataclass_fields__ if name in options})
    trace = _trace_file(trace, view, *read)
    options["method"] = options["method"] or DEFAULTS[UNMASK]
    fill(model, text, options, as_json=as_json, trace=trace, **loading)
    show_page(trace, view)


def _constraint(
    json_schema: Path | None, regex: str | None, grammar: Path | None, choices: list[str] | None
) -> dict[str, Any]:
    """The options of ``generate`` that these flags stand for."""
    from unspool.methods.constraints.grammar import GrammarOptions, check

    given = {
        "json_schema": None if json_schema is None else read_text(json_schema),
        "regex": regex,
        "grammar": None if grammar is None else read_text(grammar),
        "choices": choices,
    }
    given = {name: value for name, value in given.items() if value is not None}
    if given:
        check(GrammarOptions(**given))  # type: ignore[arg-type]
    return given


def _trace_file(trace: Path | None, view: bool, *read: Path | None) -> Path | None:
    """Where the trace goes, if there is one.

    Raises:
        UnspoolError: if it cannot be written, or would replace a file that is read.
    """
    if trace is None:
        return Path(tempfile.mkdtemp(prefix="unspool-")) / "run.jsonl" if view else None
    from unspool.trace.viewer.page import page_path

    for path in [trace, page_path(trace)] if view else [trace]:
        check_file(path, *read)
    return trace


@contextmanager
def _recorded(decoder: Model, text: str, chat: bool | None, path: Path | None) -> Iterator[dict[str, Any]]:
    """The options with which a run writes its trace to ``path``; none without a path."""
    if path is None:
        yield {}
        return
    from unspool.trace.file import TraceWriter, make_header

    ids, tokenizer = decoder.encode(text, chat), decoder.tokenizer
    header = make_header(decoder.name, ids, tokenizer, decoder.language_model.vocab_size)
    with TraceWriter(path, header, tokenizer) as writer:
        yield {"alternatives": _ALTERNATIVES, "on_event": writer.add}


def summary(result: Result) -> str:
    """The line below a text."""
    s = result.statistics
    return (
        f"[{s.tokens} tokens · {s.tokens_per_second:.1f} tokens/s · {s.mean_accepted_tokens:.2f} accepted/pass · "
        f"{s.passes} passes · {result.method} · {result.finish_reason}]"
    )


def _check_complete(result: Result) -> None:
    """End with exit code 3 where a text under a constraint is only the beginning of one that fits it."""
    if result.parse_error is not None:
        print(f"unspool: the text fits, but cannot be read: {result.parse_error}", file=sys.stderr)
    if result.finish_reason == "stop":
        return
    what = "leave out --stop" if result.finish_reason == "stop_string" else "raise --max-new-tokens"
    print(f"unspool: the text was cut before it was complete; {what}", file=sys.stderr)
    raise typer.Exit(CUT)


def _as_json(model: Model, result: Result, by_grammar: bool) -> dict[str, Any]:
    s = result.statistics
    return {
        "model": model.name,
        "method": result.method,
        "text": result.text,
        "token_ids": result.token_ids,
        "finish_reason": result.finish_reason,
        "valid": result.finish_reason == "stop" if by_grammar else None,
        "parsed": result.parsed,
        "parse_error": result.parse_error,
        "statistics": {
            "tokens": s.tokens,
            "tokens_per_second": round(s.tokens_per_second, 2),
            "mean_accepted_tokens": round(s.mean_accepted_tokens, 3),
            "passes": s.passes,
            "prompt_tokens": len(result.prompt_token_ids),
            "prefill_seconds": round(s.prefill_seconds, 4),
            "decode_seconds": round(s.decode_seconds, 4),
            "overhead": round(s.overhead, 4),
            "by_source": s.by_source,
        },
        "settings": model.language_model.settings,
    }
