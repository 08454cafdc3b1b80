"""GGUF files of the usual types, made by llama.cpp's own quantiser: log-probabilities against the de-quantised weights.

A random Llama is written in float32 and quantised by ``llama_model_quantize``. llama.cpp's ``to_float`` gives the
weights of each file back; put into the model that was written, they are the reference. Each backend loads the file as a
user would, and the table shows the largest difference of any log-probability in 64 tokens; as a control, that of the
reference from the model before it was quantised. Needs the shared libraries of llama.cpp: those of llama-cpp-python
(``pip install "unspool[peers]"``), or a directory that holds libllama and libggml-base, such as the npm package
``@node-llama-cpp/linux-x64``::

    python benchmarks/gguf_types.py --libraries bins/linux-x64 --markdown benchmarks/gguf_types.md
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import common
import numpy as np
from numpy.typing import NDArray

from unspool.errors import UnspoolError

# llama.cpp's numbers of the mixtures (``llama_ftype``).
TYPES = {
    "F32": 0,
    "F16": 1,
    "BF16": 32,
    "Q8_0": 7,
    "Q4_0": 2,
    "Q5_0": 8,
    "Q2_K": 10,
    "Q3_K_M": 12,
    "Q4_K_M": 15,
    "Q5_K_M": 17,
    "Q6_K": 18,
    "IQ4_NL": 25,
    "IQ4_XS": 30,
}
TOKENS = [3 + (7 * i) % 250 for i in range(64)]
SIZES = {
    "hidden_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 512,
    "vocab_size": 512,
    "max_position_embeddings": 256,
    "initializer_range": 0.08,
}
Values = NDArray[np.float32]


class _Parameters(ctypes.Structure):
    """``llama_model_quantize_params``: its first two fields, which are old, and room for the rest."""

    _fields_ = (("threads", ctypes.c_int32), ("type", ctypes.c_int32), ("rest", ctypes.c_int64 * 64))


class _Traits(ctypes.Structure):
    """``ggml_type_traits``."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("block", ctypes.c_int64),
        ("interleaved", ctypes.c_int64),
        ("size", ctypes.c_size_t),
        ("quantised", ctypes.c_bool),
        ("to_float", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)),
    )


class LlamaCpp:
    """The quantiser of llama.cpp, and its way back."""

    def __init__(self, folder: Path) -> None:
        self._base = ctypes.CDLL(str(_library(folder, "ggml-base")), ctypes.RTLD_GLOBAL)
        for path in sorted(folder.glob("libggml.*")):
            ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)
        self._llama = ctypes.CDLL(str(_library(folder, "llama")))
        self._llama.llama_model_quantize_default_params.restype = _Parameters
        self._llama.llama_model_quantize.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)
        self._llama.llama_model_quantize.restype = ctypes.c_uint32
        self._base.ggml_get_type_traits.restype = ctypes.POINTER(_Traits)
        # Its log goes to stderr, hundreds of lines.
        self._silent = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *line: None)
        self._llama.llama_log_set(self._silent, None)

    def quantise(self, source: Path, target: Path, kind: int) -> None:
        parameters = self._llama.llama_model_quantize_default_params()
        parameters.threads, parameters.type = 1, kind
        code = self._llama.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(parameters))
        if code:
            raise UnspoolError(f"llama.cpp cannot quantise to type {kind}")

    def values(self, data: NDArray[np.uint8], kind: int, n: int) -> Values:
        if kind == 0:
            return data.view(np.float32)
        out = np.empty(n, np.float32)
        self._base.ggml_get_type_traits(kind).contents.to_float(data.ctypes.data, out.ctypes.data, n)
        return out


def _library(folder: Path, name: str) -> Path:
    found = sorted(path for path in folder.glob(f"lib{name}.*") if path.suffix in (".so", ".dylib", ".dll"))
    if not found:
        raise UnspoolError(f"{folder} holds no lib{name}; give the directory of llama.cpp's libraries with --libraries")
    return found[0]


def folder_of_llama_cpp() -> Path:
    """Of the installed llama-cpp-python, without importing it."""
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or spec.origin is None:
        raise UnspoolError('llama-cpp-python is not installed; pip install "unspool[peers]", or give --libraries')
    return Path(spec.origin).parent / "lib"


def names(layers: int) -> dict[str, str]:
    """transformers' name of every weight by llama.cpp's."""
    blocks = {
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "attn_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }
    top = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
    found = top | {f"blk.{i}.{k}": f"model.layers.{i}.{v}" for i in range(layers) for k, v in blocks.items()}
    return {f"{ours}.weight": f"{theirs}.weight" for ours, theirs in found.items()}


def reordered(name: str, value: Values, config: Any, back: bool) -> Values:
    """Queries and keys in llama.cpp's order of the rotated halves, or back in transformers'."""
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(name.split(".")[-2])
    if heads is None:
        return value
    halves = (heads, -1, 2) if back else (heads, 2, value.shape[0] // heads // 2)
    return value.reshape(*halves, value.shape[1]).swapaxes(1, 2).reshape(value.shape)


def write(path: Path, model: Any) -> None:
    """The model as a GGUF in float32."""
    import gguf

    c = model.config
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(c.max_position_embeddings)
    writer.add_embedding_length(c.hidden_size)
    writer.add_block_count(c.num_hidden_layers)
    writer.add_feed_forward_length(c.intermediate_size)
    writer.add_head_count(c.num_attention_heads)
    writer.add_head_count_kv(c.num_key_value_heads)
    writer.add_layer_norm_rms_eps(c.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(c.hidden_size // c.num_attention_heads)
    writer.add_vocab_size(c.vocab_size)
    pieces = ["<s>", "</s>", "a", "b", "ab", *(chr(0x4E00 + i) for i in range(c.vocab_size - 5))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(pieces)
    writer.add_token_merges(["a b"])
    writer.add_token_types([3, 3, *[1] * (c.vocab_size - 2)])
    writer.add_eos_token_id(1)
    weights = model.state_dict()
    for ours, theirs in names(c.num_hidden_layers).items():
        value = reordered(ours, weights[theirs].numpy(), c, back=False)
        writer.add_tensor(ours, np.ascontiguousarray(value))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def reference(model: Any, path: Path, library: LlamaCpp) -> Values:
    """Log-probabilities of the model with the weights that llama.cpp reads from the file."""
    import torch

    from unspool.models import gguf_header

    header = gguf_header.read(path)
    with torch.no_grad():
        for ours, theirs in names(model.config.num_hidden_layers).items():
            tensor = header.tensors[ours]
            data = np.fromfile(path, np.uint8, tensor.size, offset=tensor.start)
            values = library.values(data, tensor.kind, int(np.prod(tensor.shape))).reshape(tensor.shape)
            model.get_parameter(theirs).copy_(torch.from_numpy(reordered(ours, values, model.config, back=True).copy()))
        return log_softmax(model(torch.tensor([TOKENS])).logits[0].numpy())


def log_softmax(logits: NDArray[Any]) -> Values:
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def loaded(path: Path, backend: str, options: Mapping[str, str]) -> Values:
    """Log-probabilities of the file as unspool loads it."""
    import unspool
    from unspool.engine.tree import TokenTree

    session = unspool.load(str(path), backend=backend, **options).language_model.open()
    return log_softmax(session.score(TokenTree.chain(TOKENS)).logits)


BACKENDS: Mapping[str, Callable[[Path], Values]] = {
    "transformers": lambda path: loaded(path, "transformers", {}),
    "openvino, fp32": lambda path: loaded(path, "openvino", {"weights": "fp32"}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--libraries", type=Path, help="directory of llama.cpp's libraries")
    parser.add_argument("--types", default=",".join(TYPES), help="comma-separated, by default all")
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    common.check_outputs(options.markdown, options.json)
    wanted = options.types.split(",")
    if unknown := [name for name in wanted if name not in TYPES]:
        raise UnspoolError(f"unknown type {unknown[0]!r}; known: {', '.join(TYPES)}")
    library = LlamaCpp(options.libraries or folder_of_llama_cpp())
    import gguf
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from unspool.bench.about import about
    from unspool.models import gguf_header

    facts = about()
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SIZES)).eval()
    with torch.no_grad():
        before = log_softmax(model(torch.tensor([TOKENS])).logits[0].numpy())
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["UNSPOOL_CACHE"] = str(folder / "cache")
        write(folder / "source.gguf", model)
        for kind in wanted:
            path = folder / f"{kind}.gguf"
            library.quantise(folder / "source.gguf", path, TYPES[kind])
            held = Counter(
                gguf.GGMLQuantizationType(tensor.kind).name
                for tensor in gguf_header.read(path).tensors.values()
                if len(tensor.shape) > 1
            )
            expected = reference(model, path, library)
            errors = {backend: float(abs(run(path) - expected).max()) for backend, run in BACKENDS.items()}
            errors["control: quantised or not"] = float(abs(expected - before).max())
            rows.append({"type": kind, "matrices": dict(held), "bytes": path.stat().st_size, "errors": errors})
            common.say(f"{kind}: {errors}")
    header = ("type", "its matrices", "MB", *rows[0]["errors"])
    cells = [
        (
            row["type"],
            ", ".join(f"{n} {kind}" for kind, n in sorted(row["matrices"].items())),
            f"{row['bytes'] / 1e6:.2f}",
            *(f"{error:.1e}" for error in row["errors"].values()),
        )
        for row in rows
    ]
    text = (
        "# GGUF types\n\nLargest difference of a log-probability from the weights that llama.cpp de-quantises, "
        f"{len(TOKENS)} tokens of a random Llama of {SIZES['num_hidden_layers']} layers.\n"
        f"{common.describe(facts)}\n\n{common.table(header, cells)}"
    )
    common.publish(text, {"about": facts, "rows": rows}, options.markdown, options.json)


if __name__ == "__main__":
    common.run(main)
