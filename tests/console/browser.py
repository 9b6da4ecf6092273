"""A real Chromium from Debian's packages, driven by selenium, that reaches nothing but loopback."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from selenium.webdriver import ActionChains, Chrome, ChromeOptions, Keys
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from tests.fakes import eventually

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)  # fmt: skip


class Browser:
    """One tab. `url`: the gateway's."""

    def __init__(self, folder: Path) -> None:
        options = ChromeOptions()
        options.binary_location = CHROMIUM or ""
        for flag in (*FLAGS, f"--user-data-dir={folder}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = Chrome(options, Service(DRIVER))
        self.driver.set_page_load_timeout(900)
        self.url = ""
        self._trouble: list[str] = []
        self._hosts: set[str] = set()

    def open(self, url: str, at: str = "", width: int = 1440, height: int = 900) -> None:
        """The console as a new tab would show it: nothing kept in the session."""
        self.url = url
        self.size(width, height)
        self.driver.get("about:blank")
        self.driver.get(f"{url}/console{at}")

    def restart(self, at: str = "") -> None:
        """Forget the session, and load the page again."""
        self.driver.execute_script("sessionStorage.clear()")
        self.open(self.url, at)

    def size(self, width: int, height: int = 900, scheme: str = "light") -> None:
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        self.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def command(self, name: str, **given: Any) -> Any:
        return self.driver.execute_cdp_cmd(name, given)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def see(self, selector: str, text: str = "", seconds: float = 30) -> WebElement:
        """The first visible element of that selector which has this text, as soon as there is one."""

        def found() -> WebElement | None:
            script = (
                "return [...document.querySelectorAll(arguments[0])].find("
                "node => node.checkVisibility() && node.textContent.includes(arguments[1]))"
            )
            return self.driver.execute_script(script, selector, text)  # type: ignore[no-any-return]

        node: WebElement = eventually(found, seconds)
        return node

    def press(self, *keys: str) -> None:
        """Keys, to whatever has the focus."""
        ActionChains(self.driver).send_keys(*keys).perform()

    def chord(self, held: str, key: str) -> None:
        ActionChains(self.driver).key_down(held).send_keys(key).key_up(held).perform()

    def focused(self) -> dict[str, str]:
        """What has the focus: its tag, id, address, and whether its outline can be seen."""
        script = (
            "const node = document.activeElement; const seen = getComputedStyle(node);"
            "return {tag: node.localName, id: node.id, href: node.getAttribute('href') || '',"
            " outline: seen.outlineStyle, type: node.type || ''}"
        )
        found: dict[str, str] = self.driver.execute_script(script)
        return found

    def overflow(self) -> int:
        """By how many pixels the page is wider than its window."""
        script = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        return int(self.driver.execute_script(script))

    def trouble(self) -> list[str]:
        """What the browser complained of so far."""
        self._trouble += [line["message"] for line in self.driver.get_log("browser")]
        return self._trouble

    def hosts(self) -> set[str]:
        """Every host that was asked for anything."""
        for line in self.driver.get_log("performance"):
            message = json.loads(line["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                found = urlsplit(message["params"]["request"]["url"])
                if found.scheme in ("http", "https", "ws", "wss"):
                    self._hosts.add(found.netloc)
        return self._hosts

    def wait(self, condition: Callable[[], Any]) -> Any:
        return eventually(condition, 30)

    def close(self) -> None:
        self.driver.quit()


ENTER, TAB, CONTROL, DOWN = Keys.ENTER, Keys.TAB, Keys.CONTROL, Keys.ARROW_DOWN
