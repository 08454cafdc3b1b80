"""Moving cache entries: layer-0 keys against true recomputation, on both backends and every kind of rotation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma3TextConfig,
    LlamaConfig,
    OPTConfig,
    PhiConfig,
    PreTrainedConfig,
    Qwen3Config,
    SmolLM3Config,
)

from unspool.backends.openvino.convert import convert
from unspool.backends.openvino.model import OpenVINOModel
from unspool.backends.torch.model import TransformersModel
from unspool.engine.autoregressive import extend
from unspool.engine.contracts import Ability
from unspool.engine.tree import TokenTree
from unspool.errors import UnspoolError, UnsupportedError

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "vocab_size": 64,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.2,
}


def llama(**rope: object) -> LlamaConfig:
    return LlamaConfig(**SIZES, **({"rope_parameters": {"rope_theta": 10000.0, **rope}} if rope else {}))


CONFIGS = {
    "llama": llama,
    "llama3": lambda: llama(
        rope_type="llama3",
        factor=4.0,
        original_max_position_embeddings=64,
        low_freq_factor=1.0,
        high_freq_factor=4.0,
    ),
    "yarn": lambda: llama(rope_type="yarn", factor=4.0, original_max_position_embeddings=128),
    "dynamic": lambda: llama(rope_type="dynamic", factor=4.0),  # of fixed frequencies up to the backend's limit
    "qwen3": lambda: Qwen3Config(**SIZES, head_dim=8),
    "two-bases": lambda: Gemma3TextConfig(
        **SIZES, head_dim=8, sliding_window=8, layer_types=["sliding_attention", "full_attention", "sliding_attention"]
    ),
    "partial": lambda: PhiConfig(**SIZES),
    "some-layers": lambda: SmolLM3Config(**SIZES, no_rope_layers=[1, 0, 1]),
}
TEXT = [int(t) for t in np.random.default_rng(0).integers(3, 64, 400)]
START, STOP = 37, 401
"""Of [7, *TEXT]; the entries are moved behind what is shorter by 30 or longer by 60 tokens."""


def build(config: PreTrainedConfig, dtype: torch.dtype = torch.float32) -> TransformersModel:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").to(dtype).eval()
    return TransformersModel.from_pretrained_model(model)


@pytest.fixture(scope="module", params=CONFIGS)
def model(request: pytest.FixtureRequest) -> TransformersModel:
    return build(CONFIGS[request.param]())


@pytest.fixture(scope="module")
def plain() -> TransformersModel:
    return build(llama())


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> OpenVINOModel:
    directory: Path = tmp_path_factory.mktemp("graph")
    convert(build(CONFIGS["two-bases"]()).model, directory, "int8", lambda _: None)
    return OpenVINOModel(directory, threads=1)


def opened(model, tokens):
    session = model.open()
    extend(session, tokens)
    return session


def entries(session) -> tuple[np.ndarray, np.ndarray]:
    """Keys and values [layers, heads, length, size]."""
    if not isinstance(session.cache, tuple):  # of torch
        kept = [session.cache.kept(layer) for layer in range(SIZES["num_hidden_layers"])]
        return tuple(np.stack([pair[i].double().numpy() for pair in kept]) for i in (0, 1))
    slots = session._model.sections.slots[: session.length]
    return tuple(part[:, :, slots].copy() for part in session.cache)


def moved(model, head: list[int]) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Entries spliced behind ``head``, and those of a prefill of the same tokens."""
    text = [7, *TEXT]
    session, source = opened(model, head), opened(model, text)
    before = entries(source)
    session.splice(source, START, STOP)
    assert session.length == len(head) + STOP - START
    for now, then in zip(entries(source), before, strict=True):
        np.testing.assert_array_equal(now, then)
    np.testing.assert_array_equal(entries(session)[1][:, :, len(head) :], before[1][:, :, START:STOP])  # values stay
    return entries(session), entries(opened(model, [*head, *text[START:STOP]]))


def check_first_layer(ours, true) -> None:
    """Equal but for the float32 rounding of the model's own angles, which are up to 500 radians: 500 * 2^-24 = 3e-5."""
    scale = np.abs(true[0][0]).max()
    assert np.abs(ours[0][0] - true[0][0]).max() < 2e-4 * scale


@pytest.mark.parametrize("head", [TEXT[:7], TEXT[:97]], ids=["back", "ahead"])
def test_keys_of_the_first_layer_are_those_of_recomputation(model, head):
    ours, true = moved(model, head)
    check_first_layer(ours, true)
    # Deeper layers saw another text before them, so they are close to nothing in a random model, and not equal.
    assert np.abs(ours[0][2] - true[0][2]).max() > 1e-3 * np.abs(true[0][2]).max()


@pytest.mark.parametrize("head", [TEXT[:7], TEXT[:97]], ids=["back", "ahead"])
def test_keys_of_the_first_layer_on_openvino_across_its_sections(converted, head):
    ours, true = moved(converted, head)
    check_first_layer(ours, true)


def test_equal_tokens_before_and_behind_make_every_layer_right(model):
    """Of a text of one token only, values are alike everywhere, so all keys are right after a move, in all layers."""
    source, session = opened(model, [9] * 300), opened(model, [9] * 40)
    session.splice(source, 100, 300)
    ours, true = entries(session), entries(opened(model, [9] * 240))
    for part in (0, 1):
        assert np.abs(ours[part] - true[part]).max() < 2e-4 * np.abs(true[part]).max()


@pytest.mark.parametrize("backend", ["plain", "converted"])
def test_there_and_back_is_the_same_up_to_rounding(backend, request):
    model = request.getfixturevalue(backend)
    text = [7, *TEXT]
    source, there, back = opened(model, text), opened(model, TEXT[:90]), opened(model, text[:START])
    there.splice(source, START, STOP)
    assert np.abs(entries(there)[0][:, :, 90:] - entries(source)[0][:, :, START:STOP]).max() > 0.1
    back.splice(there, 90, 90 + STOP - START)
    for now, then in zip(entries(back), entries(source), strict=True):
        assert np.abs(now[:, :, START:] - then[:, :, START:STOP]).max() < 1e-6 * np.abs(then).max()


@pytest.mark.parametrize("backend", ["plain", "converted"])
def test_no_shift_and_no_rotation_copy_bit_by_bit(backend, request):
    model = request.getfixturevalue(backend)
    source = opened(model, TEXT[:200])
    same, unmoved = source.fork(), opened(model, TEXT[:20])
    same.rewind(50)
    same.splice(source, 50, 200)
    unmoved.splice(source, 50, 200, rotate=False)
    for part in (0, 1):
        np.testing.assert_array_equal(entries(same)[part], entries(source)[part])
        np.testing.assert_array_equal(entries(unmoved)[part][:, :, 20:], entries(source)[part][:, :, 50:])
    ours = same.score(TokenTree.chain([5])).logits.copy()
    np.testing.assert_array_equal(ours, source.score(TokenTree.chain([5])).logits)


@pytest.mark.parametrize("backend", ["plain", "converted"])
def test_a_spliced_session_goes_on_as_any_other(backend, request):
    model = request.getfixturevalue(backend)
    source, session = opened(model, TEXT[:60]), opened(model, TEXT[:10])
    session.score(TokenTree.chain([3, 4]))
    session.splice(source, 30, 60)
    with pytest.raises((ValueError, RuntimeError)):
        session.commit([0])  # what was scored before stood at other positions
    fork = session.fork()
    extend(session, [8, 9])
    session.rewind(40)
    fork.splice(source, 0, 0)
    tree = TokenTree.chain([5])
    np.testing.assert_array_equal(session.score(tree).logits.copy(), fork.score(tree).logits)


@pytest.mark.parametrize("backend", ["plain", "converted"])
def test_bad_ranges_and_full_contexts(backend, request):
    model = request.getfixturevalue(backend)
    assert Ability.CACHE_EDIT in model.abilities
    source, session = opened(model, TEXT[:300]), opened(model, TEXT[:300])
    for start, stop in ((-1, 3), (5, 4), (0, 301)):
        with pytest.raises(ValueError, match="range"):
            session.splice(source, start, stop)
    with pytest.raises(ValueError, match="the other session"):
        session.splice(session, 0, 3)
    with pytest.raises(UnspoolError, match="context of 512"):
        session.splice(source, 0, 213)
    assert session.length == 300


def test_a_bfloat16_model_rotates_within_its_own_precision():
    ours, true = moved(build(llama(), torch.bfloat16), TEXT[:97])
    assert np.abs(ours[0][0] - true[0][0]).max() < 2**-6 * np.abs(true[0][0]).max()


@pytest.mark.parametrize(
    "config",
    [
        lambda: CohereConfig(**SIZES),  # interleaved pairs
        lambda: OPTConfig(**SIZES, ffn_dim=48, word_embed_proj_dim=32),  # learned positions
    ],
    ids=["interleaved", "learned"],
)
def test_keys_that_are_not_rotated_in_halves_are_refused(config):
    model = build(config())
    source, session = opened(model, TEXT[:20]), opened(model, TEXT[:5])
    with pytest.raises(UnsupportedError, match="half-split"):
        session.splice(source, 10, 20)
    assert session.length == 5
    session.splice(source, 5, 20)  # nothing moves
    assert session.length == 20
