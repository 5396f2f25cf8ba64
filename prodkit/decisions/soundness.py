"""Rows that came broken: a feed that repeats itself, and what nobody learns from."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pandas as pd

from prodkit.data.windows import labelled, read_window, require_unique_rows
from prodkit.errors import DataError, WindowError
from prodkit.evidence import Evidence, Window, utc
from prodkit.models.bundle import Bundle
from prodkit.models.seen import Seen
from prodkit.params import ProjectParams
from prodkit.store.registry import Store

__all__ = ["left_out", "repetition", "sound_rows", "stale_batch"]

_REPEATED = 0.2  # share of rows that bear another's id, from which on the feed repeats itself


def repetition(params: ProjectParams, shared: pd.DataFrame, *, rows: int) -> list[Evidence]:
    """A break if the feed repeats itself: a fifth of its rows or more bear the id of another row.

    Args:
        params: of the run.
        shared: the rows, or their ids, that bear an id which another row bears, too.
        rows: of the window.

    Raises:
        IdentityError: there are fewer; then which rows are meant is for a person to say.
    """
    if len(shared) < _REPEATED * rows:
        require_unique_rows(shared, params, place=f"{params.data}, {params.window}")
        return []
    example = ", ".join(map(str, shared[params.id_column].iloc[0]))
    share, name = len(shared) / rows, ", ".join(params.id_column)
    note = f"{share:.1%} of the rows bear an id ({name}) that another row bears, too, such as {example}"
    full = "contract.rows.repeated"
    return [Evidence(full, "fail", value=share, limit=_REPEATED, n=rows, rung=1, note=note)]


def stale_batch(params: ProjectParams, rows: pd.DataFrame, bundle: Bundle) -> list[Evidence]:
    """A break if labelled rows of the window came before with the same labels, and not by nature.

    They are compared by what they hold, without their times, with all rows since the training of the champion began.
    How many come again by nature is seen where stretches of these follow upon one another.

    Args:
        params: of the run.
        rows: of the window, with the labels that are known.
        bundle: of the champion.
    """
    schema, start = bundle.schema, min(bundle.trained.start, params.window.start)
    then = params.model_copy(update={"as_of": params.window.start, "drill": {}})
    known = rows[rows[params.target].notna()] if params.target in rows else rows.head(0)
    if bundle.seen is None or start == params.window.start or not set(schema.names) <= set(rows.columns):
        return []
    try:
        before = labelled(read_window(then, Window(start, params.window.start), unique=False), then)
    except DataError:  # there is nothing to compare with
        return []
    seen = Seen.of(before, schema)
    share, limit = float(seen.among(known, schema).mean()) if len(known) else 0.0, seen.limit(len(known))
    note = f"{share:.1%} of the labelled rows came before with the same label; by nature {seen.natural:.1%}"
    line = Evidence("contract.rows.copied", "fail", value=share, limit=limit, n=len(known), rung=1, note=note)
    return [line] if share > limit else []


def sound_rows(store: Store, params: ProjectParams, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows but those of windows whose input was found broken when they were scored: nobody learns from them.

    A window that was scored again after its repair, and found sound, comes back.

    Raises:
        WindowError: nothing is left. IdentityError: of what is left, two rows bear one id.
    """
    times, broken = rows[params.time_column], np.zeros(len(rows), dtype=bool)
    for window in _broken_windows(store, params, times):
        broken |= times.between(utc(window.start), utc(window.end), "left").to_numpy()
    if broken.all():
        fix = "Choose an earlier `window`, or repair the feed and score it again."
        rule, found = "must hold rows whose input was sound", f"{len(rows)} rows of broken input"
        raise WindowError("window", rule=rule, value=found, place=str(params.window), fix=fix)
    kept = rows[~broken].reset_index(drop=True) if broken.any() else rows
    require_unique_rows(kept, params, place=f"{params.data}, {params.window}")
    return kept


def left_out(store: Store, params: ProjectParams, rows: pd.DataFrame) -> list[Evidence]:
    """A line for each window whose rows :func:`sound_rows` leaves out."""
    found = []
    for window in _broken_windows(store, params, rows[params.time_column]):
        count = int(rows[params.time_column].between(utc(window.start), utc(window.end), "left").sum())
        note = f"{count:,} rows of {window} are left out: their input was broken when they were scored"
        found.append(Evidence(f"left_out.{window.start:%Y-%m-%d}", "pass", n=count, note=note))
    return found


def _broken_windows(store: Store, params: ProjectParams, times: pd.Series) -> list[Window]:
    span = Window(times.min().to_pydatetime(), times.max().to_pydatetime() + timedelta(microseconds=1))
    return store.broken_windows(span, until=params.moment)
