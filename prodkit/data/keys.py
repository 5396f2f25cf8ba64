"""Whether what names a row names one row each, of a window that does not fit into memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from prodkit.data.cells import texts
from prodkit.data.chunks import Chunks
from prodkit.params import ProjectParams

__all__ = ["kept_hashes", "key_hashes", "shared_keys"]

_AT_ONCE = 2**21  # hashes that are compared in memory: 16 MB


def key_hashes(batch: Any, keys: Sequence[str]) -> np.ndarray:
    """A hash of what names each row (n,), uint64: equal names have equal ones.

    >>> batch = pa.RecordBatch.from_pydict({"a": ["x", "x", "y"], "b": [1, 2, 1]})
    >>> len(set(key_hashes(batch, ["a", "b"]).tolist()))
    3
    """
    total = np.zeros(batch.num_rows, dtype=np.uint64)
    for name in keys:
        with np.errstate(over="ignore"):
            total = total * np.uint64(0x9E3779B97F4A7C15) + _hashes(batch.column(name))
    return total


def _hashes(cells: Any) -> np.ndarray:
    if pa.types.is_string(cells.type) or pa.types.is_large_string(cells.type):
        cells = cells.dictionary_encode()
        levels = np.append(cells.dictionary.to_numpy(zero_copy_only=False).astype(object), "")
        codes = cells.indices.fill_null(len(levels) - 1).to_numpy(zero_copy_only=False)
        return np.asarray(pd.util.hash_array(levels, categorize=False)[codes])
    return np.asarray(pd.util.hash_pandas_object(cells.to_pandas(), index=False, categorize=False))


def kept_hashes(hashes: Sequence[np.ndarray], path: Path) -> None:
    """Write the hashes of a chunk to a file, ascending."""
    np.save(path, np.sort(np.concatenate([np.empty(0, np.uint64), *hashes])))


def shared_keys(facts: ProjectParams, chunks: Chunks, paths: Sequence[Path]) -> pd.DataFrame:
    """What names the rows of a window whose name is that of another row, too.

    Of all rows only a hash is compared, some at a time, so that memory does not grow with the window; rows of equal
    hashes are read again, for two names may share one.

    Args:
        facts: what the data is; nothing is asked where no column names a row.
        chunks: the rows.
        paths: files of :func:`kept_hashes`, one a chunk.
    """
    nothing = pd.DataFrame(columns=facts.id_column)
    if not facts.id_column:
        return nothing
    suspects = np.concatenate(
        [np.empty(0, np.uint64), *_repeated([np.load(each, mmap_mode="r") for each in paths])]
    )
    if not len(suspects):
        return nothing
    named = []
    for chunk in chunks:
        for batch in chunk.batches(features=False):
            mine = np.isin(key_hashes(batch, facts.id_column), suspects)
            named.append(batch.select(facts.id_column).filter(pa.array(mine)).to_pandas())
    rows = pd.concat(named, ignore_index=True)
    shared: pd.DataFrame = rows[rows.apply(texts).duplicated(keep=False)]
    return shared


def _repeated(hashes: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """Those that occur more than once, range by range."""
    ranges = -(-sum(map(len, hashes)) // _AT_ONCE)
    edges = [np.uint64(place * (2**64 // ranges)) for place in range(1, ranges)] if ranges else []
    cuts = [[0, *np.searchsorted(each, edges).tolist(), len(each)] for each in hashes]
    for place in range(ranges):
        mine = np.sort(
            np.concatenate(
                [each[cut[place] : cut[place + 1]] for each, cut in zip(hashes, cuts, strict=True)]
            )
        )
        yield np.unique(mine[1:][mine[1:] == mine[:-1]])
