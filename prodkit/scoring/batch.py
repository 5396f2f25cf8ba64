"""A window of predictions: its input inspected first, then scored in batches that are written exactly once."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from prodkit.data.windows import blocks, digest, row_ids
from prodkit.decisions.gates import at_most
from prodkit.decisions.result import current_run
from prodkit.decisions.survey import Inspection
from prodkit.drift.profiles import ColumnProfile, column_profile
from prodkit.evidence import Evidence
from prodkit.models.bundle import Bundle, lead_score
from prodkit.scoring.guard import guarded
from prodkit.settings.params import Facts, ScoreParams
from prodkit.settings.places import destination, outputs_folder
from prodkit.store.registry import Store

__all__ = ["Scored", "figure_rows", "remember_scoring", "score_window", "scoring_evidence"]


@dataclass(frozen=True)
class Scored:
    """A scored window.

    Attributes:
        table: row_id, time, prediction (or one column a class), version, degraded, reason, latency_ms; one row each.
        folder: where the Parquet files of it are.
        resumed_batches: how many had been written by an earlier, interrupted attempt.
        error_share: share of rows that the model itself could not answer.
    """

    table: pd.DataFrame
    folder: Path
    resumed_batches: int
    error_share: float

    @property
    def predicted(self) -> np.ndarray:
        """(n,) the prediction, or the largest class share."""
        names = [name for name in self.table.columns if name.startswith("prediction")]
        return lead_score(self.table[names].to_numpy().squeeze())

    def profile(self, *, like: ColumnProfile) -> ColumnProfile:
        """Summary of the predictions, on the bins of a reference."""
        return column_profile(self.predicted, blocks=blocks(self.table["time"]), like=like)

    def by_day(self) -> pd.DataFrame:
        """Mean prediction of each day."""
        return pd.DataFrame({"prediction": self.predicted}).groupby(self.table["time"].dt.floor("D")).mean()

    @property
    def location(self) -> str:
        """The folder as a parameter would name it, so that it can be found wherever the outputs lie."""
        outputs = outputs_folder().resolve()
        folder = self.folder.resolve()
        return f"outputs/{folder.relative_to(outputs)}" if folder.is_relative_to(outputs) else str(folder)

    @property
    def degraded_share(self) -> float:
        """Share of rows that the simple rule answered."""
        return float(self.table["degraded"].mean())


def score_window(
    params: ScoreParams, rows: pd.DataFrame, *, version: int, bundle: Bundle, distrust: str = ""
) -> Scored:
    """Predict each row once, in batches; a batch that is already on disk is kept, not done again.

    The folder is named after the window, the version and a digest of model, rows, batch size and trust, so a batch
    found there is this batch. Files appear whole or not at all.
    """
    identity = f"{bundle.digest} {digest(rows)} {params.batch_rows} {distrust}"
    key = hashlib.sha256(identity.encode()).hexdigest()[:12]
    span = str(params.window).replace("/", "_").replace(":", "")
    # what a demonstration says must not lie where others look for predictions
    place = "outputs/demo/predictions" if params.store == "demo" else params.predictions
    folder = destination(place) / span / f"v{version}-{key}"
    folder.mkdir(parents=True, exist_ok=True)
    ids = row_ids(rows, params)
    resumed = 0
    for number, start in enumerate(range(0, len(rows), params.batch_rows)):
        path = folder / f"part-{number:05d}.parquet"
        if path.exists():
            resumed += 1
            continue
        batch = slice(start, start + params.batch_rows)
        table = _score_batch(rows.iloc[batch], ids.iloc[batch], params, version, bundle, distrust)
        _publish(table, path)
    table = pd.concat(
        [pd.read_parquet(path) for path in sorted(folder.glob("part-*.parquet"))], ignore_index=True
    )
    failed = float((table["degraded"] & (table["reason"] != distrust)).mean())
    return Scored(table, folder, resumed, failed)


def _score_batch(
    rows: pd.DataFrame, ids: pd.Series, params: ScoreParams, version: int, bundle: Bundle, distrust: str
) -> pd.DataFrame:
    began = time.perf_counter()
    answers = guarded(bundle, rows, distrust=distrust, version=version)
    took_ms = (time.perf_counter() - began) * 1000
    table = pd.DataFrame({"row_id": ids.to_numpy(), "time": rows[params.time_column].to_numpy()})
    for name, values in zip(_prediction_names(bundle), np.atleast_2d(answers.predicted.T), strict=True):
        table[name] = values
    table["version"] = answers.version
    table["degraded"] = answers.degraded
    table["reason"] = answers.reason
    table["latency_ms"] = took_ms / len(rows)
    return table


def _prediction_names(bundle: Bundle) -> list[str]:
    if bundle.schema.task == "multiclass":
        return [f"prediction_{name}" for name in bundle.schema.classes]
    return ["prediction"]


def _publish(table: pd.DataFrame, path: Path) -> None:
    """Write to another name, force it to the disk, rename: a file under its own name is whole."""
    draft = path.with_suffix(f".{os.getpid()}.tmp")
    with draft.open("wb") as file:
        table.to_parquet(file, index=False)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)


def remember_scoring(
    store: Store, params: ScoreParams, scored: Scored, inspection: Inspection, *, version: int
) -> None:
    """Leave in the store what later notebooks ask of this window: health, and what its input looked like."""
    latency = scored.table["latency_ms"]
    figures = {
        "rows": len(scored.table),
        "degraded_share": scored.degraded_share,
        "error_share": scored.error_share,
        "latency_p50_ms": float(latency.quantile(0.5)),
        "latency_p99_ms": float(latency.quantile(0.99)),
    }
    store.record_metrics(figure_rows(params, figures, version=version, n=len(latency)))
    document = inspection.current.to_dict()
    store.save_profile(
        params.window, document, run_id=current_run(params), version=version, clean=inspection.sound
    )


def figure_rows(params: Facts, figures: Mapping[str, float], *, version: int, n: int) -> list[dict[str, Any]]:
    """Figures of a scored window (n rows) as the store takes them."""
    facts = {
        "run_id": current_run(params),
        "notebook": params.notebook,
        "version": version,
        "window_start": params.window.start.isoformat(),
        "window_end": params.window.end.isoformat(),
        "low": None,
        "high": None,
        "n": n,
        "known_at": params.moment.isoformat(),
    }
    return [facts | {"name": name, "value": value} for name, value in figures.items()]


def scoring_evidence(params: ScoreParams, scored: Scored) -> list[Evidence]:
    """Could every row be answered, and how many by the model itself?"""
    n = len(scored.table)
    found = []
    for name, share in (("error_share", scored.error_share), ("degraded_share", scored.degraded_share)):
        limit = params.slo.get(name)
        note = {
            "error_share": "rows that the model could not answer",
            "degraded_share": "rows answered by the simple rule",
        }
        if limit is not None:
            found.append(at_most(f"health.{name}", share, limit=limit, n=n, rung=2, note=note[name]))
    return found
