"""How long ago a version was rolled back: until that has cooled down, nothing new is trained or promoted."""

from __future__ import annotations

from datetime import datetime, timedelta

from prodkit.evidence import Evidence, utc
from prodkit.params import RollbackParams, ValidateParams
from prodkit.store.history import Event
from prodkit.store.registry import Store

__all__ = ["cooldown"]


def cooldown(store: Store, params: RollbackParams | ValidateParams) -> list[Evidence]:
    """One line if a version was rolled back before the moment at which the run stands, else none.

    A rollback that a run decided counts from the moment at which that run stood; one by hand, from the clock's. A
    successor trained on the same rows as the version that failed would bring its failure back: champion and
    successor would take turns.

    Returns:
        ``inconclusive`` while fewer days than ``cool_down`` have gone by, else ``pass``.
    """
    stood, found = {}, []
    for event in store.history():
        if event.kind == "decide":
            stood[event.run_id] = str(event.detail["as_of"])
        elif event.kind == "rollback":
            gone = utc(params.moment) - utc(_moment(event, stood.get(event.run_id)))
            if gone >= timedelta(0):
                found.append((gone, event))
    if not found:
        return []
    gone, event = min(found, key=lambda each: each[0])
    days, limit = gone / timedelta(days=1), params.cool_down / timedelta(days=1)
    note = f"days since version {event.detail.get('from')} was rolled back, before anything new is tried"
    return [
        Evidence("cooldown", "pass" if days >= limit else "inconclusive", value=days, limit=limit, note=note)
    ]


def _moment(event: Event, as_of: str | None) -> datetime:
    return datetime.fromisoformat(as_of or event.created_at)
