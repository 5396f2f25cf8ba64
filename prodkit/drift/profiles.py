"""Summaries of tables that can be merged, against bins frozen at training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from prodkit.drift.columns import ColumnProfile, column_profile
from prodkit.drift.fingerprints import Fingerprints
from prodkit.drift.tally import Blocks
from prodkit.errors import DataError, SchemaError

if TYPE_CHECKING:  # whoever reads profiles back, or makes them of files, does not wait for pandas
    import pandas as pd

    from prodkit.data.schema import Schema

__all__ = ["ColumnProfile", "Profile", "column_profile", "profile", "sampled"]


@dataclass(frozen=True, eq=False)
class Profile:
    """What is kept of a table.

    Attributes:
        rows: how many there are.
        columns: a summary of each feature.
        notes: why a column has no values, where it could not be read.
        fingerprints: a sample of the rows, by which copies are known; None where none was taken.
    """

    rows: int
    columns: Mapping[str, ColumnProfile]
    notes: Mapping[str, str] = field(default_factory=dict)
    fingerprints: Fingerprints | None = None

    @property
    def blocks(self) -> np.ndarray:
        """Labels of the blocks (b,), ascending."""
        return next((column.blocks for column in self.columns.values()), np.array([], dtype=np.int64))

    @property
    def block_rows(self) -> np.ndarray:
        """Rows of each block (b,)."""
        counts = (column.block_counts.sum(axis=1) for column in self.columns.values())
        return np.asarray(next(counts, np.array([], dtype=np.int64)))

    def merge(self, other: Profile) -> Profile:
        """The profile of both sets of rows together; order does not matter.

        Raises:
            DataError: the columns or their bins differ.
        """
        if self.columns.keys() != other.columns.keys():
            differing = sorted(self.columns.keys() ^ other.columns.keys())
            raise DataError("columns", rule="must be the same in both profiles", value=", ".join(differing))
        merged = {name: column.merge(other.columns[name]) for name, column in self.columns.items()}
        notes = {name: max(self.notes.get(name, ""), other.notes.get(name, "")) for name in merged}
        notes = {name: note for name, note in notes.items() if note}
        mine, others = self.fingerprints, other.fingerprints
        both = mine.merge(others) if mine is not None and others is not None else None
        return Profile(self.rows + other.rows, merged, notes, both)

    def within(self, chosen: np.ndarray) -> Profile:
        """The same of some of the blocks, ``chosen`` (b,), as :meth:`ColumnProfile.within`."""
        columns = {name: column.within(chosen) for name, column in self.columns.items()}
        return Profile(int(self.block_rows[chosen].sum()), columns, self.notes, self.fingerprints)

    def to_dict(self) -> dict[str, Any]:
        """A strict JSON form."""
        columns = {name: column.to_dict() for name, column in self.columns.items()}
        sample = None if self.fingerprints is None else self.fingerprints.to_dict()
        return {"rows": self.rows, "columns": columns, "notes": dict(self.notes), "fingerprints": sample}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Profile:
        """Read back what :meth:`to_dict` wrote."""
        columns = {name: ColumnProfile.from_dict(part) for name, part in document["columns"].items()}
        sample = document.get("fingerprints")
        prints = None if sample is None else Fingerprints.from_dict(sample)
        return cls(document["rows"], columns, document.get("notes", {}), prints)


def profile(
    frame: pd.DataFrame, schema: Schema, *, blocks: np.ndarray, like: Profile | None = None
) -> Profile:
    """Summarise the features of a table.

    A column that is absent, empty or garbage is a profile of missing values, never an error: what is
    wrong with it is for others to say.

    Args:
        frame: rows, raw or coerced (n, any columns).
        schema: the features and their kinds.
        blocks: label of each row's block, its unit of dependence (n,), whole numbers such as days.
        like: take the bins of this profile instead of making new ones.

    Raises:
        SchemaError: ``like`` lacks a feature, or has it with another kind.
    """
    absent = {name: math.nan for name in schema.names if name not in frame.columns}
    rows = frame.assign(**absent) if absent else frame
    malformed, clean = schema.malformed(rows), schema.coerce(rows)
    days = Blocks.of(blocks)
    columns = {}
    for column in schema.features:
        values = _array(clean[column.name], column.kind)
        found = column_profile(
            values,
            blocks=days,
            kind=column.kind,
            like=None if like is None else _counterpart(like, column.name, kind=column.kind),
            levels=column.levels,
            malformed=malformed[column.name],
        )
        columns[column.name] = found
    return sampled(Profile(rows=len(frame), columns=columns), clean, schema)


def sampled(found: Profile, clean: pd.DataFrame, schema: Schema) -> Profile:
    """The profile of some rows, with what only the rows themselves tell: which they are, and what is no whole number.

    Args:
        found: their profile.
        clean: the rows (n, features), coerced.
        schema: of the features.
    """
    columns = dict(found.columns)
    for column in schema.features:
        if column.kind == "numeric":
            values = clean[column.name].to_numpy(dtype=float, na_value=math.nan)
            fractional = int((values[np.isfinite(values)] % 1 != 0).sum())
            columns[column.name] = replace(columns[column.name], fractional=fractional)
    return replace(found, columns=columns, fingerprints=Fingerprints.of(clean))


def _array(column: pd.Series[Any], kind: str) -> np.ndarray:
    """A coerced column as text, or as floats: a date becomes seconds since 1970."""
    if kind == "categorical":
        return column.to_numpy(dtype=object)
    if kind == "datetime":
        ticks = column.astype("datetime64[us]")
        return np.where(ticks.isna(), math.nan, ticks.astype("int64").to_numpy() / 1e6)
    return column.to_numpy(dtype=float)


def _counterpart(like: Profile, name: str, *, kind: str) -> ColumnProfile:
    found = like.columns.get(name)
    if found is None or found.kind != kind:
        raise SchemaError(
            name,
            rule=f"must be a {kind} column of the reference profile",
            value=found.kind if found else "no such column",
            fix="Make the reference profile with the schema of the same model version.",
        )
    return found
