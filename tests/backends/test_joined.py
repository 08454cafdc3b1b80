"""Layers that read the same input become one product, and nothing else changes."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from transformers import AutoModelForCausalLM, Qwen2Config

from unspool.backends.openvino.joined import join_projections


class Cross(nn.Module):
    """Queries and keys read different inputs; only queries have a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj = (
            nn.Linear(4, 6),
            nn.Linear(4, 2, bias=False),
            nn.Linear(4, 2, bias=False),
        )

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> list[torch.Tensor]:
        return [self.q_proj(a), self.k_proj(b), self.v_proj(b), self.k_proj(a)]


def test_a_model_computes_the_same_with_fewer_products(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = Qwen2Config(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=48,
        vocab_size=64,
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    ids = torch.tensor([[3, 17, 42, 9]])
    with torch.no_grad():
        before = model(input_ids=ids).logits
        join_projections(model, tmp_path)
        after = model(input_ids=ids).logits
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-6)
    # A layer has 4: of the attention's input and output, and of the MLP's.
    assert sum(type(module) is nn.Linear for module in model.modules()) == 2 * 4 + 1


def test_layers_that_read_different_inputs_stay_right(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Cross()
    a, b = torch.randn(3, 4), torch.randn(5, 4)
    with torch.no_grad():
        before = module(a, b)
        join_projections(module, tmp_path)
        after = module(a, b)
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(one, other)
