"""One part of a scored window: a Parquet file that appears whole, with what is to be known of it in its footer."""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, reduce
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from prodkit.data.chunks import Chunk
from prodkit.data.flatfiles import ROW
from prodkit.data.windows import blocks
from prodkit.drift.counts import column_profile
from prodkit.drift.profiles import ColumnProfile
from prodkit.errors import ModelError
from prodkit.files import publish
from prodkit.models.bundle import Bundle, lead_score, pack, unpack
from prodkit.scoring.breaker import Limits
from prodkit.scoring.guard import Guard, LoadedModel, Route

__all__ = ["DRAFT", "Part", "PartWriter", "Sent"]

DRAFT = ".tmp"  # ends the names of files that are not whole
_NOTE = "prodkit.part"  # names the footer's entry
_OWN = ("version", "source", "degraded", "reason", "latency_ms")
# a breaker would let rows fall back for what others have met, or for a slow minute; a batch has time to ask for each
_PATIENT = Limits(least_calls=2**62)


@dataclass(frozen=True, eq=False)
class Part:
    """What is known of a part.

    Attributes:
        rows: of it.
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
        return cls(
            **plain
            | {
                "batches": tuple((rows, took) for rows, took in plain["batches"]),
                "days": {int(day): (rows, mean) for day, (rows, mean) in plain["days"].items()},
                "scores": ColumnProfile.from_dict(plain["scores"]),
            }
        )


@dataclass(frozen=True, eq=False)
class Sent:
    """A version that can be sent to another process, which reads it from a file there.

    Attributes:
        version: its number.
        bundle: None where it is to be read.
        distrust: why it must not be asked; empty if it may.
        path: of the file, and
        digest: SHA-256 of its bytes, without which they are not read.
    """

    version: int
    bundle: Bundle | None
    distrust: str
    path: Path | None = None
    digest: str = ""

    def kept(self, path: Path) -> Sent:
        """The same, with a file to be read from."""
        assert self.bundle is not None
        artifact = pack(self.bundle)
        path.write_bytes(artifact)
        return replace(self, path=path, digest=hashlib.sha256(artifact).hexdigest())

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "guard"} | {"bundle": None}

    @cached_property
    def guard(self) -> Guard:
        """What asks it."""
        if self.bundle is not None:
            model = LoadedModel(self.version, self.bundle, limits=_PATIENT)
        else:
            model = _loaded(self.version, str(self.path), self.digest)
        return Guard(Route(model, distrust=self.distrust))


@lru_cache(maxsize=1)
def _loaded(version: int, path: str, digest: str) -> LoadedModel:
    """A version that another process has kept, once a process of ours."""
    artifact = Path(path).read_bytes()
    if hashlib.sha256(artifact).hexdigest() != digest:
        raise ModelError(f"version {version}", rule="was changed on its way to a worker", value=path)
    return LoadedModel(version, unpack(artifact), limits=_PATIENT)


@dataclass(frozen=True, eq=False)
class PartWriter:
    """Scores a chunk and writes its part, unless that was done before.

    Attributes:
        folder: of the parts.
        sent: who predicts.
        time: name of the time column.
        keys: columns that are carried along, the time among them.
    """

    folder: Path
    sent: Sent
    time: str
    keys: tuple[str, ...]

    def __call__(self, chunk: Chunk) -> tuple[Part, bool]:
        """The part, and whether it was there."""
        path = self.folder / f"part-{chunk.number:06d}.parquet"
        if path.exists():
            return Part.from_json(pq.read_metadata(path).metadata[_NOTE.encode()]), True
        draft = path.with_suffix(f".{uuid.uuid4().hex}{DRAFT}")
        told: list[Part] = [self._nothing()]
        writer: pq.ParquetWriter | None = None
        try:
            for batch in chunk.batches():
                table, part = self._answered(batch)
                told.append(part)
                writer = writer or pq.ParquetWriter(draft, table.schema, compression="zstd")
                writer.write_table(table)
            whole = reduce(_together, told)
            if writer is not None:
                writer.add_key_value_metadata({_NOTE: whole.to_json()})
                writer.close()
                publish(draft, path)
        finally:
            if writer is not None:
                writer.close()
            draft.unlink(missing_ok=True)
        return whole, False

    def _nothing(self) -> Part:
        bundle = self.sent.guard.route.first.bundle
        return Part(0, 0, 0, (), {}, column_profile(np.empty(0), blocks=np.empty(0), like=bundle.scores))

    def _answered(self, batch: Any) -> tuple[pa.Table, Part]:
        """The result of a batch, and what is to be known of it."""
        began, guard = time.perf_counter(), self.sent.guard
        bundle = guard.route.first.bundle
        frame = batch.select([name for name in batch.schema.names if name in bundle.schema.names]).to_pandas()
        answers = guard.answer(frame)
        took_ms = (time.perf_counter() - began) * 1000
        rows, names = batch.num_rows, _result_names(bundle)
        taken = {*names, *_OWN}
        columns: dict[str, Any] = {
            "row_id" if key == ROW else f"key_{key}" if key in taken else key: batch.column(key)
            for key in self.keys
        }
        columns |= dict(zip(names, np.atleast_2d(answers.predicted.T), strict=True))
        columns |= {
            "version": pa.array(answers.version),
            "source": pa.array(answers.source, pa.string()),
            "degraded": pa.array(answers.degraded),
            "reason": pa.array(answers.reason, pa.string()),
            "latency_ms": np.full(rows, took_ms / rows),
        }
        failed = answers.degraded & (answers.reason != self.sent.distrust)
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


def _result_names(bundle: Bundle) -> list[str]:
    if bundle.schema.task == "multiclass":
        return [f"prediction_{name}" for name in bundle.schema.classes]
    return ["prediction"]


def _together(a: Part, b: Part) -> Part:
    days = dict(a.days)
    for day, (rows, mean) in b.days.items():
        n, before = days.get(day, (0, 0.0))
        days[day] = n + rows, (n * before + rows * mean) / (n + rows)
    return Part(
        rows=a.rows + b.rows,
        degraded_rows=a.degraded_rows + b.degraded_rows,
        failed_rows=a.failed_rows + b.failed_rows,
        batches=a.batches + b.batches,
        days=days,
        scores=a.scores.merge(b.scores),
    )
