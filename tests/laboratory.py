"""JupyterLab as users have it, for tests and benchmarks: a real server, and a real Chromium before it."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import nbformat
from browsing import CHROMIUM
from nbformat.reader import NotJSONError
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parent.parent

# Notes when a control was moved, and when the page beneath the control has been drawn anew and painted. Nothing polls
# meanwhile, which would take the browser's time from what is timed.
WATCH = """explorer => {
  const page = explorer.querySelector('.widget-html-content');
  window.expect = () => {
    window.began = null;
    window.took = new Promise((shown, late) => { window.show = shown; setTimeout(late, 20000, Error('no figure')); });
    window.took.catch(() => {});
  };
  window.expect();
  for (const kind of ['keydown', 'change'])
    explorer.addEventListener(kind, () => { window.began ??= performance.now(); }, true);
  new MutationObserver(() => requestAnimationFrame(() => setTimeout(() => {
    if (window.began !== null) window.show(performance.now() - window.began);
  }))).observe(page, {childList: true, subtree: true, characterData: true});
}"""


@contextmanager
def jupyterlab(folder: Path):
    """A server over copies of the notebooks in this folder; gives its address."""
    for part in ("notebooks", "params"):
        shutil.copytree(ROOT / part, folder / part)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    places = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    places += ("JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR")
    environment = {**os.environ, **{name: str(folder / "jupyter" / name.lower()) for name in places}}
    environment |= {"PRODKIT_OUT": str(folder / "outputs")}
    settings = {"ip": "127.0.0.1", "port": port, "root_dir": folder, "open_browser": False}
    command = [sys.executable, "-m", "jupyterlab", "--allow-root", "--IdentityProvider.token="]
    command += [f"--ServerApp.{name}={value}" for name, value in settings.items()]
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
    try:
        address = f"http://127.0.0.1:{port}"
        _wait(lambda: urllib.request.urlopen(f"{address}/api", timeout=2).status == 200, seconds=60)
        yield address
    finally:
        server.terminate()
        server.wait(timeout=30)


def _wait(ready, *, seconds):
    """What is found as soon as there is something; an error if there is nothing for so long."""
    until = time.monotonic() + seconds
    while True:
        try:
            if found := ready():
                return found
        except (OSError, NotJSONError):  # a file may be read while it is written
            pass
        if time.monotonic() > until:
            raise TimeoutError(f"not ready after {seconds} seconds")
        time.sleep(0.1)


@contextmanager
def chromium():
    """A page of the browser that is installed here."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield browser.new_page(viewport={"width": 1280, "height": 960})
        finally:
            browser.close()


LAST = """() => {
  const prompts = document.querySelectorAll('.jp-NotebookPanel:not(.lm-mod-hidden) .jp-CodeCell .jp-InputPrompt');
  return prompts.length ? prompts[prompts.length - 1].textContent : '';
}"""


def run_all(page, address: str, name: str, *, seconds: float = 240) -> None:
    """Open a notebook, and have all its cells run by the menu, as a user does; then save it."""
    page.goto(f"{address}/lab/tree/notebooks/{name}.ipynb?reset")
    page.locator(".jp-Notebook").wait_for(timeout=60_000)
    page.get_by_text(re.compile(r"\| Idle$")).wait_for(
        timeout=90_000
    )  # in the status bar: the kernel is there
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()
    page.wait_for_function(f"() => /[*]/.test(({LAST})())", timeout=30_000)
    page.wait_for_function(f"() => !/[*]/.test(({LAST})())", timeout=1000 * seconds)
    page.keyboard.press("Control+s")


def executed(folder: Path, name: str, *, seconds: float = 30) -> list:
    """The code cells of a notebook as JupyterLab has saved it, once all of them have run."""
    path = folder / "notebooks" / f"{name}.ipynb"

    def cells():
        return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]

    before = path.stat().st_mtime
    return _wait(
        lambda: (path.stat().st_mtime != before or time.time() - before < 5) and cells(), seconds=seconds
    )


def errors(cells) -> list[str]:
    """What cells have raised."""
    return [re.sub(r"\x1b\[[\d;]*m", "", f"{output.ename}: {output.evalue}")
            for cell in cells for output in cell.outputs if output.output_type == "error"]  # fmt: skip


def sliders(page):
    """The controls of the explorer that can be moved by a key, from top to bottom."""
    explorer = page.locator(".prodkit-explorer")
    explorer.wait_for(state="attached", timeout=20_000)
    explorer.scroll_into_view_if_needed()
    explorer.evaluate(WATCH)
    return explorer.locator(".noUi-handle, select").all()


def moved(page, control, *, forth: bool) -> tuple[float, str]:
    """Move a control a step: milliseconds until the new figure was painted, and what it shows."""
    page.evaluate("window.expect()")
    if control.evaluate("it => it.tagName") == "SELECT":
        control.select_option(index=2 if forth else 1)
    else:
        control.focus()
        at, low, high = (float(control.get_attribute(f"aria-value{end}")) for end in ("now", "min", "max"))
        control.press("ArrowRight" if (at < high if forth else at <= low) else "ArrowLeft")
    return page.evaluate("window.took"), page.locator(".prodkit-explorer svg").first.get_attribute(
        "aria-label"
    )
