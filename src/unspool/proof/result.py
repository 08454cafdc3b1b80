"""The result of a proof: plain data, read by the command line, the report and scripts."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Verdict = Literal["tie", "fault"]
Check = Literal["identity", "distribution", "validity", "distance"]


@dataclass(frozen=True)
class Difference:
    """A place where a run leaves plain decoding or, later, plain decoding's choice on the run's own text.

    Attributes:
        prompt: number of the prompt in its file, from 0.
        seed: of the run.
        index: of the output token, from 0.
        plain, other: the two tokens; None if that run had ended.
        margin: plain's lead over its runner-up, in logits (plus noise when sampling); None if plain had ended.
        gap: plain's lead over the token that the run took; None if a run had ended.
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
        guarantee: from the registry.
        check: how it was tested.
        temperature: of the runs.
        prompts: number of runs compared.
        identical: how many of them equal plain decoding's to the last token.
        tokens: number of compared tokens.
        ties, faults: number of differences by verdict, several per run possible; a failed statistical test is a fault.
        differences: where runs and plain decoding differ.
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
    """How far the logits of the same text differ between passes of one node and passes of ``width`` nodes."""

    width: int
    max: float
    rms: float


@dataclass(frozen=True)
class Proof:
    """The result of one ``unspool prove``.

    Attributes:
        about: machine, versions, date.
        command: the command line that made it.
        model: its name.
        settings: the model's settings.
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
