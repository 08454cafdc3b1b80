"""The torch backend on tiny random checkpoints: tree scores against plain forwards, commit, rewind, fork, refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    FalconConfig,
    Gemma3TextConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    OPTConfig,
    Phi3Config,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from unspool.backends import loading
from unspool.backends.torch.model import TransformersModel
from unspool.engine.contracts import Ability
from unspool.engine.taps import OUTPUT, Taps
from unspool.engine.tree import TokenTree
from unspool.errors import UnknownNameError, UnspoolError, UnsupportedError
from unspool.models.resolve import resolve

WINDOW = 8
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "vocab_size": 64,
    "max_position_embeddings": 96,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.2,  # logits of size 1 and more, so that a wrong mask shows
}
MIXED = ["sliding_attention", "full_attention"] * 2
CONFIGS = {
    "llama": lambda: LlamaConfig(**SIZES),
    "qwen2": lambda: Qwen2Config(**SIZES),
    "qwen3": lambda: Qwen3Config(**SIZES, head_dim=8),
    "gemma3": lambda: Gemma3TextConfig(**SIZES, head_dim=8, sliding_window=WINDOW, layer_types=MIXED),
    "mistral": lambda: MistralConfig(**SIZES, sliding_window=WINDOW),  # one mask for all layers, and it is windowed
    "opt": lambda: OPTConfig(**SIZES, ffn_dim=48, word_embed_proj_dim=32, init_std=0.2),  # learned positions
}
PROMPT = [3, 17, 42, 9, 60, 33, 5, 21, 8, 50, 13, 28]
TREE = TokenTree((40, 5, 6, 7, 5, 9, 10, 11, 12), (-1, 0, 0, 2, 1, 3, 5, 3, 6))
"""Two branches, the longest five deep; node 7 is a sibling of node 5, and nodes 1 and 4 hold equal tokens."""


def build(config: PreTrainedConfig, attention: str = "sdpa", dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention).to(dtype).eval()


@pytest.fixture(scope="module", params=[*CONFIGS, "llama-eager", "gemma3-eager"])
def torch_model(request: pytest.FixtureRequest) -> PreTrainedModel:
    name, _, attention = request.param.partition("-")
    return build(CONFIGS[name](), attention or "sdpa")


@pytest.fixture(scope="module")
def model(torch_model: PreTrainedModel) -> TransformersModel:
    return TransformersModel.from_pretrained_model(torch_model)


@pytest.fixture(scope="module")
def gemma() -> TransformersModel:
    return TransformersModel.from_pretrained_model(build(CONFIGS["gemma3"]()))


def plain(model: TransformersModel, tokens: list[int]) -> np.ndarray:
    """Logits after the last token by an ordinary forward without cache."""
    with torch.no_grad():
        return model.model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1].numpy()


def opened(model: TransformersModel, tokens: list[int] = PROMPT, **options: Taps):
    session = model.open(**options)
    session.score(TokenTree.chain(tokens), rows=())
    session.commit(range(len(tokens)))
    return session


def append(session, token: int) -> np.ndarray:
    logits = session.score(TokenTree.chain([token])).logits[0]
    session.commit([0])
    return logits


def test_every_node_scores_as_its_root_to_node_text(model):
    scores = opened(model).score(TREE)
    assert scores.rows == tuple(range(len(TREE))) and scores.logits.shape == (len(TREE), 64)
    assert scores.logits.dtype == np.float32 and scores.ms > 0
    for node in range(len(TREE)):
        expected = plain(model, [*PROMPT, TREE.tokens[0], *TREE.path_tokens(node)])
        assert np.abs(scores.logits[node] - expected).max() < 1e-4, node
    assert np.abs(expected).max() > 0.5


def test_window_counts_positions_across_slots_that_are_wider_apart(gemma):
    """A chain of 12 below 10 siblings: the slot distance to the root exceeds the window long before the depth does."""
    tree = TokenTree(tuple(range(20, 42)), (-1, *[0] * 10, *[0], *range(11, 21)))
    scores = opened(gemma, PROMPT[:3]).score(tree)
    for node in range(len(tree)):
        expected = plain(gemma, [*PROMPT[:3], tree.tokens[0], *tree.path_tokens(node)])
        assert np.abs(scores.logits[node] - expected).max() < 1e-4, node


def test_a_changed_token_changes_its_subtree_and_nothing_else(model):
    session = opened(model)
    before = session.score(TREE).logits
    changed = TokenTree((*TREE.tokens[:5], 55, *TREE.tokens[6:]), TREE.parents)
    after = session.score(changed).logits
    below = {node for node in range(len(TREE)) if 5 in TREE.path(node)}
    for node in range(len(TREE)):
        moved = np.abs(after[node] - before[node]).max()
        assert moved > 1e-3 if node in below else moved < 1e-5, node


@pytest.mark.parametrize("path", [[0], [0, 1], [0, 1, 4], [0, 2, 3, 5, 6, 8], [0, 2, 3, 7]])
def test_decoding_goes_on_from_a_committed_path_beyond_the_window(model, path):
    session = opened(model)
    session.score(TREE)
    session.commit(path)
    text = [*PROMPT, *(TREE.tokens[node] for node in path)]
    assert session.length == len(text)
    for token in range(20, 20 + WINDOW + 3):
        text.append(token)
        assert np.abs(append(session, token) - plain(model, text)).max() < 1e-4, len(text)
    again = session.score(TREE).logits
    assert np.abs(again[4] - plain(model, [*text, 40, 5, 5])).max() < 1e-4


def test_scoring_stores_nothing(model):
    session = opened(model)
    first = session.score(TREE).logits
    session.score(TokenTree.chain([1, 2, 3, 4]))
    assert session.length == len(PROMPT)
    assert np.array_equal(session.score(TREE).logits, first)


def test_rewind_beyond_the_window(model):
    session = opened(model)
    for token in range(20, 20 + WINDOW + 3):
        append(session, token)
    session.score(TREE)
    session.rewind(5)
    assert session.length == 5
    assert np.abs(append(session, 44) - plain(model, [*PROMPT[:5], 44])).max() < 1e-4
    session.rewind(0)
    assert np.abs(append(session, 44) - plain(model, [44])).max() < 1e-4
    with pytest.raises(ValueError, match="rewind"):
        session.rewind(2)


def test_forks_are_independent_and_leave_the_scored_tree_alone(model):
    session = opened(model)
    session.score(TREE)
    fork = session.fork()
    session.commit([0, 2, 3])
    assert (session.length, fork.length) == (len(PROMPT) + 3, len(PROMPT))
    with pytest.raises(ValueError, match="last scored tree"):
        fork.commit([0])
    fork.rewind(4)
    append(fork, 11)
    session.rewind(len(PROMPT))
    session.score(TREE)
    session.commit([0, 2, 3, 7])  # a gather in place must not reach the fork
    session.close()
    assert np.abs(append(fork, 12) - plain(model, [*PROMPT[:4], 11, 12])).max() < 1e-4
    other = fork.fork()
    fork.close()
    assert np.abs(append(other, 13) - plain(model, [*PROMPT[:4], 11, 12, 13])).max() < 1e-4


@pytest.mark.parametrize("keeps_logits", [True, False])
def test_rows(model, keeps_logits, monkeypatch):
    monkeypatch.setattr(model, "keeps_logits", keeps_logits)
    session = opened(model)
    every = session.score(TREE).logits
    some = session.score(TREE, rows=[7, 2, 2])
    assert some.rows == (2, 7) and np.abs(some.logits - every[[2, 7]]).max() < 1e-5
    none = session.score(TREE, rows=())
    assert none.rows == () and none.logits.shape == (0, 64)
    session.commit([0, 2])
    assert session.length == len(PROMPT) + 2
    with pytest.raises(ValueError, match="rows"):
        session.score(TREE, rows=[9])


def test_hidden_states_are_what_the_output_layer_reads(model):
    assert model.abilities - {Ability.ATTENTION_MAPS} == {Ability.HIDDEN_STATES, Ability.CACHE_EDIT}
    assert opened(model).score(TREE).hidden is None
    scores = opened(model, taps=Taps()).score(TREE, rows=[1, 6])
    assert scores.hidden[OUTPUT].shape == (2, 32) and scores.hidden[OUTPUT].dtype == np.float32
    with torch.no_grad():
        logits = model.model.get_output_embeddings()(torch.from_numpy(scores.hidden[OUTPUT])).numpy()
    assert np.abs(logits - scores.logits).max() < 1e-4


def test_score_many_equals_score(model):
    trees = [TREE, TokenTree.chain([7]), TREE.truncated(2)]
    rows = [None, [0], [1, 3]]
    prompts = [PROMPT, PROMPT[:2], PROMPT[:7]]
    alone = [opened(model, p).score(t, r) for p, t, r in zip(prompts, trees, rows, strict=True)]
    sessions = [opened(model, p) for p in prompts]
    together = model.score_many(sessions, trees, rows)
    for one, many in zip(alone, together, strict=True):
        assert one.rows == many.rows and np.abs(one.logits - many.logits).max() < 1e-5
    assert [s.rows for s in model.score_many(sessions, trees)] == [tuple(range(len(tree))) for tree in trees]
    with pytest.raises(ValueError):
        model.score_many(sessions, trees[:2])


def test_commit_takes_paths_of_the_last_tree_only(gemma):
    session = opened(gemma)
    with pytest.raises(ValueError, match="last scored tree"):
        session.commit([0])
    session.score(TREE)
    for path in ([], [1], [0, 3], [0, 1, 2], [0, 2, 2]):
        with pytest.raises(ValueError, match="path"):
            session.commit(path)
    session.commit([0, 2])
    with pytest.raises(ValueError, match="last scored tree"):
        session.commit([0])


def test_context_overflow(gemma):
    assert gemma.max_length == 96
    session = opened(gemma, [3] * 95)
    append(session, 4)
    with pytest.raises(UnspoolError, match="context of 96"):
        session.score(TokenTree.chain([4]))


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_load_from_a_directory(tmp_path: Path, dtype: str):
    saved = build(CONFIGS["gemma3"]())
    saved.save_pretrained(tmp_path / "tiny")
    model = load(tmp_path / "tiny", dtype=dtype)
    assert model.vocab_size == 64
    settings = model.settings
    assert settings["backend"] == "transformers"
    assert (settings["dtype"], settings["device"], settings["attention"]) == (dtype, "cpu", "sdpa")
    assert {"torch", "transformers", "threads"} <= settings.keys()
    logits = opened(model).score(TREE).logits
    assert logits.dtype == (np.float64 if dtype == "float64" else np.float32)
    exact = opened(TransformersModel.from_pretrained_model(saved)).score(TREE).logits
    assert np.abs(logits - exact).max() < (1e-4 if dtype == "float64" else 0.5)


def test_wrapping_shares_the_weights():
    torch_model = build(CONFIGS["llama"]())
    assert TransformersModel.from_pretrained_model(torch_model).model is torch_model


def test_vocab_size_is_the_width_of_the_logits():
    torch_model = build(CONFIGS["llama"]())
    torch_model.lm_head = torch.nn.Linear(32, 70, bias=False)
    assert TransformersModel.from_pretrained_model(torch_model).vocab_size == 70


def test_rotary_frequencies_that_depend_on_the_length_bound_the_context():
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "long_factor": [2.0] * 4, "short_factor": [1.0] * 4}
    config = Phi3Config(**SIZES, rope_parameters=rope, original_max_position_embeddings=32)
    assert TransformersModel.from_pretrained_model(build(config)).max_length == 32


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (MambaConfig(**SIZES), "recurrent"),
        (FalconConfig(**{**SIZES, "alibi": True}), "attention interface"),
        (Qwen2Config(**SIZES, layer_types=["full_attention", "chunked_attention"] * 2), "chunked_attention"),
    ],
)
def test_models_that_cannot_branch_are_refused(config: PreTrainedConfig, reason: str):
    torch.manual_seed(0)
    torch_model = AutoModelForCausalLM.from_config(config).eval()
    with pytest.raises(UnsupportedError, match=reason):
        TransformersModel.from_pretrained_model(torch_model)


def test_a_window_that_the_model_itself_ignores_is_refused():
    """Llama has no windows: masks with one, made because the configuration names it, would give another text."""
    with pytest.raises(UnsupportedError, match="a token tree of LlamaForCausalLM does not compute"):
        TransformersModel.from_pretrained_model(build(LlamaConfig(**SIZES, sliding_window=WINDOW)))


def test_attention_without_a_tree_mask_and_training_mode_are_refused():
    torch_model = build(CONFIGS["llama"](), "flex_attention")
    with pytest.raises(UnsupportedError, match="flex_attention"):
        TransformersModel.from_pretrained_model(torch_model)
    with pytest.raises(UnspoolError, match=r"eval\(\)"):
        TransformersModel.from_pretrained_model(build(CONFIGS["llama"]()).train())


def load(directory: Path, **options: str) -> TransformersModel:
    model = loading.load(resolve(str(directory)), "transformers", lambda message: None, options).model
    assert isinstance(model, TransformersModel)
    return model


def test_bad_input_says_what_to_do(tmp_path: Path):
    build(CONFIGS["llama"]()).save_pretrained(tmp_path)
    with pytest.raises(UnknownNameError, match="did you mean 'float32'"):
        load(tmp_path, dtype="floats32")
    with pytest.raises(UnknownNameError, match="did you mean 'device'"):
        load(tmp_path, devise="cpu")
    with pytest.raises(UnspoolError, match="unknown device"):
        load(tmp_path, device="warp")
    if not torch.cuda.is_available():
        with pytest.raises(UnspoolError, match="device='cpu'"):
            load(tmp_path, device="cuda")
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UnspoolError, match=r"model\.safetensors is damaged") as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)
