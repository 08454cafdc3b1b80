"""Canvases on torch against independent passes of the same model, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from unspool.backends.torch.canvas import TransformersDenoiser
from unspool.engine.canvas import CanvasPass
from unspool.engine.canvas_request import Cache, CanvasOptions, CanvasRequest, Parts
from unspool.engine.denoise import denoise
from unspool.errors import UnspoolError, UnsupportedError
from unspool.methods.diffusion.fixed_blocks import FixedBlocks, FixedBlocksOptions
from unspool.methods.diffusion.threshold import Threshold, ThresholdOptions

MASK = 18
SIZES: dict[str, Any] = {
    "vocab_size": 19,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
    "initializer_range": 0.6,
}


def llama(**more: Any) -> PreTrainedModel:
    torch.manual_seed(3)
    model: PreTrainedModel = LlamaForCausalLM(LlamaConfig(**SIZES, **more)).double().eval()
    return model


def qwen2() -> PreTrainedModel:
    torch.manual_seed(4)
    model: PreTrainedModel = Qwen2ForCausalLM(Qwen2Config(**SIZES)).double().eval()
    return model


def canvas(length: int, seed: int = 0) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, 19, length)


def alone(model: PreTrainedModel, tokens: NDArray[np.int64], shift: int) -> NDArray[np.float64]:
    """transformers' own bidirectional pass over the whole canvas, without any cache."""
    config = model.config
    config.is_causal = False
    for module in model.modules():
        if hasattr(module, "is_causal"):
            module.is_causal = False
    with torch.no_grad():
        rows = model(input_ids=torch.from_numpy(tokens)[None], use_cache=False).logits[0].numpy()
    return np.vstack([rows[:1], rows[:-1]]) if shift else rows


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("make", [llama, qwen2])
def test_a_pass_over_everything_is_transformers_bidirectional_pass(make: Any, shift: int) -> None:
    tokens = canvas(11)
    found = TransformersDenoiser(make(), MASK, shift=shift).open().score(CanvasPass(tokens, 0, 11))
    expected = alone(make(), tokens, shift)
    assert found.start == 0
    assert np.abs(found.logits - expected).max() < 1e-12
    # It does look ahead: another last token changes the first row.
    other = tokens.copy()
    other[-1] = (other[-1] + 1) % 19
    assert np.abs(alone(make(), other, shift)[0] - expected[0]).max() > 1e-3


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("span", [(4, 11), (4, 8), (0, 3), (10, 11), (1, 2)])
def test_a_pass_over_a_part_with_nothing_changed_elsewhere(span: tuple[int, int], shift: int) -> None:
    """Only tokens of the last layer's input change with what is fed, so the same canvas gives the same logits."""
    tokens = canvas(11)
    session = TransformersDenoiser(llama(), MASK, shift=shift).open()
    full = session.score(CanvasPass(tokens, 0, 11)).logits
    part = session.score(CanvasPass(tokens, *span))
    assert part.start == span[0]
    assert part.logits.shape == (span[1] - span[0], 19)
    assert np.abs(part.logits - full[slice(*span)]).max() < 1e-12


def test_what_is_fed_is_stored_and_the_rest_is_as_old_as_it_was() -> None:
    before, after = canvas(11), canvas(11)
    after[5] = (after[5] + 1) % 19
    session = TransformersDenoiser(llama(), MASK).open()
    session.score(CanvasPass(before, 0, 11))
    block = session.score(CanvasPass(after, 4, 8)).logits.copy()
    whole = alone(llama(), after, 0)
    assert np.abs(block - whole[4:8]).max() > 1e-6  # keys outside the block were not refreshed
    # A block of one layer has no stale keys: those of a first layer depend on their own token alone.
    shallow = llama(**{})
    shallow.model.layers = shallow.model.layers[:1]
    session = TransformersDenoiser(shallow, MASK).open()
    session.score(CanvasPass(before, 0, 11))
    block = session.score(CanvasPass(after, 4, 8)).logits.copy()
    again = session.score(CanvasPass(after, 9, 11)).logits.copy()
    reference = llama()
    reference.model.layers = reference.model.layers[:1]
    whole = alone(reference, after, 0)
    assert np.abs(block - whole[4:8]).max() < 1e-12
    assert np.abs(again - whole[9:11]).max() < 1e-12  # it sees what the block's pass stored
    # A pass over everything refreshes everything.
    session = TransformersDenoiser(llama(), MASK).open()
    session.score(CanvasPass(before, 0, 11))
    session.score(CanvasPass(after, 4, 8))
    assert np.abs(session.score(CanvasPass(after, 0, 11)).logits - alone(llama(), after, 0)).max() < 1e-12


def test_a_session_can_take_a_canvas_of_another_length() -> None:
    model = TransformersDenoiser(llama(), mask_id=1, eos_token_id=2)
    session = model.open()
    for length in (9, 6, 12):
        tokens = canvas(length, length)
        expected = model.open().score(CanvasPass(tokens, 0, length)).logits
        np.testing.assert_allclose(session.score(CanvasPass(tokens, 0, length)).logits, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shift", [0, 1])
def test_rows_of_a_batch_are_those_of_one_at_a_time(shift: int) -> None:
    canvases = [canvas(length, length) for length in (5, 11, 8)]
    spans = [(0, 5), (3, 9), (7, 8)]

    def passes(together: bool) -> list[NDArray[np.float64]]:
        model = TransformersDenoiser(llama(), MASK, shift=shift)
        sessions = [model.open() for _ in canvases]
        rounds = [
            [CanvasPass(c, 0, len(c)) for c in canvases],
            [CanvasPass(c, *s) for c, s in zip(canvases, spans, strict=True)],
        ]
        found = []
        for fed in rounds:
            scores = (
                model.score_many(sessions, fed)
                if together
                else [s.score(f) for s, f in zip(sessions, fed, strict=True)]
            )
            found += [np.array(score.logits) for score in scores]
        return found

    for one, other in zip(passes(True), passes(False), strict=True):
        assert np.abs(one - other).max() < 1e-12


@pytest.mark.parametrize("cache", ["none", "prefix", "dual"])
@pytest.mark.parametrize("shift", [0, 1])
def test_canvases_decode_in_a_batch_as_alone(shift: int, cache: Cache) -> None:
    model = TransformersDenoiser(llama(), MASK, eos_token_id=2, shift=shift)
    requests = [
        CanvasRequest(
            prompt,
            [None] * 12,
            Parts(Threshold(ThresholdOptions(0.6)), FixedBlocks(FixedBlocksOptions(4))),
            CanvasOptions(cache=cache, temperature=0.3, seed=i),
        )
        for i, prompt in enumerate([[1, 2, 3], [5], [7, 8, 9, 10, 11, 12]])
    ]
    together = denoise(model, requests)
    assert together == [denoise(model, [request])[0] for request in requests]
    assert all(MASK not in slots for slots in together)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask_id": None}, "needs the id of its mask"),
        ({"mask_id": 19}, "needs the id of its mask"),
        ({"mask_id": MASK, "shift": 2}, "shift"),
    ],
)
def test_models_without_a_mask(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UnspoolError, match=message):
        TransformersDenoiser(llama(), **options)


def test_models_that_cannot_see_a_canvas() -> None:
    with pytest.raises(UnspoolError, match=r"model\.eval"):
        TransformersDenoiser(llama().train(), MASK)
    windowed = Qwen2ForCausalLM(
        Qwen2Config(**SIZES, use_sliding_window=True, sliding_window=4, max_window_layers=0)
    ).eval()
    with pytest.raises(UnsupportedError, match="whole canvas"):
        TransformersDenoiser(windowed, MASK)


def test_passes_that_cannot_be() -> None:
    session = TransformersDenoiser(llama(), MASK).open()
    with pytest.raises(ValueError, match="must feed all"):
        session.score(CanvasPass(canvas(5), 1, 3))
    with pytest.raises(UnspoolError, match="32 positions"):
        session.score(CanvasPass(canvas(33), 0, 33))
    with pytest.raises(ValueError, match="cannot feed"):
        session.score(CanvasPass(canvas(5), 3, 3))
