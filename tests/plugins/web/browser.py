"""Chromium without a screen, driven by Selenium."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("selenium", reason="needs selenium (pip install selenium)")

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

_ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--force-color-profile=srgb",
    "--hide-scrollbars",
    "--enable-unsafe-swiftshader",  # WebGL without a GPU
)
_PATIENCE_S = 40


class Browser:
    """A browser with what the tests do in it."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver
        self.requested: list[str] = []

    def open(self, address: str) -> None:
        self.driver.get(address)

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def wait(self, what: Callable[[], Any], message: str = "") -> Any:
        return WebDriverWait(self.driver, _PATIENCE_S, 0.05).until(lambda _: what(), message)

    def find(self, selector: str) -> WebElement:
        return self.wait(lambda: self.all(selector), f"nothing is {selector}")[0]

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        return str(self.run("return document.querySelector(arguments[0]).textContent", selector))

    def press(self, *keys: str) -> None:
        """Press keys, wherever the focus is."""
        ActionChains(self.driver).send_keys(*keys).perform()

    def point(self, selector: str, x: float, y: float, click: bool = False) -> None:
        """Point at a place of an element [CSS pixels from its upper left corner]."""
        element = self.find(selector)
        size = element.size
        chain = ActionChains(self.driver).move_to_element_with_offset(
            element, round(x - size["width"] / 2), round(y - size["height"] / 2)
        )
        (chain.click() if click else chain).perform()

    def row(self) -> str:
        """Row of the event on the page; empty before the first one, ``none`` after the last."""
        return str(self.run("return document.body.dataset.row ?? ''"))

    def wait_row(self, other_than: str = "") -> str:
        """Wait until another event than that is drawn."""
        self.wait(lambda: self.row() not in ("", other_than), f"still row {other_than!r}")
        return self.row()

    def network(self) -> list[str]:
        """Addresses that were asked for since the browser was started."""
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] in ("Network.requestWillBeSent", "Network.webSocketCreated"):
                parameters = message["params"]
                self.requested.append(parameters.get("request", parameters)["url"])
        return self.requested

    def complaints(self) -> list[str]:
        """Errors in the console: scripts that failed, what the security policy refused."""
        return [e["message"] for e in self.driver.get_log("browser") if e["level"] == "SEVERE"]

    def screenshot(self, path: Path) -> None:
        self.driver.save_screenshot(str(path))


@contextmanager
def start_browser(width: int = 1280, height: int = 860, scale: float = 1.0) -> Iterator[Browser]:
    """Start a browser; the test is skipped where there is none."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    driver_path = shutil.which("chromedriver")
    if chromium is None or driver_path is None:
        pytest.skip("needs chromium and chromedriver (Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (*_ARGUMENTS, f"--window-size={width},{height}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(driver_path))
    try:
        driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False},
        )
        yield Browser(driver)
    finally:
        driver.quit()
