"""One self-contained HTML file from the results of ``unspool prove``, ``bench`` and ``tradeoff``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

from unspool.bench.result import Bench
from unspool.bench.tradeoff import Tradeoff
from unspool.errors import UnspoolError
from unspool.proof.result import Proof
from unspool.report.bench import benchmark_part, figures_of
from unspool.report.figures import Figures
from unspool.report.parts import Part, Section, Table
from unspool.report.proof import proof_part
from unspool.report.theme import variables
from unspool.report.tradeoff import tradeoff_part
from unspool.report.words import number, share
from unspool.storage.output import save

Result = Proof | Bench | Tradeoff


def write(results: Sequence[Result], path: Path) -> None:
    """Write a report that opens anywhere without a network, in light and dark mode.

    Args:
        results: in page order; benchmarks of the same model and suite are also compared side by side.
        path: of the file; an existing file is replaced.

    Raises:
        UnspoolError: if there are no results, or the file cannot be written.
    """
    if not results:
        raise UnspoolError(
            "no results to report; give files written by `unspool bench`, `prove` or `tradeoff` with --json"
        )
    save(render(results), path)


def render(results: Sequence[Result]) -> str:
    """The page as text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    parts: list[Part] = []
    benches: list[Figures] = []
    for i, result in enumerate(results):
        name = f"result{i + 1}"
        if isinstance(result, Bench):
            benches.append(figures_of(result))
            parts.append(benchmark_part(name, benches[-1]))
        elif isinstance(result, Tradeoff):
            parts.append(tradeoff_part(name, result))
        else:
            parts.append(proof_part(name, result))
    titles = [part.title for part in parts]
    parts = [
        replace(part, title=f"{part.title}, result {i}") if titles.count(part.title) > 1 else part
        for i, part in enumerate(parts, 1)
    ]
    # Every text comes from results, which quote prompts, paths and names, so all of it is escaped.
    environment = Environment(
        loader=PackageLoader("unspool.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    css = files("unspool.report").joinpath("report.css").read_text("utf-8")
    return environment.get_template("report.html.j2").render(
        title=parts[0].title if len(parts) == 1 else "unspool: report",
        css=f"{variables()}\n{css}",
        parts=parts,
        again=_again(benches),
    )


def _again(benches: Sequence[Figures]) -> list[Section]:
    """Benchmarks that were run more than once: how far their ratios differ."""
    alike: dict[tuple[str, str], list[Figures]] = {}
    for figures in benches:
        alike.setdefault((figures.bench.model, figures.bench.suite), []).append(figures)
    sections = []
    for (model, suite), runs in alike.items():
        if len(runs) < 2:
            continue
        rows = []
        for name in runs[0].contestants:
            found = [figures.of(name) for figures in runs]
            ratios = [row.ratio_totals for row in found if row is not None and row.ratio_totals is not None]
            if len(ratios) == len(runs):
                apart = max(ratios) / min(ratios) - 1
                rows.append([name, *(number(ratio) for ratio in ratios), share(apart)])
        columns = ["contestant", *(f"run {i + 1}" for i in range(len(runs))), "apart"]
        table = Table("Speed ÷ plain decoding's, ratio of totals, in each run", columns, rows, open=True)
        sections.append(Section(f"Run again: {model} on {suite}", tables=[table]))
    return sections
