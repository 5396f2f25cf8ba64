"""Predictions of tables larger than memory: Parquet in, Parquet out, row group by row group, each exactly once."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from joblib import Parallel, delayed

from prodkit.errors import DataError, SchemaError, missing_column
from prodkit.models.bundle import Bundle
from prodkit.scoring.batch import figure_rows
from prodkit.scoring.guard import Answers, Guard, Standing
from prodkit.scoring.resident import Resident
from prodkit.settings.params import ScoreParams
from prodkit.store.registry import Store

__all__ = ["Bulk", "remember_bulk", "score_files"]

_ROWS_AT_ONCE = 16_384
_OWN = ("version", "source", "degraded", "reason", "latency_ms")


@dataclass(frozen=True)
class Bulk:
    """What was scored.

    Attributes:
        folder: where the Parquet files are: one for each row group of the source, in its order.
        rows: all of them.
        degraded_rows: that anybody but the model answered.
        parts: files.
        resumed_parts: files that an earlier, interrupted attempt had written.
        trusted: whether the model was asked at all.
    """

    folder: Path
    rows: int
    degraded_rows: int
    parts: int
    resumed_parts: int
    trusted: bool

    def latencies(self) -> np.ndarray:
        """Milliseconds a row (rows,): those of a batch share them out equally."""
        paths = sorted(self.folder.glob("part-*.parquet"))
        read = [pq.read_table(path, columns=["latency_ms"])["latency_ms"].to_numpy() for path in paths]
        return np.concatenate([np.empty(0), *read])


@dataclass(frozen=True)
class _Unit:
    """One row group of the source."""

    number: int
    path: Path
    group: int
    first: int  # position of its first row in its file
    rows: int


def score_files(
    paths: Sequence[Path],
    folder: Path,
    *,
    version: int,
    bundle: Bundle,
    keys: Sequence[str] = (),
    distrust: str = "",
    jobs: int = -1,
    tell: Callable[[int, int], None] | None = None,
) -> Bulk:
    """Predict each row of Parquet files once, whatever interrupts it; called again, it goes on where it stopped.

    Row groups are shared out among joblib's threads, which let go of the interpreter in the arithmetic, and read
    in batches, so that memory does not grow with the table. The result of a row group appears whole or not at all, in a
    folder named after a digest of model, source files, keys and trust: what is found there is this work.

    Args:
        paths: Parquet files with the columns of the model.
        folder: under which the result lies.
        version: number of the bundle.
        bundle: that predicts.
        keys: columns that are carried along, such as ids and time; file and position of a row if there are none.
        distrust: why the model must not be asked at all; empty if it may.
        jobs: threads, as joblib counts them.
        tell: is told of rows done and rows in all, now and then.

    Returns:
        Where it is: keys, ``prediction`` (or one column a class), ``version``, ``source``, ``degraded``,
        ``reason`` and ``latency_ms`` of each row, in the order of the source.

    Raises:
        DataError: a file is not there, or no Parquet.
        SchemaError: a key is missing, or named like a column of the result.
    """
    units = _units(paths)
    names = _result_names(bundle)
    _require_keys(units, keys, names)
    place = folder / f"v{version}-{_identity(paths, bundle, keys, distrust)}"
    place.mkdir(parents=True, exist_ok=True)
    resident = Resident(version, bundle)
    guard = Guard(Standing(resident, distrust=distrust))
    total, done, found = sum(unit.rows for unit in units), 0, []
    parts = Parallel(n_jobs=jobs, backend="threading", return_as="generator_unordered")
    for part in parts(delayed(_scored)(unit, place, guard, tuple(keys), names) for unit in units):
        found.append(part)
        done += part[0]
        if tell is not None:
            tell(done, total)
    return Bulk(
        folder=place,
        rows=done,
        degraded_rows=sum(degraded for _, degraded, _ in found),
        parts=len(units),
        resumed_parts=sum(resumed for _, _, resumed in found),
        trusted=not distrust,
    )


def remember_bulk(store: Store, params: ScoreParams, done: Bulk, *, version: int) -> None:
    """Leave in the store what later notebooks ask of this window: how many rows, who answered them, how fast.

    Args:
        store: that remembers.
        params: whose window the rows are.
        done: what was scored; nothing is remembered of no rows.
        version: that was asked.
    """
    latency = done.latencies()
    if not len(latency):
        return
    degraded = done.degraded_rows / done.rows
    figures = {
        "rows": done.rows,
        "degraded_share": degraded,
        "error_share": degraded if done.trusted else 0.0,
        "latency_p50_ms": float(np.percentile(latency, 50)),
        "latency_p99_ms": float(np.percentile(latency, 99)),
    }
    store.record_metrics(figure_rows(params, figures, version=version, n=done.rows))


def _units(paths: Sequence[Path]) -> list[_Unit]:
    units: list[_Unit] = []
    for path in paths:
        try:
            footer = pq.read_metadata(path)
        except (OSError, pa.ArrowException) as error:
            rule = f"must be a readable Parquet file: {error}"
            raise DataError(
                "paths", rule=rule[:300], value=path, fix="Name Parquet files that exist."
            ) from error
        first = 0
        for group in range(footer.num_row_groups):
            rows = footer.row_group(group).num_rows
            units.append(_Unit(len(units), path, group, first, rows))
            first += rows
    return units


def _require_keys(units: Sequence[_Unit], keys: Sequence[str], names: Sequence[str]) -> None:
    for path in {unit.path for unit in units}:
        known = pq.read_schema(path).names
        for key in keys:
            if key not in known:
                raise missing_column(key, known, place=str(path), fix="Name other `keys`.")
    for key in keys:
        if key in (*names, *_OWN):
            fix = "Rename it in the source, or leave it out of `keys`."
            raise SchemaError(key, rule="must not be named like a column of the result", fix=fix)


def _identity(paths: Sequence[Path], bundle: Bundle, keys: Sequence[str], distrust: str) -> str:
    """Digest of what goes in; a source file counts by path, size, time of change and its own footer."""
    digest = hashlib.sha256(json.dumps([bundle.digest, list(keys), distrust]).encode())
    for path in paths:
        status = path.stat()
        with path.open("rb") as file:
            file.seek(max(0, status.st_size - 65_536))
            footer = hashlib.sha256(file.read()).hexdigest()
        digest.update(json.dumps([str(path.resolve()), status.st_size, status.st_mtime_ns, footer]).encode())
    return digest.hexdigest()[:12]


def _result_names(bundle: Bundle) -> list[str]:
    if bundle.schema.task == "multiclass":
        return [f"prediction_{name}" for name in bundle.schema.classes]
    return ["prediction"]


def _scored(
    unit: _Unit, place: Path, guard: Guard, keys: tuple[str, ...], names: list[str]
) -> tuple[int, int, bool]:
    """Score a row group, unless that was done before: rows, degraded rows, and whether it was."""
    path = place / f"part-{unit.number:06d}.parquet"
    if path.exists():
        degraded = pq.read_table(path, columns=["degraded"])["degraded"]
        return len(degraded), int(np.count_nonzero(degraded)), True
    schema = guard.standing.first.bundle.schema
    texts = [column.name for column in schema.features if column.kind == "categorical"]
    source = pq.ParquetFile(unit.path, read_dictionary=texts)
    wanted = list(
        dict.fromkeys([*keys, *(name for name in schema.names if name in source.schema_arrow.names)])
    )
    draft = path.with_suffix(f".{os.getpid()}.tmp")
    degraded, first = 0, unit.first
    writer: pq.ParquetWriter | None = None
    try:
        for batch in source.iter_batches(_ROWS_AT_ONCE, [unit.group], wanted, use_threads=False):
            table, lost = _answered(batch, guard, keys, names, source.schema_arrow, (unit.path.name, first))
            degraded, first = degraded + lost, first + batch.num_rows
            writer = writer or pq.ParquetWriter(draft, table.schema, compression="zstd")
            writer.write_table(table)
    finally:
        source.close()
        if writer is not None:
            writer.close()
    if writer is not None:
        _publish(draft, path)
    return first - unit.first, degraded, False


def _answered(
    batch: pa.RecordBatch,
    guard: Guard,
    keys: tuple[str, ...],
    names: list[str],
    source: pa.Schema,
    origin: tuple[str, int],
) -> tuple[pa.Table, int]:
    """The result of a batch, and how many of its rows are degraded."""
    began = time.perf_counter()
    features = [name for name in batch.schema.names if name in guard.standing.first.bundle.schema.names]
    frame: pd.DataFrame = batch.select(features).to_pandas()
    answers = guard.answer(frame)
    took_ms = (time.perf_counter() - began) * 1000
    rows = batch.num_rows
    columns: dict[str, Any] = {key: batch[key].cast(source.field(key).type) for key in keys}
    if not keys:
        name, first = origin
        columns = {"file": _repeated(name, rows), "position": pa.array(np.arange(first, first + rows))}
    columns |= dict(zip(names, np.atleast_2d(answers.predicted.T), strict=True))
    columns |= _origins(answers) | {"latency_ms": np.full(rows, took_ms / max(rows, 1))}
    return pa.table(columns), int(answers.degraded.sum())


def _origins(answers: Answers) -> dict[str, Any]:
    return {
        "version": pa.array(answers.version),
        "source": pa.array(answers.source, pa.string()),
        "degraded": pa.array(answers.degraded),
        "reason": pa.array(answers.reason, pa.string()),
    }


def _repeated(text: str, times: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(np.zeros(times, dtype=np.int8), [text]).cast(pa.string())


def _publish(draft: Path, path: Path) -> None:
    """Force it to the disk, then give it its name: a file under its own name is whole."""
    with draft.open("rb+") as file:
        os.fsync(file.fileno())
    draft.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
