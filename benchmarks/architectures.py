"""Kinds of decoders that transformers has, with random weights, on both backends against transformers' own generate.

A row is a checkpoint of four layers that is made, saved, loaded by each backend and asked to continue 100 ids (fewer
where its context is shorter) by 12 greedy tokens, plainly and with a drafter. It is *same* if all tokens are equal and
no log-probability of a token differs by 1e-3 or more, or refused by one line; everything else is a fault, and the exit
code is 1. Every row has a process of its own. Rows that the JSON file holds already are not made again.

Weights are drawn so that logits spread over several units: with the small ones of an initialisation most faults would
hide below the bound.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import common

from unspool.bench.about import about
from unspool.errors import UnspoolError

SIZES: dict[str, Any] = {
    "vocab_size": 384,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_EXPERTS = {
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "moe_num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 48,
    "shared_expert_intermediate_size": 48,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
}
_LATENT = {
    "num_key_value_heads": 4,
    "head_dim": 8,
    "kv_lora_rank": 16,
    "q_lora_rank": 24,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 12,
}
_OWN_NAMES = {"n_embd": 64, "n_layer": 4, "n_head": 4, "n_positions": 256, "n_inner": 96}
_MIXED = {"layer_types": ["sliding_attention", "full_attention"] * 2}
_LONGROPE = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 8, "long_factor": [4.0] * 8}


def _rope(kind: str, **parameters: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 1e4, **parameters}}


ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama, tied, with biases": ("llama", {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}),
    "llama, heads of 24": ("llama", {"head_dim": 24}),
    "llama, one key/value head": ("llama", {"num_key_value_heads": 1}),
    "llama, vocabulary of 1,001": ("llama", {"vocab_size": 1001}),
    "llama, context of 48": ("llama", {"max_position_embeddings": 48}),
    "llama, linear rope": ("llama", _rope("linear", factor=4.0)),
    "llama, yarn": ("llama", _rope("yarn", factor=4.0, original_max_position_embeddings=64)),
    "llama, llama3 rope": (
        "llama",
        _rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64),
    ),
    "llama, dynamic rope": ("llama", _rope("dynamic", factor=4.0)),
    "llama, dynamic rope of 32": ("llama", _rope("dynamic", factor=4.0, original_max_position_embeddings=32)),
    "mistral": ("mistral", {"sliding_window": 16}),
    "mistral, window of 4,096": ("mistral", {"sliding_window": 4096, "max_position_embeddings": 8192}),
    "mistral, no window": ("mistral", {"sliding_window": None}),
    "ministral": ("ministral", {"head_dim": 16, "sliding_window": 16}),
    "ministral3": ("ministral3", {"head_dim": 16}),
    "qwen2": ("qwen2", {}),
    "qwen2, windows above layer 2": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 2},
    ),
    "qwen2, windows in turn": ("qwen2", {"use_sliding_window": True, "sliding_window": 16, **_MIXED}),
    "qwen3": ("qwen3", {"head_dim": 16}),
    "gemma": ("gemma", {"head_dim": 16}),
    "gemma2": ("gemma2", {"head_dim": 16, "sliding_window": 16, "query_pre_attn_scalar": 16}),
    "gemma3_text": ("gemma3_text", {"head_dim": 16, "sliding_window": 16, "query_pre_attn_scalar": 16, **_MIXED}),
    "gemma3_text, window of 512": ("gemma3_text", {"head_dim": 16, "sliding_window": 512, **_MIXED}),
    "gemma3n_text": (
        "gemma3n_text",
        {
            "head_dim": 16,
            "sliding_window": 16,
            "num_kv_shared_layers": 0,
            "hidden_size_per_layer_input": 8,
            "vocab_size_per_layer_input": 384,
            "laurel_rank": 8,
            "intermediate_size": [96] * 4,
            "activation_sparsity_pattern": [0.0] * 4,
            **_MIXED,
        },
    ),
    "gemma4_text": (
        "gemma4_text",
        {
            "head_dim": 16,
            "global_head_dim": 32,
            "sliding_window": 16,
            "num_kv_shared_layers": 0,
            "hidden_size_per_layer_input": 8,
            "vocab_size_per_layer_input": 384,
            **_MIXED,
        },
    ),
    "vaultgemma": ("vaultgemma", {"head_dim": 16, "sliding_window": 16, **_MIXED}),
    "granite": (
        "granite",
        {"logits_scaling": 8.0, "embedding_multiplier": 12.0, "residual_multiplier": 0.22, "attention_multiplier": 0.1},
    ),
    "granite_swa": ("granite_swa", {"sliding_window": 16}),
    "granitemoe": ("granitemoe", {"logits_scaling": 6.0, **_EXPERTS}),
    "cohere": ("cohere", {"logit_scale": 0.0625}),
    "cohere, use_qk_norm": ("cohere", {"logit_scale": 0.25, "use_qk_norm": True}),
    "cohere2": ("cohere2", {"logit_scale": 0.0625, "sliding_window": 16, "head_dim": 16, **_MIXED}),
    "phi": ("phi", {"partial_rotary_factor": 0.5}),
    "phi3": ("phi3", {}),
    "phi3, longrope": (
        "phi3",
        {
            "rope_parameters": {**_LONGROPE, "original_max_position_embeddings": 64},
            "original_max_position_embeddings": 64,
        },
    ),
    "phimoe": ("phimoe", dict(_EXPERTS)),
    "olmo": ("olmo", {"clip_qkv": 4.0}),
    "olmo2": ("olmo2", {}),
    "olmo3": ("olmo3", {"sliding_window": 16, **_MIXED}),
    "olmoe": ("olmoe", dict(_EXPERTS)),
    "smollm3": ("smollm3", {}),
    "smollm3, layers without rope, windows": (
        "smollm3",
        {"no_rope_layers": [1, 0, 1, 0], "use_sliding_window": True, "sliding_window": 16, **_MIXED},
    ),
    "starcoder2": ("starcoder2", {"sliding_window": 16}),
    "stablelm": ("stablelm", {"partial_rotary_factor": 0.25, "use_parallel_residual": True}),
    "gpt2": ("gpt2", dict(_OWN_NAMES)),
    "gpt2, scaled by layer": ("gpt2", {**_OWN_NAMES, "scale_attn_by_inverse_layer_idx": True}),
    "gpt_neo": (
        "gpt_neo",
        {"num_layers": 4, "num_heads": 4, "attention_types": [[["global", "local"], 2]], "window_size": 16},
    ),
    "gpt_neox": ("gpt_neox", {"rotary_pct": 0.25}),
    "gpt_neox_japanese": ("gpt_neox_japanese", {"intermediate_multiple_size": 2}),
    "gptj": ("gptj", {**_OWN_NAMES, "rotary_dim": 8}),
    "gpt_bigcode": ("gpt_bigcode", dict(_OWN_NAMES)),
    "gpt_oss": (
        "gpt_oss",
        {
            "head_dim": 16,
            "sliding_window": 16,
            **_EXPERTS,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
        },
    ),
    "openai-gpt": ("openai-gpt", dict(_OWN_NAMES)),
    "codegen": ("codegen", {**_OWN_NAMES, "rotary_dim": 8}),
    "ctrl": ("ctrl", {**_OWN_NAMES, "dff": 96}),
    "opt": ("opt", {"ffn_dim": 96, "word_embed_proj_dim": 64}),
    "opt, narrow embeddings": ("opt", {"ffn_dim": 96, "word_embed_proj_dim": 32, "do_layer_norm_before": False}),
    "xglm": ("xglm", {"d_model": 64, "ffn_dim": 96, "num_layers": 4, "attention_heads": 4}),
    "biogpt": ("biogpt", {}),
    "bloom": ("bloom", {"n_layer": 4, "n_head": 4}),
    "mpt": ("mpt", {"d_model": 64, "n_heads": 4, "n_layers": 4, "max_seq_len": 256}),
    "falcon": ("falcon", {"alibi": False, "new_decoder_architecture": True, "num_kv_heads": 2}),
    "falcon, multi-query": ("falcon", {"alibi": False, "multi_query": True, "parallel_attn": True}),
    "falcon, alibi": ("falcon", {"alibi": True, "new_decoder_architecture": False, "multi_query": False}),
    "persimmon": ("persimmon", {}),
    "nemotron": ("nemotron", {}),
    "helium": ("helium", {"head_dim": 16}),
    "glm": ("glm", {"head_dim": 16}),
    "glm4": ("glm4", {"head_dim": 16}),
    "glm4_moe": ("glm4_moe", {"head_dim": 16, **_EXPERTS}),
    "exaone": ("exaone", {"num_layers": 4}),
    "exaone4": ("exaone4", {"sliding_window": 16, "sliding_window_pattern": 2, **_MIXED}),
    "bitnet": ("bitnet", {}),
    "apertus": ("apertus", {}),
    "ernie4_5": ("ernie4_5", {}),
    "ernie4_5_moe": ("ernie4_5_moe", {**_EXPERTS, "moe_k": 2, "moe_layer_start_index": 1, "moe_layer_end_index": 3}),
    "arcee": ("arcee", {}),
    "seed_oss": ("seed_oss", {"head_dim": 16}),
    "hunyuan_v1_dense": ("hunyuan_v1_dense", {"head_dim": 16}),
    "hunyuan_v1_moe": ("hunyuan_v1_moe", {"head_dim": 16, "num_experts": 4, "moe_topk": 2}),
    "nanochat": ("nanochat", {}),
    "diffllama": ("diffllama", {}),
    "doge": ("doge", {}),
    "cwm": ("cwm", {"head_dim": 16, "sliding_window": 16, **_MIXED}),
    "jais2": ("jais2", {}),
    "internlm3": ("internlm3", {"head_dim": 16}),
    "minicpm3": ("minicpm3", {**_LATENT, "dim_model_base": 32, "scale_emb": 12, "scale_depth": 1.4}),
    "modernbert-decoder": ("modernbert-decoder", {"local_attention": 16}),
    "mixtral": ("mixtral", dict(_EXPERTS)),
    "qwen2_moe": ("qwen2_moe", dict(_EXPERTS)),
    "qwen3_moe": ("qwen3_moe", {"head_dim": 16, **_EXPERTS}),
    "deepseek_v2": ("deepseek_v2", {**_LATENT, **_EXPERTS, "topk_method": "greedy"}),
    "deepseek_v3": ("deepseek_v3", {**_LATENT, **_EXPERTS}),
    "youtu": ("youtu", dict(_LATENT)),
    "dbrx": (
        "dbrx",
        {
            "d_model": 64,
            "n_heads": 4,
            "n_layers": 4,
            "max_seq_len": 256,
            "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 1e4},
            "ffn_config": {"ffn_hidden_size": 96, "moe_num_experts": 4, "moe_top_k": 2, "hidden_size": 64},
        },
    ),
    "dots1": ("dots1", {"head_dim": 16, **_EXPERTS}),
    "jetmoe": ("jetmoe", {"kv_channels": 16, "num_key_value_heads": 2, **_EXPERTS}),
    "llama4_text": (
        "llama4_text",
        {"head_dim": 16, "attention_chunk_size": 16, "intermediate_size_mlp": 96, **_EXPERTS},
    ),
    "minimax": ("minimax", {"head_dim": 16, **_EXPERTS}),
    "qwen3_next": ("qwen3_next", {"head_dim": 16, **_EXPERTS}),
    "lfm2": ("lfm2", {"layer_types": ["full_attention"] * 4}),
    "lfm2, with convolutions": ("lfm2", {"layer_types": ["conv", "full_attention"] * 2}),
    "jamba": (
        "jamba",
        {**_EXPERTS, "attn_layer_period": 2, "attn_layer_offset": 1, "mamba_dt_rank": 4, "use_mamba_kernels": False},
    ),
    "zamba2": (
        "zamba2",
        {"layers_block_type": ["mamba", "hybrid"] * 2, "mamba_ngroups": 1, "n_mamba_heads": 4, "mamba_d_state": 8},
    ),
    "falcon_h1": ("falcon_h1", {"mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8}),
    "recurrent_gemma": ("recurrent_gemma", {"lru_width": 64, "attention_window_size": 16}),
    "mamba": ("mamba", {"state_size": 8}),
    "mamba2": ("mamba2", {"num_heads": 8, "head_dim": 16, "state_size": 8, "n_groups": 1}),
    "rwkv": ("rwkv", {"attention_hidden_size": 64}),
    "t5": ("t5", {"d_model": 64, "d_kv": 16, "d_ff": 96, "num_layers": 4, "num_heads": 4}),
}
"""Model type and settings beyond ``SIZES`` by row."""

BACKENDS: dict[str, dict[str, str]] = {"transformers": {}, "openvino": {"weights": "fp32"}}
METHODS = ("plain", "prompt_lookup")
TOKENS = 12
BOUND = 1e-3
_FORK = multiprocessing.get_context("fork")


def import_libraries() -> None:
    """What rows need, imported once. One thread each: nothing is timed."""
    import torch
    import transformers
    from transformers import LlamaForCausalLM  # noqa: F401  # brings most of transformers along

    from unspool.backends.openvino import conversion_check  # noqa: F401
    from unspool.backends.openvino.imports import imported
    from unspool.backends.torch import model as torch_backend  # noqa: F401
    from unspool.decoding import model as api  # noqa: F401

    imported("openvino"), imported("nncf")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)


def make(row: str, directory: Path) -> Any:
    """The row's model, saved in ``directory`` with a tokenizer of bytes, and loaded by transformers from there."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    kind, options = ROWS[row]
    config = AutoConfig.for_model(kind, **{**SIZES, **options})
    torch.manual_seed(0)
    family = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    model = family.from_config(config).float().eval()
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1 and "A_log" not in name:
            torch.nn.init.normal_(parameter, std=0.15)
        elif name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.05)
    model.save_pretrained(directory)
    special = ["<pad>", "<s>", "</s>"]
    tokens = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=[]))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    # Not the model itself: the row of the padding token is set to zero on loading, in some.
    return family.from_pretrained(directory, local_files_only=True, dtype=torch.float32).eval()


def greedy(model: Any, prompt: list[int]) -> tuple[list[int], list[float]]:
    """transformers' own tokens and their log-probabilities."""
    import torch

    with torch.no_grad():
        out = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            do_sample=False,
            max_new_tokens=TOKENS,
            eos_token_id=None,
            pad_token_id=0,
            return_dict_in_generate=True,
            output_logits=True,
        )
    tokens = out.sequences[0, len(prompt) :].tolist()
    chosen = zip(out.logits, tokens, strict=True)
    return tokens, [float(torch.log_softmax(logits[0].double(), -1)[token]) for logits, token in chosen]


def run_row(row: str) -> dict[str, str]:
    """What each backend makes of a row, and how far its conversion was from the model."""
    from unspool.backends.openvino import conversion_check
    from unspool.decoding.load import load

    found: dict[str, str] = {}
    worst: dict[str, float] = {}
    refuse = conversion_check.refuse_difference

    def recorded(compared: Any, subject: str, *others: Any) -> None:
        values = list(compared)
        worst[subject] = max(worst.get(subject, 0.0), *(value.difference for value in values))
        refuse(iter(values), subject, *others)

    conversion_check.refuse_difference = recorded
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["UNSPOOL_CACHE"] = str(Path(temporary) / "cache")
        directory = Path(temporary) / "model"
        directory.mkdir()
        reference = make(row, directory)
        for backend, options in BACKENDS.items():
            try:
                model = load(str(directory), backend=backend, **options)
                count = min(100, model.language_model.max_length - TOKENS)
                half = [3 + (7 * i * i + 5 * i) % 380 for i in range(-(-count // 2))]
                prompt = (half + half)[:count]  # what comes again is drafted
                tokens, expected = greedy(reference, prompt)
                outcomes = []
                for method in METHODS:
                    result = model.generate(
                        prompt, method=method, max_new_tokens=TOKENS, eos_token_id=[], logprobs=True
                    )
                    error = max(abs(a - b) for a, b in zip(result.logprobs, expected, strict=True))
                    outcomes.append(
                        "WRONG tokens"
                        if result.token_ids != tokens
                        else f"same {error:.0e}"
                        if error < BOUND
                        else f"WRONG probabilities {error:.1g}"
                    )
                found[backend] = max(outcomes)
                if len(prompt) < 100:
                    found[backend] += f" ({len(prompt)} ids)"
            except UnspoolError as error:
                found[backend] = f"refused: {error}".replace(str(directory), "model")
                if "\n" in str(error):
                    found[backend] = f"CRASH: more than one line: {error}"
            except Exception as error:
                found[backend] = f"CRASH: {type(error).__name__}: {error}"
    for subject, difference in worst.items():
        found[subject] = f"{difference:.1e}" if math.isfinite(difference) else "infinite"
    return found


def in_process(row: str, seconds: float) -> dict[str, str]:
    """``run_row`` in a process of its own; one that dies or takes too long is a crash.

    Forked, since importing the libraries takes longer than a row; nothing is computed in the parent.
    """
    receiver, sender = _FORK.Pipe(duplex=False)
    process = _FORK.Process(target=_send, args=(sender, row), daemon=True)
    process.start()
    sender.close()
    try:
        if not receiver.poll(seconds):
            return dict.fromkeys(BACKENDS, f"CRASH: no answer after {seconds:.0f} seconds")
        result: dict[str, str] = receiver.recv()
        return result
    except EOFError:
        process.join()
        return dict.fromkeys(BACKENDS, f"CRASH: the process ended with code {process.exitcode}")
    finally:
        process.kill()
        process.join()


def _send(sender: Any, row: str) -> None:
    sender.send(run_row(row))


def is_fault(outcome: str) -> bool:
    """Whether a row's outcome is neither *same* nor one line of refusal."""
    return not outcome.startswith(("same", "refused: "))


def markdown(facts: dict[str, Any], rows: dict[str, dict[str, str]]) -> str:
    outcomes = [row.get(backend, "") for row in rows.values() for backend in BACKENDS]
    counts = {
        "same": sum(outcome.startswith("same") for outcome in outcomes),
        "refused": sum(outcome.startswith("refused") for outcome in outcomes),
        "faults": sum(map(is_fault, outcomes)),
    }
    header = ("architecture", "transformers", "openvino, fp32", "traced form", "graph")
    body = [
        (name, row["transformers"], row["openvino"], row.get("the traced form", ""), row.get("the graph", ""))
        for name, row in rows.items()
    ]
    return "\n\n".join(
        (
            "# Architectures",
            (
                "Random checkpoints of four layers, continued by 12 greedy tokens plainly and with `prompt_lookup`, "
                "against transformers' own `generate`. *same*: all tokens are equal; the figure is the largest "
                "difference of a log-probability. The last two columns are the largest differences that the conversion "
                "found, of the traced form from the model's own forward and of the graph from the traced form, as "
                "parts of the range of the values; 1e-3 and more is refused."
            ),
            f"{counts['same']} same, {counts['refused']} refused, {counts['faults']} faults.",
            common.table(header, body),
            common.describe(facts),
            "`python benchmarks/architectures.py --markdown benchmarks/architectures.md --json "
            "benchmarks/architectures.json`",
        )
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=[], help="rows to make, by name; all by default")
    parser.add_argument("--again", action="store_true", help="make rows again that the JSON file holds")
    parser.add_argument("--seconds", type=float, default=600, help="limit of a row (default: 600)")
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if unknown := set(arguments.only) - set(ROWS):
        raise UnspoolError(f"no row {sorted(unknown)[0]!r}; known: {', '.join(ROWS)}")
    common.check_outputs(arguments.markdown, arguments.json)
    facts = about()
    done: dict[str, dict[str, str]] = {}
    if arguments.json and arguments.json.is_file():
        held = json.loads(arguments.json.read_text("utf-8"))
        if held["about"]["versions"] == facts["versions"]:
            done = held["rows"]
    import_libraries()
    for row in arguments.only or ROWS:
        if row in done and not arguments.again:
            continue
        start = time.perf_counter()
        done[row] = in_process(row, arguments.seconds)
        common.say(f"{row}: {done[row]} ({time.perf_counter() - start:.0f} s)")
        rows = {name: done[name] for name in ROWS if name in done}
        if arguments.json:
            common.write(arguments.json, json.dumps({"about": facts, "rows": rows}, indent=1) + "\n")  # to resume from
    rows = {name: done[name] for name in ROWS if name in done}
    common.publish(markdown(facts, rows), {"about": facts, "rows": rows}, arguments.markdown, arguments.json)
    return int(any(is_fault(row.get(backend, "")) for row in rows.values() for backend in BACKENDS))


if __name__ == "__main__":
    common.run(main)
