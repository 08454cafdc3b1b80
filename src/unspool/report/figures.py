"""The figures of a benchmark for the report: its summary by contestant and category, and two computed from the runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import median

from unspool.bench.result import Bench, Spread, Summary
from unspool.bench.summary import ALL, spread, total_speed
from unspool.methods import PLAIN


class Figures:
    """A benchmark with its summary.

    Attributes:
        bench: as given.
        contestants: in the order of the summary.
        methods: those of unspool except plain decoding.
        peers: contestants that do not report passes.
        categories: of the prompts, without ``"all"``.
    """

    def __init__(self, bench: Bench, summaries: Sequence[Summary]) -> None:
        self.bench = bench
        self._by_key = {(row.contestant, row.category): row for row in summaries}
        self.contestants = list(dict.fromkeys(row.contestant for row in summaries))
        self.categories = [name for name in dict.fromkeys(row.category for row in summaries) if name != ALL]
        told = {run.contestant for run in bench.runs if run.passes is not None}
        self.peers = [name for name in self.contestants if name not in told]
        self.methods = [name for name in self.contestants if name in told and name != PLAIN]

    @property
    def rows(self) -> list[Summary]:
        """All summaries; those over all categories first."""
        keys = [(name, category) for category in (ALL, *self.categories) for name in self.contestants]
        return [self._by_key[key] for key in keys if key in self._by_key]

    def of(self, contestant: str, category: str = ALL) -> Summary | None:
        return self._by_key.get((contestant, category))

    def overall(self, names: Sequence[str]) -> list[Summary]:
        """Summaries of some contestants over all categories."""
        return [row for row in (self.of(name) for name in names) if row is not None]

    def fastest(self) -> Summary | None:
        """The fastest method of unspool over all categories, without plain decoding; None if there is none.

        Methods with other weights than plain decoding's run another model, so they count only if there are no others.
        """
        own = [name for name in self.methods if self._weights(name) == self._weights(PLAIN)]
        return max(self.overall(own or self.methods), key=_speed, default=None)

    def _weights(self, contestant: str) -> str | None:
        return self.bench.settings.get(contestant, {}).get("weights")

    def total_speed(self, contestant: str) -> float:
        """Tokens per second over all runs of a contestant."""
        return total_speed(run for run in self.bench.runs if run.contestant == contestant)

    def pass_ms(self, contestant: str, category: str = ALL) -> float | None:
        """Mean milliseconds of a pass, including everything around it; None for peers."""
        seconds, passes = 0.0, 0
        for run in self.bench.runs:
            if run.contestant == contestant and category in (ALL, run.category):
                seconds += run.decode_seconds or 0.0
                passes += run.passes or 0
        return 1000 * seconds / passes if passes else None

    def relative_cost(self, contestant: str, category: str = ALL) -> float | None:
        """``pass_ms`` ÷ plain decoding's; None for peers and without plain decoding."""
        own, plain = self.pass_ms(contestant, category), self.pass_ms(PLAIN, category)
        return own / plain if own is not None and plain else None

    def against(self, contestant: str, other: str) -> Spread | None:
        """Per-prompt speed ÷ the other's (medians over repeats first), over the prompts where both have a speed."""
        own, others = (self._speeds(name) for name in (contestant, other))
        ratios = [own[prompt] / others[prompt] for prompt in own if prompt in others]
        return spread(ratios) if ratios else None

    def _speeds(self, contestant: str) -> dict[str, float]:
        speeds: dict[str, list[float]] = defaultdict(list)
        for run in self.bench.runs:
            if run.contestant == contestant and run.timed_tokens and run.seconds > 0:
                speeds[run.prompt].append(run.timed_tokens / run.seconds)
        return {prompt: median(values) for prompt, values in speeds.items()}


def _speed(row: Summary) -> float:
    return row.tokens_per_second.median if row.ratio_totals is None else row.ratio_totals
