"""Pages from committed results: tables of benchmarks and tradeoffs, figures of experiments, reports, What held here."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from statistics import geometric_mean

from unspool import experiments, methods
from unspool.bench.result import Bench
from unspool.bench.summary import ALL, ratio_table, summarise
from unspool.bench.tradeoff import Tradeoff
from unspool.methods import PLAIN
from unspool.report import page, tradeoff
from unspool.report.read import read
from unspool.reproduce.experiment import OUTCOMES
from unspool.reproduce.held import Held, held
from unspool.reproduce.held import results as results_in
from unspool.reproduce.result import ExperimentResult

RESULTS = Path(__file__).parents[2] / "results"
_YEAR = re.compile(r"\(\d{4}\)")
"""What a method from a paper names and a textbook's does not."""


def bench_table(bench: Bench) -> str:
    """Markdown table of each contestant's speed relative to plain decoding, with model and machine."""
    summaries = summarise(bench)
    categories = [name for name in dict.fromkeys(row.category for row in summaries) if name != ALL]
    ratios = ratio_table(summaries)
    best = {c: max(by[c][1] for by in ratios.values() if c in by) for c in categories}
    passes = {row.contestant: row.mean_accepted_tokens for row in summaries if row.category == ALL}
    speed = next(row.tokens_per_second.median for row in summaries if (row.contestant, row.category) == (PLAIN, ALL))

    def cell(by: Mapping[str, tuple[float, float]], category: str) -> str:
        if category not in by:
            return "–"
        text = f"{by[category][1]:.2f}"
        return f"**{text}**" if by[category][1] == best[category] else text

    lines = [
        f"| | tokens a pass | {' | '.join(categories)} | geometric mean |",
        "|---|" + "---:|" * (len(categories) + 2),
    ]
    for name, by in ratios.items():
        cells = [cell(by, category) for category in categories]
        accepted = passes.get(name)
        mean = geometric_mean(by[c][1] for c in categories if c in by)
        shown = "–" if accepted is None else f"{accepted:.2f}"
        lines.append(f"| `{name}` | {shown} | {' | '.join(cells)} | {mean:.2f} |")
    host, versions = bench.about["machine"], bench.about["versions"]
    lines += [
        "",
        "Speed relative to plain decoding (ratio of totals; the best of a category is bold; below 1 is slower). "
        f"{bench.model}; plain: {speed:.1f} tokens/s. "
        f"{host['cpu']}, {host['physical_cores']} cores, {bench.about['date'][:10]}, "
        f"unspool {versions['unspool']}, OpenVINO {versions['openvino']}. Made by:",
        "",
        "```sh",
        bench.command,
        "```",
    ]
    return "\n".join(lines)


def _bench_file(name: str) -> str:
    return bench_table(Bench.from_json(json.loads((RESULTS / "bench" / name).read_text())))


def tradeoff_table(result: Tradeoff) -> str:
    """Markdown tables, one per kind of task: the fewest passes of each line that lose at most one point."""
    lines: list[str] = []
    for dependent, words in tradeoff.KINDS.items():
        rows = [tradeoff.FEWEST, ("---", "---", "---:", "---:", "---:"), *tradeoff.fewest(result, dependent)]
        lines += [f"{words}:", "", *(f"| {' | '.join(row)} |" for row in rows), ""]
    host = result.about["machine"]
    questions = len(result.points[0].right)
    lines += [
        f"{result.model}, {questions} held-out questions of each task. {host['cpu']}, {result.about['date'][:10]}. "
        "Made by:",
        "",
        "```sh",
        result.command,
        "```",
    ]
    return "\n".join(lines)


def _tradeoff_file(name: str) -> str:
    return tradeoff_table(Tradeoff.from_json(json.loads((RESULTS / "tradeoff" / name).read_text())))


@cache
def lines() -> list[Held]:
    """All papers and experiments with their committed results."""
    papers = {name: row.paper for name, row in methods.methods().items() if _YEAR.search(row.paper)}
    return list(held(papers, [experiments.find(name) for name in experiments.names()], results_in(RESULTS)))


def held_page() -> str:
    """The table of all papers, then a section for each experiment."""
    table = ["| paper | methods | outcome |", "|---|---|---|"]
    sections: list[str] = []
    shown: set[str] = set()
    for line in lines():
        names = ", ".join(f"[`{name}`](methods/{name}.md)" for name in line.methods)
        outcome = line.outcome if line.experiment is None else f"[{line.outcome}](#{line.experiment.name})"
        on = f", {line.result.settings['model']}" if line.result else ""
        table.append(f"| {_cell(line.paper) or '(unspool)'} | {names} | {outcome}{on} |")
        if line.experiment is not None and (line.experiment.name, on) not in shown:
            if not any(name == line.experiment.name for name, _ in shown):
                sections += [f"## {line.experiment.name}", ""]
            shown.add((line.experiment.name, on))
            sections += _section(line)
    return "\n".join([*table, "", *sections])


def _section(line: Held) -> list[str]:
    result = line.result
    if result is None:
        experiment = line.experiment
        assert experiment is not None
        facts = [("Claim", experiment.claim), ("Control", experiment.control), ("Test", experiment.test)]
        return [*(f"- **{name}**: {text}" for name, text in facts), "- **Outcome**: not run yet", ""]
    host = result.about["machine"]
    facts = [
        ("Claim", result.claim),
        ("Control", result.control),
        ("Test", f"{result.test}; {result.settings['model']}, {result.settings['count']}"),
        ("Expected", _expected(line)),
        ("Outcome", f"**{result.outcome}** ({OUTCOMES[result.outcome]})"),
        ("Run", f"{result.about['date'][:10]}, {host['cpu']}: `{result.command}`"),
    ]
    if "carried over" in result.about:
        source = result.about["carried over"]
        known = "; its figures were known when the expectation was written" if source.startswith("from ") else ""
        facts.append(("Carried over", source + known))
    table = ["| figure | value, 95 % | cases |", "|---|---:|---:|"]
    for name, figure in result.figures.items():
        table.append(f"| {_cell(name)} | {figure} | {'' if figure.count is None else figure.count} |")
    return [*(f"- **{name}**: {text}" for name, text in facts), "", *table, ""]


def _expected(line: Held) -> str:
    """What was expected, and whether each bound is met."""
    assert line.result is not None and line.experiment is not None
    bounds = {str(bound): bound for bound in line.experiment.expects}
    told = []
    for text in line.result.expects:
        bound, figure = bounds.get(text), line.result.figures.get(text.partition(": ")[0])
        known = bound is not None and figure is not None
        told.append(f"{text} ({('met' if bound.met(figure) else 'not met')})" if known else text)
    return "; ".join(told)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def figure_of(name: str, figure: str) -> str:
    """A figure of a committed result, with its interval.

    Args:
        name: of the experiment, or ``NAME-MODEL`` if there are results on several models.
    """
    found: list[ExperimentResult] = [
        result
        for results in results_in(RESULTS).values()
        for result in results
        if name in (result.experiment, result.file_name.removesuffix(".json"))
    ]
    if len(found) != 1:
        raise ValueError(f"there are {len(found)} results of {name}")
    return str(found[0].figures[figure])


def reports() -> dict[str, str]:
    """The HTML report of each committed benchmark, proof and tradeoff, by path under ``docs/``."""
    return {
        f"reports/{path.parent.name}-{path.stem}.html": page.render([read(path)])
        for path in sorted(RESULTS.glob("*/*.json"))
    }


def filled(markdown: str) -> str:
    """Fill in ``<!-- bench: FILE -->``, ``tradeoff: FILE``, ``result: NAME FIGURE`` and ``held``."""
    markdown = re.sub(r"<!-- bench: (\S+) -->", lambda match: _bench_file(match[1]), markdown)
    markdown = re.sub(r"<!-- tradeoff: (\S+) -->", lambda match: _tradeoff_file(match[1]), markdown)
    markdown = re.sub(r"<!-- result: (\S+) (.+?) -->", lambda match: figure_of(match[1], match[2]), markdown)
    return markdown.replace("<!-- held -->", held_page() if "<!-- held -->" in markdown else "")
