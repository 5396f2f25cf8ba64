"""A window of predictions in Parquet files, scored part by part, each row exactly once, whatever interrupts it."""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, reduce
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from prodkit.data.chunks import Chunk, Chunks, window_chunks
from prodkit.data.sources import open_table
from prodkit.data.windows import blocks, row_column
from prodkit.decisions.gates import at_most
from prodkit.decisions.holds import Broken
from prodkit.decisions.result import current_run, metric
from prodkit.decisions.survey import Inspection
from prodkit.drift.counts import column_profile
from prodkit.drift.profiles import ColumnProfile
from prodkit.errors import DataError, ModelError
from prodkit.evidence import Evidence
from prodkit.files import publish
from prodkit.models.bundle import Bundle, lead_score, pack, unpack
from prodkit.params import ScoreParams
from prodkit.scoring.breaker import Limits
from prodkit.scoring.guard import Guard, LoadedModel, Route
from prodkit.scoring.parallel import shared_out
from prodkit.settings import destination, outputs_folder, resolve
from prodkit.store.registry import Store

__all__ = [
    "LATE_ROWS",
    "Part",
    "Scored",
    "open_window",
    "remember_scoring",
    "score_window",
    "scoring_evidence",
]

_PART_BATCHES = 10  # of a part, at least: each file is forced to the disk, as costly as some thousand rows
_FORGOTTEN_SECONDS = 86_400.0  # after which a draft is nobody's
LATE_ROWS = "late_rows"  # in the store: how many rows of a window were scored after the others
_DRAFT = ".tmp"  # ends the names of files that are not whole
_NOTE = b"prodkit.part"  # names the footer's entry
_OWN = ("version", "source", "degraded", "reason", "latency_ms")
# a breaker would let rows fall back for what others have met, or for a slow minute; a batch has time to ask for each
_PATIENT = Limits(least_calls=2**62)


@dataclass(frozen=True, eq=False)
class Part:
    """Sums over scored rows, as they stand in the footer of a file.

    Attributes:
        rows: how many there are.
        degraded_rows: that anybody but the model answered.
        failed_rows: of these, that the model should have.
        batches: rows of each batch, and how many milliseconds it took.
        days: rows and mean prediction of each day, counted from 1970.
        scores: summary of the predictions, on the bins of the training's.
    """

    rows: int
    degraded_rows: int
    failed_rows: int
    batches: tuple[tuple[int, float], ...]
    days: dict[int, tuple[int, float]]
    scores: ColumnProfile

    def to_json(self) -> str:
        """As it stands in the footer."""
        plain = {name: value for name, value in self.__dict__.items() if name != "scores"}
        return json.dumps(plain | {"scores": self.scores.to_dict()}, allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Part:
        """Read back what :meth:`to_json` wrote."""
        plain = json.loads(text)
        plain["batches"] = tuple((rows, took) for rows, took in plain["batches"])
        plain["days"] = {int(day): (rows, mean) for day, (rows, mean) in plain["days"].items()}
        return cls(**plain | {"scores": ColumnProfile.from_dict(plain["scores"])})

    def merge(self, other: Part) -> Part:
        """The sums over the rows of both."""
        days = dict(self.days)
        for day, (rows, mean) in other.days.items():
            n, before = days.get(day, (0, 0.0))
            days[day] = n + rows, (n * before + rows * mean) / (n + rows)
        return Part(
            rows=self.rows + other.rows,
            degraded_rows=self.degraded_rows + other.degraded_rows,
            failed_rows=self.failed_rows + other.failed_rows,
            batches=self.batches + other.batches,
            days=days,
            scores=self.scores.merge(other.scores),
        )


@dataclass(frozen=True)
class Scored:
    """A scored window, of which nothing but sums is in memory.

    Attributes:
        folder: where its Parquet files are, in the order of the table. Each row has the time, the id columns (or
            ``row_id``: file and position), ``prediction`` or one column a class, ``version``, ``source``,
            ``degraded``, ``reason`` and ``latency_ms``. A time or id column that is named like one of these, such as
            ``version``, stands beside it with ``key_`` before its name.
        parts: sums of each file.
        resumed_parts: how many files an earlier, interrupted attempt had written.
    """

    folder: Path
    parts: tuple[Part, ...]
    resumed_parts: int

    @cached_property
    def total(self) -> Part:
        """Sums over all rows."""
        return reduce(Part.merge, self.parts)

    @property
    def rows(self) -> int:
        """All of them."""
        return self.total.rows

    @property
    def degraded_share(self) -> float:
        """Share of rows that the baseline answered."""
        return self.total.degraded_rows / self.total.rows

    @property
    def error_share(self) -> float:
        """Share of rows that the model itself could not answer."""
        return self.total.failed_rows / self.total.rows

    @property
    def scores(self) -> ColumnProfile:
        """Summary of the predictions, or of the largest class shares, on the bins of the training's."""
        return self.total.scores

    @property
    def location(self) -> str:
        """The folder as a parameter would name it, so that it can be found wherever the outputs lie."""
        outputs, folder = outputs_folder().resolve(), self.folder.resolve()
        return f"outputs/{folder.relative_to(outputs)}" if folder.is_relative_to(outputs) else str(folder)

    def by_day(self) -> pd.DataFrame:
        """Mean prediction of each day."""
        days = sorted(self.total.days)
        index = pd.DatetimeIndex(np.array(days, dtype="datetime64[D]").astype("datetime64[us]"), name="time")
        return pd.DataFrame({"prediction": [self.total.days[day][1] for day in days]}, index=index)

    def latency(self, *quantiles: float) -> list[float]:
        """Milliseconds a row, at each of these shares of the rows: those of a batch share its time equally."""
        rows, took = np.array(self.total.batches, dtype=float).T
        each = took / rows
        order = np.argsort(each)
        reached = np.cumsum(rows[order]) / rows.sum()
        places = np.minimum(np.searchsorted(reached, quantiles), len(order) - 1)
        return [float(value) for value in each[order][places]]

    def latency_table(self) -> pd.DataFrame:
        """Batches, and milliseconds a row of the fastest, usual, slow and slowest of them."""
        names, figures = ("min", "p50", "p99", "max"), self.latency(0.0, 0.5, 0.99, 1.0)
        row = {"batches": len(self.total.batches)} | dict(zip(names, figures, strict=True))
        return pd.DataFrame(row, index=["latency_ms"])

    def head(self, rows: int = 5) -> pd.DataFrame:
        """The first rows as they stand in the files."""
        first: pd.DataFrame = next(pq.ParquetFile(self.paths[0]).iter_batches(rows)).to_pandas()
        return first

    def table(self) -> pd.DataFrame:
        """All rows, in memory."""
        return pd.concat([pd.read_parquet(path) for path in self.paths], ignore_index=True)

    @property
    def paths(self) -> list[Path]:
        """The files, in the order of the table."""
        return sorted(self.folder.glob("part-*.parquet"))


def open_window(params: ScoreParams, *, bundle: Bundle) -> Chunks:
    """The rows of the window in chunks, each of which becomes one file of the result; see :func:`window_chunks`."""
    return window_chunks(
        params,
        features=bundle.schema.names,
        batch_rows=params.batch_rows,
        chunk_rows=params.batch_rows * _PART_BATCHES,
        place=_place(params),
        scored=_scored_before(params, bundle),
    )


def _scored_before(params: ScoreParams, bundle: Bundle) -> pd.DataFrame | None:
    """What names the rows that were scored before, as the table calls its columns; None if all are to be scored."""
    if not params.scored_before:
        return None
    table = open_table(params)
    numbered = [] if params.id_column else [row_column(table.columns)]
    ids = [name for name in params.id_column if name != params.time_column]
    keys = [params.time_column, *(ids if params.id_column else numbered)]
    names = _key_names(keys, ids=params.id_column, time=params.time_column, bundle=bundle)
    folders = [Path(resolve(folder)) for folder in params.scored_before]
    paths = [path for folder in folders for path in sorted(folder.glob("part-*.parquet"))]
    parts = [pd.read_parquet(path, columns=list(names.values())) for path in paths]
    if not parts:
        rule, fix = "must hold predictions", "Restore the folders from a backup."
        raise DataError("scored_before", rule=rule, value=", ".join(params.scored_before), fix=fix)
    return pd.concat(parts, ignore_index=True).set_axis(keys, axis="columns")


def _place(params: ScoreParams) -> Path:
    # predictions of a demonstration must not lie where others look for predictions
    return destination("outputs/demo/predictions" if params.store == "demo" else params.predictions)


def score_window(
    params: ScoreParams, chunks: Chunks, inspection: Inspection, *, version: int, bundle: Bundle
) -> Scored:
    """Predict each row once, in batches; a file that is already there is not written again.

    The folder is named after the window, the version and a digest of model, rows, batch size and trust, so that a
    file in it is part of this result. Files appear whole or not at all. They are shared out through joblib, and one
    batch of each is in memory at a time.

    Args:
        params: of the notebook.
        chunks: the rows, as :func:`open_window` gives them.
        inspection: of these rows; where it found columns broken, the model is asked without them, or not at all.
        version: number of the bundle.
        bundle: that predicts.

    Raises:
        DataError: the rows can no longer be read, or are others than were inspected.
    """
    read = inspection.read
    assert read is not None
    trust = [inspection.broken.distrust, *inspection.broken.masked]
    identity = json.dumps([bundle.digest, read.digest, params.batch_rows, *trust, chunks.keys])
    key = hashlib.sha256(identity.encode()).hexdigest()[:12]
    span = str(params.window).replace("/", "_").replace(":", "")
    folder = _place(params) / span / f"v{version}-{key}"
    folder.mkdir(parents=True, exist_ok=True)
    for draft in folder.glob(f"*{_DRAFT}"):
        if draft.stat().st_mtime < time.time() - _FORGOTTEN_SECONDS:
            draft.unlink(missing_ok=True)
    names = _key_names(chunks.keys, ids=params.id_column, time=params.time_column, bundle=bundle)
    write = _Writer(folder, params.time_column, names, version, inspection.broken, bundle)
    if params.backend != "threading" and len(chunks) > 1:
        write = write.packed(chunks.scratch / "model")
    sizes = [chunk.most_rows for chunk in chunks]
    label = f"score {params.window}"[:32]
    results = list(shared_out(write, chunks, backend=params.backend, label=label, sizes=sizes))
    if [part.rows for part, _ in results] != list(read.parts):
        fix = "Run it again, when nobody writes to the table."
        raise DataError("data", rule="must not change while it is scored", value=params.data, fix=fix)
    chunks.close()
    parts = tuple(part for part, _ in results if part.rows)
    return Scored(folder, parts, resumed_parts=sum(resumed for _, resumed in results))


def _prediction_names(bundle: Bundle) -> list[str]:
    if bundle.schema.task == "multiclass":
        return [f"prediction_{name}" for name in bundle.schema.classes]
    return ["prediction"]


def _key_names(keys: Sequence[str], *, ids: Sequence[str], time: str, bundle: Bundle) -> dict[str, str]:
    """What the columns that name a row are called in the result: never like another column of it."""
    taken, names = {*_OWN, *_prediction_names(bundle)}, {}
    for key in sorted(keys, key=lambda key: key in taken):  # those that keep their name come first
        name = key if key in (time, *ids) else "row_id"
        while name in taken:
            name = f"key_{name}"
        taken.add(name)
        names[key] = name
    return {key: names[key] for key in keys}


@dataclass(frozen=True, eq=False)
class _Writer:
    """Scores a chunk and writes its file, unless that was done before. It can be sent to another process.

    Attributes:
        folder: of the files.
        time: name of the time column.
        keys: names in the result of the columns that are carried along.
        version: that predicts.
        broken: what it must not be asked about, or why not at all.
        bundle: of the version; None in another process, which reads it from
        path: a file whose bytes have this
        digest: without which they are not read.
    """

    folder: Path
    time: str
    keys: dict[str, str]
    version: int
    broken: Broken
    bundle: Bundle | None
    path: Path | None = None
    digest: str = ""

    def packed(self, path: Path) -> _Writer:
        """The same, with a file that another process can read the version from."""
        assert self.bundle is not None
        artifact = pack(self.bundle)
        path.write_bytes(artifact)
        return replace(self, path=path, digest=hashlib.sha256(artifact).hexdigest())

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_guard"} | {"bundle": None}

    @cached_property
    def _guard(self) -> Guard:
        if self.bundle is not None:
            model = LoadedModel(self.version, self.bundle, limits=_PATIENT)
        else:
            model = _load(self.version, str(self.path), self.digest)
        return Guard(Route(model, distrust=self.broken.distrust, masked=self.broken.masked))

    def __call__(self, chunk: Chunk) -> tuple[Part, bool]:
        """The sums of the file, and whether it was there."""
        path = self.folder / f"part-{chunk.number:06d}.parquet"
        if path.exists():
            return Part.from_json(pq.read_metadata(path).metadata[_NOTE]), True
        draft = path.with_suffix(f".{uuid.uuid4().hex}{_DRAFT}")
        scores = self._guard.route.first.bundle.scores
        whole = Part(0, 0, 0, (), {}, column_profile(np.empty(0), blocks=np.empty(0), like=scores))
        writer: pq.ParquetWriter | None = None
        try:
            for batch in chunk.batches():
                table, part = self._score(batch)
                whole = whole.merge(part)
                writer = writer or pq.ParquetWriter(draft, table.schema, compression="zstd")
                writer.write_table(table)
            if writer is not None:
                writer.add_key_value_metadata({_NOTE: whole.to_json()})
                writer.close()
                publish(draft, path)
        finally:
            if writer is not None:
                writer.close()
            draft.unlink(missing_ok=True)
        return whole, False

    def _score(self, batch: Any) -> tuple[pa.Table, Part]:
        """The rows of the result that belong to a batch, and their sums."""
        began, bundle = time.perf_counter(), self._guard.route.first.bundle
        features = [name for name in batch.schema.names if name in bundle.schema.names]
        answers = self._guard.answer(batch.select(features).to_pandas())
        took_ms, rows = (time.perf_counter() - began) * 1000, batch.num_rows
        columns: dict[str, Any] = {name: batch.column(key) for key, name in self.keys.items()}
        columns |= dict(zip(_prediction_names(bundle), np.atleast_2d(answers.predicted.T), strict=True))
        columns |= {
            "version": pa.array(answers.version),
            "source": pa.array(answers.source, pa.string()),
            "degraded": pa.array(answers.degraded),
            "reason": pa.array(answers.reason, pa.string()),
            "latency_ms": np.full(rows, took_ms / rows),
        }
        failed = answers.degraded & (answers.reason != self.broken.distrust)
        scores, days = lead_score(answers.predicted), blocks(batch.column(self.time).to_pandas())
        means = pd.Series(scores).groupby(days).agg(["size", "mean"])
        return pa.table(columns), Part(
            rows=rows,
            degraded_rows=int(answers.degraded.sum()),
            failed_rows=int(failed.sum()),
            batches=((rows, took_ms),),
            days={int(day): (int(n), float(mean)) for day, n, mean in means.itertuples()},
            scores=column_profile(scores, blocks=days, like=bundle.scores),
        )


@lru_cache(maxsize=1)
def _load(version: int, path: str, digest: str) -> LoadedModel:
    """A version that another process has packed, read once a process."""
    artifact = Path(path).read_bytes()
    if hashlib.sha256(artifact).hexdigest() != digest:
        raise ModelError(f"version {version}", rule="was changed on its way to a worker", value=path)
    return LoadedModel(version, unpack(artifact), limits=_PATIENT)


def remember_scoring(
    store: Store, params: ScoreParams, scored: Scored, inspection: Inspection, *, version: int
) -> None:
    """Leave in the store what later notebooks ask of this window: health, and what its input looked like.

    Rows that came late are counted, and change nothing of what the window looked like when it was judged.
    """
    about: dict[str, Any] = {"window": params.window, "version": version, "n": scored.rows}
    if params.scored_before:
        store.record_metrics([metric(params, LATE_ROWS, scored.rows, **about)])
        return
    usual, slow = scored.latency(0.5, 0.99)
    figures = {
        "rows": scored.rows,
        "degraded_share": scored.degraded_share,
        "error_share": scored.error_share,
        "latency_p50_ms": usual,
        "latency_p99_ms": slow,
    }
    store.record_metrics([metric(params, name, value, **about) for name, value in figures.items()])
    document = inspection.current.to_dict() | {"broken": inspection.broken.to_dict()}
    store.save_profile(
        params.window, document, run_id=current_run(params), version=version, clean=inspection.sound
    )


def scoring_evidence(params: ScoreParams, scored: Scored) -> list[Evidence]:
    """Could every row be answered, and how many by the model itself?"""
    shares = {
        "error_share": (scored.error_share, "rows that the model could not answer"),
        "degraded_share": (scored.degraded_share, "rows answered by the simple rule"),
    }
    return [
        at_most(f"health.{name}", share, limit=params.slo[name], n=scored.rows, rung=2, note=note)
        for name, (share, note) in shares.items()
        if params.slo.get(name) is not None
    ]
