"""``unspool train adadec-threshold``: the entropy at which ``adadec`` pauses, learned for one model."""

from __future__ import annotations

import sysconfig
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from unspool.cli.common import (
    BackendOption,
    DeviceOption,
    ModelOption,
    ThreadsOption,
    WeightsOption,
    bars,
    loaded,
    print_json,
)


def adadec_threshold(
    output: Annotated[
        Path, typer.Option("-o", "--output", help="JSON file for thresholds; those of other models in it stay.")
    ],
    model: ModelOption = None,
    files: Annotated[
        list[Path] | None,
        typer.Option(
            help="Python file, or directory of them; may be given several times. Default: the installed packages.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most functions, drawn at random.")] = 400,
    max_tokens: Annotated[int, typer.Option(min=2, help="Most tokens of a function; the rest of it is cut.")] = 1024,
    seed: Annotated[int, typer.Option(help="The same seed draws the same functions.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print machine-readable JSON.")] = False,
    backend: BackendOption = "openvino",
    weights: WeightsOption = None,
    threads: ThreadsOption = None,
    device: DeviceOption = None,
) -> None:
    """Learn from which entropy on a model's first choice is probably wrong. It belongs to one model and its weights.

    Functions of Python files are scored once: signature and docstring are the prompt, the body is the solution.

    Example:

      unspool train adadec-threshold -m qwen2.5-coder-0.5b -o thresholds.json
    """
    from unspool.methods.search.adadec.data import problems
    from unspool.methods.search.adadec.train import key_of, learn, measure, read, save
    from unspool.storage.text_files import check_file

    check_file(output, *(files or ()))
    if output.exists():
        read(output)  # it is added to
    chosen = problems(files or [Path(sysconfig.get_path("purelib"))], limit, seed)
    with loaded(model, backend, weights=weights, threads=threads, device=device) as target, bars() as progress:
        entropies, ranks = measure(target, chosen, max_tokens, progress)
        learned = learn(entropies, ranks, len(chosen))
        save(output, key_of(target), target.name, learned)
    if as_json:
        print_json(asdict(learned))
        return
    typer.echo(
        f"{output}: threshold {learned.threshold:.3f} nats (theta {learned.theta:.2f}, accuracy {learned.accuracy:.3f})"
        f" from {learned.tokens} tokens of {learned.problems} functions"
    )
    typer.echo(
        f"pauses at {learned.pause_rate:.1%} of the tokens. First choice right: {learned.right:.0%} below, "
        f"{learned.right_paused:.0%} from there on; there the right token is in the first three at "
        f"{learned.in_top_3_paused:.0%}"
    )
