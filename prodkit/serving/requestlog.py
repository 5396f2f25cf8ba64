"""The request log: what was asked and answered, as Parquet that the notebooks read like any other table."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from prodkit.data.schema import Schema
from prodkit.scoring.rows import moment_of

__all__ = ["RequestLog"]

_LONGEST = 200  # characters of a text that are kept
_ROWS_AT_ONCE = 256  # turned into columns at a time, which takes about as long as a few requests
_TYPES = {
    "numeric": pa.float64(),
    "boolean": pa.float64(),
    "categorical": pa.string(),
    "datetime": pa.timestamp("us"),
}
_Entry = tuple[tuple[Any, ...], list[Any], tuple[Any, ...]]


class RequestLog:
    """Rows and answers, kept in memory for some seconds and written by a thread of its own.

    To note a row never waits and never fails: with too many rows waiting, or a disk that takes none, rows are lost
    and counted. A file has its name once it is whole. A process that is killed loses what it had not yet written.

    Whoever notes a row turns some of them into columns now and then; the thread writes these, which needs no Python:
    a thread that did both would take turns with the event loop at each of its system calls, for as long as it takes.

    Columns: ``requested_at``, ``request``, ``row`` (its place in the request), ``model_version``, ``generation``,
    ``source``, ``degraded``, ``reason``, ``latency_ms``, ``prediction`` (or one column a class); the features with
    the types of the schema; and time and ids as they were sent.

    Args:
        folder: that receives the files.
        most_rows: that may wait.
        seconds: between two files, at most: when half of the rows that may wait are there, they are written.
        time_column: when a row happened; the moment of the request where none is sent.
        id_column: what names a row.

    Attributes:
        written: rows so far.
        lost: rows so far.
        problem: why the last file could not be written; empty if it could.
    """

    def __init__(
        self, folder: Path, *, most_rows: int, seconds: float, time_column: str, id_column: list[str]
    ) -> None:
        self._folder, self._most_rows, self._seconds = folder, most_rows, seconds
        self._time, self._ids = time_column, [name for name in id_column if name != time_column]
        self._schema: Schema | None = None  # of the entries
        self._entries: list[_Entry] = []
        self._tables: list[pa.Table] = []
        self._waiting = 0  # rows of both
        self._lock, self._wake, self._ended = threading.Lock(), threading.Event(), False
        self._thread = threading.Thread(target=self._run, name="prodkit-request-log", daemon=True)
        self._number = 0
        self.written = self.lost = 0
        self.problem = ""

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def note(self, schema: Schema, facts: tuple[Any, ...], cells: list[Any], row: Any) -> None:
        """Keep one row.

        Args:
            schema: that the cells were read by.
            facts: the log's own columns from ``requested_at`` to ``latency_ms``, and the prediction.
            cells: the features.
            row: as it was sent, for its time and ids.
        """
        sent = row.get if isinstance(row, dict) else {}.get
        named = (_short(sent(self._time)), *(_plain(sent(name)) for name in self._ids))
        entry = (facts, [_short(cell) for cell in cells], named)
        with self._lock:
            if self._waiting >= self._most_rows:
                self.lost += 1
                return
            if schema is not self._schema or len(self._entries) >= _ROWS_AT_ONCE:
                self._gather()
            self._schema = schema
            self._entries.append(entry)
            self._waiting += 1
            if self._waiting == self._most_rows // 2:
                self._wake.set()

    def failed(self, error: Exception, *, rows: int = 1) -> None:
        """Count rows that could not be kept, and say why."""
        self.lost += rows
        self.problem = f"{type(error).__name__}: {error}"[:300]

    def close(self, *, wait_seconds: float = 10.0) -> None:
        """Write what is left, and end."""
        self._ended = True
        self._wake.set()
        self._thread.join(wait_seconds)

    def _run(self) -> None:
        while not self._ended:
            self._wake.wait(self._seconds)
            self._wake.clear()
            self.flush()
        self.flush()

    def flush(self) -> None:
        """Write what waits now."""
        with self._lock:
            self._gather()
            tables, self._tables, self._waiting = self._tables, [], 0
        for columns in {table.schema: None for table in tables}:
            self._write(pa.concat_tables([table for table in tables if table.schema == columns]))

    def _gather(self) -> None:
        """Turn the entries into columns."""
        entries, self._entries = self._entries, []
        if not entries:
            return
        assert self._schema is not None
        try:
            self._tables.append(self._table(self._schema, entries))
        except Exception as error:
            self._waiting -= len(entries)
            self.failed(error, rows=len(entries))

    def _write(self, table: pa.Table) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._number += 1
            name = f"requests-{time.time_ns()}-{os.getpid()}-{self._number:06d}.parquet"
            draft, path = self._folder / f".{name}.tmp", self._folder / name
            try:
                pq.write_table(table, draft, compression="zstd")
                draft.replace(path)
            finally:
                draft.unlink(missing_ok=True)
            self.written += len(table)
            self.problem = ""
        except Exception as error:  # a full disk must not stop anybody from being answered
            self.failed(error, rows=len(table))

    def _table(self, schema: Schema, entries: list[_Entry]) -> pa.Table:
        facts = list(zip(*(entry[0] for entry in entries), strict=True))
        cells = list(zip(*(entry[1] for entry in entries), strict=True))
        named = list(zip(*(entry[2] for entry in entries), strict=True))
        columns: dict[str, pa.Array] = {}
        for column, values in zip(schema.features, cells, strict=True):
            columns[column.name] = _array(values, _TYPES[column.kind])
        if self._time not in columns:
            moments = [moment_of(cell) or when for cell, when in zip(named[0], facts[0], strict=True)]
            columns[self._time] = pa.array(moments, pa.timestamp("us"))
        for name, values in zip(self._ids, named[1:], strict=True):
            if name not in columns:
                columns[name] = _array(values, pa.string())
        own = dict(zip(_OWN, facts[: len(_OWN)], strict=True))
        made = {
            name: pa.array(values, kind)
            for (name, kind), values in zip(_OWN.items(), own.values(), strict=True)
        }
        made |= _predictions(schema, facts[len(_OWN)])
        return pa.table(
            {name if name not in columns else f"{name}_": values for name, values in made.items()} | columns
        )


_OWN = {
    "requested_at": pa.timestamp("us"),
    "request": pa.string(),
    "row": pa.int64(),
    "model_version": pa.int64(),
    "generation": pa.int64(),
    "source": pa.string(),
    "degraded": pa.bool_(),
    "reason": pa.string(),
    "latency_ms": pa.float64(),
}


def _predictions(schema: Schema, predicted: tuple[Any, ...]) -> dict[str, pa.Array]:
    if schema.task != "multiclass":
        return {"prediction": pa.array(predicted, pa.float64())}
    shares = zip(*predicted, strict=True)
    return {
        f"prediction_{name}": pa.array([float(share) for share in of], pa.float64())
        for name, of in zip(schema.classes, shares, strict=True)
    }


def _array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    try:
        return pa.array(values, kind, from_pandas=True)
    except UnicodeEncodeError:  # half a character, which JSON can spell
        return pa.array(
            [None if text is None else text.encode("utf-8", "replace").decode() for text in values], kind
        )


def _short(cell: Any) -> Any:
    return cell[:_LONGEST] if type(cell) is str else cell


def _plain(cell: Any) -> str | None:
    return None if cell is None else str(cell)[:_LONGEST]
