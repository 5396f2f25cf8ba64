"""The request log: what was asked and answered, as Parquet that the notebooks read like any other table."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from prodkit.data.schema import Schema
from prodkit.scoring.guard import Answers
from prodkit.scoring.rows import moment_of

__all__ = ["Entry", "RequestLog"]

_MOST_BYTES = 64_000_000  # of bodies whose rows wait to be written
_TYPES = {
    "numeric": pa.float64(),
    "boolean": pa.float64(),
    "categorical": pa.string(),
    "datetime": pa.timestamp("us"),
}


class Entry(NamedTuple):
    """The rows of one request: the answers with the cells that the schema reads, and the rows as they were sent."""

    answers: Answers
    rows: Sequence[Any]
    schema: Schema
    when: datetime  # it was asked, naive UTC
    request: str  # a name that no other request has
    client: str | None  # how the client named it
    generation: int
    latency_ms: float
    size: int  # of its body, bytes


class RequestLog:
    """Rows and answers, kept in memory for some seconds and written by a thread of its own.

    To note a request never waits and never fails: where too much waits, or a disk takes none, rows are lost and
    counted. A file has its name once it is whole. A process that is killed loses what it had not yet written.

    Columns: ``requested_at``, ``request`` (unique), ``client_request`` (as the client named it), ``row`` (its place in
    the request), ``model_version``, ``generation``, ``source``, ``degraded``, ``reason``, ``latency_ms``,
    ``prediction`` (or one column a class); the features with the types of the schema; and time and ids as they were
    sent. A column of the log whose name a feature has ends in ``_``.

    Args:
        folder: that receives the files.
        most_rows: that may wait; 0 keeps no log.
        seconds: between two files, at most: when half of the rows that may wait are there, they are written.
        time_column: when a row happened; the moment of the request where none is sent.
        id_column: what names a row.
        time_format: how the project writes its times; ISO if empty.
        timezone: in which times without an offset are meant.

    Attributes:
        written: rows so far.
        lost: rows so far.
        problem: why the last file could not be written; empty if it could.
    """

    def __init__(
        self,
        folder: Path,
        *,
        most_rows: int,
        seconds: float,
        time_column: str,
        id_column: Sequence[str],
        time_format: str = "",
        timezone: str = "UTC",
    ) -> None:
        self._folder, self._most_rows, self._seconds = folder, most_rows, seconds
        self._time, self._ids = time_column, [name for name in id_column if name != time_column]
        self._form, self._zone = time_format, timezone
        self._entries: list[Entry] = []
        self._rows = self._bytes = self._number = 0
        self._lock, self._wake, self._ended = threading.Lock(), threading.Event(), False
        self._thread = threading.Thread(target=self._run, name="prodkit-request-log", daemon=True)
        self.written = self.lost = 0
        self.problem = ""

    def start(self) -> None:
        """Begin to write."""
        if self._most_rows:
            self._thread.start()

    @property
    def named(self) -> list[str]:
        """The columns that are read from a row beside its features: its time and its ids."""
        return [self._time, *self._ids]

    def note(self, entry: Entry) -> None:
        """Keep the rows of a request."""
        if not self._most_rows:
            return
        rows, size = len(entry.rows), entry.size
        with self._lock:
            if self._rows + rows > self._most_rows or self._bytes + size > _MOST_BYTES:
                self.lost += rows
                return
            self._entries.append(entry)
            self._rows, self._bytes = self._rows + rows, self._bytes + size
            if self._rows >= self._most_rows // 2:
                self._wake.set()

    def close(self, *, wait_seconds: float = 10.0) -> None:
        """Write what is left, and end."""
        self._ended = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(wait_seconds)

    def _run(self) -> None:
        while not self._ended:
            self._wake.wait(self._seconds)
            self._wake.clear()
            self.flush()
        self.flush()

    def flush(self) -> None:
        """Write what waits now, a file for each schema."""
        with self._lock:
            entries, self._entries, self._rows, self._bytes = self._entries, [], 0, 0
        for _, group in groupby(entries, key=lambda entry: id(entry.schema)):
            part = list(group)
            try:
                self._write(pa.concat_tables([self._table(entry) for entry in part]))
                self.problem = ""
            except Exception as error:  # a full disk must not stop anybody from being answered
                self.lost += sum(len(entry.rows) for entry in part)
                self.problem = f"{type(error).__name__}: {error}"[:300]

    def _write(self, table: pa.Table) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._number += 1
        name = f"requests-{time.time_ns()}-{os.getpid()}-{self._number:06d}.parquet"
        draft = self._folder / f".{name}.tmp"
        try:
            pq.write_table(table, draft, compression="zstd")
            draft.replace(self._folder / name)
        finally:
            draft.unlink(missing_ok=True)
        self.written += len(table)

    def _table(self, entry: Entry) -> pa.Table:
        answers, n = entry.answers, len(entry.rows)
        columns: dict[str, pa.Array] = {
            column.name: _array([cells[place] for cells in answers.cells], _TYPES[column.kind])
            for place, column in enumerate(entry.schema.features)
        }
        for name in self.named:
            cells = [row.get(name) if isinstance(row, dict) else None for row in entry.rows]
            if name == self._time and name not in columns:
                times = [moment_of(cell, self._form, self._zone) or entry.when for cell in cells]
                columns[name] = pa.array(times, pa.timestamp("us"))
            elif name not in columns:
                columns[name] = _array([None if cell is None else str(cell) for cell in cells], pa.string())
        own: dict[str, pa.Array] = {
            "requested_at": pa.array([entry.when] * n, pa.timestamp("us")),
            "request": pa.array([entry.request] * n, pa.string()),
            "client_request": pa.array([entry.client] * n, pa.string()),
            "row": pa.array(range(n), pa.int64()),
            "model_version": pa.array(answers.version, pa.int64()),
            "generation": pa.array([entry.generation] * n, pa.int64()),
            "source": pa.array(answers.source, pa.string()),
            "degraded": pa.array(answers.degraded, pa.bool_()),
            "reason": _array(list(answers.reason), pa.string()),
            "latency_ms": pa.array([entry.latency_ms] * n, pa.float64()),
        }
        if answers.predicted.ndim == 1:
            own["prediction"] = pa.array(answers.predicted, pa.float64())
        else:
            for code, label in enumerate(entry.schema.classes):
                own[f"prediction_{label}"] = pa.array(answers.predicted[:, code], pa.float64())
        return pa.table({name + "_" * (name in columns): cells for name, cells in own.items()} | columns)


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    try:
        return pa.array(values, kind, from_pandas=True)
    except UnicodeEncodeError:  # half a character, which JSON can spell
        whole = [None if text is None else text.encode("utf-8", "replace").decode() for text in values]
        return pa.array(whole, kind)
