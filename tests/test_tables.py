"""A table of any size is summarised in parts as it would be in one piece, whatever its columns hold."""

from __future__ import annotations

import json
import math
import tempfile
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prodkit import compare_tables, profile_table
from prodkit.errors import DataError, ParameterError, SchemaError
from tests.test_drift import assert_same, saved, shop

FLOATS = st.one_of(
    st.none(),
    st.floats(-1e6, 1e6),
    st.sampled_from([0.0, -0.0, 1.5, math.nan, math.inf, -math.inf, 1e300]),
)
TEXTS = st.one_of(
    st.none(), st.sampled_from(["Oslo", "Rome", "", " ", "nan", "Å", "x" * 50]), st.text(max_size=3)
)
TIMES = st.one_of(st.none(), st.datetimes(datetime(1960, 1, 1), datetime(2100, 1, 1)))
ROWS = st.lists(
    st.tuples(
        FLOATS,
        st.one_of(st.none(), st.integers(-(2**53), 2**53)),
        TEXTS,
        st.sampled_from([True, False, None]),
        TIMES,
    ),
    max_size=40,
)
TYPES = pa.schema(
    {
        "size": pa.float64(),
        "count": pa.int64(),
        "city": pa.string(),
        "open": pa.bool_(),
        "since": pa.timestamp("us"),
    }
)
KINDS = {"size": "numeric", "count": "numeric", "city": "categorical", "open": "boolean", "since": "datetime"}


def arrow(rows: list[tuple[Any, ...]], schema: pa.Schema = TYPES) -> pa.Table:
    """Rows as an Arrow table, in which NaN and null are two things."""
    columns = list(zip(*rows, strict=True)) if rows else [[] for _ in schema]
    arrays = [
        pa.array(list(cells), kind, from_pandas=False)
        for cells, kind in zip(columns, schema.types, strict=True)
    ]
    return pa.table(dict(zip(schema.names, arrays, strict=True)))


@cache
def kept() -> Any:
    """A reference of rows such as hypothesis makes."""
    rng = np.random.default_rng(0)
    rows = [
        (
            float(rng.normal()) if i % 7 else None,
            int(rng.integers(-5, 5)),
            ["Oslo", "Rome", None][i % 3],
            bool(i % 2),
            datetime(2020, 1, 1 + i % 28),
        )
        for i in range(300)
    ]
    with tempfile.TemporaryDirectory() as folder:
        return profile_table(saved(arrow(rows), Path(folder) / "r.parquet"))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS, groups=st.integers(1, 10), threads=st.integers(1, 3))
def test_parts_give_the_profile_of_the_whole(
    tmp_path: Path, rows: list[tuple[Any, ...]], groups: int, threads: int
) -> None:
    """However rows are cut into row groups and files, the profile is that of one piece."""
    half = len(rows) // 2
    parts = tmp_path / "parts"
    parts.mkdir(exist_ok=True)
    saved(arrow(rows[:half]), parts / "a.parquet", row_group_size=groups)
    saved(arrow(rows[half:]), parts / "b.parquet", row_group_size=groups, write_statistics=False)
    whole = profile_table(saved(arrow(rows), tmp_path / "whole.parquet"), like=kept())
    cut = profile_table(str(parts), like=kept(), threads=threads)
    assert_same(cut, whole)
    assert whole.rows == len(rows)
    sizes = [row[0] for row in rows]
    assert whole.columns["size"].malformed == sum(x is not None and math.isinf(x) for x in sizes)
    assert whole.columns["size"].missing == sum(x is None or not math.isfinite(x) for x in sizes)
    assert whole.columns["city"].missing == sum(
        x is None or x.strip() in ("", "nan") for x in (row[2] for row in rows)
    )
    json.dumps(whole.to_dict(), allow_nan=False)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ROWS, ROWS, ROWS)
def test_profiles_of_files_merge_in_any_order(tmp_path: Path, a: Any, b: Any, c: Any) -> None:
    """Merging is associative and commutative, so that parts can be shared out at will."""
    one, two, three = (
        profile_table(saved(arrow(rows), tmp_path / "part.parquet"), like=kept()) for rows in (a, b, c)
    )
    assert_same(one.merge(two).merge(three), three.merge(two.merge(one)))
    assert_same(one.merge(two), two.merge(one))


def test_threads_make_no_difference_to_the_last_digit(tmp_path: Path) -> None:
    """One thread and three give the same bytes."""
    path = saved(shop(5000), tmp_path / "a.parquet", row_group_size=400)
    one, three = (profile_table(path, columns=["price", "city"], threads=threads) for threads in (1, 3))
    assert json.dumps(one.to_dict()) == json.dumps(three.to_dict())


def test_a_table_too_large_to_be_held_is_sampled_for_its_bins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its bins hold nearly equal shares, its range is that of all values, and its counts are exact."""
    monkeypatch.setattr("prodkit.drift.tables._HELD", 20_000)
    frame = shop(40_000)
    frame.loc[123, "price"] = 50.0
    path = saved(frame, tmp_path / "a.parquet", row_group_size=2000)
    read = profile_table(path).columns["price"]
    assert read.n == 40_000
    assert read.counts.max() < 1.3 * 40_000 / 32
    assert read.bins.high == pytest.approx(50 + (50 - frame["price"].min()))
    assert read.mean == pytest.approx(frame["price"].mean())
    assert read.beyond == 0


ODD: dict[str, tuple[pa.Array, str, int, int]] = {
    # cells, kind, values, malformed
    "null": (pa.nulls(4), "numeric", 0, 0),
    "decimal": (pa.array([Decimal("1.50"), None, Decimal("2.25"), Decimal("1.50")]), "numeric", 3, 0),
    "large": (pa.array([2**63, 1, 0, 2**64 - 1], pa.uint64()), "numeric", 4, 0),
    "half": (pa.array(np.array([1, 2, np.inf, np.nan], np.float16)), "numeric", 2, 1),
    "length": (pa.array([1, None, 3, 4], pa.duration("ms")), "numeric", 3, 0),
    "date": (pa.array([date(2020, 1, 1), None, date(1950, 1, 1), date(2020, 1, 1)]), "datetime", 3, 0),
    "zoned": (pa.array([datetime(2020, 1, 1, tzinfo=UTC)] * 4, pa.timestamp("ns", "UTC")), "datetime", 4, 0),
    "clock": (pa.array([1, 2, 3, None], pa.time32("s")), "categorical", 3, 0),
    "bytes": (pa.array([b"a", b"b", None, b"\xff"]), "categorical", 3, 0),
    "category": (pa.array(["1", "2", None, "1"]).dictionary_encode(), "categorical", 3, 0),
    "list": (pa.array([[1], [2], None, [3]]), "categorical", 0, 3),
    "digits": (pa.array(["1", "2.5", None, ""]), "numeric", 2, 0),
    "dates": (pa.array(["2020-01-01", "2020-01-02", None, ""]), "datetime", 2, 0),
    "words": (pa.array(["1", "two", None, ""]), "categorical", 2, 0),
}


@pytest.mark.parametrize("name", ODD)
def test_every_type_has_a_kind(name: str, tmp_path: Path) -> None:
    """A column of any type becomes a profile of the kind that training would give it."""
    cells, kind, values, malformed = ODD[name]
    made = profile_table(saved(pa.table({"x": cells}), tmp_path / "a.parquet")).columns["x"]
    assert (made.kind, made.n, made.malformed) == (kind, values, malformed)
    json.dumps(made.to_dict(), allow_nan=False)


@pytest.mark.parametrize("frozen", ["numeric", "categorical", "boolean", "datetime"])
@pytest.mark.parametrize("name", [*ODD, "absent"])
def test_one_bad_column_is_a_row_not_a_crash(name: str, frozen: str, tmp_path: Path) -> None:
    """A column that came as another type is counted as training would, and the others stay as they were."""
    good = {
        "numeric": pa.array([1.0, 2.0, 3.0, 4.0]),
        "categorical": pa.array(list("abca")),
        "boolean": pa.array([True, False, True, True]),
        "datetime": pa.array([datetime(2020, 1, day) for day in range(1, 5)]),
    }[frozen]
    other = pa.array([1.0, 2.0, 3.0, 4.0])
    reference = profile_table(saved(pa.table({"x": good, "y": other}), tmp_path / "r.parquet"))
    cells = {} if name == "absent" else {"x": ODD[name][0]}
    path = saved(pa.table({**cells, "y": other}), tmp_path / "c.parquet")
    found = compare_tables(reference, path)
    column = found.current.columns["x"]
    assert column.rows == 4
    assert found.current.columns["y"].n == 4
    assert {row["column"] for row in found.columns} == {"x", "y"}


def test_a_damaged_column_is_told_and_the_others_are_read(tmp_path: Path) -> None:
    """Bytes that cannot be decoded cost one column its values, with a note that says so."""
    reference = profile_table(saved(shop(2000), tmp_path / "r.parquet", compression="zstd"), time_column="at")
    path = Path(saved(shop(2000), tmp_path / "c.parquet", compression="zstd", use_dictionary=False))
    names = [field.name for field in pq.read_schema(path)]
    chunk = pq.read_metadata(path).row_group(0).column(names.index("price"))
    content = bytearray(path.read_bytes())
    middle = chunk.data_page_offset + chunk.total_compressed_size // 2
    content[middle : middle + 64] = bytes(64)
    path.write_bytes(content)
    found = compare_tables(reference, str(path), time_column="at")
    row = next(row for row in found.columns if row["column"] == "price")
    assert "could not be read" in row["note"]
    assert row["missing_current"] == 1
    assert found.current.columns["tail"].n == 2000


def test_empty_row_groups_and_empty_tables_count_for_nothing(tmp_path: Path) -> None:
    """A row group without rows changes nothing, and a table without any compares as one that has none."""
    table = pa.Table.from_pandas(shop(100), preserve_index=False)
    path = tmp_path / "a.parquet"
    with pq.ParquetWriter(path, table.schema) as writer:
        for part in (table.slice(0, 0), table.slice(0, 60), table.slice(0, 0), table.slice(60)):
            writer.write_table(part)
    whole = profile_table(saved(table, tmp_path / "b.parquet"), time_column="at")
    assert_same(profile_table(str(path), like=whole, time_column="at"), whole)
    nothing = saved(table.slice(0, 0), tmp_path / "c.parquet")
    assert {row["note"] for row in compare_tables(whole, nothing, time_column="at").columns} == {
        "no rows in the window"
    }
    assert compare_tables(nothing, nothing).drifted == []


def test_rows_without_a_time_are_left_out(tmp_path: Path) -> None:
    """As where a window is read; and a time column that holds none is an error that says so."""
    frame = shop(1000)
    frame.loc[::10, "at"] = pd.NaT
    assert profile_table(saved(frame, tmp_path / "a.parquet"), time_column="at").rows == 900
    with pytest.raises(SchemaError, match="city must hold times"):
        profile_table(saved(frame, tmp_path / "a.parquet"), time_column="city")


def test_csv_is_read_like_parquet(tmp_path: Path) -> None:
    """A CSV file in batches has the profile of the same rows as Parquet, packed or not."""
    frame = shop(2000)
    reference = profile_table(saved(frame, tmp_path / "a.parquet"), time_column="at")
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_csv(tmp_path / "b.csv.gz", index=False)
    for name in ("a.csv", "b.csv.gz"):
        read = profile_table(str(tmp_path / name), like=reference, time_column="at")
        assert_same(read, reference)
    fresh = profile_table(str(tmp_path / "a.csv"), time_column="at")
    assert [c.kind for c in fresh.columns.values()] == [
        *("numeric", "numeric", "categorical", "numeric", "boolean", "numeric")
    ]


def test_a_csv_that_contradicts_its_first_rows_is_read_as_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A word far down among numbers is one malformed value, not the end of the run."""
    monkeypatch.setattr("prodkit.data.tables._CSV_BYTES", 200)
    lines = ["x,y", *(f"{i},{i / 2}" for i in range(500)), "oops,1", *(f"{i},0.5" for i in range(10))]
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "r.csv").write_text("\n".join(line for line in lines if "oops" not in line) + "\n")
    reference = profile_table(str(tmp_path / "r.csv"))
    made = profile_table(str(tmp_path / "a.csv"), like=reference)
    assert (made.columns["x"].n, made.columns["x"].malformed) == (510, 1)
    assert made.columns["y"].n == 511


def test_globs_folders_and_urls_name_tables(tmp_path: Path) -> None:
    """The same rows are found by folder, by glob and by fsspec URL."""
    frame = shop(900)
    (tmp_path / "t").mkdir()
    for part in range(3):
        saved(frame.iloc[part * 300 : (part + 1) * 300], tmp_path / "t" / f"{part}.parquet")
    whole = profile_table(saved(frame, tmp_path / "whole.parquet"))
    for location in (tmp_path / "t", tmp_path / "t" / "*.parquet", f"file://{tmp_path}/t"):
        assert_same(profile_table(str(location), like=whole), whole)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.parquet", "must be a file that exists"),
        ("a.txt", "must be Parquet or CSV"),
        ("bad.parquet", "readable table"),
        ("empty.csv", "readable table"),
        (".", "must not mix"),
    ],
)
def test_what_is_no_table_is_refused(name: str, message: str, tmp_path: Path) -> None:
    """No file, another format or a damaged one is an error that names the place."""
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "bad.parquet").write_text("x")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(DataError, match=message):
        profile_table(str(tmp_path / name))


def test_wrong_calls_are_refused(tmp_path: Path) -> None:
    """A column that is not there and no thread at all are errors that name what to change."""
    path = saved(shop(50), tmp_path / "a.parquet")
    reference = profile_table(path)
    with pytest.raises(SchemaError, match=r"prize must be a column of the table. Did you mean price\?"):
        profile_table(path, columns=["prize"])
    with pytest.raises(SchemaError, match="when must be a column of the table"):
        profile_table(path, time_column="when")
    with pytest.raises(SchemaError, match="prize must be a column of the reference profile"):
        compare_tables(reference, path, columns=["prize"])
    with pytest.raises(ParameterError, match="threads must be at least 1"):
        profile_table(path, threads=0)


def test_what_moved_is_found_and_what_is_new_is_named(tmp_path: Path) -> None:
    """A shifted column is told, the others are not, and columns that the reference lacks are listed."""
    reference = saved(shop(6000), tmp_path / "r.parquet")
    frame = shop(6000, seed=1, shift=0.5).assign(extra=1)
    found = compare_tables(reference, saved(frame, tmp_path / "c.parquet"), time_column="at")
    assert found.drifted == ["price"]
    assert found.columns[0]["column"] == "price"
    assert found.new == ("extra",)
    assert found.frame().loc["price", "drifted"]
    kept = compare_tables(found.reference, str(tmp_path / "c.parquet"), time_column="at", columns=["pieces"])
    assert kept.frame().index.tolist() == ["pieces"]
