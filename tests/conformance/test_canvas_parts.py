"""Every registered part of the denoise loop, alone and with all others, on arbitrary logits."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest

from tests.methods.diffusion.mocks import Whatever
from tests.specs import canvas
from unspool import methods
from unspool.engine.canvas_request import Cache, CanvasOptions, CanvasRequest
from unspool.engine.denoise import denoise
from unspool.engine.trace import CanvasEvent, Event
from unspool.errors import UnspoolError
from unspool.methods import Resources
from unspool.methods._compose import chosen, composed
from unspool.methods.diffusion.learn2pd import FILE, UnmaskFilter

PARTS = {name: method for name, method in methods.methods().items() if method.kind.on_canvas}
AROUND = Resources(delimiters=lambda: [0, 1])
GIVEN = [None, None, 2, None, None, 4, 4, None, None, None, 1, None]


@pytest.fixture(autouse=True)
def filter_beside_the_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """For what is trained for a model: any filter does here."""
    rng = np.random.default_rng(0)
    shapes = ((12, 12), 12, (12, 12), 12)
    UnmaskFilter(*(rng.normal(size=shape).astype(np.float32) for shape in shapes)).save(tmp_path / FILE)
    monkeypatch.setitem(globals(), "AROUND", Resources(delimiters=lambda: [0, 1], directory=tmp_path))


def every_combination() -> list[str]:
    by_kind: dict[str, list[str]] = {}
    for method in PARTS.values():
        by_kind.setdefault(method.kind, []).append(method.name)
    return ["+".join(names) for names in product(*by_kind.values())]


def run(names: str, cache: Cache, temperature: float, rows: int = 1) -> tuple[list[list[int]], list[CanvasEvent]]:
    model, events = Whatever(eos_token_id=5), list[Event]()
    parts = composed(names, AROUND)
    options = CanvasOptions(temperature=temperature, seed=3, cache=cache)
    prompts = [[3, 1], [2], [0, 4, 4]][:rows]
    slots = denoise(model, [CanvasRequest(p, GIVEN, parts(), options) for p in prompts], events.append)
    return slots, [event for event in events if isinstance(event, CanvasEvent)]


@pytest.mark.parametrize(
    ("names", "cache", "temperature"),
    [
        *product(PARTS, ["none", "dual"], [0.0, 0.8]),
        *((names, "prefix", 0.8) for names in every_combination()),
    ],
)
def test_canvases_are_filled_and_what_was_given_stays(names: str, cache: Cache, temperature: float) -> None:
    (slots,), events = run(names, cache, temperature)
    assert all(0 <= token < 6 for token in slots), "a mask is left"
    assert all(token == given for token, given in zip(slots, GIVEN, strict=True) if given is not None)
    filled = [slot for event in events for slot in event.committed]
    assert sorted(filled) == [slot for slot, given in enumerate(GIVEN) if given is None], "committed once each"
    assert all(event.committed for event in events), "a pass in vain"
    assert run(names, cache, temperature)[0] == [slots], "another run differs"


@pytest.mark.parametrize("names", PARTS)
def test_rows_of_a_batch_equal_the_row_alone(names: str) -> None:
    together, _ = run(names, "dual", 0.8, rows=3)
    assert together[:1] == run(names, "dual", 0.8)[0]
    assert together[:2] == run(names, "dual", 0.8, rows=2)[0]


def test_open_slots_of_the_loop_get_the_defaults() -> None:
    assert run("credit", "none", 0.0) == run("fixed_blocks+threshold+credit", "none", 0.0)


def test_options_go_to_the_method_that_they_name() -> None:
    one = composed("top_k:tokens_per_step=4+fixed_blocks:block_length=6", AROUND)
    events: list[Event] = []
    denoise(Whatever(), [CanvasRequest([3], [None] * 12, one())], events.append)
    assert [len(event.committed) for event in events if isinstance(event, CanvasEvent)] == [3, 3, 3, 3]
    assert one().policy is not one().policy, "parts keep state, so each canvas needs its own"


@pytest.mark.parametrize(
    ("names", "values", "message"),
    [
        ("treshold", {}, "did you mean 'threshold'"),
        ("suffix", {}, "unknown method for canvases 'suffix'"),
        ("threshold+factor", {}, "factor and threshold both fill the slot 'unmask'"),
        ("credit+credit", {}, "credit and credit both fill"),
        ("threshold", {"threshold": {"treshold": 0.5}}, "unknown option of threshold 'treshold'"),
        ("fixed_blocks", {"fixed_blocks": {"block_length": 0}}, "block_length must be at least 1"),
    ],
)
def test_mistakes_are_told_before_any_work(names: str, values: dict[str, dict[str, object]], message: str) -> None:
    with pytest.raises(UnspoolError, match=message):
        composed(canvas(names, values), AROUND)


def test_a_model_without_newlines_has_no_adaptive_blocks() -> None:
    with pytest.raises(UnspoolError, match="no token of this model contains a newline"):
        composed("adablock", Resources())
    composed("adablock(delimiter_ids=[2])", Resources())


def test_a_method_that_is_trained_says_what_to_do_without() -> None:
    with pytest.raises(UnspoolError, match="unspool train unmask-filter"):
        composed("learn2pd", Resources())


def test_transforms_alone_may_be_several() -> None:
    assert [part.row.name for part in chosen(" credit + threshold ")] == ["credit", "threshold"]
