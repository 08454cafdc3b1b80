"""The OpenVINO backend on tiny random checkpoints, against plain forwards of the torch model (T1)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    FalconConfig,
    Gemma3TextConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from unspool.backends.openvino import specialise_widths
from unspool.backends.openvino.convert import Weights, convert
from unspool.backends.openvino.imports import imported
from unspool.backends.openvino.model import OpenVINOModel, OpenVINOSession
from unspool.engine.taps import OUTPUT, Taps
from unspool.engine.tree import TokenTree
from unspool.errors import UnspoolError, UnsupportedError
from unspool.models.calibration import processor

openvino, opset13 = imported("openvino"), imported("openvino.opset13")

WINDOW = 8
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "vocab_size": 64,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.2,  # logits of size 1 and more, so that a wrong mask shows
}
MIXED = ["sliding_attention", "full_attention"] * 2
CONFIGS = {
    "llama": lambda: LlamaConfig(**SIZES | {"vocab_size": 384}, tie_word_embeddings=True),
    "qwen2": lambda: Qwen2Config(**SIZES),
    "qwen3": lambda: Qwen3Config(**SIZES, head_dim=8),
    "gemma3": lambda: Gemma3TextConfig(**SIZES, head_dim=8, sliding_window=WINDOW, layer_types=MIXED),
    "mistral": lambda: MistralConfig(**SIZES | {"vocab_size": 65}, sliding_window=WINDOW),
}
PROMPT = [3, 17, 42, 9, 60, 33, 5, 21, 8, 50, 13, 28]
TREE = TokenTree((40, 5, 6, 7, 5, 9, 10, 11, 12), (-1, 0, 0, 2, 1, 3, 5, 3, 6))


class Pair:
    """A torch model and its conversion. The plain forward runs before conversion changes the model's attention."""

    def __init__(self, name: str, directory: Path) -> None:
        self.reference = _build(name)
        convert(_build(name), directory, "fp32", lambda message: None)
        self.directory = directory
        self.model = OpenVINOModel(directory, threads=1)

    def plain(self, tokens: list[int]) -> np.ndarray:
        with torch.no_grad():
            return self.reference(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1].numpy()

    def opened(self, tokens: list[int]) -> OpenVINOSession:
        session = self.model.open()
        session.score(TokenTree.chain(tokens), rows=())
        session.commit(range(len(tokens)))
        return session


def _build(name: str) -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(CONFIGS[name](), attn_implementation="sdpa").float().eval()


@pytest.fixture(scope="module", params=CONFIGS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(request.param, tmp_path_factory.mktemp(request.param))


def test_every_node_scores_as_its_root_to_node_text(pair: Pair) -> None:
    scores = pair.opened(PROMPT).score(TREE)
    for node in range(len(TREE)):
        expected = pair.plain([*PROMPT, TREE.tokens[0], *TREE.path_tokens(node)])
        assert np.abs(scores.logits[node] - expected).max() < 1e-4, node
    assert np.abs(expected).max() > 0.5


def test_rows_select_nodes(pair: Pair) -> None:
    session = pair.opened(PROMPT)
    everything = session.score(TREE).logits.copy()
    some = session.score(TREE, rows=(2, 6))
    assert some.rows == (2, 6)
    np.testing.assert_allclose(some.logits, everything[[2, 6]], atol=1e-5)


def test_a_sibling_changes_nothing_outside_its_subtree(pair: Pair) -> None:
    session = pair.opened(PROMPT)
    before = session.score(TREE).logits.copy()
    tokens = list(TREE.tokens)
    tokens[2] = 55  # its subtree: 2, 3, 5, 6, 7, 8
    after = session.score(TokenTree(tuple(tokens), TREE.parents)).logits
    np.testing.assert_allclose(after[[0, 1, 4]], before[[0, 1, 4]], atol=1e-5)
    assert np.abs(after[[2, 3, 5]] - before[[2, 3, 5]]).max() > 1e-2


def test_a_committed_path_continues_like_plain_text(pair: Pair) -> None:
    """Longer than the window and than the first capacity of the cache."""
    prompt = [(7 * i) % 61 + 2 for i in range(120)]
    session = pair.opened(prompt)
    session.score(TREE)
    session.commit([0, 2, 3, 5])
    text = [*prompt, *(TREE.tokens[i] for i in (0, 2, 3, 5))]
    assert session.length == len(text)
    for token in (11, 12, 13, 14, 15, 16):
        text.append(token)
        logits = session.score(TokenTree.chain([token])).logits[0]
        assert np.abs(logits - pair.plain(text)).max() < 1e-4
        session.commit([0])


def test_rewind_and_fork(pair: Pair) -> None:
    session = pair.opened(PROMPT)
    twin = session.fork()
    twin.score(TREE)
    twin.commit([0, 1])
    session.rewind(5)
    assert (session.length, twin.length) == (5, len(PROMPT) + 2)
    logits = session.score(TokenTree.chain([44])).logits[0].copy()
    assert np.abs(logits - pair.plain([*PROMPT[:5], 44])).max() < 1e-4
    logits = twin.score(TokenTree.chain([44])).logits[0]
    assert np.abs(logits - pair.plain([*PROMPT, TREE.tokens[0], TREE.tokens[1], 44])).max() < 1e-4


def test_peaks_are_the_largest_logits_of_runs_of_the_vocabulary(pair: Pair) -> None:
    session = pair.opened(PROMPT)
    scores = session.detach(session.score(TREE, rows=(2, 6, 8)))
    vocab = pair.model.vocab_size
    if vocab == 65:
        assert scores.block_max is None
    else:
        assert scores.block_max is not None
        session.score(TokenTree(TREE.tokens[::-1], TREE.parents), rows=(2, 6, 8))  # overwrites what was not detached
        assert (scores.block_max == scores.logits.reshape(3, -1, min(vocab, 128)).max(axis=2)).all()


def test_hidden_states_are_what_the_output_layer_reads(pair: Pair) -> None:
    session = pair.model.open(Taps())
    session.score(TokenTree.chain(PROMPT), rows=())
    session.commit(range(len(PROMPT)))
    scores = session.score(TREE, rows=(2, 6))
    assert scores.hidden is not None
    with torch.no_grad():
        logits = pair.reference.get_output_embeddings()(torch.tensor(scores.hidden[OUTPUT])).numpy()
    np.testing.assert_allclose(logits, scores.logits, atol=1e-4)
    assert pair.opened(PROMPT).score(TREE).hidden is None


def test_score_many_equals_score(pair: Pair) -> None:
    sessions = [pair.opened(PROMPT), pair.opened(PROMPT[:3]), pair.opened([9] * 20)]
    trees = [TREE, TokenTree.chain([4, 5]), TokenTree.chain([6])]
    together = pair.model.score_many(sessions, trees)
    for session, tree, scores in zip(sessions, trees, together, strict=True):
        np.testing.assert_allclose(scores.logits, session.score(tree).logits, atol=1e-5)
    # Each session can commit the tree that it was scored with, whatever was scored after it.
    together = pair.model.score_many(sessions, trees)
    for session, tree in zip(sessions, trees, strict=True):
        session.commit(range(len(tree.path(len(tree) - 1))) if tree.is_chain else tree.path(6))
    logits = sessions[0].score(TokenTree.chain([30])).logits[0]
    expected = pair.plain([*PROMPT, TREE.tokens[0], *TREE.path_tokens(6), 30])
    assert np.abs(logits - expected).max() < 1e-4


def test_separated_widths_score_to_the_last_bit_as_one_graph_for_all(pair: Pair) -> None:
    """In a session that was begun before, by passes of widths with a branch of their own and without."""
    model = OpenVINOModel(pair.directory, threads=1)
    assert not model.specialised(0)
    one, other = pair.model.open(Taps((OUTPUT, 1))), model.open(Taps((OUTPUT, 1)))
    for i, session in enumerate((one, other)):
        session.score(TokenTree.chain(PROMPT), rows=())
        if i:
            model.specialise_widths()
        session.commit(range(len(PROMPT)))
    assert {1, 8} <= model.specialised(len(PROMPT))
    chains = [TokenTree.chain([(5 * i + n) % 60 + 2 for i in range(n)]) for n in (1, 8, 24, 1, 24, 12, 8, 8, 30, 1)]
    for tree in [*chains, TREE, *chains]:
        rows = None if len(tree) % 3 else [0, len(tree) - 1]
        expected, scores = one.score(tree, rows), other.score(tree, rows)
        np.testing.assert_array_equal(scores.logits, expected.logits)
        for layer in (OUTPUT, 1):
            np.testing.assert_array_equal(scores.hidden[layer], expected.hidden[layer])
        for session in (one, other):
            session.commit([0])
    for entries, same in zip(other.cache, one.cache, strict=True):
        np.testing.assert_array_equal(entries, same)


def test_a_branch_runs_for_its_width_and_short_caches_alone(pair: Pair) -> None:
    core = openvino.Core()
    graph = core.read_model(pair.directory / "openvino_model.xml")
    specialise_widths.separate(graph, (1, 8))
    conditions = [op.input_value(0) for op in graph.get_ordered_ops() if op.get_type_name() == "If"]
    asked = openvino.Model([opset13.result(condition) for condition in conditions], [*graph.get_parameters()])
    past = next(x for x in asked.inputs if "past_keys" in x.get_names()).partial_shape
    request = core.compile_model(asked, "CPU").create_infer_request()

    def run(width: int, slots: int) -> tuple[bool, ...]:
        shape = [slots if size.is_dynamic else size.get_length() for size in past]
        for port in asked.inputs:
            name = port.get_any_name()
            sizes = (
                shape
                if name == "past_keys"
                else [width if d.is_dynamic else d.get_length() for d in port.partial_shape]
            )
            kind = np.int64 if port.element_type == openvino.Type.i64 else np.float32
            request.set_tensor(name, openvino.Tensor(np.zeros(sizes, kind)))
        request.infer()
        return tuple(bool(output.data.item()) for output in request.output_tensors)

    assert run(1, 1023) == (True, False, False) and run(8, 128) == (False, True, False)
    assert run(12, 128) == run(1, 1024) == run(8, 2048) == (False, False, True)


def test_a_model_whose_preparation_is_interrupted_goes_on_as_it_was(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = OpenVINOModel(pair.directory, threads=1)
    expected = model.open().score(TokenTree.chain(PROMPT)).logits.copy()

    def interrupt(graph: object, widths: object, states: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("unspool.backends.openvino.model.specialise_widths.separate", interrupt)
    with pytest.raises(KeyboardInterrupt):
        model.specialise_widths()
    assert not model.specialised(0)
    np.testing.assert_array_equal(model.open().score(TokenTree.chain(PROMPT)).logits, expected)


def test_weights_move_into_huge_pages_once_passes_have_taken_long(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []

    def moved(but: object) -> Iterator[None]:
        for step in range(3):
            steps.append(step)
            yield

    monkeypatch.setattr("unspool.backends.openvino.model.moved_to_huge_pages", moved)
    model = OpenVINOModel(pair.directory, threads=1)
    session = model.open()
    session.score(TREE)
    assert not steps
    before = session.score(TREE).logits.copy()
    monkeypatch.setattr("unspool.backends.openvino.model._WORTH_MS", 0.0)
    for expected in ([0], [0, 1], [0, 1, 2], [0, 1, 2]):
        assert (session.score(TREE).logits == before).all()
        assert steps == expected


def test_commit_and_rewind_refuse_what_makes_no_sense(pair: Pair) -> None:
    session = pair.opened(PROMPT)
    with pytest.raises(RuntimeError, match="scored"):
        session.commit([0])
    with pytest.raises(ValueError, match="rewind"):
        session.rewind(len(PROMPT) + 1)


# With VNNI, OpenVINO rounds activations to int8, where a difference in the last bit soon grows; nothing less than the
# same bits will do. Without it activations stay float32, and a pass over one node takes another kernel than wider ones.
TOLERANCE = 0.0 if "avx512_vnni" in processor() else 1e-4


@pytest.mark.parametrize(("weights", "start"), [("int4", 100), ("int8", 350), ("int8", 736), ("int8", 1500)])
def test_a_node_scores_to_the_last_bit_alike_in_any_tree(weights: Weights, start: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = {**SIZES, "hidden_size": 128, "intermediate_size": 256, "max_position_embeddings": 2048}
    convert(AutoModelForCausalLM.from_config(Qwen2Config(**sizes)).eval(), tmp_path, weights, lambda message: None)
    model = OpenVINOModel(tmp_path, threads=2)
    rng = np.random.default_rng(0)
    text = rng.integers(3, 64, start + 60).tolist()

    def opened() -> OpenVINOSession:
        session = model.open()
        while (at := session.length) < start:
            block = TokenTree.chain(text[at : min(start, at + min(session.max_depth, 128))])
            session.score(block, rows=())
            session.commit(range(len(block)))
        return session

    session, alone = opened(), []
    for token in text[start:]:
        alone.append(session.score(TokenTree.chain([token])).logits[0].copy())
        session.commit([0])
    if start == 736:
        model.specialise_widths()
        assert model.specialised(765) and not model.specialised(766), "branches are for short texts"
    session, at = opened(), start
    while at < len(text):
        # The text's own nodes lie scattered in a tree of wrong drafts.
        path, parents, tokens = [0], [-1], [text[at]]
        for token in text[at + 1 : at + 1 + int(rng.integers(0, 6))]:
            for _ in range(int(rng.integers(0, 4))):
                parents.append(int(rng.integers(0, len(tokens))))
                tokens.append(int(rng.integers(3, 64)))
            parents.append(path[-1])
            path.append(len(tokens))
            tokens.append(token)
        tree = TokenTree(tuple(tokens), tuple(parents), width=int(rng.choice([0, 1, 8, 24])))
        if tree.depths.max() >= session.max_depth:  # across the end of a section last bits may differ
            path, tree = [0], TokenTree.chain(text[at : at + 1])
        logits = session.score(tree).logits
        for depth, node in enumerate(path):
            np.testing.assert_allclose(logits[node], alone[at - start + depth], rtol=0, atol=TOLERANCE)
        session.commit(path)
        at += len(path)


def test_attention_outside_the_interface_is_refused(tmp_path: Path) -> None:
    config = FalconConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        vocab_size=64,
        alibi=True,
        max_position_embeddings=64,
    )
    with pytest.raises((UnsupportedError, UnspoolError)):
        convert(AutoModelForCausalLM.from_config(config).float().eval(), tmp_path, "fp32", lambda message: None)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("threads", "pinned"), [(None, "YES"), (4, "YES"), (3, "NO"), (1, "NO")])
def test_threads_are_pinned_only_where_a_model_takes_all_cores(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, threads: int | None, pinned: str
) -> None:
    """Pinned threads begin at the first core: two models of few threads would share it and leave others idle."""

    class StopError(Exception):
        pass

    def compile_model(core: object, graph: object, device: str, properties: dict[str, str]) -> None:
        assert properties["INFERENCE_NUM_THREADS"] == str(threads or 4)
        assert properties["ENABLE_CPU_PINNING"] == pinned
        raise StopError

    monkeypatch.setattr("unspool.backends.openvino.model.psutil.cpu_count", lambda logical: 4)
    monkeypatch.setattr("unspool.backends.openvino.model.usable_cores", lambda: 4)
    monkeypatch.setattr("unspool.backends.openvino.model.layers.expose", lambda graph, tapped: None)
    monkeypatch.setattr(openvino.Core, "read_model", lambda core, path: openvino.Model([], [], "empty"))
    monkeypatch.setattr(openvino.Core, "compile_model", compile_model)
    with pytest.raises(StopError):
        pair.model.info.save(tmp_path)
        OpenVINOModel(tmp_path, threads)
