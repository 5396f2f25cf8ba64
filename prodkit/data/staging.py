"""What cannot be read apart, such as CSV, a database or a rehearsal, copied once into Parquet that can."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from prodkit.data.access import reading
from prodkit.data.cells import texts
from prodkit.data.database import Database
from prodkit.data.flatfiles import ROW, Files
from prodkit.data.parts import open_parts
from prodkit.data.sources import Source
from prodkit.data.windows import read_window, window_limits
from prodkit.params import ProjectParams
from prodkit.settings import resolve

__all__ = ["row_names", "staged"]

_ROWS = 65_536  # that are fetched from a database at a time


def staged(
    facts: ProjectParams, source: Source, columns: Sequence[str], folder: Path, *, rows: int
) -> Files | None:
    """The table of a window's rows as Parquet files in a folder, of which a few batches at a time are in memory.

    None if there are no rows at all.

    The fault of a rehearsal concerns all rows of its window together, so that one is read whole.

    Args:
        facts: what the data is.
        source: the table.
        columns: to copy; ``ROW`` comes along where no column names a row.
        folder: that receives them; made here.
        rows: of a row group.

    Raises:
        DataError: the table cannot be read. SchemaError: the time column holds no times.
        IdentityError: rows of a database that no column names.
    """
    folder.mkdir(parents=True)
    for number, tables in enumerate(_tables(facts, source, columns)):
        writer: pq.ParquetWriter | None = None
        try:
            for table in tables:
                writer = writer or pq.ParquetWriter(folder / f"{number:06d}.parquet", table.schema)
                writer.write_table(table, row_group_size=rows)
        finally:
            if writer is not None:
                writer.close()
    return Files(str(folder), facts.data) if any(folder.iterdir()) else None


def _tables(facts: ProjectParams, source: Source, columns: Sequence[str]) -> Iterator[Iterator[pa.Table]]:
    """For each file that is to be written, its rows in Arrow tables."""
    start, end = window_limits(facts)
    numbered = not facts.id_column
    if facts.drill:
        features = [name for name in columns if name not in (facts.time_column, *facts.id_column)]
        frame = read_window(facts, columns=features)
        yield iter([_arrow(frame[[*columns, *([ROW] if numbered else [])]])])
    elif isinstance(source, Database):
        yield from (
            iter([_arrow(frame)])
            for frame in source.frames(
                columns, time=facts.time_column, start=start, end=end, numbered=numbered, rows=_ROWS
            )
        )
    else:
        assert isinstance(source, Files)
        yield from _csv(facts, source, columns, numbered=numbered)


def _csv(
    facts: ProjectParams, source: Files, columns: Sequence[str], *, numbered: bool
) -> Iterator[Iterator[pa.Table]]:
    table = open_parts(resolve(facts.data), shown=facts.data)

    def read(part: Any) -> Iterator[pa.Table]:
        held: dict[str, Any] = {}
        with reading(facts.data):
            for name, first, cells in table.arrays(part, columns):
                held[name] = cells
                if len(held) == len(columns):
                    if numbered:
                        held[ROW] = row_names(source.name_of(part.path), first, len(cells))
                    yield pa.table(held)
                    held = {}

    yield from map(read, table.parts)


def row_names(file: str, first: int, rows: int) -> Any:
    """``file#position`` of so many rows, as an Arrow array of texts."""
    positions = pa.array(np.arange(first, first + rows)).cast(pa.string())
    return pc.binary_join_element_wise(pa.scalar(file), positions, "#")


def _arrow(frame: pd.DataFrame) -> pa.Table:
    """As Arrow has it; a column of several types at once as text."""
    columns = {}
    for name in frame.columns:
        try:
            columns[name] = pa.Array.from_pandas(frame[name])
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            columns[name] = pa.Array.from_pandas(texts(frame[name]), type=pa.string())
    return pa.table(columns)
