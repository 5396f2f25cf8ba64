"""The site: a page over all runs, one for each version of the model, and one that shows two runs side by side."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

from prodkit.errors import ParameterError, ProdkitError
from prodkit.evidence import Window, utc
from prodkit.files import write_text
from prodkit.params import LEAD
from prodkit.report import changes, number, rendered, state
from prodkit.settings import REAL_STORE, resolve
from prodkit.store.approvals import store_options, waiting
from prodkit.store.history import Champion, Event, open_proposals
from prodkit.store.registry import Store, Version

__all__ = [
    "Period",
    "Site",
    "comparison",
    "drawing",
    "figures_of",
    "periods",
    "write_comparison",
    "write_site",
]

_ARTIFACTS = "outputs/artifacts"
_LINK = re.compile(r'<a href="(?:\.\./)?runs/([^"/]+)/report\.html"[^>]*>(.*?)</a>', re.DOTALL)
_ENDED = {"failed": "failed", "interrupted": "was interrupted"}


def write_site(
    folder: Path,
    store: str = REAL_STORE,
    artifacts: str = _ARTIFACTS,
    *,
    tell: Callable[[str], None] = lambda _: None,
) -> Path:
    """Write ``index.html`` and ``versions/`` from what is recorded in runs and store.

    Args:
        folder: where ``runs/`` lies; the pages are written there.
        store: SQLAlchemy URL as typed.
        artifacts: folder or fsspec URL, as typed.
        tell: takes a sentence for each run that cannot be read, which is left out.

    Returns:
        The page to open.

    Raises:
        ParameterError: there is no store.
    """
    documents = []
    for path in folder.glob("runs/*/result.json"):
        if document := _record(path):
            documents.append(document)
        else:
            tell(f"{path} cannot be read: the run is left out")
    there = {document["run_id"] for document in documents}
    for place, text in _site(folder, documents, store, artifacts).pages().items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        write_text(folder / place, _LINK.sub(lambda link: link[0] if link[1] in there else link[2], text))
    return folder / "index.html"


def _record(path: Path) -> dict[str, Any]:
    """A ``result.json``; empty if it cannot be read or lacks what a page takes from it."""
    kinds: dict[str, type] = {"run_id": str, "notebook": str, "status": str, "outcome": str, "started": str}
    kinds |= {"params": dict, "outputs": dict, "reasons": list, "evidence": list, "inputs": list}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return record if all(isinstance(record[name], kind) for name, kind in kinds.items()) else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _site(folder: Path, documents: list[dict[str, Any]], store: str, artifacts: str) -> Site:
    options = store_options(folder, store, artifacts)
    with Store.open(resolve(store), resolve(artifacts), create=False) as opened:
        versions = opened.versions(removed=True)
        gone = opened.removed_runs().keys() - {document["run_id"] for document in documents}
        documents += [
            run["document"]
            for notebook in ("rollback", "train", "validate") * bool(gone)  # they tell the life of the model
            for run in opened.runs(notebook, status="succeeded")
            if run["run_id"] in gone
        ]
        documents.sort(key=lambda each: (each["started"], each["run_id"]))
        measured = opened.metric_rows(notebook="monitor", name=f"realised.{_lead_metric(versions)}")
        return Site(documents, versions, opened.history(), opened.champion(), measured, options, gone)


def write_comparison(folder: Path, first: str, second: str) -> Path:
    """Write ``comparisons/FIRST--SECOND.html``; the runs are named by their ids.

    Raises:
        ParameterError: there is no such run, or its record cannot be read.
    """
    documents = [_named(folder, name) for name in (first, second)]
    one, other = (_cells(folder / "runs" / name / "notebook.ipynb") for name in (first, second))
    page = folder / "comparisons" / f"{first}--{second}.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    write_text(page, comparison(*documents, cells=(one, other)))
    return page


def _cells(executed: Path) -> list[Any]:
    """The cells of an executed notebook; none if it cannot be read: its numbers can be compared all the same."""
    try:
        cells = json.loads(executed.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return cells if isinstance(cells, list) else []


def _named(folder: Path, run_id: str) -> dict[str, Any]:
    known = sorted(path.parent.name for path in folder.glob("runs/*/result.json"))
    path = folder / "runs" / run_id / "result.json"
    if run_id not in known:
        near = difflib.get_close_matches(run_id, known, n=1, cutoff=0.4)
        fix = "Look for its name in index.html." if known else "Run a notebook first."
        fix = f"Did you mean {near[0]}?" if near else fix
        rule, place = "must be a recorded run", str(folder / "runs")
        raise ParameterError("RUN", rule=rule, value=run_id, place=place, fix=fix)
    if record := _record(path):
        return record
    fix = "Run it again with --force."
    raise ParameterError(run_id, rule="must have a record that can be read", place=str(path), fix=fix)


def comparison(
    first: Mapping[str, Any],
    second: Mapping[str, Any],
    *,
    cells: tuple[Sequence[Any], Sequence[Any]] = ((), ()),
) -> str:
    """The page that shows two runs side by side.

    Args:
        first: a run's ``result.json``.
        second: another's.
        cells: of both notebooks as executed, for their figures.
    """
    one, other = map(figures_of, cells)
    names = dict.fromkeys([*one, *other])
    return rendered(
        "comparison",
        title=f"{first['run_id']} and {second['run_id']}",
        runs=(first, second),
        changes=changes(first, second),
        figures=[(name.removesuffix(" · 1"), one.get(name), other.get(name)) for name in names],
    )


def figures_of(cells: Sequence[Any]) -> dict[str, tuple[str, str]]:
    """Picture and text of each figure, by the heading it stands under and its number there."""
    figures: dict[str, tuple[str, str]] = {}
    heading, count = "", 0
    for cell in cells:
        source = "".join(cell.get("source", ""))
        if cell.get("cell_type") == "markdown" and source.startswith("#"):
            heading, count = source.partition("\n")[0].lstrip("# "), 0
        if heading.startswith("Explore"):  # what a reader picks there says nothing of the run
            continue
        for output in cell.get("outputs", []):
            if picture := output.get("data", {}).get("image/png"):
                count += 1
                alt = output.get("metadata", {}).get("image/png", {}).get("alt") or heading
                figures[f"{heading} · {count}"] = "".join("".join(picture).split()), alt
    return figures


@dataclass(frozen=True)
class Period:
    """One window that was decided about.

    Attributes:
        window: its span.
        run_id: the run that decided.
        decision: in words, with what followed from it.
        acts: whether the decision changed something.
        version: who served.
        drill: the fault that was put in on purpose; empty without one.
        value: of the main metric; None if it is not known.
        low: lower end of its interval.
        high: upper end.
        rows: with a label that it rests on.
    """

    window: Window
    run_id: str
    decision: str
    acts: bool
    version: int | None
    drill: str
    value: float | None
    low: float | None = None
    high: float | None = None
    rows: int | None = None

    @property
    def name(self) -> str:
        """The window in short: its month, if it is one, else its days."""
        start, end = self.window.start, self.window.end
        if start.day == 1 and end == (start + timedelta(days=31)).replace(day=1):
            return f"{start:%Y-%m}"
        return f"{start:%Y-%m-%d} to {end - timedelta(microseconds=1):%Y-%m-%d}"


def periods(
    documents: Sequence[Mapping[str, Any]], *, metric: str, measured: Sequence[Mapping[str, Any]] = ()
) -> list[Period]:
    """The windows that a decision was made about, in the order of their time.

    Args:
        documents: results of all runs, oldest first; of a window that was decided about twice, the last one counts.
        metric: name of the main metric.
        measured: rows of that metric, see :meth:`prodkit.store.records.Records.metric_rows`; where a window has none,
            the figure that the decision gave stands without an interval.
    """
    known = {(row["window_start"], row["window_end"], row["version"]): row for row in measured}
    succeeded = [run for run in documents if run["status"] == "succeeded"]
    followed = {run["parent"]: run for run in succeeded if run.get("parent")}
    decided: dict[str, Period] = {}
    for run in succeeded:
        window = _window(run)
        if run["notebook"] != "rollback" or window is None:
            continue
        version = run["outputs"].get("champion")
        row = known.get((window.start.isoformat(), window.end.isoformat(), version), {})
        trained = followed.get(run["run_id"])
        judged = followed.get(trained["run_id"]) if trained else None
        decision = run["action"] or run["outcome"]
        decision += " (proposed)" if run["approval"] == "proposed" else ""
        decided[str(window)] = Period(
            window,
            run["run_id"],
            decision + (f", then {judged['action']}" if judged else ""),
            acts=run["action"] not in ("keep", "watch"),
            version=version,
            drill=next((item.get("note", "") for item in run["evidence"] if item["name"] == "drill"), ""),
            value=row.get("value", run["outputs"].get("figures", {}).get(metric)),
            low=row.get("low"),
            high=row.get("high"),
            rows=row.get("n"),
        )
    return sorted(decided.values(), key=lambda each: (each.window.start, each.window.end))


def _window(run: Mapping[str, Any]) -> Window | None:
    try:
        window = Window.parse(run["params"]["window"])
        return Window(utc(window.start), utc(window.end))
    except (KeyError, TypeError, ValueError, ProdkitError):
        return None


def drawing(windows: Sequence[Period]) -> dict[str, Any]:
    """Where each thing of the timeline lies, in a drawing of 960 by 300 units: for the template that draws it."""
    start, end = windows[0].window.start, max(each.window.end for each in windows)
    left, right, top, bottom = 84.0, 944.0, 104.0, 258.0  # of the metric
    numbers = [x for each in windows for x in (each.value, each.low, each.high) if x is not None]
    low, high = (min(numbers), max(numbers)) if numbers else (0.0, 1.0)
    ticks = _ticks(low, high)
    low, high = min(low, ticks[0]), max(high, ticks[-1])

    def across(moment: datetime) -> float:
        return left + (right - left) * ((moment - start) / (end - start))

    def down(value: float | None) -> float | None:
        return None if value is None else bottom - (bottom - top) * (value - low) / (high - low)

    labelled = [each.run_id for each in windows if each.acts or len(windows) <= 12]
    level = {run_id: 62 + 14 * (place % 2) * (len(windows) > 6) for place, run_id in enumerate(labelled)}
    points = []
    for place, each in enumerate(windows):
        x, stop = across(each.window.start), across(each.window.end)
        heights = {"y": down(each.value), "low": down(each.low), "high": down(each.high)}
        date = each.name if place % math.ceil(len(windows) / 10) == 0 else ""
        texts = {"window": each, "label": level.get(each.run_id), "date": date}
        points.append({"x": x, "end": stop, "middle": (x + stop) / 2, **heights, **texts})
    served = []
    for version, group in groupby(windows, key=lambda each: each.version):
        part = list(group)
        served.append(
            {"version": version, "x": across(part[0].window.start), "end": across(part[-1].window.end)}
        )
    return {"served": served, "points": points, "ticks": [(down(tick), number(tick)) for tick in ticks]}


def _ticks(low: float, high: float) -> list[float]:
    """Three to five round numbers that enclose a range.

    >>> _ticks(0.43, 0.77)
    [0.4, 0.5, 0.6, 0.7, 0.8]
    """
    span = (high - low) or abs(high) or 1.0
    size = 10.0 ** math.floor(math.log10(span / 2))
    step = next(size * factor for factor in (1, 2, 5, 10) if span / (size * factor) <= 4)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(place * step, 12) for place in range(first, max(last, first + 1) + 1)]


@dataclass(frozen=True)
class Site:
    """All that the pages are made of.

    Attributes:
        documents: results of all runs, oldest first.
        versions: of the store.
        events: its history.
        champion: who serves now.
        measured: the main metric of each window, oldest first, see :func:`periods`.
        options: what ``prodkit models`` needs to find this store, as typed.
        removed: runs whose folders are gone; of these only what tells the life of the model is among the documents.
    """

    documents: Sequence[Mapping[str, Any]]
    versions: Sequence[Version]
    events: Sequence[Event]
    champion: Champion
    measured: Sequence[Mapping[str, Any]] = ()
    options: str = ""
    removed: Set[str] = frozenset()

    def pages(self) -> dict[str, str]:
        """Every page by its place under ``outputs/``."""
        windows = periods(self.documents, metric=_lead_metric(self.versions), measured=self.measured)
        pages = {f"versions/v{each.number}.html": self._version_page(each, windows) for each in self.versions}
        return {"index.html": self._index(windows), **pages}

    def _index(self, windows: Sequence[Period]) -> str:
        runs = [run for run in self.documents if run["run_id"] not in self.removed]
        moves = [event for event in self.events if event.kind in ("promote", "rollback")]
        return rendered(
            "index",
            title="What happened to the model",
            scripted=True,
            champion=self.champion,
            since=moves[-1] if moves else None,
            asked=[
                *waiting(self.events, self.champion, options=self.options),
                *self._no_champion(),
                *self._broken_runs(),
            ],
            windows=windows,
            drawing=drawing(windows) if windows else None,
            metric=_lead_metric(self.versions),
            versions=[(each, self._standing(each)) for each in reversed(self.versions)],
            today=self._today(windows),
            changes=len(moves),
            runs=[(run, state(run)) for run in reversed(runs)],
            cleanings=[event for event in self.events if event.kind == "clean"][-3:],
            notebooks=sorted({run["notebook"] for run in runs}),
            states=sorted({state(run) for run in runs}),
        )

    def _today(self, windows: Sequence[Period]) -> list[str]:
        """The last window and what waits for a person, in two sentences."""
        sentences = []
        if windows:
            last = windows[-1]
            run = next(run for run in self.documents if run["run_id"] == last.run_id)
            why = f": {run['reasons'][0]}" if run["reasons"] and run["action"] != "keep" else "."
            sentences.append(f"Last window {last.name}: {last.decision}{why}")
        open_ = len(open_proposals(self.events))
        sentences.append(
            f"{open_ or 'Nothing'} to approve; {'on hold' if self.champion.hold else 'no hold'}."
        )
        return sentences

    def _no_champion(self) -> list[dict[str, Any]]:
        """Why nobody serves."""
        if self.champion.version is not None or not self.versions:
            return []
        return [{"what": f"There is no champion yet: {self._waiting()}."}]

    def _broken_runs(self) -> list[dict[str, Any]]:
        """The notebooks whose last run did not succeed."""
        asked = []
        for run in {run["notebook"]: run for run in self.documents}.values():
            if run["status"] in _ENDED:
                what = f"The last run of {run['notebook']} {_ENDED[run['status']]}."
                asked.append({"what": what, "why": "; ".join(run["reasons"][:2]), "run": run["run_id"]})
        return asked

    def _waiting(self) -> str:
        """Why no version was promoted."""
        done = [run for run in self.documents if run["status"] == "succeeded"]
        outcomes = [run["outcome"] for run in done if run["notebook"] == "validate"]
        if not outcomes:
            return "none of the versions has been judged"
        return "too little evidence" if outcomes[-1] == "inconclusive" else f"validate says {outcomes[-1]}"

    def _standing(self, version: Version) -> str:
        """What a version is now."""
        if version.removed:
            return f"removed {version.removed[:10]}"
        if version.number == self.champion.version:
            return "champion"
        if version.quarantined:
            return "rolled back, in quarantine"
        if version.number == self.champion.predecessor:
            return "predecessor"
        served = any(event.kind == "promote" and event.version == version.number for event in self.events)
        return "retired" if served else "never promoted"

    def _version_page(self, version: Version, windows: Sequence[Period]) -> str:
        number, manifest = version.number, version.manifest
        registered = [each for each in self.events if each.version == number and each.kind == "register"]
        params, importance = manifest.get("params", {}), manifest.get("importance", {})
        learned = ("model", "model_args", "features", "holdout", "folds", "search", "seed", "drill")
        mine = (number, manifest.get("judged"))
        judged = [run for run in self.documents if run["outputs"].get("challenger") in mine]
        return rendered(
            "version",
            title=f"Version {number}",
            version=version,
            standing=self._standing(version),
            trained_by=registered[0].run_id if registered else "",
            params={name: params[name] for name in learned if params.get(name)},
            importance=sorted(importance.items(), key=lambda item: -item[1])[:10],
            judged=[run for run in judged if run["notebook"] == "validate"],
            served=[each for each in windows if each.version == number],
            metric=_lead_metric(self.versions),
            events=self._events_of(number),
            known={run["run_id"] for run in self.documents},
        )

    def _events_of(self, number: int) -> list[dict[str, Any]]:
        """The events of a version, and those by which another one took its place."""
        events, serving = [], None
        for event in self.events:
            moved = event.kind in ("promote", "rollback")
            if event.version == number:
                events.append(asdict(event))
            elif moved and serving == number:
                events.append({**asdict(event), "kind": f"replaced by version {event.version}"})
            serving = event.version if moved else serving
        return events


def _lead_metric(versions: Sequence[Version]) -> str:
    """The score that a reader looks at first, for the task of the newest version."""
    task = versions[-1].manifest.get("task") if versions else None
    return LEAD.get(task or "binary", LEAD["binary"])
