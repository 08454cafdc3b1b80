"""LLaDA and Dream under their own names, random and tiny, against a forward pass that is written out here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from unspool.backends.torch.checkpoints import load_denoiser
from unspool.engine.canvas import CanvasPass
from unspool.errors import UnspoolError, UnsupportedError
from unspool.models.diffusion import is_diffusion

D, LAYERS, HEADS, KV, MLP, VOCAB, THETA, EPS = 16, 2, 4, 2, 24, 20, 500.0, 1e-5

LLADA: dict[str, Any] = {
    "model_type": "llada",
    "d_model": D,
    "n_layers": LAYERS,
    "n_heads": HEADS,
    "n_kv_heads": KV,
    "mlp_hidden_size": MLP,
    "mlp_ratio": 4,
    "vocab_size": VOCAB,
    "embedding_size": VOCAB,
    "max_sequence_length": 32,
    "rms_norm_eps": EPS,
    "rope_theta": THETA,
    "weight_tying": False,
    "block_type": "llama",
    "activation_type": "silu",
    "layer_norm_type": "rms",
    "rope": True,
    "alibi": False,
    "include_bias": False,
    "mask_token_id": 19,
    "eos_token_id": 18,
}
DREAM: dict[str, Any] = {
    "model_type": "Dream",
    "auto_map": {"AutoModel": "modeling_dream.DreamModel"},
    "architectures": ["DreamModel"],
    "hidden_size": D,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV,
    "intermediate_size": MLP,
    "vocab_size": VOCAB,
    "max_position_embeddings": 32,
    "rms_norm_eps": EPS,
    "rope_theta": THETA,
    "tie_word_embeddings": False,
    "mask_token_id": 19,
    "eos_token_id": 18,
}
SHAPES = {"q": (D, D), "k": (D * KV // HEADS, D), "v": (D * KV // HEADS, D), "o": (D, D)}
SHAPES |= {"gate": (MLP, D), "up": (MLP, D), "down": (D, MLP), "first": (D,), "second": (D,)}

Layer = dict[str, NDArray[np.float64]]


def weights(bias: bool) -> tuple[list[Layer], Layer]:
    rng = np.random.default_rng(7)
    layers = [{name: rng.normal(size=shape) * 0.4 for name, shape in SHAPES.items()} for _ in range(LAYERS)]
    for layer in layers:
        for name in "qkv" if bias else "":
            layer[f"{name}_bias"] = rng.normal(size=SHAPES[name][0])
    outside = {"in": rng.normal(size=(VOCAB, D)), "norm": rng.normal(size=D), "out": rng.normal(size=(VOCAB, D))}
    return layers, outside


def norm(x: NDArray[np.float64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + EPS) * weight


def turned(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotary positions of [length, heads, size]."""
    size = x.shape[-1]
    angle = np.arange(len(x))[:, None] / THETA ** (np.arange(0, size, 2) / size)
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    a, b = x[..., : size // 2], x[..., size // 2 :]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def forward(layers: list[Layer], outside: Layer, tokens: NDArray[np.int64]) -> NDArray[np.float64]:
    x = outside["in"][tokens]
    for w in layers:
        h = norm(x, w["first"])
        q, k, v = ((h @ w[n].T + w.get(f"{n}_bias", 0.0)).reshape(len(h), -1, D // HEADS) for n in "qkv")
        q, k = turned(q), np.repeat(turned(k), HEADS // KV, axis=1)
        v = np.repeat(v, HEADS // KV, axis=1)
        scores = np.einsum("ihd,jhd->hij", q, k) / np.sqrt(D // HEADS)
        p = np.exp(scores - scores.max(axis=-1, keepdims=True))
        p /= p.sum(axis=-1, keepdims=True)
        x = x + np.einsum("hij,jhd->ihd", p, v).reshape(len(h), D) @ w["o"].T
        h = norm(x, w["second"])
        gate = h @ w["gate"].T
        x = x + (gate / (1 + np.exp(-gate)) * (h @ w["up"].T)) @ w["down"].T
    return norm(x, outside["norm"]) @ outside["out"].T


LLADA_NAMES = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "attn_out", "first": "attn_norm", "second": "ff_norm"}
LLADA_NAMES |= {"gate": "ff_proj", "up": "up_proj", "down": "ff_out"}
DREAM_NAMES = {n: f"self_attn.{n}_proj" for n in "qkvo"} | {n: f"mlp.{n}_proj" for n in ("gate", "up", "down")}
DREAM_NAMES |= {"first": "input_layernorm", "second": "post_attention_layernorm"}


def written(directory: Path, config: dict[str, Any]) -> tuple[list[Layer], Layer]:
    """A checkpoint in two files, with the names of its own code."""
    dream = config["model_type"] == "Dream"
    layers, outside = weights(bias=dream)
    tensors: dict[str, NDArray[np.float64]] = {}
    for i, layer in enumerate(layers):
        for name, value in layer.items():
            part, kind = (name.removesuffix("_bias"), "bias") if name.endswith("_bias") else (name, "weight")
            if dream:
                tensors[f"model.layers.{i}.{DREAM_NAMES[part]}.{kind}"] = value
            else:
                tensors[f"model.transformer.blocks.{i}.{LLADA_NAMES[part]}.{kind}"] = value
    names = (
        ("model.embed_tokens", "model.norm", "lm_head")
        if dream
        else tuple(f"model.transformer.{name}" for name in ("wte", "ln_f", "ff_out"))
    )
    tensors |= {f"{name}.weight": outside[key] for name, key in zip(names, ("in", "norm", "out"), strict=True)}
    directory.mkdir(exist_ok=True)
    split = sorted(tensors)
    for number, part in enumerate((split[::2], split[1::2]), 1):
        file = directory / f"model-{number:05}-of-00002.safetensors"
        save_file({name: torch.from_numpy(tensors[name].copy()) for name in part}, file)
    (directory / "config.json").write_text(json.dumps(config))
    return layers, outside


@pytest.mark.parametrize("config", [LLADA, DREAM], ids=["llada", "dream"])
def test_a_checkpoint_scores_as_its_architecture_says(config: dict[str, Any], tmp_path: Path) -> None:
    layers, outside = written(tmp_path, config)
    model = load_denoiser(tmp_path)
    assert (model.mask_id, model.eos_token_id, model.max_length) == (19, 18, 32)
    tokens = np.random.default_rng(1).integers(0, VOCAB, 13)
    expected = forward(layers, outside, tokens)
    if config is DREAM:
        expected = np.vstack([expected[:1], expected[:-1]])
    # Stock classes normalise in float32 whatever the weights are.
    assert np.abs(model.open().score(CanvasPass(tokens, 0, 13)).logits - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alibi": True}, "alibi=True"),
        ({"include_bias": True}, "include_bias=True"),
        ({"block_type": "sequential"}, "block_type"),
        ({"activation_type": "swiglu"}, "activation_type"),
        ({"mask_token_id": None}, "id of its mask"),
        ({"n_layers": 3}, "do not match"),
        ({"n_layers": 1}, "do not match"),
    ],
)
def test_what_the_stock_class_does_not_do_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    written(tmp_path, LLADA | change if change.get("n_layers") is None else LLADA)
    (tmp_path / "config.json").write_text(json.dumps(LLADA | change))
    with pytest.raises(UnspoolError, match=message):
        load_denoiser(tmp_path)


def test_files_that_are_missing_or_broken(tmp_path: Path) -> None:
    with pytest.raises(UnspoolError, match=r"there is no config\.json"):
        load_denoiser(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UnspoolError, match="not valid JSON"):
        load_denoiser(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(LLADA))
    with pytest.raises(UnspoolError, match="no safetensors"):
        load_denoiser(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(UnspoolError, match=r"no canvas\.json that names its mask"):
        load_denoiser(tmp_path)


def test_diffusion_gemma_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "diffusion_gemma"}))
    assert is_diffusion(str(tmp_path))
    with pytest.raises(UnsupportedError, match="is a DiffusionGemma, which has no masks"):
        load_denoiser(tmp_path)


def test_a_tensor_that_llada_does_not_have(tmp_path: Path) -> None:
    written(tmp_path, LLADA)
    save_file({"model.transformer.blocks.0.rotor.weight": torch.zeros(1)}, tmp_path / "more.safetensors")
    with pytest.raises(UnsupportedError, match="rotor"):
        load_denoiser(tmp_path)


def test_a_directory_that_training_wrote(tmp_path: Path) -> None:
    from unspool.recipes.tiny_diffusion.short_tasks import SHORT
    from unspool.recipes.tiny_diffusion.tasks import MASK
    from unspool.recipes.tiny_diffusion.train import CanvasTrainingOptions, train

    options = CanvasTrainingOptions(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, max_steps=1, batch_size=2
    )
    trained = train(tmp_path, options)
    model = load_denoiser(tmp_path)
    assert model.mask_id == SHORT.ids[MASK]
    tokens = np.arange(34)
    with torch.no_grad():
        expected = trained(input_ids=torch.from_numpy(tokens)[None], use_cache=False).logits[0].numpy()
    assert np.abs(model.open().score(CanvasPass(tokens, 0, 34)).logits - expected).max() < 1e-5
