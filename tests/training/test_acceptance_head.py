"""Training of SpecDec++'s head: which token a label belongs to, the loss, interruptions, and what the measures mean."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from typer.testing import CliRunner

from tests.trained import head_of
from unspool import methods
from unspool.backends.torch.model import TransformersModel
from unspool.backends.toy import ToyModel, ToySession
from unspool.cli import app
from unspool.cli import train as command
from unspool.decoding.model import Model
from unspool.engine.contracts import Ability, LanguageModel, Scores
from unspool.engine.method import DRAFTER
from unspool.engine.taps import OUTPUT, Taps
from unspool.engine.tree import TokenTree
from unspool.errors import UnspoolError, UnsupportedError
from unspool.methods.drafters.specdec_pp import SpecDecPPOptions
from unspool.methods.drafters.specdec_pp import data as acceptance_data
from unspool.methods.drafters.specdec_pp import train as acceptance_head
from unspool.methods.drafters.specdec_pp.data import DataOptions, Examples, examples, generate
from unspool.methods.drafters.specdec_pp.train import TrainingOptions, auc, fit, loss, measures, train
from unspool.training.artifact import Artifact

TARGET = ToyModel.random(vocab_size=6, order=2, seed=11)
PROMPTS = ["0120120", "5", "2424", "1135", "33", "012"]


class Shown(ToyModel):
    """A toy model whose hidden state tells its text: the token that was fed, the one before it, and the position."""

    abilities = frozenset({Ability.HIDDEN_STATES})

    def open(self, taps: Taps | None = None) -> ToySession:
        return ShownSession(self) if taps else ToySession(self)


class ShownSession(ToySession):
    """Like a real one, it gives hidden states in memory that its next pass overwrites."""

    def __init__(self, model: ToyModel) -> None:
        super().__init__(model)
        self._states = np.zeros((64, 3), dtype=np.float32)

    def score(self, tree: TokenTree, rows: Sequence[int] | None = None) -> Scores:
        scores = super().score(tree, rows)
        text = [token for token, _ in self.cache]
        for row, node in enumerate(scores.rows):
            seen = [*text, *(tree.tokens[i] for i in tree.path(node))]
            self._states[row] = seen[-1], seen[-2] if len(seen) > 1 else -1, len(seen) - 1
        return replace(scores, hidden={OUTPUT: self._states[: len(scores.rows)]})


class Blind(ToyModel):
    abilities = frozenset[Ability]()


class Digits:
    has_chat_template = False

    def encode(self, text: str) -> list[int]:
        return [int(digit) for digit in text]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(map(str, ids))

    def context(self, prompt: Sequence[int], exact: bool = False) -> list[int]:
        return []

    def text(self, ids: Sequence[int], context: Sequence[int] = ()) -> str:
        return self.decode(ids)


def pair(target: LanguageModel = TARGET, draft: LanguageModel | None = None) -> Model:
    if draft is None:
        draft = Shown(TARGET.related(0.9, seed=4).table)
    small = Model("small", "key of small", draft, Digits(), [])  # type: ignore[arg-type]
    large = Model("large", "key of large", target, Digits(), [])  # type: ignore[arg-type]
    large.assistant = small
    return large


def llama(seed: int, layers: int) -> TransformersModel:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=10,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=layers,
        num_attention_heads=2,
        max_position_embeddings=64,
        initializer_range=0.4,
    )
    return TransformersModel.from_pretrained_model(LlamaForCausalLM(config).eval())


def power(p: np.ndarray, temperature: float) -> np.ndarray:
    p = p ** (1 / temperature)
    return p / p.sum()


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("index", range(3))
def test_each_state_is_labelled_with_the_chance_of_its_own_token(index: int, temperature: float) -> None:
    """Drafted after the target's text, whatever the mixture that the state itself comes from."""
    model, prompt = pair(), [0, 1, 2, 0, 1]
    options = DataOptions(70, temperature, seed=5)
    made = examples(model, "01201", index, options)
    seed = int(np.random.default_rng([5, index]).integers(2**63))
    text = model.generate(prompt, method="plain", temperature=temperature, seed=seed, max_new_tokens=70).token_ids
    assert model.assistant is not None
    draft: Any = model.assistant.language_model
    mixed = 0
    for (token, before, position), label in zip(made.hidden.astype(int), made.labels, strict=True):
        at = position - len(prompt)  # in the output
        so_far = [*prompt, *text[:at]]
        p, q = TARGET.probabilities(so_far), draft.probabilities(so_far)
        if temperature:
            expected = min(1.0, power(p, temperature)[token] / power(q, temperature)[token])
        else:
            assert token == q.argmax()
            expected = float(token == p.argmax())
        assert label == pytest.approx(expected, abs=1e-6)
        mixed += at > 0 and before != text[at - 1]
    positions = made.hidden[:, 2].astype(int)
    assert (np.diff(positions) > 0).all() and positions[0] >= len(prompt) and positions[-1] < len(prompt) + 70
    assert 50 <= len(positions) <= 67, "0.85 of 70"
    assert mixed > 5, "what the draft model read before is its own"


def test_without_mixing_every_position_counts_and_equal_models_always_accept() -> None:
    made = examples(pair(draft=Shown(TARGET.table)), "012", 0, DataOptions(40, mixing=0.0))
    np.testing.assert_array_equal(made.hidden[:, 2], range(3, 43))
    np.testing.assert_allclose(made.labels, 1.0, atol=1e-6)


def test_drafts_are_drawn_from_the_draft_model() -> None:
    rng = np.random.default_rng(0)
    p, q = TARGET.table[1, 1], TARGET.table[2, 2]
    draws = [acceptance_data._draw(np.log(p), np.log(q), 1.0, rng)[0] for _ in range(4000)]
    assert np.abs(np.bincount(draws, minlength=6) / 4000 - q).max() < 0.03


def read(files: list[Path]) -> list[bytes]:
    return [file.read_bytes() for file in files]


def stop_at(what: str, at: int) -> Any:
    def progress(of_what: str, done: int, _: int) -> None:
        if (of_what, done) == (what, at):
            raise KeyboardInterrupt

    return progress


def test_interrupted_data_goes_on_where_it_ended(tmp_path: Path) -> None:
    options = DataOptions(12)
    whole = generate(pair(), PROMPTS, tmp_path / "whole", options)
    with pytest.raises(KeyboardInterrupt):
        generate(pair(), PROMPTS, tmp_path / "part", options, stop_at("data", 3))
    kept = sorted((tmp_path / "part").glob("*.safetensors"))
    assert len(kept) == 3
    stamps = [file.stat().st_mtime_ns for file in kept]
    part = generate(pair(), PROMPTS, tmp_path / "part", options)
    assert read(part) == read(whole)
    assert [file.stat().st_mtime_ns for file in kept] == stamps
    for prompts, changed in ((PROMPTS[::-1], options), (PROMPTS, DataOptions(12, seed=1))):
        with pytest.raises(UnspoolError, match="other models, prompts or options"):
            generate(pair(), prompts, tmp_path / "part", changed)


def planted(directory: Path, count: int = 12, hidden_size: int = 8) -> list[Path]:
    """States of which a direction tells, beyond a bend, how likely the token is accepted."""
    rng, files = np.random.default_rng(0), []
    direction = rng.normal(size=hidden_size)
    for i in range(count):
        hidden = rng.normal(size=(60, hidden_size)).astype(np.float32)
        labels = (1 / (1 + np.exp(-3 * np.abs(hidden @ direction) + 5))).astype(np.float32)
        files.append(directory / f"{i}.safetensors")
        acceptance_data._write(files[-1], Examples(hidden, labels))
    return files


def test_a_head_learns_what_is_there(tmp_path: Path) -> None:
    """More than a linear probe could: the label is even in the direction."""
    files = planted(tmp_path)
    options = TrainingOptions(learning_rate=2e-2, num_train_epochs=40, batch_size=4, rejection_weight=1.0)
    test = Examples.load(files[-1])
    found = {}
    for blocks in (0, 3):
        trained = head_of(fit(files[:-1], tmp_path / f"{blocks}.pt", replace(options, num_blocks=blocks)))
        found[blocks] = measures(trained.probabilities(test.hidden), test.labels)
    assert found[0]["auc"] < 0.65
    assert found[3]["auc"] > 0.85
    assert found[3]["kl"] < found[0]["kl"] / 2


def test_interrupted_training_gives_the_same_head(tmp_path: Path) -> None:
    files = planted(tmp_path)
    options = TrainingOptions(learning_rate=1e-2, num_train_epochs=4, batch_size=5)  # 3 steps an epoch
    whole = fit(files, tmp_path / "whole.pt", options)
    with pytest.raises(KeyboardInterrupt):
        fit(files, tmp_path / "part.pt", options, stop_at("training", 8))
    steps = []
    part = fit(files, tmp_path / "part.pt", options, lambda what, done, of: steps.append((done, of)))
    assert steps == [(done, 12) for done in range(7, 13)], "from the last whole epoch on"
    assert whole.keys() == part.keys() and all(np.array_equal(whole[name], part[name]) for name in whole)
    other = fit(files, tmp_path / "other.pt", replace(options, seed=1))
    assert any(not np.array_equal(whole[name], other[name]) for name in whole)
    with pytest.raises(UnspoolError, match="other options"):
        fit(files, tmp_path / "part.pt", replace(options, seed=1))


def test_numpy_runs_the_head_that_torch_trained(tmp_path: Path) -> None:
    files = planted(tmp_path, 2)
    tensors = fit(files, tmp_path / "state.pt", TrainingOptions(learning_rate=0.1, num_train_epochs=9))
    network = acceptance_head._network(8, 3)
    network.load_state_dict({name: torch.from_numpy(value) for name, value in tensors.items()})
    hidden = Examples.load(files[0]).hidden * 30  # far into both ends
    logits = acceptance_head._forward(network, torch.from_numpy(hidden))
    expected = logits.softmax(dim=1)[:, 1].detach().numpy()
    np.testing.assert_allclose(head_of(tensors).probabilities(hidden), expected, atol=2e-6)
    assert expected.min() < 0.01 and expected.max() > 0.5


def test_the_loss_weighs_rejections_and_divides_by_the_weights() -> None:
    logits = torch.tensor([[0.0, 0.0], [1.0, -1.0], [0.5, 2.0]])
    labels = torch.tensor([1.0, 0.25, 0.0])
    accept = (logits.exp()[:, 1] / logits.exp().sum(dim=1)).double().numpy()
    terms = [np.log(accept[0]), 0.25 * np.log(accept[1]) + 6 * 0.75 * np.log(1 - accept[1]), 6 * np.log(1 - accept[2])]
    weights = [1, 0.25 + 6 * 0.75, 6]
    assert float(loss(logits, labels, 6.0)) == pytest.approx(-sum(terms) / sum(weights), rel=1e-6)


def test_the_schedule_rises_and_falls() -> None:
    rates = [acceptance_head._schedule(step, 100, 0.03) for step in range(100)]
    assert rates[:4] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert rates[51] == pytest.approx(0.5, abs=0.01) and 0 < rates[99] < 0.001
    assert acceptance_head._schedule(0, 1, 0.0) == 1


def test_measures() -> None:
    def area(scores: list[float], labels: list[float]) -> float | None:
        return auc(np.array(scores), np.array(labels))

    assert area([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1]) == 1
    assert area([0.1, 0.2, 0.8, 0.9], [1, 1, 0, 0]) == 0
    assert area([0.5, 0.5, 0.5], [1, 0, 0]) == 0.5
    # Soft labels: accepted 0.75 + 0.25, rejected 0.25 + 0.75; pairs in order 0.75 · 0.75, ties 2 · 0.75 · 0.25 / 2.
    assert area([0.9, 0.1], [0.75, 0.25]) == pytest.approx(0.75**2 + 0.75 * 0.25)
    assert area([0.1, 0.9], [1, 1]) is None
    labels = np.array([0.0, 0.05, 0.5, 1.0], dtype=np.float32)
    exact = measures(labels, labels)
    assert exact["kl"] == pytest.approx(0, abs=1e-9)
    assert [(n, pytest.approx(p, abs=1e-6)) for n, p, _ in exact["reliability"]] == [(2, 0.025), (1, 0.5), (1, 1.0)]
    off = measures(np.array([0.5]), np.array([1.0]))
    assert off["kl"] == pytest.approx(np.log(2)) and off["accepted"] == 1


def test_a_trained_head_ends_drafts_and_changes_no_text(tmp_path: Path) -> None:
    """From prompts to text on two tiny models of torch."""
    model = pair(llama(0, 2), llama(1, 1))
    told: list[str] = []
    head = train(
        model,
        PROMPTS,
        tmp_path,
        DataOptions(30),
        TrainingOptions(learning_rate=1e-2, num_train_epochs=2),
        lambda what, done, of: told.append(f"{what} {done}/{of}"),
    )
    assert told == [*(f"data {i}/6" for i in range(1, 7)), "training 1/2", "training 2/2"]
    assert head.belongs_to == ("key of large", "key of small") and head.trained_with["models"] == ["large", "small"]
    assert 15 < head.trained_with["held_out"]["tokens"] <= 30, "the fifth prompt"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "specdec_pp.artifact", "training.pt"]
    assert Artifact.load(tmp_path, "specdec_pp").trained_with == head.trained_with
    drafter = methods.build(SpecDecPPOptions(str(tmp_path)), DRAFTER, model.resources())
    from unspool.engine.autoregressive import Request, decode
    from unspool.engine.options import GenerationOptions
    from unspool.engine.trace import StepEvent
    from unspool.methods.acceptance._exact_match import ExactMatch

    events = decode(
        model.language_model, [Request([0, 1], drafter, ExactMatch(), GenerationOptions(max_new_tokens=30))]
    )
    text = [token for event in events if isinstance(event, StepEvent) for token in event.emitted]
    assert text == model.generate([0, 1], method="plain", max_new_tokens=30).token_ids


def test_what_cannot_be_trained_says_so(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="needs hidden states, which the toy backend does not offer"):
        train(pair(draft=Blind(TARGET.table)), PROMPTS, tmp_path)
    alone = pair()
    alone.assistant = None
    with pytest.raises(UnsupportedError, match="--assistant-model"):
        train(alone, PROMPTS, tmp_path)
    with pytest.raises(UnspoolError, match="two prompts"):
        train(pair(), PROMPTS[:1], tmp_path)
    short = pair(draft=Shown(TARGET.table, max_length=6))
    with pytest.raises(UnspoolError, match="prompt 1 has 7 tokens"):
        train(short, PROMPTS, tmp_path / "short")
    for make in (lambda: DataOptions(0), lambda: DataOptions(mixing=1.0), lambda: TrainingOptions(batch_size=0)):
        with pytest.raises(UnspoolError, match="must"):
            make()


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(PROMPTS))

    class Loaded:
        def __init__(self, *_: object, **options: object) -> None: ...

        def __enter__(self) -> Model:
            return pair()

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(command, "loaded", Loaded)
    arguments = ["train", f"specdec_pp:prompts={prompts},max_new_tokens=20", "-o", str(tmp_path / "head")]
    run = CliRunner().invoke(app, [*arguments, "--assistant-model", "small", "--json"])
    assert run.exit_code == 0, run.output
    assert json.loads(run.stdout)["held_out"]["tokens"] > 10
    assert Artifact.load(tmp_path / "head", "specdec_pp").belongs_to[0] == "key of large"
    table = CliRunner().invoke(app, [*arguments, "--assistant-model", "small"])
    assert "AUC" in table.stdout and "predicted" in table.stdout
    missing = CliRunner().invoke(app, arguments)
    assert isinstance(missing.exception, UnsupportedError) and "--assistant-model" in str(missing.exception)
