"""The input of a window, inspected in chunks before anything is predicted from it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from prodkit.data.chunks import Chunk, Chunks, kept_hashes, key_hashes, shared_keys
from prodkit.data.schema import Schema
from prodkit.data.sources import open_table
from prodkit.data.windows import Read, blocks, digest, identity_error, no_rows
from prodkit.decisions.soundness import repetition
from prodkit.decisions.survey import Inspection, compare_to_training
from prodkit.drift.counts import Blocks, batch_profile, profile
from prodkit.drift.profiles import Fingerprints, Profile
from prodkit.models.bundle import Bundle
from prodkit.params import ProjectParams
from prodkit.scoring.parallel import shared_out
from prodkit.store.registry import Store

__all__ = ["inspect_chunks"]

_ROWS = 16_384  # of a batch


@dataclass(frozen=True, eq=False)
class _Summary:
    """What stays in memory of a chunk."""

    rows: int
    profile: Profile
    digest: str
    nameless: pd.DataFrame


@dataclass(frozen=True, eq=False)
class _Inspect:
    """Summarises a chunk."""

    schema: Schema
    like: Profile
    time: str
    ids: tuple[str, ...]
    folder: Path

    def __call__(self, chunk: Chunk) -> _Summary:
        total, hashes, nameless = hashlib.sha256(), [], []
        profiles = [
            profile(pd.DataFrame(columns=self.schema.names), self.schema, blocks=np.empty(0), like=self.like)
        ]
        for batch in chunk.batches(rows=_ROWS):
            frame = batch.to_pandas()
            total.update(digest(frame).encode())
            days = Blocks.of(blocks(frame[self.time]))
            counted = batch_profile(batch, self.schema, blocks=days, like=self.like)
            rows = self.schema.coerce(frame.reindex(columns=pd.Index(self.schema.names)))
            profiles.append(replace(counted, fingerprints=Fingerprints.of(rows)))
            ids = frame[list(self.ids)]
            nameless.append(ids[ids.isna().any(axis=1)])
            hashes.append(key_hashes(batch, self.ids))
        kept_hashes(hashes, self.folder / f"{chunk.number}.npy")
        whole = reduce(Profile.merge, profiles)
        return _Summary(whole.rows, whole, total.hexdigest(), pd.concat([pd.DataFrame(), *nameless]))


def inspect_chunks(
    store: Store, params: ProjectParams, chunks: Chunks, *, version: int, bundle: Bundle
) -> Inspection:
    """Compare a window of any size with the champion's training and with the last sound window before it.

    One pass over the rows, shared out through joblib, of which only summaries stay in memory.

    Raises:
        WindowError: there are no rows. IdentityError: the name of a row is missing, or that of a few is another's too.
        DataError: the table cannot be read. SchemaError: the time column holds no times.
    """
    folder = chunks.scratch / "keys"
    folder.mkdir(exist_ok=True)
    look = _Inspect(bundle.schema, bundle.profile, params.time_column, tuple(params.id_column), folder)
    sizes = [chunk.most_rows for chunk in chunks]
    label = f"inspect {params.window}"[:32]
    counted, digests, nameless, current = [], [], [], None
    for each in shared_out(look, chunks, backend=params.backend, label=label, sizes=sizes):
        counted.append(each.rows)
        digests.append(each.digest)
        nameless.append(each.nameless)
        # one summary is kept and not one a chunk, so that ten times the rows take no more memory
        current = each.profile if current is None else current.merge(each.profile)
    if current is None or not current.rows:
        raise no_rows(params, open_table(params))
    unnamed = pd.concat(nameless)
    if len(unnamed):
        raise identity_error(unnamed, "must not be missing", place=f"{params.data}, {params.window}")
    shared = shared_keys(params, chunks, [folder / f"{chunk.number}.npy" for chunk in chunks])
    repeated = repetition(params, shared, rows=current.rows)
    total = hashlib.sha256("".join(digests).encode()).hexdigest()
    read = Read(current.rows, total, tuple(counted))
    pa.default_memory_pool().release_unused()  # the window is read once more, by others
    inspection = compare_to_training(
        store, params, current, version=version, bundle=bundle, repeated=repeated
    )
    return replace(inspection, read=read)
