"""What runs leave in the store: metrics, profiles of windows, and the record of each run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from prodkit.errors import ParameterError
from prodkit.evidence import Window, utc
from prodkit.store.database import CHAMPION, EVENTS, METRICS, PROFILES, RUNS, VERSIONS, Write, events_of
from prodkit.store.history import parsed_json, strict_json
from prodkit.store.plans import Plans

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Records", "restored"]

_MOMENTS = ("window_start", "window_end", "known_at")
_NUMBERS = ("value", "low", "high")
_REALISED = "realised."  # begins the names of the figures of a window
_ALERT = "alert.record."  # and of alerts, as the store itself was told of them
_COLUMNS = ["run_id", "notebook", "version", *_MOMENTS[:2], "name", *_NUMBERS, "n", "known_at"]


class Records(Plans):
    """The part of the store that runs write to and reports read from.

    A moment with an offset is kept in UTC, without it, so that moments compare as text.
    """

    def record_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write all rows, or none; they replace those of the same run and name.

        Args:
            rows: each with ``run_id``, ``notebook``, ``version`` (or None), ``window_start``, ``window_end``
                and ``known_at`` (ISO text; the moment from which it is known), ``name``, ``value``, ``low``,
                ``high`` and ``n`` (or None). A number that is not finite is written as None.

        Raises:
            ParameterError: a key is missing or unknown, or a moment is not one.
        """
        clean = [_metric(row) for row in rows]
        if not clean:
            return
        with self._database.write() as write:
            for run_id, name in sorted({(row["run_id"], row["name"]) for row in clean}):
                write.rows.execute(METRICS.delete().where(METRICS.c.run_id == run_id, METRICS.c.name == name))
            write.rows.execute(METRICS.insert(), clean)

    def metrics(self, **wanted: Any) -> pd.DataFrame:
        """The metrics that match, ordered by start of window and name.

        Args:
            **wanted: as :meth:`metric_rows` takes it.

        Returns:
            One row a metric, with the columns of :meth:`record_metrics`; moments are ``datetime64``,
            ``version`` and ``n`` nullable ``Int64``, the rest of the numbers ``float64``.
        """
        import pandas as pd  # for readers of metrics; the runner only writes records

        frame = pd.DataFrame(self.metric_rows(**wanted), columns=_COLUMNS)
        frame = frame.astype(dict.fromkeys(_NUMBERS, "float64") | dict.fromkeys(("version", "n"), "Int64"))
        moments = {name: pd.to_datetime(frame[name], format="ISO8601") for name in _MOMENTS}
        return frame.assign(**moments).astype(dict.fromkeys(_MOMENTS, "datetime64[us]"))

    def metric_rows(
        self,
        *,
        notebook: str | None = None,
        name: str | None = None,
        version: int | None = None,
        window: Window | None = None,
        until: datetime | None = None,
    ) -> list[dict[str, Any]]:
        """The metrics that match as plain mappings, moments as ISO text.

        Args:
            notebook: which wrote them.
            name: of the metric.
            version: which they are about.
            window: they must lie within it.
            until: leaves out what was not known yet at that moment.
        """
        query = sa.select(*(METRICS.c[column] for column in _COLUMNS))
        for column, wanted in (("notebook", notebook), ("name", name), ("version", version)):
            if wanted is not None:
                query = query.where(METRICS.c[column] == wanted)
        if window is not None:
            query = query.where(METRICS.c.window_start >= _text(window.start))
            query = query.where(METRICS.c.window_end <= _text(window.end))
        if until is not None:
            query = query.where(METRICS.c.known_at <= _text(until))
        return self._rows(query.order_by(METRICS.c.window_start, METRICS.c.name, METRICS.c.id))

    def figures(self, run_id: str, window: Window) -> dict[str, list[float | None]]:
        """What a run of `monitor` has realised of a window: by name the value, and the ends of its interval."""
        about = METRICS.c.run_id == run_id, METRICS.c.name.startswith(_REALISED)
        query = sa.select(*(METRICS.c[name] for name in ("name", *_NUMBERS))).where(*about)
        query = query.where(
            METRICS.c.window_start == _text(window.start), METRICS.c.window_end == _text(window.end)
        )
        return {
            row["name"].removeprefix(_REALISED): [row[name] for name in _NUMBERS] for row in self._rows(query)
        }

    def last_metric(self, notebook: str, name: str) -> dict[str, Any] | None:
        """The newest row of a metric: of the last window, as it was told last; None if there is none."""
        same = METRICS.c.notebook == notebook, METRICS.c.name == name
        newest = METRICS.c.window_end.desc(), METRICS.c.id.desc()
        rows = self._rows(
            sa.select(*(METRICS.c[column] for column in _COLUMNS)).where(*same).order_by(*newest).limit(1)
        )
        return rows[0] if rows else None

    def open_alerts(self) -> list[dict[str, Any]]:
        """The alerts that have not cleared: ``name``, ``version``, and ``since``, the start of their first window."""
        query = sa.select(METRICS.c.name, METRICS.c.version, METRICS.c.value, METRICS.c.window_start)
        query = query.where(METRICS.c.notebook == "monitor", METRICS.c.name.startswith(_ALERT))
        state: dict[tuple[str, int], dict[str, Any]] = {}
        for row in self._rows(query.order_by(METRICS.c.known_at, METRICS.c.id)):
            key = row["name"].removeprefix(_ALERT), row["version"]
            if not row["value"]:
                state.pop(key, None)
            elif key not in state:
                state[key] = {
                    "name": key[0],
                    "version": key[1],
                    "since": row["window_start"].partition("T")[0],
                }
        return list(state.values())

    def save_profile(
        self, window: Window, document: Mapping[str, Any], *, run_id: str, version: int | None, clean: bool
    ) -> None:
        """Keep the profile of a window; it replaces that of the same run and window.

        Raises:
            StoreError: the document is not plain JSON.
        """
        row: dict[str, Any] = {"window_start": _text(window.start), "window_end": _text(window.end)}
        row["run_id"] = run_id
        same = [PROFILES.c[name] == value for name, value in row.items()]
        row |= {"version": version, "clean": clean, "document": strict_json(dict(document), name="profile")}
        with self._database.write() as write:
            write.rows.execute(PROFILES.delete().where(*same))
            write.rows.execute(PROFILES.insert().values(row))

    def latest_profile(
        self, before: datetime, *, clean: bool = True, version: int | None = None
    ) -> dict[str, Any] | None:
        """The profile of the newest window that ends by a moment, or None.

        Args:
            before: windows that end later do not count.
            clean: whether unclean ones do not count either.
            version: only those of this version, if given.
        """
        query = sa.select(PROFILES.c.document).where(PROFILES.c.window_end <= _text(before))
        if clean:
            query = query.where(PROFILES.c.clean)
        if version is not None:
            query = query.where(PROFILES.c.version == version)
        newest = (PROFILES.c[name].desc() for name in ("window_end", "window_start", "id"))
        rows = self._rows(query.order_by(*newest).limit(1))
        return parsed_json(rows[0]["document"], name="profile") if rows else None

    def profiles(self, within: Window, *, until: datetime) -> list[dict[str, Any]]:
        """The profiles of windows within one, the newest of each, in the order of their windows.

        Args:
            within: they must lie in it.
            until: windows that end later do not count.

        Returns:
            ``window_start`` and ``window_end`` (ISO text), ``version``, ``clean`` and ``document`` of each.
        """
        end = min(_text(within.end), _text(until))
        inside = PROFILES.c.window_start >= _text(within.start), PROFILES.c.window_end <= end
        newest = self._windows(*inside, columns=("version", "clean", "document"))
        return [row | {"document": parsed_json(row["document"], name="profile")} for row in newest]

    def profiles_of(self, windows: Sequence[Window]) -> list[dict[str, Any]]:
        """The newest profile of each of these windows, where there is one."""
        wanted = {(_text(window.start), _text(window.end)) for window in windows}
        starts = PROFILES.c.window_start.in_(sorted(start for start, _ in wanted))
        rows = [row for row in self._windows(starts, columns=("document",))
                if (row["window_start"], row["window_end"]) in wanted]  # fmt: skip
        return [parsed_json(row["document"], name="profile") for row in rows]

    def broken_windows(self, within: Window, *, until: datetime) -> list[Window]:
        """The windows that touch a span and whose input was not sound when they were last scored, in order.

        Args:
            within: the span.
            until: windows that end later do not count.
        """
        touching = PROFILES.c.window_start < _text(within.end), PROFILES.c.window_end > _text(within.start)
        newest = self._windows(*touching, PROFILES.c.window_end <= _text(until), columns=("clean",))
        return [
            Window.parse(f"{row['window_start']}/{row['window_end']}") for row in newest if not row["clean"]
        ]

    def _windows(self, *conditions: sa.ColumnElement[bool], columns: Sequence[str]) -> list[dict[str, Any]]:
        """The newest profile of each window, in the order of their windows."""
        names = ("window_start", "window_end", *columns)
        query = sa.select(*(PROFILES.c[name] for name in names)).where(*conditions)
        rows = self._rows(query.order_by(PROFILES.c.window_start, PROFILES.c.id))
        return list({(row["window_start"], row["window_end"]): row for row in rows}.values())

    def record_run(self, document: Mapping[str, Any]) -> None:
        """Keep the record of a run; it replaces an earlier one of the same ``run_id``, in its place.

        Args:
            document: ``run_id`` and, as far as known, ``notebook``, ``status``, ``outcome``, ``action``,
                ``approval``, ``window``, ``started``, ``seconds`` and ``document``, the whole
                ``result.json``.

        Raises:
            ParameterError: there is no ``run_id``.
            StoreError: it is not plain JSON.
        """
        run_id = document.get("run_id")
        if not isinstance(run_id, str) or not run_id:
            raise ParameterError("run_id", rule="must name the run that is recorded", value=repr(run_id))
        copies = ("notebook", "status", "outcome", "action", "approval", "started")
        row = {name: document.get(name) for name in copies}
        row["record"] = strict_json(dict(document), name=f"record of run {run_id}")
        with self._database.write() as write:
            if not write.rows.execute(RUNS.update().where(RUNS.c.run_id == run_id).values(row)).rowcount:
                write.rows.execute(RUNS.insert().values(row | {"run_id": run_id}))

    def run(self, run_id: str) -> dict[str, Any] | None:
        """The record of a run as :meth:`record_run` received it, or None."""
        return next(iter(self._records(RUNS.c.run_id == run_id)), None)

    def runs(self, notebook: str | None = None, *, status: str | None = None) -> list[dict[str, Any]]:
        """The records of all runs, or of those of one notebook or status, in the order in which they came."""
        wanted = {RUNS.c.notebook: notebook, RUNS.c.status: status}
        return self._records(*(column == value for column, value in wanted.items() if value is not None))

    def ended_runs(self, before: datetime) -> list[str]:
        """The ids of the runs that began before a moment and have ended, in the order in which they came."""
        started = before.astimezone(UTC).isoformat(timespec="seconds")
        ended = RUNS.c.started < started, RUNS.c.status != "running"
        return [
            row["run_id"] for row in self._rows(sa.select(RUNS.c.run_id).where(*ended).order_by(RUNS.c.id))
        ]

    def record_cleaning(self, runs: Sequence[str], *, requests: int, actor: str, reason: str) -> None:
        """Note in the history which runs' folders are removed, and how many files of the request log."""
        with self._database.write(actor=actor, reason=reason) as write:
            write.append("clean", detail={"runs": sorted(runs), "requests": requests})

    def removed_runs(self) -> dict[str, str]:
        """The runs whose folders were removed, and when."""
        with self._database.read() as rows:
            cleanings = events_of(rows, EVENTS.c.kind == "clean")
        return {run_id: event.created_at for event in cleanings for run_id in event.detail["runs"]}

    def previous_run(self, run_id: str) -> dict[str, Any] | None:
        """The record of the last run of the same notebook that had succeeded before this one came, or None."""
        own = sa.select(RUNS.c.id, RUNS.c.notebook).where(RUNS.c.run_id == run_id).subquery()
        last = sa.select(sa.func.max(RUNS.c.id)).where(
            RUNS.c.notebook == own.c.notebook, RUNS.c.id < own.c.id, RUNS.c.status == "succeeded"
        )
        return next(iter(self._records(RUNS.c.id == last.correlate(None).scalar_subquery())), None)

    def _records(self, *conditions: sa.ColumnElement[bool]) -> list[dict[str, Any]]:
        query = sa.select(RUNS.c.run_id, RUNS.c.record).where(*conditions).order_by(RUNS.c.id)
        return [
            parsed_json(row["record"], name=f"record of run {row['run_id']}") for row in self._rows(query)
        ]

    def _rows(self, query: sa.Select[Any]) -> list[dict[str, Any]]:
        with self._database.read() as rows:
            return [dict(row) for row in rows.execute(query).mappings()]

    def watermark(self) -> dict[str, int]:
        """How far the store has grown, for a snapshot that leaves out what came later.

        Returns:
            ``generation`` of the champion; the highest number or id in ``events``, ``versions``, ``metrics`` and
            ``profiles``, 0 in an empty one; ``metric_rows`` and ``profile_rows``, how many there are, since
            those may be replaced, and whoever looks back must know whether all are still there.
        """
        numbers = {
            "generation": CHAMPION.c.generation,
            "events": EVENTS.c.number,
            "versions": VERSIONS.c.number,
            "metrics": METRICS.c.id,
            "profiles": PROFILES.c.id,
        }
        rows = {"metric_rows": METRICS, "profile_rows": PROFILES}
        queries = {name: sa.select(sa.func.max(column)) for name, column in numbers.items()}
        queries |= {name: sa.select(sa.func.count()).select_from(table) for name, table in rows.items()}
        with self._database.read() as connection:
            return {name: int(connection.scalar(query) or 0) for name, query in queries.items()}


def restored(write: Write, columns: Sequence[str], *, since: str) -> list[str]:
    """Write down of windows in which these columns were broken that they are not, and name the windows.

    A window counts as sound if nothing else was broken.

    Args:
        write: an open transaction.
        columns: that are normal now.
        since: windows that end by then are left alone.
    """
    query = sa.select(PROFILES).where(PROFILES.c.window_end > _text(since)).order_by(PROFILES.c.id)
    newest = {(row["window_start"], row["window_end"]): row for row in write.rows.execute(query).mappings()}
    windows = []
    for (start, end), row in newest.items():
        document = parsed_json(row["document"], name="profile")
        was = document.get("broken", {})
        left = [name for name in was.get("columns", ()) if name not in columns]
        if row["clean"] or len(left) == len(was.get("columns", ())):
            continue
        windows.append(f"{start}/{end}")
        text = strict_json(document | {"broken": was | {"columns": left}}, name="profile")
        changed = {
            "document": text,
            "clean": not left and not was["other"],
            "run_id": f"{write.run_id} accepted",
        }
        values = {name: value for name, value in row.items() if name != "id"} | changed
        write.rows.execute(PROFILES.insert().values(values))
    return windows


def _text(moment: datetime | str) -> str:
    given = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    return utc(given).isoformat()


def _metric(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as the table takes it: every column, moments that compare as text, no number but finite ones."""
    clean: dict[str, Any] = dict.fromkeys(_COLUMNS)
    clean |= row
    name = f"metric {clean['name']}"
    if unknown := clean.keys() - set(_COLUMNS):
        raise ParameterError(name, rule=f"must have no keys but {', '.join(_COLUMNS)}", value=sorted(unknown))
    if absent := [key for key in ("run_id", "notebook", "name", *_MOMENTS) if clean[key] is None]:
        raise ParameterError(name, rule=f"must have {', '.join(absent)}", value="nothing")
    try:
        clean |= {key: _text(clean[key]) for key in _MOMENTS}
        for key in _NUMBERS:
            clean[key] = _finite(clean[key])
        clean |= {key: None if clean[key] is None else int(clean[key]) for key in ("version", "n")}
    except (TypeError, ValueError) as error:
        raise ParameterError(name, rule="must have moments in ISO text, and numbers", value=error) from error
    return clean


def _finite(number: Any) -> float | None:
    return None if number is None or not math.isfinite(number) else float(number)
