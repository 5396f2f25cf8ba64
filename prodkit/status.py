"""Where a model stands, on one screen: who serves, what is due, what waits for a person, figures and alerts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from prodkit.errors import ProdkitError
from prodkit.params import LEAD, PRIMARY
from prodkit.planning import Outlook
from prodkit.schedule import Entry
from prodkit.settings import outputs_folder
from prodkit.store.approvals import store_options, waiting
from prodkit.store.registry import Store

__all__ = ["status", "status_lines"]

_MOST_LINES = 5  # of a kind
_MOVES = ("promote", "rollback")


def status(outlook: Outlook) -> dict[str, Any]:
    """Where the model stands, as plain JSON; nothing is written, and no store is made.

    Args:
        outlook: at the moment that is asked about.

    Returns:
        ``champion``, ``last`` (the last period that was decided about), ``due``, ``next``, ``waiting``, ``figures``,
        ``alerts``, ``table`` (what came late, vanished or was rewritten) and ``problem``, empty if all could be told.

    Raises:
        ParameterError: there is no store.
    """
    with outlook.store(create=False) as store:
        events, champion = store.history(), store.champion()
        options = store_options(outputs_folder(), *outlook.places)
        moved = next((event for event in reversed(events) if event.kind in _MOVES), None)
        since = (
            {"since": moved.created_at, "by": moved.run_id or moved.actor, "why": moved.reason}
            if moved
            else {}
        )
        return {
            "champion": vars(champion) | since,
            **_periods(outlook, store),
            "waiting": waiting(events, champion, options=options),
            "figures": _figures(store, champion.version),
            "alerts": store.open_alerts(),
        }


def _periods(outlook: Outlook, store: Store) -> dict[str, Any]:
    """What was done, and what is due; where that cannot be told, why, and all else is told all the same."""
    told: dict[str, Any] = {"last": None, "due": [], "next": "", "table": [], "problem": ""}
    if store.plan() is None:
        return told | {"problem": "there is no plan yet: the next prodkit lifecycle makes one"}
    try:
        entries = outlook.agenda()
        told["due"] = [each for entry in entries if (each := _due(outlook, entry))]
        told["next"] = "" if told["due"] else outlook.following(entries)
        log = [f"{each['what']} (seen {each['seen'].partition('T')[0]})" for each in reversed(outlook.log)]
        told["table"] = [*outlook.told(entries), *log]
        decides = "validate" if store.champion().version is None else "rollback"
        judged = [(at, each) for (name, at), each in outlook.steps().items() if name == decides]
        if judged:
            at, step = judged[-1]
            decision = {"action": step["action"] or step["outcome"], "reasons": step["reasons"][:2]}
            told["last"] = {
                "period": str(at),
                "name": outlook.plan.name(at),
                **decision,
                "run": step["run_id"],
            }
    except ProdkitError as error:  # a table that is gone must not hide who serves
        told["problem"] = str(error)
    return told


def _due(outlook: Outlook, entry: Entry) -> dict[str, Any] | None:
    """A period that something is to be done for."""
    steps = entry.steps if entry.state == "due" else ("score",) if entry.state == "restated" else ()
    if not steps:
        return None
    rows = {"rows": entry.rows, "late_rows": max(entry.late_rows, 0)}
    return {
        "period": str(entry.window),
        "name": outlook.plan.name(entry.window),
        "steps": list(steps),
        **rows,
    }


def _figures(store: Store, version: int | None) -> list[dict[str, Any]]:
    """Headline score and loss of the last window that has them, with intervals."""
    task: Any = store.version(version).manifest.get("task", "binary") if version else "binary"
    figures = []
    for name in dict.fromkeys((LEAD[task], PRIMARY[task])):
        if row := store.last_metric("monitor", f"realised.{name}"):
            numbers = {key: row[key] for key in ("value", "low", "high", "n", "version")}
            figures.append({"name": name, "window": f"{row['window_start']}/{row['window_end']}", **numbers})
    return figures


def status_lines(document: dict[str, Any]) -> Iterator[str]:
    """What :func:`status` gives, for a person."""
    champion = document["champion"]
    if champion["version"] is None:
        yield "No champion serves yet."
    else:
        yield f"Champion v{champion['version']} since {champion['since'][:16]}, by {champion['by']}: {champion['why']}"
    if last := document["last"]:
        yield f"Last period {last['name']}: {last['action']}" + "".join(
            f"; {each}" for each in last["reasons"][:1]
        )
    for each in document["figures"]:
        rows = f"{each['n']:,} rows of {_short(each['window'])}, v{each['version']}"
        yield f"  {each['name']} {_interval(each)} on {rows}"
    yield ""
    yield from _due_lines(document)
    for each in document["waiting"]:
        yield from ("", each["what"] + (f" {each['why']}" if each.get("why") else ""))
        yield from (f"  {command}" for command in each.get("commands", []))
    yield from _listed("Alerts:", [f"{each['name']} (v{each['version']}) since {each['since']}"
                                   for each in document["alerts"]])  # fmt: skip
    yield from _listed("The table:", document["table"])


def _due_lines(document: dict[str, Any]) -> Iterator[str]:
    if document["problem"]:
        yield f"What is due is not known: {document['problem']}"
    elif document["due"]:
        yield "Due, for the next prodkit lifecycle:"
        lines = [
            f"{each['name']}: {', '.join(each['steps'])} ({each['rows']:,} rows)" for each in document["due"]
        ]
        yield from _few(lines)
    else:
        yield document["next"][:1].upper() + document["next"][1:] + "."
    if not document["waiting"]:
        yield "Nothing waits for a person."


def _listed(title: str, lines: Sequence[str]) -> Iterator[str]:
    if lines:
        yield from ("", title)
        yield from _few(lines)


def _few(lines: Sequence[str]) -> Iterator[str]:
    yield from (f"  {line}" for line in lines[:_MOST_LINES])
    if len(lines) > _MOST_LINES:
        yield f"  and {len(lines) - _MOST_LINES} more"


def _interval(figure: dict[str, Any]) -> str:
    if figure["value"] is None:
        return "not known"
    ends = "" if figure["low"] is None else f" ({figure['low']:.4g} to {figure['high']:.4g})"
    return f"{figure['value']:.4g}{ends}"


def _short(window: str) -> str:
    return window.replace("T00:00:00", "")
