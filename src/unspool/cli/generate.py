"""``unspool generate``."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from unspool.cli.common import (
    AssistantOption,
    DeviceOption,
    ModelOption,
    ThreadsOption,
    WeightsOption,
    loaded,
    measure_costs,
    print_json,
    read_prompt,
    show_page,
)
from unspool.cli.output import TRACED, as_json, check_complete, recorded, summary, trace_file
from unspool.cli.request import Given, arguments_of, files_of, request_flags


@request_flags()
def generate(
    *,
    prompt: Annotated[
        str | None, typer.Argument(help="The prompt; without it, --file or standard input is read.")
    ] = None,
    model: ModelOption = None,
    assistant_model: AssistantOption = None,
    given: Given,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="Read the prompt from this file.")] = None,
    show_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of streaming text.")] = False,
    trace: Annotated[
        Path | None, typer.Option(help="Write a trace of every pass to this file, for `unspool view`.")
    ] = None,
    view: Annotated[bool, typer.Option("--view", help="Open the trace in the browser at the end.")] = False,
    backend: Annotated[
        str | None,
        typer.Option(
            help="openvino is fast on CPUs; transformers (torch) is the reference; installed packages can add others. "
            "Default: openvino, or transformers for diffusion models.",
            show_default=False,
        ),
    ] = None,
    weights: WeightsOption = None,
    threads: ThreadsOption = None,
    device: DeviceOption = None,
) -> None:
    """Decode a prompt and stream the text.

    stderr gets one line: tokens, tokens/s, mean accepted tokens per forward pass (bonus included), passes, method.
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
    from unspool.decoding.generate import generate_batch, stream
    from unspool.decoding.request import CanvasArguments

    text = read_prompt(prompt, file)
    arguments = arguments_of(model, given, assistant_model)
    trace = trace_file(trace, view, file, *files_of(given))
    if isinstance(arguments, CanvasArguments):
        from unspool.cli.generate_canvas import fill

        fill(str(model), text, arguments, show_json, trace, backend, weights=weights, threads=threads, device=device)
        show_page(trace, view)
        return
    length, template = arguments.max_new_tokens, arguments.template
    with loaded(model, backend, assistant_model, length, weights=weights, threads=threads, device=device) as decoder:
        measure_costs(decoder, arguments.method)
        about = (decoder.tokenizer, decoder.language_model.vocab_size)
        with recorded(trace, decoder.name, lambda: decoder.encode(text, template), *about) as on_event:
            if on_event is not None:
                alternatives = arguments.alternatives or TRACED
                arguments = replace(arguments, alternatives=alternatives, on_event=on_event)
            if show_json:
                (result,) = generate_batch(decoder, [text], arguments)
                print_json(as_json(result, decoder.language_model.settings, arguments.by_grammar))
            else:
                pieces = stream(decoder, text, arguments)
                for piece in pieces:
                    print(piece, end="", flush=True)
                print(flush=True)
                result = pieces.result
                print(summary(result), file=sys.stderr)
    show_page(trace, view)
    if arguments.by_grammar:
        check_complete(result)
