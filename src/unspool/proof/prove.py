"""``prove``: tests each method against its guarantee, on one model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

from unspool import methods
from unspool.bench.about import about
from unspool.conformance.acceptance import enumerate_rule
from unspool.conformance.drafter import TOLERANCE
from unspool.decoding.model import Model
from unspool.decoding.results import Result
from unspool.engine.contracts import LanguageModel, Memory
from unspool.engine.method import DRAFTER, EDIT
from unspool.engine.options import GenerationOptions
from unspool.engine.progress import Progress, silent
from unspool.engine.trace import StepEvent
from unspool.errors import UnspoolError
from unspool.methods import Chosen
from unspool.proof import distance, distribution, session, validity
from unspool.proof.case import Case
from unspool.proof.identity import judge, rescore
from unspool.proof.plan import Run, applies, choose, enumerable, run_of
from unspool.proof.result import Difference, MethodProof, Proof
from unspool.proof.rounding import FEW, NoiseMeter, points
from unspool.proof.runs import Decoded, Runs

TEMPERATURES = (0.0, 0.8)
MAX_NEW_TOKENS = 128

P_LIMIT = 1e-4
"""Divided by the number of statistical tests of a proof: a smaller p-value is a fault."""


_T = TypeVar("_T")


def prove(
    model: Model,
    names: Sequence[str] | None,
    prompts: Sequence[str],
    *,
    temperatures: Sequence[float] = TEMPERATURES,
    max_new_tokens: int = MAX_NEW_TOKENS,
    seed: int = 0,
    command: str = "unspool.proof.prove.prove()",
    runs: Path | None = None,
    progress: Progress = silent,
) -> Proof:
    """Test methods against their guarantees.

    - ``identical``: each prompt is decoded and compared with plain decoding, see ``identity``. A tie is a difference
      within the backend's noise, measured on the first four prompts and on those in which runs differ. Acceptance rules
      run with the drafter ``token_recycling``.
    - ``same distribution``: rules are enumerated on tiny models, once. At temperatures above 0, draws after fixed
      prefixes are compared with plain sampling, see ``distribution``.
    - ``valid``: outputs of fixed tasks are checked by an independent parser, see ``validity``.
    - ``lossy``: how far the outputs are from plain decoding's, see ``distance``.
    - In addition: the backend's sessions, see ``session``, and plain decoding itself, rescored in one pass.

    Args:
        names: from the registry; None for all that can be proven.
        prompts: texts; prompt ``i`` is decoded with seed ``seed + i``.
        temperatures: 0 is greedy.
        max_new_tokens: of each run.
        command: recorded in the proof as the command that made it.
        runs: journal of decoded runs. Runs in it are not decoded again, whichever methods are selected.

    Raises:
        UnspoolError: if names, prompts, options or the journal do not fit; raised before any work.
    """
    temperatures = list(dict.fromkeys(temperatures))
    for temperature in temperatures:
        GenerationOptions(temperature=temperature, max_new_tokens=max_new_tokens, seed=seed)
    chosen, _ = choose(names, temperatures, model.resources())
    ids = [model.encode(prompt) for prompt in prompts]
    if not ids or not temperatures:
        raise UnspoolError("nothing to prove; give at least one prompt and one temperature")
    limit = model.language_model.max_length - max_new_tokens
    for number, prompt in enumerate(ids, 1):
        if len(prompt) > limit:
            raise UnspoolError(
                f"prompt {number} has {len(prompt)} tokens; with {max_new_tokens} new ones, the model's context of "
                f"{model.language_model.max_length} fits at most {limit}; shorten it or lower max_new_tokens"
            )
    with closing(Runs(model, ids, max_new_tokens, seed, runs)) as kept:
        return _prove(model, chosen, prompts, ids, temperatures, max_new_tokens, seed, command, kept, progress)


def _prove(
    model: Model,
    chosen: Sequence[Chosen[Any]],
    prompts: Sequence[str],
    ids: Sequence[Sequence[int]],
    temperatures: Sequence[float],
    max_new_tokens: int,
    seed: int,
    command: str,
    kept: Runs,
    progress: Progress,
) -> Proof:
    rows = [_enumerated(method, model.language_model, progress) for method in chosen if enumerable(method)]
    tests = sum(
        method.row.guarantee == "same distribution" and applies(method, t) for method in chosen for t in temperatures
    )
    parts = []
    for temperature in temperatures:
        part = _Part(model, ids, temperature, max_new_tokens, seed, kept, progress)
        parts.append(part)
        if len(parts) == 1:
            progress("sessions", 0, 1)
            rows.insert(0, session.check(part.meter, part.cases[:FEW]))
            progress("sessions", 1, 1)
        rows.append(part.plain())
        applied = [method for method in chosen if method.spec != methods.PLAIN and applies(method, temperature)]
        rows += part.identity([method for method in applied if method.row.guarantee == "identical"])
        rows += [part.distribution(m, P_LIMIT / tests) for m in applied if m.row.guarantee == "same distribution"]
        rows += [part.validity(method) for method in applied if method.row.guarantee == "valid"]
        rows += [part.distance(method, prompts) for method in applied if method.row.guarantee == "lossy"]
    return Proof(
        about(), command, model.name, model.language_model.settings, points(part.meter for part in parts), rows
    )


def _enumerated(method: Chosen[Any], model: LanguageModel, progress: Progress) -> MethodProof:
    rule = methods.acceptance_rule(method.spec, False, methods.Resources(model))
    worst, compared, faults = enumerate_rule(method.spec, rule, progress)
    details: dict[str, float | int | str] = {
        "model": "toy",
        "total_variation": worst,
        "allowed": TOLERANCE,
    }
    return MethodProof(
        method.spec,
        method.row.guarantee,
        "distribution",
        1.0,
        compared,
        compared - faults,
        0,
        0,
        faults,
        details=details,
    )


class _Part:
    """The work at one temperature: plain decoding first, then the comparisons with it."""

    def __init__(
        self,
        model: Model,
        prompts: Sequence[Sequence[int]],
        temperature: float,
        max_new_tokens: int,
        seed: int,
        kept: Runs,
        progress: Progress,
    ) -> None:
        self._model = model
        self._temperature = temperature
        self._max_new_tokens = max_new_tokens
        self._seed = seed
        self._progress = progress
        self._kept = kept
        self._prompts = prompts
        outputs = self._decoded(methods.PLAIN, Run(methods.PLAIN, None))
        self.cases = [
            Case(number, prompt, seed + number, ids, margins)
            for number, (prompt, (ids, margins)) in enumerate(zip(prompts, outputs, strict=True))
        ]
        self.meter = NoiseMeter(model.language_model, temperature)
        for case in self._counted("noise", self.cases[:FEW]):
            self.meter.measure(case)

    def plain(self) -> MethodProof:
        """Plain decoding, rescored in one pass."""
        found = [rescore(self.meter, case) for case in self._counted("plain, re-scored", self.cases)]
        return self._row(methods.choose(methods.PLAIN, DRAFTER), found, "one pass over its own output")

    def identity(self, chosen: Sequence[Chosen[Any]]) -> list[MethodProof]:
        """One row for each method: its runs against plain decoding."""
        runs = {method.spec: [ids for ids, _ in self._decoded(method.spec, run_of(method))] for method in chosen}
        found = judge(
            self._model.language_model,
            self.cases,
            runs,
            temperature=self._temperature,
            max_new_tokens=self._max_new_tokens,
            eos=self._model.eos_token_ids,
            meter=self.meter,
        )
        return [self._row(method, found[method.spec], "plain decoding") for method in chosen]

    def distribution(self, method: Chosen[Any], limit: float) -> MethodProof:
        """Compare draws after fixed prefixes with plain sampling.

        Args:
            limit: a smaller p-value is a fault.
        """
        run = run_of(method)
        memories: dict[str, Memory] = {}
        cases = self.cases[: distribution.PREFIXES]
        # Warm memory: the drafter has seen plain decoding's own text, the output of a run without a rule name.
        for case in cases:
            self._generate(Run(run.drafter, None), case.prompt, case.seed, memories)
        resources = self._model.resources(memories)
        figures = distribution.two_samples(
            self._model.language_model,
            [[*case.prompt, *case.token_ids[: len(case.token_ids) // 2]] for case in cases],
            lambda: methods.build(run.drafter, DRAFTER, resources),
            methods.acceptance_rule(run.acceptance, False, resources),
            self._temperature,
            self._seed,
            f"{method.spec}, temperature {self._temperature:g}",
            self._progress,
            [self._model.assistant.language_model] if self._model.assistant else [],
        )
        return MethodProof(
            method.label,
            method.row.guarantee,
            "distribution",
            self._temperature,
            len(cases),
            0,
            distribution.LENGTH * int(figures["draws"]),
            0,
            int(float(figures["p_value"]) < limit),
            details={
                **figures,
                "p_limit": limit,
                "drafter": run.drafter,
                "acceptance": run.acceptance or methods.default_acceptance(False),
            },
        )

    def validity(self, method: Chosen[Any]) -> MethodProof:
        """Outputs of fixed tasks, checked by an independent parser."""
        return validity.check(
            method,
            self._model,
            temperature=self._temperature,
            max_new_tokens=self._max_new_tokens,
            seed=self._seed,
            # Every logit of a row may be off, and so may the normaliser; float32 sums add their own rounding.
            allowed=2 * self.meter.limit + 1e-4,
            what=f"{method.spec}, temperature {self._temperature:g}",
            progress=self._progress,
        )

    def distance(self, method: Chosen[Any], prompts: Sequence[str]) -> MethodProof:
        """How far the method's outputs are from plain decoding's."""
        model = self._model.language_model
        if method.row.kind is EDIT:
            found = [
                distance.edited(self._model, prompt, self._max_new_tokens)
                for prompt in self._counted(method.spec, prompts)
            ]
            texts, anew, moved = zip(*found, strict=True)
            return distance.row(method, model, self._temperature, texts, anew, moved, "the edited text, encoded again")

        def decode() -> list[Decoded]:
            options = {"temperature": self._temperature, "max_new_tokens": self._max_new_tokens}
            return [
                (distance.decode(method, self._model, case.prompt, {**options, "seed": case.seed}), [])
                for case in self._counted(method.spec, self.cases)
            ]

        outputs = [ids for ids, _ in self._kept.get(self._temperature, Run(method.spec, None), decode)]
        plain = [case.token_ids for case in self.cases]
        return distance.row(method, model, self._temperature, self._prompts, plain, outputs, "plain decoding")

    def _row(self, method: Chosen[Any], found: Sequence[Sequence[Difference]], reference: str) -> MethodProof:
        pairs = list(zip(self.cases, found, strict=True))
        flat = [difference for differences in found for difference in differences]
        return MethodProof(
            method.label,
            method.row.guarantee,
            "identity",
            self._temperature,
            len(pairs),
            sum(not differences for differences in found),
            # The differing token was compared too.
            sum(differences[0].index + 1 if differences else len(case.token_ids) for case, differences in pairs),
            sum(difference.verdict == "tie" for difference in flat),
            sum(difference.verdict == "fault" for difference in flat),
            flat,
            {"noise": self.meter.limit, "compared_with": reference},
        )

    def _decoded(self, name: str, run: Run) -> list[Decoded]:
        """The runs of all prompts; memories start empty and carry over from prompt to prompt."""
        # Without a name, the rule suits the temperature, so `greedy` is what drafters run under anyway.
        rule = run.acceptance or methods.default_acceptance(not self._temperature)

        def decode() -> list[Decoded]:
            memories: dict[str, Memory] = {}
            results = [
                self._generate(run, prompt, self._seed + number, memories)
                for number, prompt in self._counted(name, list(enumerate(self._prompts)))
            ]
            return [(result.token_ids, _margins(result)) for result in results]

        return self._kept.get(self._temperature, run._replace(acceptance=rule), decode)

    def _generate(self, run: Run, prompt: Sequence[int], seed: int, memories: dict[str, Memory]) -> Result:
        return self._model.generate(
            prompt,
            method=run.drafter,
            acceptance=run.acceptance,
            temperature=self._temperature,
            seed=seed,
            max_new_tokens=self._max_new_tokens,
            memories=memories,
        )

    def _counted(self, what: str, items: Sequence[_T]) -> Iterator[_T]:
        what = f"{what}, temperature {self._temperature:g}"
        for done, item in enumerate(items):
            self._progress(what, done, len(items))
            yield item
        self._progress(what, len(items), len(items))


def _margins(result: Result) -> list[float]:
    return [margin for event in result.trace if isinstance(event, StepEvent) for margin in event.margins]
