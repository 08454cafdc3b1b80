"""The page's part on one proof: whether the text equals plain decoding's, the measured noise, every difference."""

from __future__ import annotations

from functools import partial

from unspool.proof.result import MethodProof, NoisePoint, Proof
from unspool.report.bars import bars_height, draw_stacked
from unspool.report.drawing import BAD, CARD, HUES, Canvas, Look, chart
from unspool.report.looks import area_key, marker_key
from unspool.report.parts import Cell, Part, Section, Table
from unspool.report.words import NONE, counted, facts, joined, number, small

_OUTCOMES = {"identical": Look(HUES[0], "o"), "tie": Look(HUES[5], "s"), "fault": Look(BAD, "D")}
_HATCH = {"tie": "///", "fault": "xxx"}
_NOISE = {"max": Look(HUES[0], "o"), "rms": Look(HUES[1], "s")}


def proof_part(name: str, proof: Proof) -> Part:
    """All sections. ``name`` is unique on the page."""
    first, more = headline(proof)
    return Part(
        name,
        f"Proof: {proof.model}",
        first,
        more,
        proof.command,
        bad=proof.faults > 0,
        sections=[_equality(name, proof), _noise(name, proof.noise), _differences(proof), _made(proof)],
    )


def headline(proof: Proof) -> tuple[str, list[str]]:
    """The faults, or that there are none; then what was compared, ties, and the noise that explains them."""
    exact = [row for row in proof.rows if row.check == "identity"]
    runs, identical = sum(row.prompts for row in exact), sum(row.identical for row in exact)
    tokens, ties = sum(row.tokens for row in exact), sum(row.ties for row in exact)
    first = f"{counted(proof.faults, 'fault')}, in {_at_fault(proof)}." if proof.faults else "No fault."
    more = []
    if exact:
        first += f" {number(identical, 0)} of {counted(runs, 'run')} produce plain decoding's exact text."
        more.append(f"{counted(tokens, 'token')} were compared; {counted(ties, 'tie')}.")
    if proof.noise:
        largest = max(point.max for point in proof.noise)
        more.append(
            f"The backend's measured noise is at most {small(largest)} logits."
            if largest
            else "The backend's measured noise is exactly 0: no difference can be called a tie."
        )
    return first, more


def _at_fault(proof: Proof) -> str:
    return joined(list(dict.fromkeys(row.method for row in proof.rows if row.faults)))


def _label(row: MethodProof) -> str:
    return f"{row.method}, temperature {row.temperature:g}"


def _equality(name: str, proof: Proof) -> Section:
    exact = [row for row in proof.rows if row.check == "identity"]
    table = Table(
        "Each method under each check",
        ["method", "guarantee", "check", "temperature", "runs", "identical", "tokens compared", "ties", "faults", ""],
        [
            [
                row.method,
                row.guarantee,
                row.check,
                f"{row.temperature:g}",
                number(row.prompts, 0),
                # Draws from a distribution are compared as a whole; valid output is compared with nothing.
                number(row.identical, 0) if row.check in ("identity", "distance") else NONE,
                number(row.tokens, 0),
                number(row.ties, 0),
                Cell(number(row.faults, 0), "bad" if row.faults else ""),
                _holds(row),
            ]
            for row in proof.rows
        ],
        "Tokens of a run are compared up to and including the first difference.",
        words=frozenset({1, 2, 9}),
        open=True,
    )
    tables = [table]
    detailed = [row for row in proof.rows if row.details]
    if detailed:
        figures = [
            [row.method, row.check, f"{row.temperature:g}", key.replace("_", " "), _figure(value)]
            for row in detailed
            for key, value in row.details.items()
        ]
        columns = ["method", "check", "temperature", "figure", "value"]
        tables.append(Table("Figures of the checks", columns, figures, words=frozenset({1, 3})))
    text = (
        "Ties are differences that the backend's measured noise explains; faults are those that it does not. "
        "Lossy methods are measured, never called equal."
    )
    if not exact:
        return Section("Equality", [text], tables=tables)
    bars = {_label(row): _outcomes(row) for row in exact if row.prompts}
    plot = chart(
        f"{name}-equality",
        "Runs by outcome, per method",
        "One bar per method and temperature, divided among identical runs, ties and faults.",
        bars_height(list(bars), legend=34),
        partial(draw_stacked, rows=bars, look=_OUTCOMES, hatch=_HATCH),
    )
    return Section("Equality", [text], [area_key(outcome, look) for outcome, look in _OUTCOMES.items()], plot, tables)


def _outcomes(row: MethodProof) -> dict[str, int]:
    """Runs by outcome. A run with a fault counts as a fault, whatever its ties."""
    parted = row.prompts - row.identical
    faulty = len({(d.prompt, d.seed) for d in row.differences if d.verdict == "fault"})
    if not row.differences and row.faults:
        faulty = parted
    return {"identical": row.identical, "tie": parted - faulty, "fault": faulty}


def _holds(row: MethodProof) -> Cell:
    if row.faults:
        return Cell("fault", "bad")
    if row.check == "validity" and not row.details["valid"]:
        return Cell("no whole output")  # cut or missing output proves nothing
    return Cell("measured") if row.check == "distance" else Cell("holds", "good")


def _figure(value: float | int | str) -> str:
    return small(value) if isinstance(value, float) else str(value)


def _noise(name: str, noise: list[NoisePoint]) -> Section:
    title = "Noise of the backend"
    text = (
        "How far the logits of the same text change when it is scored in passes of n nodes instead of one. "
        "Below the measured noise a difference is a tie."
    )
    if not noise:
        return Section(title, ["Noise was not measured."])
    table = Table(
        "Noise of the logits by width of the pass",
        ["nodes", "largest", "root mean square"],
        [[number(point.width, 0), small(point.max), small(point.rms)] for point in noise],
        open=True,
    )
    if not any(point.max for point in noise):
        exact = "No chart: the logits are bit-identical at every width."
        return Section(title, [text, exact], tables=[table])
    plot = chart(
        f"{name}-noise",
        "Noise of the logits by width of the pass",
        "The largest and the root mean square difference of a logit, per number of nodes in the pass.",
        lambda narrow: 260 if narrow else 300,
        partial(_draw_noise, noise=noise),
    )
    keys = [marker_key("largest", _NOISE["max"]), marker_key("root mean square", _NOISE["rms"])]
    return Section(title, [text], keys, plot, [table])


def _draw_noise(canvas: Canvas, noise: list[NoisePoint]) -> None:
    axes = canvas.axes
    axes.grid(axis="y")
    axes.set_xscale("log", base=2)
    widths = [point.width for point in noise]
    for values, look in (
        ([point.max for point in noise], _NOISE["max"]),
        ([point.rms for point in noise], _NOISE["rms"]),
    ):
        axes.plot(widths, values, color=look.colour, lw=2, marker=look.marker, ms=6, mec=CARD, mew=0.8)
    axes.set_xticks(widths, [str(width) for width in widths])
    axes.set_xticks([], minor=True)
    axes.set_ylim(0, max(point.max for point in noise) * 1.08)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.1e}" if value else "0")
    axes.set_xlabel("nodes in a pass")
    axes.set_ylabel("difference, logits")


def _differences(proof: Proof) -> Section:
    rows: list[list[str | Cell]] = [
        [
            row.method,
            f"{row.temperature:g}",
            str(difference.prompt),
            str(difference.seed),
            str(difference.index),
            _token(difference.plain),
            _token(difference.other),
            small(difference.margin),
            small(difference.gap),
            Cell(difference.verdict, "bad" if difference.verdict == "fault" else ""),
        ]
        for row in proof.rows
        for difference in row.differences
    ]
    if not rows:
        return Section("Differences", ["None."])
    columns = ["method", "temperature", "prompt", "seed", "token at", "plain's", "its own", "margin", "gap", "verdict"]
    table = Table("Where runs differ from plain decoding", columns, rows, words=frozenset({9}))
    text = (
        "Margin is plain decoding's lead over its runner-up, gap its lead over the token that the run took, both in "
        f"logits ({NONE}: a run had ended). After its first difference, a run is compared with plain passes over its "
        "own text."
    )
    return Section("Differences", [text], tables=[table])


def _token(token: int | None) -> str:
    return "end" if token is None else str(token)


def _made(proof: Proof) -> Section:
    words = frozenset({1})
    return Section(
        "How it was made",
        tables=[
            Table("Machine and versions", ["what", "value"], list(facts(proof.about)), words=words, open=True),
            Table("Settings of the model", ["what", "value"], list(facts(proof.settings)), words=words, open=True),
        ],
    )
