"""What a proof says: plain data, read by the command line, the report and scripts."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Verdict = Literal["tie", "fault"]
Check = Literal["identity", "distribution", "validity", "distance"]


@dataclass(frozen=True)
class Difference:
    """A place where a run leaves plain decoding, or later what plain decoding would make of the run's own text.

    Attributes:
        prompt: number of the prompt in its file, from 0.
        seed: of that run.
        index: of the output token, from 0.
        plain, other: the two tokens; None where that run had ended.
        margin: plain's lead over its runner-up, in logits (with noise when sampling); None where plain had ended.
        gap: plain's lead over the token that the run took; None where a run had ended.
        verdict: ``tie`` if the backend's measured noise explains it, else ``fault``.
    """

    prompt: int
    seed: int
    index: int
    plain: int | None
    other: int | None
    margin: float | None
    gap: float | None
    verdict: Verdict


@dataclass(frozen=True)
class MethodProof:
    """One method (or acceptance rule) under one check.

    Attributes:
        method: name in the registry.
        guarantee: what the registry says it promises.
        check: how that was put to the test.
        temperature: of the runs.
        prompts: number of runs compared.
        identical: how many of them are plain decoding's to the last token.
        tokens: compared tokens.
        ties, faults: number of differences by verdict, of which a run can have several; a failed statistical test is a
            fault.
        differences: where the runs part.
        details: figures of other checks, such as p-values, by name.
    """

    method: str
    guarantee: str
    check: Check
    temperature: float
    prompts: int
    identical: int
    tokens: int
    ties: int
    faults: int
    differences: list[Difference] = field(default_factory=list)
    details: dict[str, float | int | str] = field(default_factory=dict)


@dataclass(frozen=True)
class NoisePoint:
    """How far the logits of the same text move between passes of one node and passes of ``width`` nodes."""

    width: int
    max: float
    rms: float


@dataclass(frozen=True)
class Proof:
    """All of one ``unspool prove``.

    Attributes:
        about: machine, versions, date.
        command: the command line that made it.
        model: name.
        settings: what the model says of itself.
        noise: the backend's noise by width.
        rows: one per method, check and temperature.
    """

    about: dict[str, Any]
    command: str
    model: str
    settings: dict[str, str]
    noise: list[NoisePoint]
    rows: list[MethodProof]

    @property
    def faults(self) -> int:
        return sum(row.faults for row in self.rows)

    def to_json(self) -> dict[str, Any]:
        return {"kind": "proof", "version": 1, **asdict(self)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Proof:
        return cls(
            data["about"],
            data["command"],
            data["model"],
            data["settings"],
            [NoisePoint(**point) for point in data["noise"]],
            [
                MethodProof(**{**row, "differences": [Difference(**difference) for difference in row["differences"]]})
                for row in data["rows"]
            ],
        )
