"""The pages of a real story: requests, errors, accessibility, size, time to build; and an index of thousands of runs.

python tests/benchmarks/pages.py [OUT]

OUT is a folder that `prodkit lifecycle --out OUT` has filled; without it the committed outputs of the seven notebooks
stand in. Needs a chromium and the extra [test]. One report of each notebook is opened with the network off, in light
and dark, at 1,200 and 390 pixels, then the site of OUT; last an index of 5,000 runs, whose filter is timed in the
browser from a key to the next frame.
"""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import nbformat
from browsing import CHROMIUM, visit
from playwright.sync_api import sync_playwright
from test_pages import account, executed

from prodkit.markup import prepare
from prodkit.pages import Site, write_site
from prodkit.params import NOTEBOOKS
from prodkit.report import report
from prodkit.store.history import Champion

FRAMES = """
async (texts) => {
  const field = document.getElementById("words"), spent = [];
  for (const text of texts) {
    await new Promise(done => requestAnimationFrame(() => setTimeout(done)));
    const start = performance.now();
    field.value = text;
    field.dispatchEvent(new Event("input"));
    document.body.getBoundingClientRect();  // what was changed is laid out now
    await new Promise(done => requestAnimationFrame(() => setTimeout(done)));
    spent.push(performance.now() - start);
  }
  return spent;
}
"""


def newest(out, name):
    """Notebook and result of the last run of this notebook, or what is committed."""
    found = (
        sorted(out.glob(f"runs/{name}-*/result.json"), key=lambda path: path.stat().st_mtime_ns)
        if out
        else []
    )
    if not found:
        return executed(name), account(name)
    return nbformat.read(found[-1].parent / "notebook.ipynb", as_version=4), json.loads(found[-1].read_text())


def tried(browser, page):
    """Requests, console errors, grave findings of axe-core, and sideways scrolling over all four looks."""
    asked = said = grave = wide = 0
    for scheme in ("light", "dark"):
        for width in (1200, 390):
            seen = visit(browser, page, color_scheme=scheme, viewport={"width": width, "height": 900})
            asked, said, grave = asked + len(seen.asked), said + len(seen.said), grave + len(seen.grave())
            wide += seen.page.evaluate("document.documentElement.scrollWidth > window.innerWidth")
            seen.page.context.close()
    return asked, said, grave, wide


def main():
    """Print one line a page."""
    out = Path(sys.argv[1]) if sys.argv[1:] else None
    scratch = Path(tempfile.mkdtemp())
    pages = {}
    prepare()  # as a run does, while its kernel works
    for name in NOTEBOOKS:
        spent = []
        for _ in range(5):
            notebook, document = newest(out, name)
            start = time.perf_counter()
            html = report(notebook, document, previous=document)
            spent.append(time.perf_counter() - start)
        (scratch / f"{name}.html").write_text(html)
        pages[scratch / f"{name}.html"] = statistics.median(spent)
    if out:
        start = time.perf_counter()
        index = write_site(out, f"sqlite:///{out / 'store.db'}", str(out / "artifacts"))
        spent = time.perf_counter() - start
        pages |= dict.fromkeys([index, *sorted(out.glob("versions/*.html"))], spent)
    runs = [
        account(name, number, outcome=("pass", "fail", "inconclusive")[number % 3])
        for number in range(5000 // 7 + 1)
        for name in NOTEBOOKS
    ][:5000]
    start = time.perf_counter()
    many = scratch / "many.html"
    many.write_text(Site(runs, [], [], Champion()).pages()["index.html"])
    built = time.perf_counter() - start
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        print(f"{'page':16}{'requests':>9}{'errors':>8}{'grave':>7}{'too wide':>9}{'kB':>7}{'built s':>9}")
        for page, spent in pages.items():
            counts = tried(browser, page)
            size = page.stat().st_size / 1000
            print(
                f"{page.stem:16}{counts[0]:9}{counts[1]:8}{counts[2]:7}{counts[3]:9}{size:7.0f}{spent:9.3f}",
                flush=True,
            )
        seen = visit(browser, many)
        shown = seen.page.evaluate("performance.getEntriesByType('navigation')[0].domComplete")
        texts = ["d", "dr", "dri", "drift", "drift fail", "", "score", "2013-04", "nothing like this", ""]
        spent = seen.page.evaluate(FRAMES, texts)
        size, median, worst = many.stat().st_size / 1e6, statistics.median(spent), max(spent)
        print(f"index of 5,000 runs: {size:.2f} MB, built in {built:.2f} s, there after {shown:.0f} ms")
        print(f"its filter: median {median:.0f} ms, worst {worst:.0f} ms of {len(texts)} (target 100)")
        browser.close()


if __name__ == "__main__":
    main()
