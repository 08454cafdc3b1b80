"""Random ways to fill a canvas: transforms, policies, schedules, stops, caches, options, and what stands on it."""

from __future__ import annotations

from random import Random
from typing import Any

from unspool.engine.canvas_request import CanvasOptions

INF = float("inf")
ORDERS = ("confidence", "margin", "entropy", "random", "left_to_right")


def parts(rng: Random, slots: int, delimiters: list[int], learned: bool) -> tuple[str, dict[str, Any]]:
    """Names joined by ``+`` and options by name.

    Args:
        slots: of the canvas.
        learned: whether a filter was trained for the model.
    """
    choose = rng.choice
    policies: dict[str, dict[str, Any]] = {
        "top_k": {"tokens_per_step": choose([1, 2, 3, 5, 24]), "order": choose(ORDERS)},
        "threshold": {"threshold": choose([0.0, 0.3, 0.9, 1.0, 1.01, INF, -1.0])},
        "factor": {"factor": choose([1e-9, 0.3, 1.0, 2.0, 50.0])},
        "entropy_threshold": {"threshold": choose([-1.0, 0.0, 0.1, 0.5, 3.0])},
        "eb_sampler": {"gamma": choose([0.0, 0.01, 0.1, 1.0, 100.0])},
        "localleap": {
            "threshold": choose([0.9, 0.95, 0.6]),
            "relaxed_threshold": choose([0.0, 0.3, 0.6]),
            "radius": choose([0, 1, 4, 100]),
        },
    }
    if learned:
        policies["learn2pd"] = {"threshold": choose([0.0, 0.5, 0.96, 1.5])}
    divisors = [length for length in range(1, slots + 1) if slots % length == 0]
    schedules: dict[str, dict[str, Any]] = {
        "fixed_blocks": {"block_length": choose([*divisors, None])},
        "adablock": {
            "delimiter_threshold": choose([0.0, 0.3, 0.9, INF]),
            "block_length": choose([1, 3, 8, 32, 1000]),
            "window": choose(["canvas", "generated"]),
            "delimiter_ids": choose([None, delimiters]),
        },
    }
    scale = choose([0.0, 0.25, 1.0, 4.0, INF])
    bars = [scale * bar if scale else -1.0 for bar in (7.5, 5.0, 2.5)]
    answer = choose([None, (0, min(3, slots)), (slots // 2, slots)])
    stops: dict[str, dict[str, Any]] = {
        "prophet": {"high": bars[0], "middle": bars[1], "low": bars[2], "answer": answer if slots > 1 else None},
        "static_stop": {"passes": choose([1, 2, 7, 50])},
    }
    credit = choose(
        [{}, {"alpha": 0.0}, {"parameter_free": True}, {"kept": 1}, {"alpha": 5.0, "beta": 1.0, "gamma": 2.0}]
    )
    chosen: dict[str, dict[str, Any]] = {}
    for chance, kind in ((0.9, policies), (0.4, {"credit": credit}), (0.7, schedules), (0.35, stops)):
        if rng.random() < chance:
            name = choose(list(kind))
            chosen[name] = kind[name]
    names = list(chosen) or ["threshold"]
    rng.shuffle(names)
    return "+".join(names), chosen


def settings(rng: Random, plain: bool) -> CanvasOptions:
    """Options of a canvas.

    Args:
        plain: without what may cut the canvas.
    """
    return CanvasOptions(
        temperature=rng.choice([0.0, 0.0, 0.7, 1.5]),
        seed=rng.choice([0, 1, 7, 2**40]),
        cache=rng.choice(["none", "none", "prefix", "dual"]),
        stop_at_eos=rng.random() < 0.2,
        truncate_at_eos=None if plain or rng.random() < 0.8 else rng.choice([0.0, 0.5]),
        guidance_scale=rng.choice([0.0, 0.0, 0.0, 0.5]),
    )
