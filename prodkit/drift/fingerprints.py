"""A sample of the rows themselves, kept to see whether rows come again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Fingerprints"]

_KEPT = 1024


@dataclass(frozen=True, eq=False)
class Fingerprints:
    """The smallest hashes of a table's rows: a uniform sample of its distinct rows, with how often each occurs.

    Two tables keep the hashes of the same rows, so the sample shows what they share (the bottom-k sketch of Cohen &
    Kaplan 2007); it can be merged.

    Attributes:
        rows: of the table.
        hashes: the smallest ones (k,), ascending.
        counts: how many rows have each (k,).

    >>> import pandas as pd
    >>> before = Fingerprints.of(pd.DataFrame({"x": [1.0, 2.0, 3.0]}))
    >>> Fingerprints.of(pd.DataFrame({"x": [3.0, 3.0, 4.0]})).copied(before)
    0.5
    """

    rows: int
    hashes: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, columns: pd.DataFrame) -> Fingerprints:
        """Those of a table of coerced columns (n, any)."""
        import pandas as pd  # here, since profiles are read back without it

        each = pd.util.hash_pandas_object(columns, index=False).to_numpy()
        hashes, counts = np.unique(each, return_counts=True)
        return cls(len(columns), hashes[:_KEPT], counts[:_KEPT])

    @property
    def _complete(self) -> bool:
        return len(self.hashes) < _KEPT

    @property
    def twins(self) -> float:
        """Share of the rows that are not the only one of their kind."""
        return float(self.counts[self.counts > 1].sum() / self.counts.sum()) if len(self.counts) else 0.0

    def copied(self, earlier: Fingerprints, *, least: int = 1) -> float:
        """Share of the distinct rows that the earlier table has, too; NaN if fewer than ``least`` can be compared."""
        ends = [part.hashes[-1] for part in (self, earlier) if not part._complete]
        mine = self.hashes if not ends else self.hashes[self.hashes <= min(ends)]
        return float(np.isin(mine, earlier.hashes).mean()) if len(mine) >= least else float("nan")

    def merge(self, other: Fingerprints) -> Fingerprints:
        """Those of both sets of rows together; order does not matter."""
        ends = [part.hashes[-1] for part in (self, other) if not part._complete]
        both = np.concatenate([self.hashes, other.hashes])
        hashes, where = np.unique(both, return_inverse=True)
        counts = np.bincount(where, np.concatenate([self.counts, other.counts])).astype(np.int64)
        known = len(hashes) if not ends else int(np.searchsorted(hashes, min(ends), side="right"))
        kept = min(known, _KEPT)
        return Fingerprints(self.rows + other.rows, hashes[:kept], counts[:kept])

    def to_dict(self) -> dict[str, Any]:
        """A strict JSON form."""
        return {"rows": self.rows, "hashes": self.hashes.tolist(), "counts": self.counts.tolist()}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Fingerprints:
        """Read back what :meth:`to_dict` wrote."""
        hashes, counts = (
            np.array(document["hashes"], dtype=np.uint64),
            np.array(document["counts"], dtype=np.int64),
        )
        return cls(document["rows"], hashes, counts)
