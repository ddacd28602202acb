"""A headless Chromium, and what a reader does with it."""

import base64
import io
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unicodedata import normalize

from pypdf import PdfReader
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
SWITCHES = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --hide-scrollbars
--disable-background-networking --disable-component-update --disable-sync""".split()


class Reader:
    """A browser with the report open."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, file: Path) -> None:
        """Open a report from disk and wait until it can be used."""
        self.driver.get(file.absolute().as_uri())
        self.until(lambda: self.ready is not None)

    @property
    def ready(self) -> int | None:
        """Milliseconds from the start of loading until the page could be used."""
        found = self.run("return document.documentElement.dataset.ready")
        return None if found is None else int(found)

    def run(self, script: str, *given: Any) -> Any:
        """What a script returns."""
        return self.driver.execute_script(script, *given)

    def until(self, holds: Callable[[], Any], seconds: float = 30) -> Any:
        """Wait until something holds, and give it."""
        return WebDriverWait(self.driver, seconds, 0.05).until(lambda _: holds())

    def one(self, css: str) -> Any:
        """The first element that fits."""
        return self.driver.find_element(By.CSS_SELECTOR, css)

    def all(self, css: str) -> list[Any]:
        """All elements that fit."""
        return self.driver.find_elements(By.CSS_SELECTOR, css)

    def text(self, css: str) -> str:
        """Text of an element."""
        return self.one(css).text

    def see(self, css: str) -> Any:
        """Scroll to an element, give it."""
        found = self.one(css)
        self.run("arguments[0].scrollIntoView({block: 'center'})", found)
        return found

    def point_at(self, element: Any) -> None:
        """Move the mouse over the middle of an element."""
        ActionChains(self.driver).move_to_element(element).perform()

    def click(self, element: Any) -> None:
        """Click where an element is, whatever lies on top."""
        ActionChains(self.driver).move_to_element(element).click().perform()

    def press(self, *keys: str) -> None:
        """Press keys, one after another, on what has the focus."""
        for key in keys:
            ActionChains(self.driver).send_keys(key).perform()

    def tab_to(self, css: str, most: int = 250) -> None:
        """Press Tab until an element that fits has the focus."""
        for _ in range(most):
            if self.run("return document.activeElement.matches(arguments[0])", css):
                return
            self.press(Keys.TAB)
        raise AssertionError(f"Tab never reaches {css}")

    def choose(self, css: str, value: str) -> None:
        """Choose an option of a select."""
        self.run(
            "const s = document.querySelector(arguments[0]); s.value = arguments[1];"
            "s.dispatchEvent(new Event('change'))",
            css,
            value,
        )

    def table(self, css: str) -> list[dict[str, Any]]:
        """Rows of a table: column -> its number, unrounded, where there is one, else its text."""
        return self.run(
            """const table = document.querySelector(arguments[0]);
            const names = [...table.querySelectorAll("thead th")].map((each) => each.textContent);
            const told = (cell) => {
              const data = cell.querySelector("data");
              return data ? Number(data.value) : cell.textContent;
            };
            return [...table.querySelectorAll("tbody tr")].map((row) =>
              Object.fromEntries([...row.children].map((cell, at) => [names[at], told(cell)])));""",
            css,
        )

    def printed(self) -> list[str]:
        """The text of every page that comes out of a printer, without space and ligatures."""
        found = self.driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
        paper = PdfReader(io.BytesIO(base64.b64decode(found["data"])))
        texts = [normalize("NFKC", each.extract_text()) for each in paper.pages]
        return ["".join(text.split()) for text in texts]

    def complaints(self) -> list[str]:
        """What the browser logged since it was last asked, warnings of the library aside."""
        return [
            entry["message"]
            for entry in self.driver.get_log("browser")
            if entry["level"] != "INFO" and "Channel order is inappropriate" not in entry["message"]
        ]

    def look(self, width: int, height: int = 1000, scheme: str = "light", media: str = "") -> None:
        """Set the size of the window, the system's colours and the medium."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"media": media, "features": features}
        )


@contextmanager
def reader() -> Iterator[Reader]:
    """A browser that is offline, with a profile of its own."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for switch in (*SWITCHES, f"--user-data-dir={profile}"):
            options.add_argument(switch)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
        try:
            offline = {"offline": True, "latency": 0}
            offline |= {"downloadThroughput": 0, "uploadThroughput": 0}
            driver.execute_cdp_cmd("Network.enable", {})
            driver.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
            found = Reader(driver)
            found.look(1400)
            yield found
        finally:
            driver.quit()
