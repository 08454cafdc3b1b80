"""Chromium for the tests of the viewer, and the traces that they open."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.trace.traces import canvas, recorded, toy
from unspool.trace import file as trace_file
from unspool.trace.viewer import page

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --window-size=1280,900"
)
Open = Callable[..., "Page"]


class Page:
    """A page of the viewer and what the tests ask of it."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def all(self, selector: str) -> list[Any]:
        return list(self.driver.find_elements("css selector", selector))

    def one(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def text(self, selector: str) -> str:
        return str(self.one(selector).get_attribute("textContent"))

    def actions(self) -> Any:
        from selenium.webdriver.common.action_chains import ActionChains

        return ActionChains(self.driver)

    def press(self, *keys: str) -> None:
        self.actions().send_keys(*keys).perform()

    def hover(self, element: Any) -> None:
        self.actions().move_to_element(element).perform()

    def run(self, script: str) -> Any:
        return self.driver.execute_script(script)

    def screen(self, width: int, height: int, colours: str = "light") -> None:
        command = self.driver.execute_cdp_cmd
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        command("Emulation.setDeviceMetricsOverride", size)
        command("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": colours}]})


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is missing: pip install selenium")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    chromedriver = shutil.which("chromedriver")
    if not chromium or not chromedriver:
        pytest.skip("chromium or chromedriver is missing (Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(chromedriver))
    yield started
    started.quit()


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``plain.jsonl`` and ``drafted.jsonl`` (the same text), ``warm.jsonl`` (another one), ``canvas.jsonl``."""
    made = tmp_path_factory.mktemp("traces")
    model = toy(made / "model")
    recorded(made / "plain.jsonl", model, method="plain")
    recorded(made / "drafted.jsonl", model)
    recorded(made / "warm.jsonl", model, method="suffix", temperature=1.5, seed=8)
    canvas(made / "canvas.jsonl", made / "plain.jsonl")
    return made


@pytest.fixture
def show(driver: Any, directory: Path, tmp_path: Path) -> Iterator[Open]:
    """Opens the page of some traces; afterwards the console must be empty."""

    def open_page(*traces: Path | str, width: int = 1280, height: int = 900, colours: str = "light") -> Page:
        html = tmp_path / "page.html"
        page.save(html, [trace_file.read(directory / trace) for trace in traces], [str(trace) for trace in traces])
        shown = Page(driver)
        shown.screen(width, height, colours)
        driver.get(html.as_uri())
        return shown

    driver.get_log("browser")
    yield open_page
    assert driver.get_log("browser") == []
