"""A random checkpoint of one kind: made, loaded by both backends, and compared with transformers' own ``generate``."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

from unspool.errors import UnspoolError
from unspool.experiments._architectures import ROWS, SIZES

BACKENDS: dict[str, dict[str, Any]] = {"transformers": {}, "openvino": {"weights": "fp32"}}
METHODS = ("plain", "prompt_lookup")
TOKENS = 12
BOUND = 1e-3
"""In nats; a log-probability that differs by this much is a fault."""


def make(row: str, directory: Path, **more: Any) -> Any:
    """The row's model, saved in ``directory`` with a tokenizer of bytes, and loaded by transformers from there.

    Args:
        more: settings beyond the row's.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    kind, options = ROWS[row]
    config = AutoConfig.for_model(kind, **{**SIZES, **options, **more})
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
    """The outcome of a row on each backend, and the error of its conversion."""
    from unspool.backends.openvino import conversion_check

    found: dict[str, str] = {}
    worst: dict[str, float] = {}
    refuse: Any = conversion_check.refuse_difference

    def recorded(compared: Any, subject: str, *others: Any) -> None:
        values = list(compared)
        worst[subject] = max(worst.get(subject, 0.0), *(value.difference for value in values))
        refuse(iter(values), subject, *others)

    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary) / "model"
        directory.mkdir()
        with (
            patch.object(conversion_check, "refuse_difference", recorded),
            patch.dict(os.environ, UNSPOOL_CACHE=str(Path(temporary) / "cache")),
        ):
            reference = make(row, directory)
            for backend in BACKENDS:
                found[backend] = _outcome(reference, directory, backend)
    for subject, difference in worst.items():
        found[subject] = f"{difference:.1e}" if math.isfinite(difference) else "infinite"
    return found


def _outcome(reference: Any, directory: Path, backend: str) -> str:
    """``same`` with the largest difference, ``refused: `` with the reason, or a fault in capitals."""
    from unspool.decoding.load import load

    try:
        model = load(str(directory), backend=backend, **BACKENDS[backend])
        count = min(100, model.language_model.max_length - TOKENS)
        half = [3 + (7 * i * i + 5 * i) % 380 for i in range(-(-count // 2))]
        prompt = (half + half)[:count]  # repeated ids are drafted
        tokens, expected = greedy(reference, prompt)
        outcomes = []
        for method in METHODS:
            result = model.generate(prompt, method=method, max_new_tokens=TOKENS, eos_token_id=[], logprobs=True)
            error = max(abs(a - b) for a, b in zip(result.logprobs or [], expected, strict=True))
            if result.token_ids != tokens:
                outcomes.append("WRONG tokens")
            else:
                outcomes.append(f"same {error:.0e}" if error < BOUND else f"WRONG probabilities {error:.1g}")
        worst = next((outcome for outcome in outcomes if is_fault(outcome)), max(outcomes))
        return worst + (f" ({len(prompt)} ids)" if len(prompt) < 100 else "")
    except UnspoolError as error:
        if "\n" in str(error):
            return f"CRASH: more than one line: {error}"
        return f"refused: {error}".replace(str(directory), "model")
    except Exception as error:
        return f"CRASH: {type(error).__name__}: {error}"


def in_process(row: str, seconds: float) -> dict[str, str]:
    """``run_row`` in a separate process; one that dies or takes too long is a crash.

    A server that has imported the libraries forks it, since importing them takes longer than a row.
    """
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload([f"{__package__}._architecture_libraries"])
    receiver, sender = server.Pipe(duplex=False)
    process = server.Process(target=_send, args=(sender, row), daemon=True)
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
