"""A real browser without a network, and what it has to say of a page."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs the extra [test]")

from playwright.sync_api import Browser, Page, sync_playwright  # noqa: E402 -- after it is known to be there

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium on this machine: apt-get install chromium"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium as the system has it; nothing is downloaded."""
    settings = {
        "executable_path": CHROMIUM,
        "args": ["--no-sandbox"],
    }  # which a container has often no room for
    with sync_playwright() as playwright, playwright.chromium.launch(**settings) as launched:
        yield launched


@dataclass
class Visit:
    """A page that was opened.

    Attributes:
        page: to go on with.
        asked: what it wanted from anywhere but itself.
        said: errors and warnings of its console, uncaught errors, dialogs.
    """

    page: Page
    asked: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def grave(self) -> list[str]:
        """What axe-core finds serious or critical: rule, and the element."""
        found = axe.Axe().run(self.page).response["violations"]
        return [
            f"{each['id']}: {each['nodes'][0]['html'][:120]}"
            for each in found
            if each["impact"] in ("serious", "critical")
        ]


def visit(browser: Browser, place: Path | str, **settings: Any) -> Visit:
    """Open a file, or an address, with the network off; close its ``page.context`` when done."""
    address = place.as_uri() if isinstance(place, Path) else place
    page = browser.new_context(**{"offline": isinstance(place, Path), **settings}).new_page()
    seen = Visit(page)
    page.on(
        "request",
        lambda each: None if each.url.startswith(("data:", address)) else seen.asked.append(each.url),
    )
    page.on(
        "console", lambda each: seen.said.append(each.text) if each.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda each: seen.said.append(str(each)))
    page.on("dialog", lambda each: (seen.said.append(f"dialog: {each.message}"), each.dismiss()))
    page.goto(address)
    return seen
