"""The page's part on one benchmark: headline, all contestants at a glance, charts, how it was measured."""

from __future__ import annotations

from unspool.bench.result import Bench, Summary
from unspool.bench.summary import METHOD, summarise
from unspool.methods import PLAIN
from unspool.report.cost import accepted_section, curve_section
from unspool.report.drafts import depth_section, source_section
from unspool.report.figures import Figures
from unspool.report.looks import looks
from unspool.report.parts import Cell, Part, Section, Table
from unspool.report.speed import quality_section, ratio_cell, ratio_section, tokens_section
from unspool.report.words import NONE, counted, facts, joined, number, quartiles


def figures_of(bench: Bench) -> Figures:
    """A benchmark with its summary."""
    return Figures(bench, summarise(bench))


def benchmark_part(name: str, figures: Figures) -> Part:
    """All sections. ``name`` is unique on the page."""
    bench = figures.bench
    sections = _measures(name, figures) if figures.contestants else [_nothing()]
    first, more = headline(figures)
    return Part(
        name,
        f"Benchmark: {bench.model} on {bench.suite}",
        first,
        more,
        bench.command,
        bad=any(verdict["faults"] for verdict in bench.verdicts.values()),
        sections=[*sections, _measured(bench)],
    )


def _measures(name: str, figures: Figures) -> list[Section]:
    look = looks(figures)
    quality = quality_section(name, figures, look)
    return [
        _overview(figures),
        ratio_section(name, figures, look),
        tokens_section(name, figures, look),
        accepted_section(name, figures, look),
        curve_section(name, figures),
        depth_section(name, figures, look),
        source_section(name, figures, look),
        *([quality] if quality else []),
    ]


def _nothing() -> Section:
    return Section("No figures", ["No run has a speed: each emitted all its tokens at once, or none."])


def headline(figures: Figures) -> tuple[str, list[str]]:
    """The fastest method compared with plain decoding and with each peer, and whether its text is the same."""
    model, best = figures.bench.model, figures.fastest()
    if best is None:
        own = figures.of(PLAIN)
        if own is None:
            return f"No method of unspool was measured on {model}.", []
        speed = own.tokens_per_second
        first = f"Plain decoding of {model} emits {number(speed.median, 1)} tokens/s ({quartiles(speed, 1)})."
        return first, _against(figures, PLAIN)
    said = same_text(figures.bench, best.contestant)
    return _gain(figures, best), [*_against(figures, best.contestant), *([said] if said else [])]


def _gain(figures: Figures, best: Summary) -> str:
    model, speed = figures.bench.model, best.tokens_per_second
    if best.ratio_totals is None or best.ratio is None:
        return f"{best.contestant} decodes {model} at {number(speed.median, 1)} tokens/s ({quartiles(speed, 1)})."
    spread = f"per prompt {number(best.ratio.median)}, quartiles {quartiles(best.ratio)}"
    if best.slower:
        return (
            f"No method decodes {model} faster than plain decoding: the best, {best.contestant}, is slower, "
            f"at {number(best.ratio_totals)} times plain's speed over all tokens ({spread})."
        )
    return (
        f"{best.contestant} decodes {model} {number(best.ratio_totals)} times as fast as plain decoding over all "
        f"tokens ({spread})."
    )


def _against(figures: Figures, contestant: str) -> list[str]:
    parts = []
    for peer in figures.peers:
        spread = figures.against(contestant, peer)
        if spread is not None:
            slower = ", slower" if spread.median < 1 else ""
            parts.append(f"{number(spread.median)} times as fast as {peer} ({quartiles(spread)}{slower})")
    if not parts:
        return []
    return [f"Prompt by prompt {contestant} is {joined(parts)}: medians, with quartiles in brackets."]


def same_text(bench: Bench, contestant: str) -> str:
    """How many of a contestant's runs produced plain decoding's text; empty if not compared."""
    verdict = bench.verdicts.get(contestant)
    if verdict is None:
        return ""
    runs = sum(run.contestant == contestant for run in bench.runs)
    identical, ties, faults = (verdict[name] for name in ("identical", "ties", "faults"))
    said = f"Of {contestant}'s {counted(runs, 'run')}, {number(identical, 0)} produced plain decoding's exact text"
    return f"{said}; {counted(ties, 'tie')}, {counted(faults, 'fault')}."


def _overview(figures: Figures) -> Section:
    bench = figures.bench
    rows: list[list[str | Cell]] = []
    for row in figures.overall(figures.contestants):
        verdict = bench.verdicts.get(row.contestant, {})
        faults = verdict.get("faults")
        peak = bench.memory.get(row.contestant)
        rows.append(
            [
                f"{row.contestant} (peer)" if row.contestant in figures.peers else row.contestant,
                bench.settings.get(row.contestant, {}).get("weights", NONE),
                number(row.runs, 0),
                number(row.tokens_per_second.median, 1),
                ratio_cell(row),
                number(row.mean_accepted_tokens),
                number(None if peak is None else peak / 2**20, 0),
                number(verdict.get("identical"), 0),
                number(verdict.get("ties"), 0),
                Cell(number(faults, 0), "bad" if faults else ""),
            ]
        )
    table = Table(
        "Every contestant, all prompts",
        [
            "contestant",
            "weights",
            "runs",
            "tokens/s",
            "÷ plain",
            "accepted per pass",
            "peak MiB",
            "identical",
            "ties",
            "faults",
        ],
        rows,
        "Runs: those that have a speed. Tokens/s: medians over runs. ÷ plain: ratio of totals. Identical: runs that "
        f"produced plain decoding's exact text ({NONE}: not reported, or not comparable).",
        words=frozenset({1}),
        open=True,
    )
    return Section("At a glance", tables=[table])


def _measured(bench: Bench) -> Section:
    """Machine, versions, settings, and contestants left out."""
    words = frozenset({1})
    out = [[name, why] for name, why in bench.left_out.items()]
    tables = [
        Table("Machine and versions", ["what", "value"], list(facts(bench.about)), words=words, open=True),
        Table("Options of the run", ["what", "value"], list(facts(bench.options)), words=words, open=True),
        Table(
            "Settings of each contestant",
            ["contestant", "settings"],
            [
                [name, ", ".join(f"{key} {value}" for key, value in facts(settings))]
                for name, settings in bench.settings.items()
            ],
            words=words,
            open=True,
        ),
    ]
    if out:
        tables.insert(0, Table("Left out, and why", ["contestant", "why"], out, words=words, open=True))
    text = [METHOD] if out else [METHOD, "Nobody was left out."]
    return Section("How it was measured", text, tables=tables)
