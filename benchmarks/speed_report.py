"""From the runs of ``speed.py`` to its figures and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median
from typing import Any

from common import describe, number, table
from contestants import AUTO, CONTESTANTS, GENAI, INT4, LLAMA, PLAIN, TORCH, Emissions

RATIOS = ((PLAIN, GENAI), (INT4, LLAMA), (PLAIN, TORCH), (INT4, TORCH), (AUTO, PLAIN), (AUTO, GENAI))
"""Which medians are divided by which."""

METHOD = """\
Decoding speed of a prompt = tokens after the first emission / time from the first emission to the last, by the clock of
the caller; prefill is not part of it. Prompts whose answer has a single emission have no speed. Greedy, the same prompt
ids (chat template, first turn), end of text respected. Each contestant is a process of its own that idles while another
one decodes; every prompt goes to all of them, in an order drawn anew, before the next prompt. What `auto` learns stays
from prompt to prompt, as it does by default."""


@dataclass(frozen=True)
class Run:
    """One prompt by one contestant."""

    question_id: int
    category: str
    prompt_tokens: int
    emissions: Emissions

    @property
    def tokens(self) -> int:
        """Tokens after the first emission."""
        return sum(self.emissions.counts[1:])

    @property
    def seconds(self) -> float:
        """From the first emission to the last."""
        return self.emissions.times[-1] - self.emissions.times[0]

    @property
    def speed(self) -> float | None:
        """Tokens per second, None for a single emission."""
        return self.tokens / self.seconds if len(self.emissions.times) > 1 else None

    @property
    def accepted(self) -> float:
        """Mean accepted tokens per pass."""
        return len(self.emissions.token_ids) / len(self.emissions.times)

    def to_json(self) -> dict[str, Any]:
        return {
            "question_id": self.question_id,
            "category": self.category,
            "prompt_tokens": self.prompt_tokens,
            "tokens": len(self.emissions.token_ids),
            "passes": len(self.emissions.times),
            "seconds_after_first_emission": self.seconds,
            "tokens_per_second": self.speed,
        }


Runs = Mapping[str, Sequence[Run]]
"""By contestant; all of them hold the same prompts in the same order."""


def median_speed(runs: Sequence[Run]) -> float | None:
    """Median tokens per second over the prompts that have a speed."""
    speeds = [run.speed for run in runs if run.speed is not None]
    return median(speeds) if speeds else None


def accepted(runs: Sequence[Run]) -> float:
    """Tokens per pass over all prompts together."""
    return sum(len(run.emissions.token_ids) for run in runs) / sum(len(run.emissions.times) for run in runs)


def outside_scoring(runs: Sequence[Run]) -> float | None:
    """Share of the decoding time that is not spent inside the model; None for engines that do not tell."""
    scoring = [sum(run.emissions.scoring_ms[1:]) / 1000 for run in runs if run.emissions.scoring_ms is not None]
    total = sum(run.seconds for run in runs)
    return 1 - sum(scoring) / total if scoring and total else None


def same_ids(runs: Sequence[Run], others: Sequence[Run]) -> int:
    """Prompts on which two contestants gave the same ids."""
    return sum(a.emissions.token_ids == b.emissions.token_ids for a, b in zip(runs, others, strict=True))


def compare(fast: Sequence[Run], base: Sequence[Run]) -> dict[str, float | None]:
    """Speed of ``fast`` over ``base`` on the prompts where both have one, averaged in two ways."""
    pairs = [(a, b) for a, b in zip(fast, base, strict=True) if a.speed and b.speed]
    if not pairs:
        return {"mean_of_ratios": None, "ratio_of_totals": None}
    a_speed, b_speed = (sum(r.tokens for r in side) / sum(r.seconds for r in side) for side in zip(*pairs, strict=True))
    return {
        "mean_of_ratios": mean((a.speed or 0) / (b.speed or 1) for a, b in pairs),
        "ratio_of_totals": a_speed / b_speed,
    }


def summarise(runs: Runs, status: Mapping[str, str], curve: Mapping[str, Any]) -> dict[str, Any]:
    """All figures of the report as plain data.

    Args:
        runs: of the contestants that finished.
        status: by contestant, ``"ok"`` or why there is no figure.
        curve: the fields of ``CostCurve``.
    """
    contestants: dict[str, dict[str, Any]] = {}
    for name, state in status.items():
        contestants[name] = {"label": CONTESTANTS[name].label, "status": state}
        if state == "ok":
            own = runs[name]
            contestants[name] |= {
                "median_tokens_per_second": median_speed(own),
                "mean_accepted_tokens": accepted(own),
                "outside_scoring": outside_scoring(own),
                "prompts_with_ids_of_plain": same_ids(own, runs[PLAIN]) if name in (AUTO, GENAI) else None,
            }
    speeds = {name: entry.get("median_tokens_per_second") for name, entry in contestants.items()}
    categories = {}
    if status.get(AUTO) == "ok":
        names = sorted({run.category for run in runs[PLAIN]})
        for category in [*names, "all"]:
            plain, auto = ([r for r in runs[name] if category in (r.category, "all")] for name in (PLAIN, AUTO))
            categories[category] = {
                "prompts": len(plain),
                "plain_median": median_speed(plain),
                "auto_median": median_speed(auto),
                **compare(auto, plain),
                "mean_accepted_tokens": accepted(auto),
            }
    return {
        "prompts": len(runs[PLAIN]),
        "contestants": contestants,
        "ratios_of_medians": {
            f"{a} / {b}": _ratio(speeds[a], speeds[b]) for a, b in RATIOS if speeds.get(a) and speeds.get(b)
        },
        "auto_over_plain": categories,
        "cost": [_cost(length, dict(zip(curve["nodes"], row, strict=True))) for length, row in _rows(curve)],
    }


def _rows(curve: Mapping[str, Any]) -> list[tuple[int, list[float]]]:
    return list(zip(curve["lengths"], curve["ms"], strict=True))


def _cost(length: int, ms: Mapping[int, float]) -> dict[str, float]:
    return {"context": length, "ms_1": ms[1], "cost_8_over_1": ms[8] / ms[1], "cost_16_over_1": ms[16] / ms[1]}


def _ratio(a: float | None, b: float | None) -> float | None:
    return a / b if a and b else None


def markdown(title: str, summary: Mapping[str, Any], about: dict[str, Any], settings: str) -> str:
    """The report that is committed beside the JSON."""
    base = summary["contestants"][PLAIN].get("median_tokens_per_second")
    rows = []
    for entry in summary["contestants"].values():
        if entry["status"] != "ok":
            rows.append([entry["label"], entry["status"], *["–"] * 4])
            continue
        speed, outside, same = (
            entry[key] for key in ("median_tokens_per_second", "outside_scoring", "prompts_with_ids_of_plain")
        )
        rows.append(
            [
                entry["label"],
                number(speed, 1),
                number(_ratio(speed, base)),
                number(entry["mean_accepted_tokens"]),
                "–" if outside is None else f"{100 * outside:.1f} %",
                "–" if same is None else f"{same} of {summary['prompts']}",
            ]
        )
    head = ["contestant", "median tokens/s", "÷ plain int8", "accepted/pass", "outside scoring", "ids as plain int8"]
    parts = [f"# {title}", describe(about), settings, METHOD, table(head, rows)]
    ratios = [[f"`{name}`", number(value)] for name, value in summary["ratios_of_medians"].items()]
    if ratios:
        parts += ["## Ratios of medians", table(["ratio", "value"], ratios)]
    if summary["auto_over_plain"]:
        body = [
            [
                category,
                row["prompts"],
                number(row["plain_median"], 1),
                number(row["auto_median"], 1),
                number(row["mean_of_ratios"]),
                number(row["ratio_of_totals"]),
                number(row["mean_accepted_tokens"]),
            ]
            for category, row in summary["auto_over_plain"].items()
        ]
        columns = ["category", "prompts", "plain tokens/s", "auto tokens/s", "mean of per-prompt ratios"]
        parts += ["## auto over plain, int8", table([*columns, "ratio of totals", "accepted/pass"], body)]
    costs = [
        [row["context"], number(row["ms_1"], 1), number(row["cost_8_over_1"]), number(row["cost_16_over_1"])]
        for row in summary["cost"]
    ]
    parts += [
        "## Cost of a pass, int8, measured at the start of the run",
        table(["context tokens", "1 node, ms", "8 nodes ÷ 1", "16 nodes ÷ 1"], costs),
    ]
    return "\n\n".join(parts)
