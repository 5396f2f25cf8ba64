"""What reading asks of any table: one kind of error, times that can be compared, and the rows between two moments."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

import pyarrow as pa
import sqlalchemy as sa

from prodkit.errors import DataError, ProdkitError, SchemaError
from prodkit.redaction import Redaction, references

if TYPE_CHECKING:
    import pandas as pd

# Pandas is imported where rows are read, and so is pyarrow.dataset, which imports it: the process that runs
# notebooks asks a table for its columns and its digest only.

__all__ = ["between", "read_times", "reading"]


@contextmanager
def reading(shown: str) -> Iterator[None]:
    """Turn what the libraries below raise into a DataError."""
    try:
        yield
    except ProdkitError:
        raise
    except ImportError as error:
        fix = f"Install what is missing ({error.name}), such as notebook-prodkit[s3] or [postgres]."
        raise DataError("data", rule="needs another package to be read", value=shown, fix=fix) from error
    except (csv.Error, pa.ArrowException, sa.exc.SQLAlchemyError, OSError, ValueError) as error:
        reason = str(error.orig if isinstance(error, sa.exc.DBAPIError) else error).split("\n")[0]
        reason = Redaction.of(references(shown)).text(reason)[:200]
        fix = "Set `data` to Parquet or CSV files, or to a database URL that ends in #table."
        raise DataError("data", rule=f"must be a readable table: {reason}", value=shown, fix=fix) from error


def read_times(values: pd.Series, name: str) -> pd.Series:
    """The cells of a time column (n,) as naive datetime64[us]; SchemaError where one cannot be read."""
    from prodkit.data.cells import read

    times, unread = read(values, "datetime")
    if unread.any():
        found = f"{values[unread].iloc[0]!r} ({unread.sum()} such values)"
        fix = "Set `time_column` to a column of times, dates or ISO texts."
        raise SchemaError(name, rule="must hold times", value=found, fix=fix)
    return times


def between(frame: pd.DataFrame, *, time: str, start: datetime, end: datetime) -> pd.DataFrame:
    """The rows with ``start <= time < end``, with their times read."""
    frame = frame.assign(**{time: read_times(frame[time], time)})
    return frame[((frame[time] >= start) & (frame[time] < end)).to_numpy()]
