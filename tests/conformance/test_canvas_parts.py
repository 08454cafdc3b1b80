"""Parts of the denoise loop together; ``unspool check`` tests each alone and beside one other."""

from __future__ import annotations

import pytest

from tests.pairwise import pairwise
from tests.specs import canvas
from unspool import methods
from unspool.conformance import canvas as canvas_checks
from unspool.conformance.canvas_model import Whatever
from unspool.engine.canvas_request import CanvasRequest
from unspool.engine.denoise import denoise
from unspool.engine.method import SCHEDULE, STOP, TRANSFORM, UNMASK
from unspool.engine.trace import CanvasEvent, Event
from unspool.errors import UnspoolError
from unspool.methods import Resources, Row
from unspool.methods._compose import chosen, composed

KINDS = (UNMASK, SCHEDULE, TRANSFORM, STOP)
PARTS = [row for row in methods.of_kind() if row.kind.on_canvas]
AROUND = Resources(delimiters=lambda: [0, 1])


def run(names: str) -> object:
    return canvas_checks.run(names, AROUND, "none", 0.0)


@pytest.mark.parametrize("names", pairwise(*([row for row in PARTS if row.kind is kind] for kind in KINDS)))
def test_parts_of_all_kinds_fit_together(names: tuple[Row, ...]) -> None:
    with canvas_checks.around(*names) as resources:
        canvas_checks.filled("+".join(row.name for row in names), resources, "prefix", 0.8)


def test_open_slots_of_the_loop_get_the_defaults() -> None:
    assert run("credit") == run("fixed_blocks+threshold+credit")


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
    with pytest.raises(UnspoolError, match="unspool train learn2pd"):
        composed("learn2pd", Resources())


def test_transforms_alone_may_be_several() -> None:
    assert [part.row.name for part in chosen(" credit + threshold ")] == ["credit", "threshold"]
