"""Results made up for the tests: a benchmark with all peers, and a proof with ties and a fault."""

from __future__ import annotations

import random
from typing import Any

from unspool.bench.result import Bench, Run
from unspool.proof.result import Difference, MethodProof, NoisePoint, Proof

CATEGORIES = ("arithmetic", "chat", "code_edit", "json_extraction", "summarise", "translation_of_a_glossary")
# Cost of a pass against plain decoding's, and accepted tokens a pass in each category.
METHODS = {
    "plain": (1.0, (1, 1, 1, 1, 1, 1)),
    "auto": (1.06, (1.5, 1.2, 3.6, 2.4, 2.9, 1.35)),
    "suffix": (1.22, (1.25, 1.1, 3.9, 2.2, 2.7, 1.2)),
    "token_recycling": (1.62, (2.0, 1.8, 2.4, 2.3, 2.3, 1.9)),
}
SOURCES = {
    "plain": ["model"],
    "auto": ["model", "suffix", "token_recycling", "prompt_lookup"],
    "suffix": ["model", "suffix"],
    "token_recycling": ["model", "token_recycling"],
}
# Speed against plain decoding.
PEERS = {"llama_cpp": 1.17, "openvino_genai": 1.02, "transformers": 0.24}
ABOUT: dict[str, Any] = {
    "date": "2026-11-23T00:25:51+00:00",
    "machine": {
        "cpu": "AMD EPYC",
        "physical_cores": 2,
        "logical_cores": 2,
        "memory_gb": 25.3,
        "system": "Linux x86_64",
        "load_average_1min": 0.31,
    },
    "versions": {"python": "3.11.7", "unspool": "0.1.0", "openvino": "2026.4.1", "llama-cpp-python": "0.3.36"},
}
BENCH_COMMAND = (
    "unspool bench -m qwen2.5-coder-0.5b --methods auto,suffix,token_recycling --suite mixed --repeats 2 "
    "--peers transformers,llama_cpp,openvino_genai --json bench.json --html bench.html"
)


def _run(contestant: str, category: str, number: int, repeat: int, rng: random.Random) -> Run:
    tokens = rng.randint(40, 128)
    base: dict[str, Any] = {
        "contestant": contestant,
        "prompt": f"{category}-{number}",
        "category": category,
        "repeat": repeat,
        "token_ids": list(range(tokens)),
        "text": "…",
        "quality": float(number % 5 > 0) if category == "json_extraction" else None,
    }
    if contestant in PEERS:
        speed = 31.5 * PEERS[contestant] * rng.uniform(0.93, 1.07)
        return Run(**base, first_seconds=0.4, seconds=(tokens - 1) / speed, timed_tokens=tokens - 1)
    cost, accepted = METHODS[contestant]
    mean = accepted[CATEGORIES.index(category)] * (rng.uniform(0.75, 1.35) if contestant != "plain" else 1)
    passes = max(1, round(tokens / mean))
    seconds = passes * 0.0317 * cost * rng.uniform(0.96, 1.04)
    drafts = [name for name in SOURCES[contestant] if name != "model"]
    guessed = max(0, tokens - passes) if drafts else 0
    shares = {name: guessed // len(drafts) for name in drafts}
    keep, spent, depths = {"suffix": (0.5, 0.9, 9), "auto": (0.6, 1.2, 7)}.get(contestant, (0.7, 3.1, 4))
    return Run(
        **base,
        first_seconds=0.31 * rng.uniform(0.9, 1.1),
        seconds=seconds * (tokens - 1) / tokens,
        timed_tokens=tokens - 1,
        passes=passes,
        decode_seconds=seconds,
        scoring_seconds=seconds * rng.uniform(0.94, 0.98),
        by_depth=[[int(passes * keep * 0.5**d), int(passes * spent * 0.6**d)] for d in range(depths)] if drafts else [],
        by_source={"model": tokens - sum(shares.values()), **shares},
    )


def bench(seed: int = 0, prompts: int = 12, repeats: int = 2) -> Bench:
    """Six categories, plain decoding, three methods and three peers."""
    rng = random.Random(seed)
    runs = [
        _run(contestant, category, number, repeat, rng)
        for repeat in range(repeats)
        for category in CATEGORIES
        for number in range(prompts)
        for contestant in (*METHODS, *PEERS)
    ]
    total = len(CATEGORIES) * prompts * repeats
    own = {"backend": "openvino", "weights": "int8", "threads": "2", "precision": "f32"}
    weights = {"llama_cpp": "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf", "transformers": "float32"}
    return Bench(
        about=ABOUT,
        command=BENCH_COMMAND,
        model="qwen2.5-coder-0.5b",
        suite="mixed",
        settings={
            **dict.fromkeys(METHODS, own),
            **{name: {"weights": weights.get(name, "int8"), "threads": "2"} for name in PEERS},
        },
        options={"limit": None, "repeats": repeats, "seed": 0, "max_new_tokens": 128, "temperature": 0.0},
        left_out={"vllm": "not installed; pip install vllm"},
        curve={
            "nodes": [1, 2, 4, 8, 12, 16, 24, 32, 48, 64],
            "lengths": [32, 256, 1024],
            "ms": [
                [25.8, 26.4, 27.0, 29.1, 33.5, 41.5, 60.2, 71.0, 118.4, 131.2],
                [28.0, 28.3, 28.9, 28.9, 34.0, 44.8, 62.1, 73.3, 121.0, 139.9],
                [35.2, 36.0, 37.2, 39.1, 45.6, 57.0, 75.3, 88.2, 140.2, 162.7],
            ],
            "switch_ms": 9.3,
            "padded": True,
        },
        memory={name: (900 + 150 * i) * 2**20 for i, name in enumerate((*METHODS, *PEERS))},
        verdicts={
            "auto": {"identical": total, "ties": 0, "faults": 0},
            "suffix": {"identical": total, "ties": 0, "faults": 0},
            "token_recycling": {"identical": total - 3, "ties": 3, "faults": 0},
        },
        runs=runs,
    )


def proof() -> Proof:
    """Two ties of one method, a fault of another, a test of distributions and a lossy method."""
    tie = Difference(3, 0, 17, 284, 991, 0.00008, 0.00008, "tie")
    ended = Difference(11, 7, 96, None, 15, None, None, "tie")
    fault = Difference(5, 0, 2, 40, 41, 1.75, 2.5, "fault")
    return Proof(
        about=ABOUT,
        command="unspool prove -m smollm2-135m --backend transformers --methods all --json proof.json",
        model="smollm2-135m",
        settings={"backend": "transformers", "torch": "2.13.0+cpu", "precision": "f32"},
        noise=[NoisePoint(1, 0.0, 0.0)] + [NoisePoint(2**i, 0.00004 * i, 0.000006 * i) for i in range(1, 7)],
        rows=[
            MethodProof("auto", "identical", "identity", 0.0, 24, 24, 3072, 0, 0),
            MethodProof("auto", "identical", "identity", 1.0, 24, 24, 2961, 0, 0),
            MethodProof("suffix", "identical", "identity", 0.0, 24, 22, 2817, 2, 0, [tie, ended]),
            MethodProof("token_recycling", "identical", "identity", 0.0, 24, 23, 2955, 0, 1, [fault]),
            MethodProof(
                "lossless",
                "same distribution",
                "distribution",
                1.0,
                6,
                0,
                12000,
                0,
                0,
                details={"smallest_p_value": 0.083, "draws": 2000},
            ),
            MethodProof("typical", "lossy", "distance", 0.7, 24, 4, 611, 0, 0, details={"tokens_differing": 0.214}),
        ],
    )
