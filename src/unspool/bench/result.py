"""The measurements of a benchmark: plain data. ``summary`` computes figures from it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Run:
    """One run of one contestant on one prompt.

    Attributes:
        contestant: a method of unspool, such as ``auto``, or a peer, such as ``llama_cpp``.
        prompt: the prompt's id in its suite.
        category: of the prompt.
        repeat: from 0.
        token_ids: of the output.
        text: of the output.
        first_seconds: from the request to the first emission, prefill included.
        seconds: from the first emission to the last.
        timed_tokens: tokens emitted in ``seconds``; 0 if there was only one emission, which has no speed.
        passes: scoring passes; None for peers, which do not report them, as for the next three.
        decode_seconds, scoring_seconds: time of all passes and everything between them, and the part in the model.
        by_depth: for each depth from 1, [accepted, drafted] nodes.
        by_source: emitted tokens per drafter; ``"model"`` counts the bonus tokens, which no draft contained.
        quality: 1.0 if the suite's checker approves the output, 0.0 if not, None without a checker.
    """

    contestant: str
    prompt: str
    category: str
    repeat: int
    token_ids: list[int]
    text: str
    first_seconds: float
    seconds: float
    timed_tokens: int
    passes: int | None = None
    decode_seconds: float | None = None
    scoring_seconds: float | None = None
    by_depth: list[list[int]] = field(default_factory=list)
    by_source: dict[str, int] = field(default_factory=dict)
    quality: float | None = None


@dataclass(frozen=True)
class Bench:
    """The result of one ``unspool bench``.

    Attributes:
        about: machine, versions, date, load average.
        command: the command line that made it.
        model: its name.
        suite: its name, or the file's.
        settings: effective settings by contestant (backend, weights, threads, versions).
        options: limit, repeats, seed, max_new_tokens, temperature; ``sandbox``, the kernel guards, if programs were
            run.
        left_out: contestants that could not take part, with the reason.
        curve: the cost curve (``asdict`` of ``CostCurve``), None without unspool contestants.
        memory: peak resident bytes by contestant.
        verdicts: by contestant, ``{"identical": runs, "ties": n, "faults": n}`` against plain; unspool's own only.
        runs: in the order they were made.
    """

    about: dict[str, Any]
    command: str
    model: str
    suite: str
    settings: dict[str, dict[str, str]]
    options: dict[str, Any]
    left_out: dict[str, str]
    curve: dict[str, Any] | None
    memory: dict[str, int]
    verdicts: dict[str, dict[str, int]]
    runs: list[Run]

    def to_json(self) -> dict[str, Any]:
        return {"kind": "bench", "version": 1, **asdict(self)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Bench:
        fields = {name: data[name] for name in cls.__dataclass_fields__ if name != "runs"}
        return cls(**fields, runs=[Run(**run) for run in data["runs"]])


@dataclass(frozen=True)
class Spread:
    """A median with its quartiles."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Summary:
    """Figures of one contestant in one category (or ``"all"``), computed by ``summary.summarise``.

    Attributes:
        runs: number of runs with a speed.
        tokens_per_second: over runs.
        ratio: per-prompt speed ÷ plain's on that prompt (medians over repeats first), over prompts; None without plain.
        ratio_mean: mean of those per-prompt ratios.
        ratio_totals: all timed tokens ÷ all seconds, divided by plain's.
        slower: whether ``ratio_totals`` is below 1.
        mean_accepted_tokens: emitted tokens per pass, bonus token included; None for peers, as the next two.
        passes: total over all runs.
        overhead: share of the decoding time outside the model, 0 to 1.
        first_seconds: median.
        by_depth: [accepted, drafted] per depth, summed.
        by_source: emitted tokens per drafter, summed.
        quality: share of approved outputs; None without a checker.
    """

    contestant: str
    category: str
    runs: int
    tokens_per_second: Spread
    ratio: Spread | None
    ratio_mean: float | None
    ratio_totals: float | None
    slower: bool
    mean_accepted_tokens: float | None
    passes: int | None
    overhead: float | None
    first_seconds: float
    by_depth: list[list[int]]
    by_source: dict[str, int]
    quality: float | None
