"""``unspool prove``: test the guarantees of methods, and print the results as tables."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unspool.cli.common import (
    AssistantOption,
    BackendOption,
    DeviceOption,
    ModelOption,
    Status,
    ThreadsOption,
    WeightsOption,
    bars,
    loaded,
    names_of,
    print_json,
)

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from unspool.proof.result import Proof


def prove(
    model: ModelOption = None,
    assistant_model: AssistantOption = None,
    methods: Annotated[
        str,
        typer.Option(
            help="Comma-separated names, see `unspool methods`, or all. Methods without a package, draft model or "
            "test that they need are listed at the start and left out.",
            metavar="NAMES",
        ),
    ] = "all",
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="JSONL with `prompt`, or `turns` as in Spec-Bench; or a text file with one prompt per line. "
            "Default: twelve short bundled prompts.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use only the first N prompts.", show_default=False)] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Maximum tokens of each run.")] = 128,
    temperature: Annotated[
        list[float] | None, typer.Option(help="May be repeated. Default: 0 and 0.8.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(help="Prompt i is decoded with this seed plus i.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print machine-readable JSON.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write a report to this file.", show_default=False)] = None,
    runs: Annotated[
        Path | None,
        typer.Option(
            help="Keep decoded runs in this file; runs that it contains are not decoded again.", show_default=False
        ),
    ] = None,
    backend: BackendOption = "openvino",
    weights: WeightsOption = None,
    threads: ThreadsOption = None,
    device: DeviceOption = None,
) -> None:
    """Test the guarantees of methods on this machine.

    Each identical method decodes every prompt, and each token is compared with plain decoding on the same backend. A
    difference within the backend's measured rounding noise is a tie; a larger one is a fault. Rules that guarantee
    the same distribution are enumerated on a tiny model, and their draws are compared with plain sampling. Methods
    with valid output solve bundled tasks, judged by independent parsers. For lossy methods, the difference from plain
    decoding is measured. Exit code 1 on a fault.
    After Ctrl-C, the same command with the same --runs resumes after the last finished method.

    Examples:

      unspool prove

      unspool prove -m qwen2.5-coder-0.5b --methods auto,suffix --prompts question.jsonl --limit 40 --runs runs.jsonl

      unspool prove --temperature 0.8 --html proof.html
    """
    from unspool.bench.about import command_line
    from unspool.engine.options import GenerationOptions
    from unspool.errors import UnsupportedError
    from unspool.proof.plan import choose
    from unspool.proof.prompts import PROMPTS
    from unspool.proof.prove import TEMPERATURES
    from unspool.proof.prove import prove as run
    from unspool.storage import journal
    from unspool.storage.text_files import check_file
    from unspool.suites.prompts import read_prompts

    # Fail before a model is loaded or downloaded.
    temperatures = temperature or list(TEMPERATURES)
    for value in temperatures:
        GenerationOptions(temperature=value, max_new_tokens=max_new_tokens, seed=seed)
    names = None if methods == "all" else names_of(methods, "--methods")
    if names is not None and "all" in names:
        raise UnsupportedError("--methods: all cannot be combined with names; use either all or names")
    choose(names, temperatures, assistant=assistant_model)
    texts = [prompt.text for prompt in (read_prompts(prompts) if prompts else PROMPTS)[:limit]]
    for file in (html, runs):
        if file is not None:
            check_file(file, prompts, runs if file is html else None)
    if runs is not None:
        journal.check(runs, "--runs")
    with loaded(
        model,
        backend,
        assistant_model=assistant_model,
        max_new_tokens=max_new_tokens,
        weights=weights,
        threads=threads,
        device=device,
    ) as decoder:
        chosen, left_out = choose(names, temperatures, decoder.resources())
        if not chosen:
            raise UnsupportedError("none of these methods can be tested; see `unspool methods`")
        for name, why in left_out.items():
            print(f"left out: {name} ({why})", file=sys.stderr)
        if any(method.row.needs.costs for method in chosen):
            with Status() as status:
                decoder.report = status.say
                decoder.cost_curve()
        with bars() as progress:
            proof = run(
                decoder,
                [method.spec for method in chosen],
                texts,
                temperatures=temperatures,
                max_new_tokens=max_new_tokens,
                seed=seed,
                command=command_line(sys.argv[1:]),
                runs=runs,
                progress=progress,
            )
    if html is not None:
        from unspool.report.page import write

        write([proof], html)
    if as_json:
        print_json(proof.to_json())
    else:
        from rich.console import Console

        show(proof, Console())
    if proof.faults:
        raise typer.Exit(1)


def show(proof: Proof, console: Console) -> None:
    """Print noise, results and differences as tables."""
    from rich.markup import escape

    settings = ", ".join(f"{name} {value}" for name, value in proof.settings.items())
    console.print(escape(f"{proof.model}: {settings}"))
    noise = _table("Noise: change of logits", "", "nodes a pass, largest, root mean square")
    for point in proof.noise:
        noise.add_row(str(point.width), _figure(point.max), _figure(point.rms))
    console.print(noise)

    figures = "temperature, prompts, identical, tokens, ties, faults, tie below"
    identity = _table("Token for token", "method, compared with", figures)
    tests = _table("Other checks", "method, check, temperature, faults, figures")
    for row in proof.rows:
        style = "bold red" if row.faults else None
        if "noise" in row.details:
            counts = (row.prompts, row.identical, row.tokens, row.ties, row.faults)
            cells = (*map(str, counts), _figure(float(row.details["noise"])))
            identity.add_row(row.method, str(row.details["compared_with"]), f"{row.temperature:g}", *cells, style=style)
        else:
            details = ", ".join(
                f"{name} {_figure(value) if isinstance(value, float) else value}" for name, value in row.details.items()
            )
            tests.add_row(row.method, row.check, f"{row.temperature:g}", str(row.faults), details, style=style)
    console.print(identity)
    console.print(tests)

    if any(row.differences for row in proof.rows):
        figures = "temperature, prompt, seed, token, plain, run, margin, gap, tie below, verdict"
        table = _table("Differences", "method", figures)
        for row in proof.rows:
            for d in row.differences:
                ids = (d.prompt, d.seed, d.index, *("end" if token is None else token for token in (d.plain, d.other)))
                leads = [_figure(value) for value in (d.margin, d.gap, float(row.details["noise"]))]
                style = "bold red" if d.verdict == "fault" else None
                table.add_row(row.method, f"{row.temperature:g}", *map(str, ids), *leads, d.verdict, style=style)
        console.print(table)
    console.print(f"{proof.faults} faults, {sum(row.ties for row in proof.rows)} ties")


def _table(title: str, text: str, figures: str = "") -> Table:
    """An empty table; ``text`` and ``figures`` name its columns, separated by commas."""
    from rich.table import Table

    table = Table(title=title)
    for name in filter(None, text.split(", ")):
        table.add_column(name, overflow="fold")
    for name in filter(None, figures.split(", ")):
        table.add_column(name, justify="right", overflow="fold")
    return table


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
