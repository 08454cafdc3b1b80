"""``unspool search``: search for a better text than greedy decoding's."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from unspool.cli.common import (
    BackendOption,
    DeviceOption,
    ModelOption,
    Status,
    ThreadsOption,
    WeightsOption,
    loaded,
    print_json,
    read_prompt,
)
from unspool.cli.request import Given, request_flags
from unspool.decoding.request import GenerationArguments
from unspool.engine.method import SEARCH


@request_flags("max_new_tokens", "chat")
def search(
    *,
    prompt: Annotated[
        str | None, typer.Argument(help="The prompt; without it, --file or standard input is read.")
    ] = None,
    model: ModelOption = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="A search from `unspool methods`, with its options: beam:num_beams=5. Default: beam.",
            show_default=False,
        ),
    ] = None,
    given: Given,
    function_body: Annotated[
        bool,
        typer.Option("--function-body", help="Stop at the end of the body of a Python function. plan always does."),
    ] = False,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="Read the prompt from this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    backend: BackendOption = "openvino",
    weights: WeightsOption = None,
    threads: ThreadsOption = None,
    device: DeviceOption = None,
) -> None:
    """Search for a better text than greedy decoding's.

    beam keeps several candidate texts. adadec looks a few tokens ahead where the model's entropy exceeds a threshold
    that depends on the model. plan completes a Python function, given its signature and docstring as the prompt, until
    the examples in the docstring pass (they run in a sandbox).

    Examples:

      unspool search "Why is the sky blue?"

      unspool search -m qwen2.5-coder-0.5b --method adadec:threshold=1.3 "Write a haiku about autumn."

      unspool search -m qwen2.5-coder-0.5b --method plan:max_model_tokens=4000 --file function.py
    """
    from unspool import methods
    from unspool.methods.search.plan.reward import PublicTests

    text = read_prompt(prompt, file)
    chosen = methods.choose(method or methods.DEFAULTS[SEARCH], SEARCH)
    row = chosen.row
    arguments = GenerationArguments(**given)  # fails before a model is loaded or downloaded
    length = arguments.max_new_tokens
    options: dict[str, Any] = {"method": chosen.spec, "max_new_tokens": length, "chat": arguments.chat}
    if row.needs.reward:
        options["reward"] = PublicTests(text)
    if row.needs.reward or function_body:
        options |= {"stop_rule": "function_body"}
    source = loaded(model, backend, max_new_tokens=length, weights=weights, threads=threads, device=device)
    with source as decoder, Status() as status:
        status.say(f"searching with {chosen.spec}")
        result = decoder.search(text, **options)
    if as_json:
        print_json(asdict(result))
        return
    print(result.text)
    figures = result.statistics
    counts = " · ".join(f"{name} {value:g}" for name, value in figures.counts.items())
    print(
        f"[{figures.tokens} tokens · {figures.seconds:.1f} s · {figures.evaluated_tokens} evaluated in "
        f"{figures.passes} passes · {counts}]",
        file=sys.stderr,
    )
