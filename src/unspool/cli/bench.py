"""``unspool bench``: the decoding speed of methods and other engines on this machine, measured interleaved."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from unspool.cli.common import AssistantOption, ModelOption, ThreadsOption, check_length, names_of
from unspool.engine.method import DRAFTER
from unspool.methods import DEFAULTS


def bench(
    model: ModelOption = None,
    assistant_model: AssistantOption = None,
    methods: Annotated[
        str,
        typer.Option(
            help="Methods, comma-separated, each with its options: token_recycling:nodes=8. plain is always included. "
            "A method can have its own weight format: plain@int4."
        ),
    ] = DEFAULTS[DRAFTER],
    weights: Annotated[str, typer.Option(help="Weight format: int8, int4 or fp32.")] = "int8",
    suite: Annotated[
        str,
        typer.Option(
            help="mixed, code-edit, json, humaneval, source-edit, spec-bench:FILE, or a file of prompts. Several, "
            "separated by commas, are joined."
        ),
    ] = "mixed",
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Maximum number of prompts per category. Default: all.", show_default=False),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, max=1000, help="How often each prompt is decoded.")] = 1,
    peers: Annotated[
        str,
        typer.Option(
            help="Other engines, comma-separated: transformers, llama_cpp, openvino_genai; each also as "
            "NAME_prompt_lookup, with the number of drafted tokens: openvino_genai_prompt_lookup@8."
        ),
    ] = "",
    max_new_tokens: Annotated[int, typer.Option(min=2, help="Maximum tokens of an answer.")] = 128,
    temperature: Annotated[float, typer.Option(help="0 is greedy decoding; above 0, tokens are sampled.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of the order of runs, the choice by --limit, and sampling.")] = 0,
    threads: ThreadsOption = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", help="Write all figures to this file; an interrupted run resumes from it."),
    ] = None,
    html_file: Annotated[Path | None, typer.Option("--html", help="Write a report to this file.")] = None,
    answers: Annotated[
        Path | None,
        typer.Option("--spec-bench-answers", help="Write the runs to this directory in Spec-Bench's answer format."),
    ] = None,
) -> None:
    """Compare the decoding speed of methods and other engines with plain decoding.

    Each prompt goes to all contestants in a random order before the next prompt; each contestant is a process.
    After Ctrl-C, the same command with the same --json resumes.

    Examples:

      unspool bench -m qwen2.5-coder-0.5b --limit 2

      unspool bench --methods auto,suffix,plain@int4 --suite json --json result.json --html result.html

      unspool bench --peers transformers,llama_cpp,openvino_genai --suite spec-bench:question.jsonl --limit 5
    """
    from rich.console import Console

    from unspool import suites
    from unspool.bench import spec_bench, table
    from unspool.bench.about import command_line
    from unspool.bench.benchmark import Options, benchmark
    from unspool.bench.progress import Screen
    from unspool.storage.text_files import check_directory, check_file

    options = Options(
        model=model,
        methods=names_of(methods, "--methods"),
        peers=names_of(peers, "--peers") if peers else [],
        weights=weights,
        suite=suite,
        limit=limit,
        repeats=repeats,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seed=seed,
        threads=threads,
        assistant_model=assistant_model,
    )
    for file in (json_file, html_file):
        if file is not None:
            check_file(file, html_file if file is json_file else None, Path(suite))
    if answers is not None:
        check_directory(answers)
    check_length(model, max_new_tokens)
    try:
        with Screen() as screen:
            result = benchmark(options, command_line(sys.argv[1:]), screen, json_file)
    except KeyboardInterrupt:
        kept = "run the same command to resume" if json_file else "no figures were kept; with --json a run can resume"
        print(f"interrupted; {kept}", file=sys.stderr)
        raise
    if answers is not None:
        spec_bench.write(result, answers, suites.load(suite).categories)
    if html_file is not None:
        from unspool.report import page as html

        html.write([result], html_file)
    table.show(result, Console())
