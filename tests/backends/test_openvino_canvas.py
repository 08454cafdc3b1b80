"""Canvases on OpenVINO against the same checkpoints on torch: LLaDA, Dream, and a stock bidirectional Llama."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, PreTrainedModel

from tests.backends.test_diffusion_checkpoints import DREAM, LLADA, written
from unspool.backends.diffusion import load
from unspool.backends.openvino.canvas import OpenVINODenoiser
from unspool.backends.openvino.canvas_convert import converted
from unspool.backends.torch.canvas import TransformersDenoiser
from unspool.backends.torch.checkpoints import load_denoiser
from unspool.engine.canvas import CanvasPass, Denoiser
from unspool.engine.canvas_request import Cache, CanvasOptions, CanvasRequest, Parts
from unspool.engine.denoise import denoise
from unspool.errors import UnspoolError, UnsupportedError
from unspool.methods.diffusion.fixed_blocks import FixedBlocks, FixedBlocksOptions
from unspool.methods.diffusion.threshold import Threshold, ThresholdOptions
from unspool.storage import cache as store

VOCAB, MASK, EOS = 20, 19, 18
TOLERANCE = 1e-4
"""Of the largest logit: both sides sum in float32, in another order."""

SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 32,
    "initializer_range": 0.6,
}


def saved(directory: Path, model: PreTrainedModel, **canvas: int | None) -> None:
    """A stock model as ``unspool train diffusion`` writes one."""
    model.save_pretrained(directory)
    (directory / "canvas.json").write_text(json.dumps(canvas))


def stock(directory: Path) -> None:
    torch.manual_seed(5)
    model = LlamaForCausalLM(LlamaConfig(**SIZES, is_causal=False, tie_word_embeddings=True))
    saved(directory, model, mask_id=MASK, eos_token_id=EOS, shift=0)


def checkpoint(directory: Path, kind: str) -> Path:
    if kind == "stock":
        stock(directory)
    else:
        written(directory, {"llada": LLADA, "dream": DREAM}[kind])
    return directory


def said(message: str) -> None:
    """Nothing listens."""


@pytest.fixture(scope="module", autouse=True)
def own_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNSPOOL_CACHE", str(tmp_path_factory.mktemp("store")))
        yield


@pytest.fixture(scope="module", params=["stock", "llada", "dream"])
def directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def reference(directory: Path) -> TransformersDenoiser:
    return load_denoiser(directory)


@pytest.fixture(scope="module")
def model(directory: Path) -> OpenVINODenoiser:
    return OpenVINODenoiser(converted(directory, "fp32", said), threads=1)


def canvas(length: int, seed: int = 0) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, VOCAB, length)


def changed(tokens: NDArray[np.int64], *positions: int) -> NDArray[np.int64]:
    other = tokens.copy()
    other[list(positions)] = (other[list(positions)] + 1) % VOCAB
    return other


def scored(model: Denoiser, passes: list[CanvasPass]) -> list[NDArray[np.float64]]:
    """Logits of these passes of one session."""
    session = model.open()
    return [session.score(one).logits.astype(np.float64) for one in passes]


def close(found: NDArray[np.float64], expected: NDArray[np.float64]) -> bool:
    assert found.shape == expected.shape
    return bool(np.abs(found - expected).max() < TOLERANCE * np.abs(expected).max())


def test_what_is_known_of_a_checkpoint_survives(model: OpenVINODenoiser, reference: TransformersDenoiser) -> None:
    for name in ("mask_id", "eos_token_id", "shift", "vocab_size", "max_length"):
        assert getattr(model, name) == getattr(reference, name)
    assert model.settings["backend"] == "openvino" and model.settings["weights"] == "fp32"


def test_every_pass_gives_torch_s_logits(model: OpenVINODenoiser, reference: TransformersDenoiser) -> None:
    """Whole canvases, suffixes, blocks, single positions, with tokens that change between passes, so that the keys and
    values of what is not fed are as old on both sides."""
    first = canvas(13)
    second, third = changed(first, 4, 6), changed(first, 4, 6, 9)
    passes = [
        CanvasPass(first, 0, 13),
        CanvasPass(second, 4, 13),
        CanvasPass(second, 4, 8),
        CanvasPass(third, 8, 12),
        CanvasPass(third, 12, 13),
        CanvasPass(third, 1, 2),
        CanvasPass(third, 0, 3),
        CanvasPass(third, 1, 13),
        CanvasPass(first, 0, 13),
    ]
    found, expected = scored(model, passes), scored(reference, passes)
    assert all(close(one, other) for one, other in zip(found, expected, strict=True))
    # The passes tell apart what they should: stale keys are not fresh ones, and every position sees the last one.
    fresh = scored(reference, [CanvasPass(second, 0, 13)])[0]
    assert not close(found[2], fresh[4:8])
    assert not close(scored(reference, [CanvasPass(changed(first, 12), 0, 13)])[0][:1], expected[0][:1])


def test_a_session_can_take_a_canvas_of_another_length(model: OpenVINODenoiser) -> None:
    passes = [CanvasPass(canvas(32), 0, 32), CanvasPass(canvas(32), 20, 24)]
    after = scored(model, [CanvasPass(canvas(13), 0, 13), CanvasPass(canvas(13), 4, 8), *passes])[2:]
    assert all(np.array_equal(one, other) for one, other in zip(after, scored(model, passes), strict=True))


@pytest.mark.parametrize("span", [(4, 13), (4, 8), (0, 3), (12, 13)])
def test_a_part_that_is_fed_after_a_refresh_is_that_of_a_pass_without_cache(
    model: OpenVINODenoiser, span: tuple[int, int]
) -> None:
    before = canvas(13)
    after = changed(before, 5)
    _, whole, part = scored(model, [CanvasPass(before, 0, 13), CanvasPass(after, 0, 13), CanvasPass(after, *span)])
    assert close(part, whole[slice(*span)])
    assert np.array_equal(whole, scored(model, [CanvasPass(after, 0, 13)])[0])  # nothing old is left


def equal_alone_and_together(model: Denoiser) -> bool:
    canvases = [canvas(length, length) for length in (5, 11, 8)]
    spans = [(0, 5), (3, 9), (7, 8)]
    rounds = [
        [CanvasPass(c, 0, len(c)) for c in canvases],
        [CanvasPass(changed(c, 3), *span) for c, span in zip(canvases, spans, strict=True)],
    ]
    sessions = [model.open() for _ in canvases]
    together = [model.score_many(sessions, fed) for fed in rounds]
    alone = [scored(model, [fed[row] for fed in rounds]) for row in range(3)]
    assert [scores.start for scores in together[1]] == [start for start, _ in spans]
    return all(np.array_equal(together[i][row].logits, alone[row][i]) for i in range(2) for row in range(3))


def test_rows_of_a_batch_are_exactly_those_alone(model: OpenVINODenoiser) -> None:
    assert equal_alone_and_together(model)


def test_int8_is_near_and_not_the_same(tmp_path: Path) -> None:
    checkpoint(tmp_path, "dream")
    model = load(tmp_path, "openvino", said, {"weights": "int8"})
    assert model.settings["weights"] == "int8"
    passes = [CanvasPass(canvas(13), 0, 13), CanvasPass(canvas(13), 4, 8)]
    for found, expected in zip(scored(model, passes), scored(load_denoiser(tmp_path), passes), strict=True):
        assert not close(found, expected)
        assert np.abs(found - expected).mean() < 0.1 * np.abs(expected).mean()
    assert equal_alone_and_together(model)


@pytest.mark.parametrize("cache", ["none", "prefix", "dual"])
def test_canvases_decode_as_on_torch_and_in_a_batch_as_alone(
    model: OpenVINODenoiser, reference: TransformersDenoiser, cache: Cache
) -> None:
    def requests() -> list[CanvasRequest]:
        return [
            CanvasRequest(
                prompt,
                [None] * 12,
                Parts(Threshold(ThresholdOptions(0.6)), FixedBlocks(FixedBlocksOptions(4))),
                CanvasOptions(cache=cache, temperature=0.3, seed=i),
            )
            for i, prompt in enumerate([[1, 2, 3], [5], [7, 8, 9, 10, 11, 12]])
        ]

    together = denoise(model, requests())
    assert together == [denoise(model, [request])[0] for request in requests()]
    assert together == denoise(reference, requests())


def test_a_conversion_is_kept_until_the_checkpoint_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNSPOOL_CACHE", str(tmp_path.parent / "cache"))  # the same weights may be in the user's
    stock(tmp_path)
    heard: list[str] = []
    first = converted(tmp_path, "fp32", heard.append)
    assert any("once" in message for message in heard)
    heard.clear()
    assert converted(tmp_path, "fp32", heard.append) == first and not heard
    assert first.is_relative_to(store.converted_dir())
    (tmp_path / "canvas.json").write_text(json.dumps({"mask_id": 7, "eos_token_id": None, "shift": 1}))
    again = converted(tmp_path, "fp32", heard.append)
    assert again != first and heard
    other = OpenVINODenoiser(again)
    assert (other.mask_id, other.eos_token_id, other.shift) == (7, None, 1)


def test_nothing_is_kept_of_a_conversion_that_fails(tmp_path: Path) -> None:
    before = set(store.converted_dir().rglob("*"))
    saved(tmp_path / "maskless", LlamaForCausalLM(LlamaConfig(**SIZES)), eos_token_id=2)
    with pytest.raises(UnspoolError, match="id of its mask"):
        converted(tmp_path / "maskless", "fp32", said)
    windowed = MistralForCausalLM(MistralConfig(**SIZES, sliding_window=4))
    saved(tmp_path / "windowed", windowed, mask_id=MASK)
    with pytest.raises(UnsupportedError, match="not a whole canvas"):
        converted(tmp_path / "windowed", "fp32", said)
    left = [path for path in set(store.converted_dir().rglob("*")) - before if path.is_file()]
    assert not left


@pytest.mark.parametrize(
    ("backend", "options", "message"),
    [
        ("openvno", {}, "unknown backend for canvases 'openvno'; did you mean 'openvino'"),
        ("openvino", {"weights": "int4"}, "unknown weight format of canvases 'int4'"),
        ("openvino", {"threads": 0}, "threads must be at least 1"),
        ("openvino", {"device": "cpu"}, "unknown option of canvases on openvino 'device'"),
        ("transformers", {"weights": "int8"}, "unknown option of canvases on transformers 'weights'; known: device"),
        ("transformers", {"device": "gpu"}, "unknown device 'gpu'"),
    ],
)
def test_options_that_do_not_fit_are_told_before_any_work(
    tmp_path: Path, backend: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UnspoolError, match=message):
        load(tmp_path, backend, pytest.fail, options)


def test_passes_that_cannot_be(model: OpenVINODenoiser) -> None:
    session = model.open()
    with pytest.raises(ValueError, match="must feed all"):
        session.score(CanvasPass(canvas(5), 1, 3))
    with pytest.raises(UnspoolError, match="32 positions"):
        session.score(CanvasPass(canvas(33), 0, 33))
    with pytest.raises(ValueError, match="cannot feed"):
        session.score(CanvasPass(canvas(5), 3, 3))
    session.score(CanvasPass(canvas(5), 0, 5))
    session.close()
    with pytest.raises(ValueError, match="must feed all"):
        session.score(CanvasPass(canvas(5), 1, 3))
