"""A window of predictions: its input inspected first, then scored part by part, each row exactly once."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from prodkit.data.chunks import Chunks, window_chunks
from prodkit.decisions.gates import at_most
from prodkit.decisions.result import current_run, metric
from prodkit.decisions.survey import Inspection
from prodkit.drift.profiles import ColumnProfile
from prodkit.errors import DataError
from prodkit.evidence import Evidence
from prodkit.models.bundle import Bundle
from prodkit.params import ScoreParams
from prodkit.scoring.parts import DRAFT, Part, PartWriter, Sent
from prodkit.scoring.workers import shared_out
from prodkit.settings import destination, outputs_folder
from prodkit.store.registry import Store

__all__ = ["Scored", "open_window", "remember_scoring", "score_window", "scoring_evidence"]

_PART_BATCHES = (
    10  # of a part, at least: each is forced to the disk, which takes as long as some thousand rows
)
_FORGOTTEN_SECONDS = 86_400.0  # after which a draft is nobody's


@dataclass(frozen=True)
class Scored:
    """A scored window, of which nothing but sums is in memory.

    Attributes:
        folder: where its Parquet files are. Each row has the time, the id columns (``row_id`` says file and position
            where there are none), ``prediction`` or one column a class, ``version``, ``source``, ``degraded``,
            ``reason`` and ``latency_ms``, in the order of the table. An id
            named like one of these begins with ``key_``.
        parts: what is known of each file.
        resumed_parts: how many had been written by an earlier, interrupted attempt.
    """

    folder: Path
    parts: tuple[Part, ...]
    resumed_parts: int

    @property
    def rows(self) -> int:
        """All of them."""
        return sum(part.rows for part in self.parts)

    @property
    def degraded_share(self) -> float:
        """Share of rows that the simple rule answered."""
        return sum(part.degraded_rows for part in self.parts) / self.rows

    @property
    def error_share(self) -> float:
        """Share of rows that the model itself could not answer."""
        return sum(part.failed_rows for part in self.parts) / self.rows

    @property
    def scores(self) -> ColumnProfile:
        """Summary of the predictions, or of the largest class shares, on the bins of the training's."""
        return reduce(ColumnProfile.merge, (part.scores for part in self.parts))

    @property
    def location(self) -> str:
        """The folder as a parameter would name it, so that it can be found wherever the outputs lie."""
        outputs = outputs_folder().resolve()
        folder = self.folder.resolve()
        return f"outputs/{folder.relative_to(outputs)}" if folder.is_relative_to(outputs) else str(folder)

    def by_day(self) -> pd.DataFrame:
        """Mean prediction of each day."""
        rows, total = Counter[int](), Counter[int]()
        for part in self.parts:
            for day, (count, mean) in part.days.items():
                rows[day] += count
                total[day] += count * mean  # type: ignore[assignment]  # a Counter of floats
        days = sorted(rows)
        index = pd.DatetimeIndex(np.array(days, dtype="datetime64[D]").astype("datetime64[us]"), name="time")
        return pd.DataFrame({"prediction": [total[day] / rows[day] for day in days]}, index=index)

    def latency(self, *quantiles: float) -> list[float]:
        """Milliseconds a row, at each of these shares of the rows: those of a batch share its time equally."""
        rows, took = np.array([batch for part in self.parts for batch in part.batches], dtype=float).T
        each = took / rows
        order = np.argsort(each)
        reached = np.cumsum(rows[order]) / rows.sum()
        places = np.minimum(np.searchsorted(reached, quantiles), len(order) - 1)
        return [float(value) for value in each[order][places]]

    def latency_table(self) -> pd.DataFrame:
        """Batches, and milliseconds a row of the fastest, usual, slow and slowest of them."""
        batches = sum(len(part.batches) for part in self.parts)
        fastest, usual, slow, slowest = self.latency(0.0, 0.5, 0.99, 1.0)
        figures = {"batches": batches, "min": fastest, "p50": usual, "p99": slow, "max": slowest}
        return pd.DataFrame(figures, index=["latency_ms"])

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
    """The rows of the window in chunks, each of which becomes one part of the result; see :func:`window_chunks`."""
    return window_chunks(
        params,
        features=bundle.schema.names,
        batch_rows=params.batch_rows,
        chunk_rows=params.batch_rows * _PART_BATCHES,
        place=_place(params),
    )


def _place(params: ScoreParams) -> Path:
    # what a demonstration says must not lie where others look for predictions
    return destination("outputs/demo/predictions" if params.store == "demo" else params.predictions)


def score_window(
    params: ScoreParams, chunks: Chunks, inspection: Inspection, *, version: int, bundle: Bundle
) -> Scored:
    """Predict each row once, in batches; a part that is already on disk is kept, not done again.

    The folder is named after the window, the version and a digest of model, rows, batch size and trust, so a part
    found there is this part. Files appear whole or not at all. Parts are shared out through joblib, and a batch
    each is in memory at a time.

    Args:
        params: of the notebook.
        chunks: the rows, as :func:`open_window` gives them.
        inspection: of these rows; where it found them broken, the model is not asked.
        version: number of the bundle.
        bundle: that predicts.

    Raises:
        DataError: the rows can no longer be read, or are others than were inspected.
    """
    read = inspection.read
    assert read is not None
    identity = json.dumps([bundle.digest, read.digest, params.batch_rows, inspection.distrust, chunks.keys])
    key = hashlib.sha256(identity.encode()).hexdigest()[:12]
    span = str(params.window).replace("/", "_").replace(":", "")
    folder = _place(params) / span / f"v{version}-{key}"
    folder.mkdir(parents=True, exist_ok=True)
    for draft in folder.glob(f"*{DRAFT}"):
        if draft.stat().st_mtime < time.time() - _FORGOTTEN_SECONDS:
            draft.unlink(missing_ok=True)
    sent = Sent(version, bundle, inspection.distrust)
    if params.backend != "threading" and len(chunks) > 1:
        sent = sent.kept(chunks.scratch / "model")
    write = PartWriter(folder, sent, params.time_column, tuple(chunks.keys))
    sizes = [chunk.most_rows for chunk in chunks]
    label = f"score {params.window}"[:32]
    parts, resumed = [], 0
    for part, was_there in shared_out(write, chunks, backend=params.backend, label=label, sizes=sizes):
        parts.append(part)
        resumed += was_there
    counted = [part.rows for part in parts]
    if counted != list(read.parts):
        fix = "Run it again, when nobody writes to the table."
        raise DataError("data", rule="must not change while it is scored", value=params.data, fix=fix)
    chunks.close()
    return Scored(folder, tuple(part for part in parts if part.rows), resumed)


def remember_scoring(
    store: Store, params: ScoreParams, scored: Scored, inspection: Inspection, *, version: int
) -> None:
    """Leave in the store what later notebooks ask of this window: health, and what its input looked like."""
    usual, slow = scored.latency(0.5, 0.99)
    figures = {
        "rows": scored.rows,
        "degraded_share": scored.degraded_share,
        "error_share": scored.error_share,
        "latency_p50_ms": usual,
        "latency_p99_ms": slow,
    }
    about: dict[str, Any] = {"window": params.window, "version": version, "n": scored.rows}
    store.record_metrics([metric(params, name, value, **about) for name, value in figures.items()])
    document = inspection.current.to_dict()
    store.save_profile(
        params.window, document, run_id=current_run(params), version=version, clean=inspection.sound
    )


def scoring_evidence(params: ScoreParams, scored: Scored) -> list[Evidence]:
    """Could every row be answered, and how many by the model itself?"""
    found = []
    for name, share in (("error_share", scored.error_share), ("degraded_share", scored.degraded_share)):
        limit = params.slo.get(name)
        note = {
            "error_share": "rows that the model could not answer",
            "degraded_share": "rows answered by the simple rule",
        }
        if limit is not None:
            found.append(
                at_most(f"health.{name}", share, limit=limit, n=scored.rows, rung=2, note=note[name])
            )
    return found
