"""``unspool search``: another text than greedy decoding's, meant to be a better one."""

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


def search(
    prompt: Annotated[
        str | None, typer.Argument(help="The prompt; without it, --file or standard input is read.")
    ] = None,
    model: ModelOption = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="adadec, beam or plan. Default: beam, or adadec where it is given a threshold.", show_default=False
        ),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Most tokens of a text.")] = 256,
    threshold: Annotated[
        float | None, typer.Option(help="adadec: pause from this entropy on, in nats.", show_default=False)
    ] = None,
    threshold_file: Annotated[
        Path | None,
        typer.Option(help="adadec: what `unspool train adadec-threshold` learned.", show_default=False),
    ] = None,
    num_beams: Annotated[
        int | None, typer.Option(help="beam: unfinished texts that are kept. Default: 3.", show_default=False)
    ] = None,
    max_model_tokens: Annotated[
        int | None, typer.Option(help="plan: most tokens that the model may evaluate.", show_default=False)
    ] = None,
    function_body: Annotated[
        bool, typer.Option("--function-body", help="End where the body of a Python function ends. plan always does.")
    ] = False,
    chat: Annotated[
        bool | None, typer.Option("--chat/--no-chat", help="Use the chat template. Default: if the model has one.")
    ] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="Read the prompt from this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    backend: BackendOption = "openvino",
    weights: WeightsOption = None,
    threads: ThreadsOption = None,
    device: DeviceOption = None,
) -> None:
    """Search for a better text than greedy decoding's.

    beam keeps several texts; adadec pauses where the model is unsure and looks a few tokens ahead, from a threshold on
    that belongs to the model; plan completes a Python function whose prompt is its signature and docstring, until the
    examples in the docstring hold (they are run in a sandbox).

    Examples:

      unspool search "Why is the sky blue?"

      unspool search -m qwen2.5-coder-0.5b --threshold 1.3 "Write a haiku about autumn."

      unspool search -m qwen2.5-coder-0.5b --method plan --max-model-tokens 4000 --file function.py
    """
    from unspool import methods
    from unspool.engine.options import GenerationOptions
    from unspool.methods.search.adadec import train as adadec_threshold
    from unspool.methods.search.plan.reward import PublicTests

    text = read_prompt(prompt, file)
    given: dict[str, Any] = {"threshold": threshold, "threshold_file": threshold_file}
    given |= {"num_beams": num_beams, "max_model_tokens": max_model_tokens}
    given = {name: value for name, value in given.items() if value is not None}
    if method is None:
        method = "adadec" if threshold is not None or threshold_file is not None else "beam"
    row = methods.find(method, "search")
    options: dict[str, Any] = {"method": method, "max_new_tokens": max_new_tokens, "method_options": given}
    # Mistakes are told before a model is loaded or downloaded.
    methods.make_options(row, given)
    GenerationOptions(max_new_tokens=max_new_tokens)
    if threshold_file is not None:
        adadec_threshold.read(threshold_file)
    if method == "plan":
        options |= {"reward": PublicTests(text), "chat": chat or False}
    if method == "plan" or function_body:
        options |= {"stop_rule": "function_body"}
    given_model = loaded(model, backend, max_new_tokens=max_new_tokens, weights=weights, threads=threads, device=device)
    with given_model as decoder, Status() as status:
        status.say(f"searching with {method}")
        result = decoder.search(text, **{"chat": chat} | options)
    if as_json:
        print_json(asdict(result))
        return
    print(result.text)
    figures = result.statistics
    counts = " · ".join(f"{name} {value:g}" for name, value in figures.counts.items())
    print(
        f"[{figures.tokens} tokens · {figures.seconds:.1f} s · {figures.evaluated} evaluated in {figures.passes} passes"
        f" · {counts}]",
        file=sys.stderr,
    )
