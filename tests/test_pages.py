"""Pages for people, in a real browser: they load nothing, run nothing of the data's, and can be read by all."""

import copy
import json
import re
import time
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from browsing import browser, needs_chromium, visit
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prodkit.decisions.answers import RESULT_MIME
from prodkit.errors import ParameterError
from prodkit.evidence import Evidence
from prodkit.markup import cells_html
from prodkit.pages import Site, comparison, drawing, periods, write_comparison, write_site
from prodkit.params import NOTEBOOKS
from prodkit.report import changes, report
from prodkit.runs.record import new_record
from prodkit.settings import project_folder
from prodkit.store.approvals import store_options
from prodkit.store.history import Champion, Event
from prodkit.store.registry import Store, Version

__all__ = ["browser"]

FOLDER = Path(__file__).parent.parent / "notebooks"
EVIL = (
    '<script>window.ran=1</script><img src=x onerror="window.ran=1"><svg onload=window.ran=1>\'"`|*</td></p>'
)


def executed(name):
    """A notebook of the kit with its committed outputs."""
    return copy.deepcopy(_read(name))


@cache
def _read(name):
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


@cache
def _recorded(name):
    shown = [output.get("data", {}) for cell in _read(name).cells for output in cell.get("outputs", [])]
    return next(data[RESULT_MIME] for data in shown if RESULT_MIME in data)


def account(name="drift", number=0, **said):
    """The result of a run: what its notebook has committed, and what is said here."""
    known = new_record(f"{name}-20130401-{number:010x}", name, {}, parent="", basis={"code": "c0de"})
    known |= _recorded(name) | {
        "status": "succeeded",
        "seconds": 1.5,
        "started": f"2026-01-01T00:{number:04d}+00:00",
    }
    return known | said


def decided(month, number, action="watch", version=1, **said):
    """The result of a rollback run about a month of 2013."""
    params = {"window": f"2013-{month:02d}-01/2013-{month + 1:02d}-01"}
    outputs = {"champion": version, "figures": {"roc_auc": 0.5 + month / 100}}
    return account("rollback", number, params=params, outputs=outputs, action=action, **said)


def version(number=1, **said):
    """A registered version."""
    manifest = {"task": "binary", "trained": "2013-01-01/2013-03-01", "holdout": "2013-03-01/2013-04-01"}
    manifest |= {"rows": 100, "data_digest": "d" * 64, "params": {}}
    manifest |= {"metrics": {"roc_auc": {"value": 0.7, "low": 0.6, "high": 0.8}}}
    return Version(number, "a" * 64, "place", 1000, manifest | said, quarantined=False)


def event(number, kind, about=1, generation=1, **said):
    """A line of the history."""
    texts = {"run_id": f"run-{number}", "actor": "prodkit", "reason": "it is better", "detail": {}} | said
    return Event(
        number, kind, about, generation, digest="", previous="", created_at="2026-01-01T00:00:00", **texts
    )


def kept(folder, *documents):
    """An outputs folder with these runs."""
    for document in documents:
        place = folder / "runs" / document["run_id"]
        place.mkdir(parents=True)
        (place / "result.json").write_text(json.dumps(document))
        (place / "report.html").write_text(report(executed(document["notebook"]), document))
        (place / "notebook.ipynb").write_text(json.dumps(executed(document["notebook"])))
    return folder


def test_the_page_of_a_version_tells_how_its_life_ended():
    """What put another version in its place stands on its page; what happened to that one later does not."""
    events = [event(1, "promote"), event(2, "promote", 2), event(3, "promote", 3)]
    pages = Site([], [version()], events, Champion(3, 2, 3)).pages()
    assert "replaced by version 2" in pages["versions/v1.html"]
    assert "replaced by version 3" not in pages["versions/v1.html"]


@needs_chromium
@pytest.mark.parametrize("name", sorted(NOTEBOOKS))
def test_a_report_asks_for_nothing_and_can_be_read_by_all(name, browser, tmp_path):
    """No request, no error, one title, nothing grave for axe-core, in light, dark and on a narrow screen; small."""
    page = tmp_path / "report.html"
    page.write_text(report(executed(name), account(name), previous=account(name, 1)))
    assert page.stat().st_size < 1_000_000
    seen = visit(browser, page, color_scheme="dark", viewport={"width": 390, "height": 800})
    assert (seen.asked, seen.said, seen.grave()) == ([], [], [])
    assert seen.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    counts = [seen.page.locator(tag).count() for tag in ("h1", "main", "html[lang=en]", "script")]
    assert counts == [1, 1, 1, 0]
    assert seen.page.locator("img:not([alt]), img[alt='']").count() == 0
    seen.page.emulate_media(color_scheme="light")
    seen.page.set_viewport_size({"width": 1200, "height": 800})
    if name in ("monitor", "validate"):  # they have all that the others have; the benchmark tries every page
        assert seen.grave() == []
    seen.page.context.close()


@needs_chromium
def test_the_first_screen_says_what_was_asked_found_and_changed(browser, tmp_path):
    """Question, verdict, window, version, digest, parameters and what changed stand above the fold of 900 pixels."""
    before, page = account("rollback", 1, outcome="pass", action="keep"), tmp_path / "report.html"
    now = account("rollback", 2, params={**account("rollback")["params"], "min_rows": 77})
    page.write_text(
        report(executed("rollback"), now, defaults=account("rollback")["params"], previous=before)
    )
    seen = visit(browser, page, viewport={"width": 1200, "height": 900}).page
    above = seen.evaluate(
        "[...document.querySelectorAll('h1, .eyebrow, .answer, .badge, dd, li, th')]"
        ".filter(e => e.getBoundingClientRect().bottom <= 900).map(e => e.textContent.trim()).join('\\n')"
    )
    wanted = [
        "Keep, roll back, retrain or hold?",
        now["params"]["window"],
        "sha256",
        "version",
        "min_rows: 77",
        "limit",
    ]
    assert [text for text in [*wanted, f"keep → {now['action']}"] if text not in above] == []
    seen.context.close()


@needs_chromium
def test_a_printed_report_cuts_nothing_and_leaves_code_out(browser, tmp_path):
    """On paper no table is wider than the page, and neither code nor what was folded away is there."""
    page = tmp_path / "report.html"
    page.write_text(report(executed("drift"), account("drift")))
    seen = visit(browser, page, viewport={"width": 700, "height": 900}).page  # A4 between its margins
    seen.emulate_media(media="print")
    assert seen.locator("details.code:visible").count() == 0
    wide = "[...document.querySelectorAll('table, img')].filter(e => e.getBoundingClientRect().right > 701).length"
    assert seen.evaluate(wide) == 0
    assert seen.pdf().startswith(b"%PDF")
    seen.context.close()


def hostile():
    """A notebook and its result with an attack in each place that data can reach."""
    notebook = executed("drift")
    notebook.cells[0].source = f"# {EVIL}\n\n{EVIL}"
    shown = [
        {"text/html": f"<table><tr><th>{EVIL}<td onclick='x'>{EVIL}</table>"},
        {"text/markdown": f"a {EVIL}\n\n| {EVIL} |\n|---|\n| {EVIL} |"},
        {"text/plain": EVIL, "text/latex": EVIL},
        {"image/svg+xml": "<svg onload='window.ran=1'><script>window.ran=1</script></svg>"},
        {"image/png": "iVBORw0KGgo="},
        {"text/html": "<iframe src='https://example.org'></iframe><a href='javascript:x'>y</a>"},
    ]
    about = {"image/png": {"alt": EVIL, "width": EVIL}}
    outputs = [nbformat.v4.new_output("display_data", data, metadata=about) for data in shown]
    outputs.append(nbformat.v4.new_output("stream", text=EVIL))
    traceback = [f"\x1b[31m{EVIL}", EVIL]
    outputs.append(nbformat.v4.new_output("error", ename=EVIL, evalue=EVIL, traceback=traceback))
    notebook.cells.append(nbformat.v4.new_code_cell(EVIL, outputs=outputs))
    item = Evidence(EVIL, "fail", 0.1, note=EVIL).to_dict()
    texts = dict.fromkeys(("action", "approval", "parent", "outcome", "started"), EVIL)
    return notebook, {
        **texts,
        "params": {"window": EVIL, EVIL: EVIL, "data": EVIL},
        "reasons": [EVIL],
        "evidence": [item, {**item, "name": "drill"}],
        "inputs": [{"name": EVIL, "digest": EVIL, "window": EVIL}],
        "outputs": {"champion": EVIL},
    }


@needs_chromium
def test_nothing_in_the_data_runs(browser, tmp_path):
    """Markup in names, levels, errors, parameters and outputs is text: on no page does it run or load anything."""
    notebook, evil = hostile()
    own = {**account("drift"), **evil}
    about = version(params={"model": EVIL}, trained=EVIL, environment={EVIL: EVIL}, importance={EVIL: 1.0})
    proposed = event(2, "propose", reason=EVIL, actor=EVIL, run_id=EVIL, detail={"action": EVIL})
    told = decided(4, 1, version=1, evidence=own["evidence"], action=EVIL)
    failed = {**own, "status": "failed", "notebook": EVIL}
    events = [event(1, "promote", reason=EVIL), proposed]
    pages = Site(
        [own, told, failed], [about], events, Champion(1, hold=EVIL, generation=1), options=EVIL
    ).pages()
    pages |= {"compared.html": comparison(own, failed, cells=(notebook.cells, notebook.cells))}
    pages |= {"failed.html": report(hostile()[0], {**own, "status": "failed"}, previous=told)}
    pages |= {"report.html": report(notebook, own, defaults={EVIL: ""}, previous=told)}
    for name, html in pages.items():
        place = tmp_path / name.replace("/", "-")
        place.write_text(html)
        seen = visit(browser, place)
        assert (name, seen.asked, seen.said) == (name, [], [])
        assert seen.page.evaluate("window.ran") is None
        assert "<script>window.ran=1</script>" in seen.page.inner_text("body")
        seen.page.context.close()


@needs_chromium
@pytest.mark.parametrize(
    "attack",
    ["<script>window.ran=1</script>", "<img src='https://example.org/x'>", "<b onclick='window.ran=1'>b"],
)
def test_the_fence_holds_where_escaping_would_fail(browser, tmp_path, attack):
    """What got into the page all the same is stopped by its Content-Security-Policy, on pages with a script, too."""
    for name, html in Site([account()], [], [], Champion()).pages().items():
        (tmp_path / name).write_text(html.replace("</main>", f"{attack}</main>"))
        seen = visit(browser, tmp_path / name)
        if "onclick" in attack:
            seen.page.locator("b[onclick]").first.click()
        assert seen.page.evaluate("window.ran") is None
        assert "Content Security Policy" in "".join(seen.said)
        assert seen.page.locator("#filter").is_visible()  # the page's own script runs
        seen.page.context.close()


class Parts(HTMLParser):
    """Tags and attributes of a piece of HTML."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes = set(), []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        """Note them."""
        self.tags.add(tag)
        self.attributes += attrs


PIECES = [
    *"<>/'\"= \n`*[]()|#&;:!-a",
    "<img src=",
    "onerror=",
    "javascript:",
    "<style>",
    "-->",
    "<!--",
    "<svg",
]
PIECES += ["script", "<table><td>", "</table>", "https://x.org", "data:image/png;base64,"]


@settings(suppress_health_check=[HealthCheck.too_slow])  # the first example loads nbconvert
@given(st.lists(st.sampled_from(PIECES), max_size=30))
def test_no_text_becomes_anything_that_acts(parts):
    """Whatever a cell puts out as HTML, Markdown or text, no tag or attribute is left that runs or loads."""
    text = "".join(parts)
    outputs = [
        nbformat.v4.new_output("display_data", {kind: text})
        for kind in ("text/html", "text/markdown", "text/plain")
    ]
    cells = [nbformat.v4.new_markdown_cell(text), nbformat.v4.new_code_cell(text, outputs=outputs)]
    found = Parts(cells_html(nbformat.v4.new_notebook(), cells))
    assert found.tags.isdisjoint(
        {"script", "style", "iframe", "object", "embed", "link", "meta", "base", "form", "svg", "input"}
    )
    for name, value in found.attributes:
        assert not name.startswith("on")
        assert name != "src" or value.startswith("data:image/")
        assert name != "href" or re.match(r"https?://|mailto:|#|[\w./-]+$", value)


def shown(*outputs):
    """A cell with these outputs as HTML."""
    cell = nbformat.v4.new_code_cell("x", outputs=list(outputs))
    return cells_html(nbformat.v4.new_notebook(), [cell]).split("</details>")[1].strip()


def display(**data):
    """An output that offers one thing as several kinds."""
    kinds = {"html": "text/html", "text": "text/plain", "markdown": "text/markdown"}
    return nbformat.v4.new_output(
        "display_data", {kinds.get(kind, f"image/{kind}"): text for kind, text in data.items()}
    )


def test_a_large_table_is_shown_by_its_first_rows_and_their_number():
    """A frame of 20,000 rows takes seconds at most, and the page says how many rows there are."""
    frame = pd.DataFrame({f"column {n}": range(20_000) for n in range(10)})
    began = time.perf_counter()
    html = shown(
        display(html=f"<p>before</p>{frame.to_html()}<p>after</p>"), display(html="<table><tr><td>1</table>")
    )
    assert time.perf_counter() - began < 5
    assert len(html) < 60_000
    assert "The first 100 of 20,000 rows." in html
    assert all(text in html for text in ("before", "after", "column 9", ">99<"))
    assert ">100<" not in html
    assert shown(display(html=pd.DataFrame({"a": range(100)}).to_html())).count("<tr") == 101
    text = shown(nbformat.v4.new_output("stream", text="x" * 3_000_000))
    assert len(text) < 60_000
    assert "2,950,000 characters are left out" in text


@pytest.mark.parametrize(
    "blank", ["<div id='p'></div><script>draw()</script>", "<style>a{}</style>\n&nbsp;", "<svg/>"]
)
@pytest.mark.parametrize("kind", ["png", "jpeg", "gif", "webp"])
def test_what_needs_a_script_is_shown_by_its_picture_or_text(blank, kind):
    """HTML of which nothing is left gives way to a picture, of any kind that browsers draw, or to the text."""
    assert f'src="data:image/{kind};base64,AAAA"' in shown(display(html=blank, text="plot", **{kind: "AAAA"}))
    assert shown(display(html=blank, text="<Plot>")) == "<pre>&lt;Plot&gt;</pre>"
    assert shown(display(html="<b>seen</b>", png="AAAA")) == "<b>seen</b>"


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("  5%\r 50%\r100%\n", "100%\n"),
        ("working...\rok\n", "okrking...\n"),
        ("a long line\r\x1b[2Kdone\n", "done\n"),
        ("a long line\rdone\x1b[K\n", "done\n"),
        ("one\r\ntwo\r\n", "one\ntwo\n"),
        ("abc\b\bX\n", "aXc\n"),
        ("\b\ba", "a"),
        ("\x1b[1;31mred\x1b[0m \x1b[38;2;1;2;3mx\x1b[m", "red x"),
        ("\x1b]8;;https://x.org\x1b\\link\x1b]8;;\x1b\\!", "link!"),
        ("\x1b]0;title\x07text", "text"),
        ("bell\x07 null\x00 form\x0c \x9b1mcsi \x7f\u202eabc\ttab", "bell null form csi abc\ttab"),
    ],
)
def test_text_stands_as_a_terminal_would_show_it(text, seen):
    """Returns, backspaces and erasures are applied; colours, links and control characters are taken out."""
    assert shown(nbformat.v4.new_output("stream", text=text)) == f"<pre>{seen}</pre>".replace(
        "\n</pre>", "\n</pre>"
    )
    assert f"<pre>{seen.strip()}" in shown(display(text=text)).replace("<pre>\n", "<pre>")


def test_a_stream_in_pieces_is_one():
    """A progress bar that came in many messages, with others between them, is one line in its final state."""
    bar = [nbformat.v4.new_output("stream", name="stderr", text=f"\r{n}%") for n in range(101)]
    words = [nbformat.v4.new_output("stream", name="stdout", text=f"{n}\n") for n in range(2)]
    html = shown(*bar[:50], words[0], *bar[50:], words[1])
    assert html == '<pre class="stderr">100%</pre><pre>0\n1\n</pre>'


@pytest.mark.parametrize(
    "data",
    [
        {"html": "<div>" * 200_000},
        {"html": "<div>x</div>" * 1_000_000},
        {"html": "<table><thead>" + 2 * f"<tr>{'<th></th>' * 20_000}</tr>" + "</table>"},
        {"markdown": "|a|b|\n|-|-|\n" + "|1|2|\n" * 20_000},
        {"markdown": "word *x* [a](b)\n\n" * 200_000},
        {"markdown": ">" * 20_000},
    ],
)
def test_nothing_keeps_a_page_waiting(data):
    """What is nested deep, very long or very wide takes seconds at most, and its text stands for it if need be."""
    began = time.perf_counter()
    html = shown(display(**data, text="in words"))
    assert time.perf_counter() - began < 10
    assert len(html) < 1_000_000
    assert html


def test_halves_of_characters_and_absent_parts_do_not_cost_the_page():
    """Lone surrogates and lists of lines, as other tools write them, are shown; nothing raises."""
    html = shown(display(text="a\ud800b"), display(html=["<b>", "x\udfff</b>"]), display(latex="x"))
    assert "a?b" in html
    assert "<b>x?</b>" in html


def test_a_figure_without_a_text_is_named_by_its_heading():
    """An image that says nothing of itself is told by where it stands; that of the kit says it itself."""
    picture = nbformat.v4.new_output("display_data", {"image/png": "iVBORw0KGgo="})
    cells = [nbformat.v4.new_markdown_cell("## How late"), nbformat.v4.new_code_cell("x", outputs=[picture])]
    html = report(nbformat.v4.new_notebook(cells=cells), account(notebook="own"))
    assert 'alt="Figure 1: How late"' in html
    assert "Champion" in report(executed("drift"), account("drift")).split('<img alt="')[2][:90].title()


def test_a_failed_run_looks_like_it():
    """A run that ended early says so in its verdict, with its cells in their order, none folded away."""
    notebook = executed("drift")
    for cell in notebook.cells:
        cell.metadata["papermill"] = {"status": "failed" if "finding(" in cell.source else "completed"}
    html = report(notebook, account("drift", status="failed", outcome="error", reasons=["KeyError: temp"]))
    assert "This run failed after" in html
    assert "KeyError: temp" in html
    assert '<details class="code" id="stopped" open><summary>code: failed</summary>' in html
    assert '<a href="#stopped">' in html
    assert '<details class="fold">' not in html


def test_a_proposal_says_how_to_approve_it(tmp_path):
    """The report of a proposed action names the command, with the store if that is not the usual one."""
    options = store_options(tmp_path, "postgresql://db/x", "outputs/artifacts")
    html = report(executed("rollback"), account("rollback", approval="proposed"), options=options)
    command = f"models approve rollback-20130401-{0:010x} --name YOU --reason WHY --out {tmp_path} --store postgresql://db/x"
    assert f"<code>prodkit {command}</code>" in html
    assert store_options(project_folder() / "outputs") == ""


def test_the_header_says_what_was_done_to_which_version():
    """A decision is told as done or proposed, with versions and date, and with what a person can do now."""
    back = account("rollback", outcome="fail", action="rollback", target_version=2, outputs={"champion": 3})
    html = report(executed("rollback"), back)
    assert "Rolled back: version 3 to 2, automatically, as of 2013-05-01." in html
    assert "<title>rollback · 2013-04-01/2013-05-01 · rollback</title>" in html
    assert 'class="badge done">done<' in html
    assert 'class="badge fail">fail</b> ·' not in html
    asked = report(executed("rollback"), {**back, "approval": "proposed"})
    assert "Proposed, waiting for a person: Roll back to the predecessor." in asked
    assert "prodkit models reject rollback-20130401" in asked
    held = report(executed("rollback"), {**back, "action": "hold"}, options=" --out here")
    assert "On hold: nobody learns from these rows, automatically" in held
    assert f"prodkit models accept {back['run_id']} --name YOU --reason WHY --out here" in held


def test_changes_name_what_differs():
    """Outcome, action, version, parameters and findings with another outcome are told; equal ones are not."""
    passed, failed = Evidence("gain", "pass", 0.1).to_dict(), Evidence("gain", "fail", 0.4).to_dict()
    one, two = (
        {"evidence": [gain, Evidence("labels", "pass", n).to_dict()]}
        for gain, n in ((passed, 5), (failed, 7))
    )
    one |= {"params": {"a": 1, "b": 2}, "outputs": {"champion": 1}, "outcome": "pass", "action": "keep"}
    two |= {"params": {"a": 1, "c": 3}, "outputs": {"champion": 2}, "outcome": "fail", "action": "rollback"}
    first, second = account("rollback", **one), account("rollback", **two)
    found = changes(first, second)
    assert found.params == {"c": ("not given", 3), "b": (2, "not given")}
    assert [(row["name"], row["difference"]) for row in found.numbers] == [
        ("gain", pytest.approx(0.3)),
        ("labels", 2),
    ]
    said = found.sentences()
    assert said[:3] == ["outcome: pass → fail", "action: keep → rollback", "version: v1 → v2"]
    assert "gain: pass → fail (0.1 → 0.4)" in said
    assert not any("labels" in sentence for sentence in said)
    assert (
        "labels: not there any more, was pass" in changes(first, {**second, "evidence": [failed]}).sentences()
    )
    assert "labels: pass, not there before" in changes({**first, "evidence": []}, second).sentences()
    assert changes(first, first).sentences() == ["Nothing but the numbers."]


def test_a_window_takes_the_last_decision_and_the_measured_metric():
    """Of a window decided about twice the last run counts; its interval is that of the version that served."""
    rows = [
        {"window_start": "2013-04-01T00:00:00", "window_end": "2013-05-01T00:00:00", "version": number,
         "value": 0.1 * number, "low": 0.0, "high": 1.0, "n": 9}
        for number in (1, 2)
    ]  # fmt: skip
    retrain = decided(5, 3, "retrain", 2)
    trained = account("train", 4, parent=retrain["run_id"])
    judged = account("validate", 5, parent=trained["run_id"], action="promote")
    runs = [decided(5, 1), decided(4, 2, version=2), retrain, trained, judged, decided(6, 6, status="failed")]
    first, second = periods(runs, metric="roc_auc", measured=rows)
    assert (first.name, first.value, first.low, first.acts) == ("2013-04", 0.2, 0.0, False)
    assert (second.decision, second.acts) == ("retrain, then promote", True)
    assert (second.version, second.value) == (2, 0.55)
    drawn = drawing([first, second])
    assert [part["version"] for part in drawn["served"]] == [2]
    assert all(104 <= point["y"] <= 258 for point in drawn["points"])


def test_what_needs_a_person_is_told_with_the_command():
    """Proposals, stale ones too, a hold, a freeze and a failed last run are asked for; what was settled is not."""
    proposals = [
        event(1, "propose", run_id="a", detail={"action": "rollback"}),
        event(2, "propose", run_id="b", generation=0, detail={"action": "promote"}),
        event(3, "propose", run_id="c", detail={"action": "hold"}),
        event(4, "reject", run_id="c"),
    ]
    runs = [
        account("drift", 1, status="failed"),
        account("drift", 2),
        account("score", 3, status="interrupted"),
    ]
    site = Site(runs, [version()], proposals, Champion(1, None, 1, "cold", True), options=" --out here")
    index = site.pages()["index.html"]
    asked = ["prodkit models approve a --name YOU --reason WHY --out here", "prodkit models reject b"]
    asked += [
        "cold. It ends by itself when a window is sound again.",
        "prodkit models reject a --name YOU",
        "models freeze --off",
        "The last run of score was interrupted.",
    ]
    assert [text for text in asked if text not in index] == []
    assert [text for text in ("models approve c", "The last run of drift") if text in index] == []
    index = Site([], [version()], [], Champion()).pages()["index.html"]
    assert "no champion yet: none of the versions" in index


@needs_chromium
def test_the_index_filters_without_a_server_and_is_whole_without_a_script(browser, tmp_path):
    """Words, notebook and outcome narrow the runs; thousands are laid out in part; without scripts all are there."""
    runs = [
        account("score" if n % 2 else "drift", n, outcome="fail" if n % 10 == 0 else "pass")
        for n in range(600)
    ]
    page = tmp_path / "index.html"
    page.write_text(Site(runs, [], [], Champion()).pages()["index.html"])
    seen = visit(browser, page)
    rows = "document.querySelectorAll('#runs tbody tr:not([hidden])').length"
    assert seen.page.evaluate(rows) == 200
    seen.page.locator("#more").click()
    assert seen.page.evaluate(rows) == 600
    seen.page.fill("#words", "DRIFT-20130401 0000255")
    assert seen.page.evaluate(rows) == 0
    assert seen.page.inner_text("#count") == "0 of 600 runs, the newest first."
    seen.page.fill("#words", "")
    seen.page.select_option("#notebook", "drift")
    seen.page.select_option("#outcome", "fail")
    assert (seen.page.evaluate(rows), seen.said, seen.asked) == (60, [], [])
    first = "document.querySelector('#runs tbody tr:not([hidden])').cells[0].textContent"
    newest = seen.page.evaluate(first)
    seen.page.locator("#runs thead button").first.click()
    assert (newest, seen.page.evaluate(first)) == ("drift-20130401-000000024e", "drift-20130401-0000000000")
    seen.page.context.close()
    bare = visit(browser, page, java_script_enabled=False)
    assert bare.page.locator("#runs tbody tr:visible").count() == 600
    assert not bare.page.locator("#filter").is_visible()
    bare.page.context.close()


def test_every_link_leads_somewhere(tmp_path):
    """All links of index, version and comparison are relative and can be followed, from the disk or a static server."""
    first, second = decided(4, 1), decided(5, 2, "rollback")
    kept(tmp_path, first, second)
    with Store.open(f"sqlite:///{tmp_path / 'store.db'}", str(tmp_path / "artifacts")) as store:
        store.register(b"model", version().manifest, run_id=first["run_id"])
        store.promote(1, expected_generation=0, run_id=first["run_id"], reason="the first")
    write_site(tmp_path, f"sqlite:///{tmp_path / 'store.db'}", str(tmp_path / "artifacts"))
    write_comparison(tmp_path, first["run_id"], second["run_id"])
    pages = [tmp_path / "index.html", tmp_path / "versions" / "v1.html", *tmp_path.glob("comparisons/*.html")]
    assert len(pages) == 3
    for page in pages:
        links = re.findall(r'href="([^"#:]+)"', page.read_text())
        assert links
        assert [link for link in links if not (page.parent / link).is_file()] == []


@pytest.mark.parametrize("name", ["index.html", "versions/v1.html", "compared.html"])
@needs_chromium
def test_the_site_can_be_read_by_all(browser, tmp_path, name):
    """Index, version and comparison have nothing grave for axe-core in light and dark, and fit a narrow screen."""
    story = [decided(4, 1), decided(5, 2, "rollback")]
    events = [event(1, "register"), event(2, "promote"), event(3, "propose", detail={"action": "rollback"})]
    pages = Site(story, [version()], events, Champion(1, None, 1)).pages()
    cells = executed("rollback").cells
    pages["compared.html"] = comparison(*story, cells=(cells, cells))
    page = tmp_path / "page.html"
    page.write_text(pages[name])
    seen = visit(browser, page, color_scheme="dark", viewport={"width": 390, "height": 800})
    assert (seen.asked, seen.said, seen.grave()) == ([], [], [])
    assert seen.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    seen.page.emulate_media(color_scheme="light")
    assert seen.grave() == []
    seen.page.context.close()


def test_runs_that_are_not_there_cannot_be_compared(tmp_path):
    """An unknown run is named with the nearest known one, a damaged record with what to do; figures are not needed."""
    kept(tmp_path, account("drift", 1), account("drift", 2))
    one, two = sorted(path.name for path in (tmp_path / "runs").iterdir())
    with pytest.raises(
        ParameterError, match=r"must be a recorded run; found drift-2013 .*Did you mean drift-20130401"
    ):
        write_comparison(tmp_path, two, "drift-2013")
    (tmp_path / "runs" / two / "notebook.ipynb").write_text("{half")
    assert write_comparison(tmp_path, one, two).is_file()
    (tmp_path / "runs" / two / "result.json").write_text("{half")
    with pytest.raises(ParameterError, match="must have a record that can be read"):
        write_comparison(tmp_path, one, two)
    with pytest.raises(ParameterError, match="Run a notebook first"):
        write_comparison(tmp_path / "empty", one, two)


def test_the_site_is_written_from_what_can_be_read(tmp_path):
    """A damaged record, or one without its parts, is named and left out."""
    kept(tmp_path, account("drift", 1))
    for name, text in (("half", "{half"), ("list", "[]"), ("poor", '{"run_id": "poor"}')):
        (tmp_path / "runs" / name).mkdir()
        (tmp_path / "runs" / name / "result.json").write_text(text)
    told = []
    places = f"sqlite:///{tmp_path / 'store.db'}", str(tmp_path / "artifacts")
    Store.open(*places).close()
    page = write_site(tmp_path, *places, tell=told.append)
    assert sorted(re.findall(r"runs/(\w+)/result.json cannot be read", " ".join(told))) == [
        "half",
        "list",
        "poor",
    ]
    assert "1 run," in page.read_text()


def test_the_run_before_is_the_last_of_its_notebook_that_succeeded(tmp_path):
    """Neither another notebook nor a failed run nor a later one counts."""
    with Store.open(f"sqlite:///{tmp_path / 'store.db'}", str(tmp_path / "artifacts")) as store:
        names = {"a": "drift", "b": "drift", "c": "score", "d": "drift", "e": "drift"}
        for name, notebook in names.items():
            store.record_run(
                {"run_id": name, "notebook": notebook, "status": "failed" if name == "b" else "succeeded"}
            )
        before = {name: store.previous_run(name) for name in (*names, "unknown")}
    assert {name: run and run["run_id"] for name, run in before.items()} == {
        **{"a": None, "b": "a", "c": None, "d": "a", "e": "d", "unknown": None}
    }
