"""``prove`` passes what is right, under rounding too, and finds every planted fault."""

from __future__ import annotations

import sys
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.faults import LastTokenFromTarget, OffByOne
from tests.conformance.harness import SampledDrafter, draw_no_replacement, sample_tree
from tests.proof.conftest import PROMPTS, Install, Rounding, method, toy
from tests.proof.faults import ONLY_SESSIONS_SHOW, SESSIONS, KeepsRejected, KeepsRejectedDraws, TokenOfTheParent
from unspool import methods
from unspool.decoding.model import Model
from unspool.engine.method import ACCEPTANCE, CONSTRAINT, DRAFTER, check_installed
from unspool.errors import UnspoolError, UnsupportedError
from unspool.methods.acceptance._exact_match import ExactMatch
from unspool.methods.acceptance.lossless import Lossless
from unspool.proof.plan import choose
from unspool.proof.prove import prove
from unspool.proof.result import MethodProof, Proof

SHORT = partial(prove, prompts=PROMPTS, max_new_tokens=40)


def faulty(proof: Proof) -> set[str]:
    return {row.method for row in proof.rows if row.faults}


def rows_of(proof: Proof, name: str) -> list[MethodProof]:
    return [row for row in proof.rows if row.method == name]


def test_every_method_of_the_registry_passes_on_the_toy_model() -> None:
    proof = SHORT(toy(eos=3), None)
    assert proof.faults == 0
    assert {row.method for row in proof.rows} == {
        "session",
        *(method.label for method in choose(None, [0, 0.8], toy().resources())[0]),
    }
    drafters = {methods.choose(row.name, row.kind).label for row in methods.of_kind(DRAFTER, ACCEPTANCE)}
    assert {"specdec_pp (no head)", "aded (no corpus)"} <= drafters
    assert drafters | {"adadec:threshold=1.0", "beam"} <= {row.method for row in proof.rows}, (
        "what needs no text must be proven"
    )
    assert all(point.max == 0 for point in proof.noise)
    for row in proof.rows:
        if row.check == "distance":
            assert row.faults == row.ties == 0 and row.prompts == len(PROMPTS) and row.tokens > 0
        if row.check == "identity" and row.method != "session":
            assert row.identical == row.prompts == len(PROMPTS)
            assert row.tokens == rows_of(proof, "plain")[row.temperature > 0].tokens > 0
    drawn = rows_of(proof, "lossless")[-1].details
    assert drawn["draws"] == drawn["drafted"] == 600 and drawn["p_value"] > drawn["p_limit"]


def test_differences_below_the_noise_are_ties_and_the_proof_holds() -> None:
    proof = SHORT(toy(Rounding, near_ties=True), ["suffix", "token_recycling"])
    assert proof.faults == 0
    ties = [difference for row in proof.rows for difference in row.differences]
    assert ties and sum(row.ties for row in proof.rows) == len(ties)
    assert all(0 <= difference.gap < 0.005 for difference in ties)
    assert 0.0005 < max(point.max for point in proof.noise) <= 0.001
    assert proof.noise[0].max == 0


def test_the_proof_survives_json() -> None:
    proof = SHORT(toy(Rounding, near_ties=True), ["token_recycling"])
    assert Proof.from_json(proof.to_json()) == proof
    assert any(row.differences for row in proof.rows)


@pytest.mark.parametrize("fault", SESSIONS)
def test_broken_sessions_are_found(fault: str) -> None:
    proof = SHORT(toy(SESSIONS[fault]), ["suffix", "token_recycling"])
    assert "session" in faulty(proof)
    if fault not in ONLY_SESSIONS_SHOW:
        assert len(faulty(proof)) > 1, "decoding itself should show this fault"


def test_a_broken_session_is_found_under_rounding() -> None:
    class Both(Rounding, OffByOne):
        pass

    assert {"session", "token_recycling"} <= faulty(SHORT(toy(Both, near_ties=True), ["token_recycling"]))


@pytest.mark.parametrize("rule", [KeepsRejected, TokenOfTheParent])
def test_broken_rules_are_found(rule: type[ExactMatch], install: Install) -> None:
    install(method("planted", "acceptance", "identical", rule))
    proof = SHORT(toy(), ["same_noise", "planted"], temperatures=[0.8])
    assert faulty(proof) == {"planted"}


def test_rules_that_change_the_distribution_are_found_by_enumeration(install: Install) -> None:
    install(method("planted", "acceptance", "same distribution", LastTokenFromTarget))
    proof = SHORT(toy(), ["planted"], temperatures=[0])
    (row,) = rows_of(proof, "planted")
    assert row.faults > 0 and row.details["total_variation"] > 0.01


def test_rules_that_change_the_distribution_are_found_on_the_model_itself(install: Install) -> None:
    # Its walk is right, and enumeration sees nothing: only its draws tell.
    install(method("planted", "acceptance", "same distribution", KeepsRejectedDraws))
    enumerated, drawn = rows_of(SHORT(toy(), ["planted"], temperatures=[0.8]), "planted")
    assert enumerated.faults == 0
    assert drawn.faults == 1 and drawn.details["p_value"] < drawn.details["p_limit"]


@pytest.mark.parametrize("ordered", [True, False])
def test_siblings_out_of_their_drawn_order_are_found(ordered: bool, install: Install) -> None:
    model = toy()
    draft = model.language_model.related(0.5, seed=1)  # type: ignore[attr-defined]
    seeds = count()

    def siblings(q, n, text, rng):  # type: ignore[no-untyped-def]
        drawn = draw_no_replacement(q, n, text, rng)
        return drawn if ordered else sorted(drawn, key=lambda sibling: -q[sibling[0]])

    sampler = partial(sample_tree, siblings=siblings, widths=(3,))
    install(method("drawn", "drafter", "same distribution", lambda: SampledDrafter(draft, sampler, seed=next(seeds))))
    proof = SHORT(model, ["drawn"], temperatures=[1.0])
    assert faulty(proof) == (set() if ordered else {"drawn"})


def test_a_rule_that_cannot_be_enumerated_says_what_to_do(install: Install) -> None:
    class Closed:
        decide = Lossless().decide

    install(method("closed", "acceptance", "same distribution", Closed))
    with pytest.raises(UnspoolError, match="closed cannot be enumerated; give the rule a walk"):
        SHORT(toy(), ["closed"])


def test_methods_without_a_test_are_refused_by_name_and_left_out_of_all(install: Install) -> None:
    install(method("loose", "acceptance", "lossy", ExactMatch))
    with pytest.raises(UnspoolError, match="loose is 'lossy' of kind acceptance, for which there is no test"):
        SHORT(toy(), ["loose"])
    assert "loose" not in {row.method for row in SHORT(toy(), None, temperatures=[0]).rows}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"names": ["sufix"]}, "did you mean 'suffix'"),
        ({"names": ["greedy"], "temperatures": [0.8]}, "greedy is for temperature 0"),
        ({"names": ["plan"]}, "plan needs a reward"),
        ({"names": ["grammar"]}, "grammar needs the model's tokenizer"),
        ({"names": ["cars"], "temperatures": [0]}, "cars is for temperatures above 0"),
        ({"names": ["beam"], "temperatures": [0.8]}, "beam is for temperature 0"),
        ({"names": ["same_noise"], "temperatures": [0]}, "same_noise is for temperatures above 0"),
        ({"temperatures": [-1]}, "temperature must be at least 0"),
        ({"temperatures": []}, "at least one prompt and one temperature"),
        ({"prompts": []}, "at least one prompt and one temperature"),
        ({"prompts": ["0", "1" * 500]}, "prompt 2 has 500 tokens"),
        ({"max_new_tokens": 0}, "max_new_tokens must lie in 1"),
    ],
)
def test_mistakes_are_told_before_any_work(options: dict, message: str) -> None:  # type: ignore[type-arg]
    model = toy()
    with pytest.raises(UnspoolError, match=message):
        prove(model, **{"names": None, "prompts": PROMPTS, "max_new_tokens": 20, **options})
    assert model.language_model.opened == 0  # type: ignore[attr-defined]


def test_runs_that_are_kept_are_not_decoded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = tmp_path / "runs.jsonl"
    first = SHORT(toy(Rounding, near_ties=True), ["suffix"], runs=runs)
    decoded: list[str] = []
    generate = Model.generate

    def watched(self: Model, *args: Any, **options: Any) -> Any:
        decoded.append(options["method"])
        return generate(self, *args, **options)

    monkeypatch.setattr(Model, "generate", watched)
    again = SHORT(toy(Rounding, near_ties=True), ["suffix", "token_recycling"], runs=runs)
    assert decoded == ["token_recycling"] * 2 * len(PROMPTS)
    assert [row for row in again.rows if row.method != "token_recycling"] == first.rows
    with pytest.raises(UnspoolError, match=r"another command \(seed: 0, now 1\); .* give another --runs"):
        SHORT(toy(), ["suffix"], seed=1, runs=runs)


def test_a_prompt_that_was_interrupted_is_decoded_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = tmp_path / "runs.jsonl"
    generate, left = Model.generate, count(len(PROMPTS) + 1, -1)

    def interrupted(self: Model, *args: Any, **options: Any) -> Any:
        if next(left) == 0:
            raise KeyboardInterrupt
        return generate(self, *args, **options)

    monkeypatch.setattr(Model, "generate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        SHORT(toy(), ["suffix"], runs=runs)
    monkeypatch.setattr(Model, "generate", generate)
    assert SHORT(toy(), ["suffix"], runs=runs).rows == SHORT(toy(), ["suffix"]).rows


def test_a_package_that_is_broken_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jedi", None)
    with pytest.raises(UnsupportedError, match="monitor needs jedi"):
        check_installed(methods.find("monitor", CONSTRAINT))


def test_a_method_that_is_named_twice_is_refused() -> None:
    with pytest.raises(UnspoolError, match="suffix is named twice"):
        choose(["suffix", "auto", "suffix"], [0.0])


def test_a_method_that_is_named_twice_in_other_words_is_refused() -> None:
    with pytest.raises(UnspoolError, match=r"suffix\(\) is named twice"):
        choose(["suffix", "suffix()"], [0.0])
    with pytest.raises(UnspoolError, match=r"token_recycling\(nodes=8\) is named twice"):
        choose(["token_recycling:nodes=8", "token_recycling(nodes=8)"], [0.0])
