"""A cell means the same wherever it is read: training frame, batches of scoring, profile of drift, request."""

from __future__ import annotations

import math
import sqlite3
import tempfile
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import own_schema

from prodkit import Schema, feature_columns, profile_table, read_window
from prodkit.data.chunks import window_chunks
from prodkit.data.sources import source_digest
from prodkit.data.windows import timeless_rows
from prodkit.errors import DataError, SchemaError
from prodkit.params import ProjectParams
from prodkit.scoring.rows import Reader

FORMATS = ["parquet", "csv", "sqlite"]
TYPES: dict[str, st.SearchStrategy[Any]] = {
    "number": st.floats(-1e6, 1e6).map(lambda x: round(x, 3)) | st.integers(-(2**40), 2**40).map(float),
    "whole": st.integers(-(2**60), 2**60),
    "truth": st.booleans(),
    "text": st.text("abcNØ é1", min_size=1, max_size=6)
    .map(str.strip)
    .filter(lambda t: t and not t.isdigit()),
    "missing words": st.sampled_from(["NA", "null", "N/A", "None", "nan", "Oslo"]),
    "codes": st.sampled_from(["01E3", "00E0", "007", "12E5", "1.10", "3.0", "x"]),
    "date": st.datetimes(datetime(1900, 1, 1), datetime(9999, 12, 31)).map(
        lambda t: t.replace(microsecond=0)
    ),
}


def project(data: Any, **given: Any) -> ProjectParams:
    """The facts of a small table."""
    plain = {"data": str(data), "time_column": "t", "target": "y", "features": ["x"], "id_column": ["id"]}
    return ProjectParams.check(plain | {"window": "2024-01-01/2025-01-01", "as_of": "2026-01-01"} | given)


def table(cells: list[Any], **columns: Any) -> pd.DataFrame:
    """Rows of one day each, with these cells."""
    n = len(cells)
    frame = pd.DataFrame({"id": range(n), "t": pd.date_range("2024-01-01", periods=n)})
    return frame.assign(x=pd.Series(cells, dtype=object), y=[i % 2 for i in range(n)], **columns)


def written(frame: pd.DataFrame, folder: Path, form: str, name: str = "table") -> str:
    """The location of a table with these rows."""
    if form == "sqlite":
        path, cells = folder / f"{name}.db", frame.astype(object)
        with sqlite3.connect(path) as connection:
            connection.execute(f"CREATE TABLE rows ({', '.join(frame.columns)})")
            plain = [
                [str(cell) if isinstance(cell, datetime | pd.Timestamp | Decimal) else cell for cell in row]
                for row in cells.where(cells.notna(), None).to_numpy().tolist()
            ]
            connection.executemany(f"INSERT INTO rows VALUES ({', '.join('?' * frame.shape[1])})", plain)
        connection.close()
        return f"sqlite:///{path}#rows"
    path = folder / f"{name}.{form}"
    if form == "csv":
        frame.to_csv(path, index=False)
    else:
        arrays = {
            column: pa.array(frame[column].tolist(), from_pandas=True) for column in frame if column != "t"
        }
        pq.write_table(
            pa.table({"t": pa.array(frame["t"].dt.to_pydatetime(), pa.timestamp("us"))} | arrays), path
        )
    return str(path)


def meant(values: Any) -> list[Any]:
    """Cells as plain values, None where missing."""
    return [
        None if cell is None or cell != cell else pd.Timestamp(cell) if isinstance(cell, datetime) else cell
        for cell in values
    ]


def readings(data: str, schema: Schema, folder: Path) -> dict[str, list[Any]]:
    """What each reader makes of the column."""
    facts = project(data)
    frame = read_window(facts)
    chunks = window_chunks(facts, features=["x"], batch_rows=7, chunk_rows=10, place=folder)
    batches = [batch for chunk in chunks for batch in chunk.batches()]
    scored = pd.concat(
        [schema.coerce(batch.to_pandas()).assign(id=batch["id"].to_pylist()) for batch in batches]
    )
    chunks.close()
    return {"frame": meant(schema.coerce(frame)["x"]), "batches": meant(scored.sort_values("id")["x"])}


@settings(max_examples=60, deadline=None)
@given(data=st.data(), kind=st.sampled_from(sorted(TYPES)))
def test_what_training_learned_is_what_every_reader_sees(data: st.DataObject, kind: str) -> None:
    """Whatever the type and the format, frames, batches and requests give one value under one name."""
    cells = data.draw(st.lists(st.none() | TYPES[kind], min_size=2, max_size=20))
    with tempfile.TemporaryDirectory() as name:
        folder, frame = Path(name), table(cells)
        first = written(frame, folder, "parquet")
        schema = Schema.infer(read_window(project(first)), features=["x"], target="y")
        reader = Reader(schema)
        expected = meant(reader.read({"x": cell})[0][0] for cell in cells)
        if schema.features[0].kind == "numeric":  # SQLite and CSV hold more digits than a float
            expected = [None if cell is None else float(cell) for cell in expected]
        for form in FORMATS:
            location = first if form == "parquet" else written(frame, folder, form)
            for who, got in readings(location, schema, folder).items():
                assert got == expected, (form, who)
        present = [cell for cell in expected if cell is not None]
        for form in ("parquet", "csv"):
            location = first if form == "parquet" else written(frame, folder, form)
            learned = profile_table(location, columns=["x"], time_column="t").columns["x"]
            assert learned.missing == len(expected) - len(present)
            if learned.bins.kind == schema.features[0].kind == "categorical":
                assert set(learned.bins.levels) == set(present)
            elif learned.bins.kind == schema.features[0].kind == "numeric" and present:
                assert (learned.min, learned.max) == (min(present), max(present))


@pytest.mark.parametrize(
    "parts",
    [
        [[True, False], [1, 0], ["True", "False"]],
        [[True, False, None], ["true", "false", "NA"]],
        [[1, 0], [1.0, 0.0], [True, False]],
        [["1", "0"], [1, 0], [True, False]],
    ],
)
def test_labels_of_files_that_differ_in_type_are_one_label(tmp_path: Path, parts: list[list[Any]]) -> None:
    """Truths, the words for them and 0 and 1 name the same two classes in whatever file they stand."""
    for number, cells in enumerate(parts):
        frame = table(cells).assign(y=pd.Series(cells, dtype=object), x=1.0)
        frame["t"] += pd.Timedelta(days=31 * number)
        frame["id"] += 100 * number
        written(frame, tmp_path, "parquet", str(number))
    facts = project(tmp_path, label_delay="0d")
    rows = read_window(facts)
    known = rows[rows["y"].notna()]
    first = Schema.infer(
        read_window(project(tmp_path / "0.parquet", label_delay="0d")).dropna(subset="y"),
        features=["x"],
        target="y",
    )
    assert first.encode(known["y"]).tolist() == [1, 0] * len(parts)
    assert Schema.infer(known, features=["x"], target="y").task == "binary"


def test_a_new_file_never_changes_how_old_rows_read(tmp_path: Path) -> None:
    """A closed window is the same before and after a file of other types comes."""
    old = table(["True", "False", "True"], code=["10", "20", "30"])
    written(old, tmp_path, "csv", "1")
    facts = project(tmp_path, window="2024-01-01/2024-02-01", features=["x", "code"])
    before = read_window(facts)
    new = table(["Unknown", "True"], code=["01E3", "A"])
    new["t"] += pd.Timedelta(days=60)
    written(new.assign(id=[8, 9]), tmp_path, "csv", "2")
    pd.testing.assert_frame_equal(read_window(facts), before)
    schema = Schema.infer(
        read_window(project(tmp_path, features=["x", "code"])), features=["x", "code"], target="y"
    )
    assert schema.coerce(before)["x"].tolist() == ["True", "False", "True"]
    assert schema.coerce(before)["code"].tolist() == ["10", "20", "30"]


@pytest.mark.parametrize("form", FORMATS)
def test_dates_without_end_are_read_everywhere(tmp_path: Path, form: str) -> None:
    """A due date of the year 9999 is a date like any other, and its neighbours are read as without it."""
    location = written(table([datetime(2024, 1, 1), datetime(9999, 12, 31), None]), tmp_path, form)
    schema = Schema.infer(read_window(project(location)), features=["x"], target="y")
    assert schema.features[0].kind == "datetime"
    expected = [pd.Timestamp("2024-01-01"), pd.Timestamp("9999-12-31"), None]
    assert set(map(repr, readings(location, schema, tmp_path).values())) == {repr(expected)}
    assert Reader(schema).read({"x": "9999-12-31"})[0] == [datetime(9999, 12, 31)]


def test_old_timestamps_of_spark_are_read(tmp_path: Path) -> None:
    """INT96 holds dates that nanoseconds since 1970 cannot."""
    cells = pa.array([datetime(2024, 1, 1), datetime(9999, 12, 31)], pa.timestamp("us"))
    path = tmp_path / "x.parquet"
    pq.write_table(
        pa.table({"id": [1, 2], "t": cells, "x": [1, 2], "y": [0, 1]}),
        path,
        use_deprecated_int96_timestamps=True,
    )
    frame = read_window(project(path, window="2024-01-01/2025-01-01"))
    assert frame["id"].tolist() == [1]
    assert read_window(project(path, window="9999-12-01/9999-12-31T23:00:00", as_of="9999-12-31T23:00:00"))[
        "id"
    ].tolist() == [2]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("ids", [[12345678901234567890, 12345678901234567891], [2**60 + 1, 2**60 + 2]])
def test_long_ids_are_exact(tmp_path: Path, form: str, ids: list[int]) -> None:
    """Neither whole decimals nor twenty digits go through a float."""
    frame = table([1.0, 2.0]).assign(id=pd.Series([Decimal(one) for one in ids], dtype=object))
    facts = project(written(frame, tmp_path, form))
    assert [int(one) for one in read_window(facts)["id"]] == ids
    chunks = window_chunks(facts, features=["x"], batch_rows=1, chunk_rows=1, place=tmp_path)
    got = [int(one) for chunk in chunks for batch in chunk.batches() for one in batch["id"].to_pylist()]
    chunks.close()
    assert sorted(got) == ids


def test_ids_of_two_types_are_refused_by_name(tmp_path: Path) -> None:
    """Whole numbers in one file and broken ones in another would lose digits."""
    written(table([1.0]), tmp_path, "parquet", "1")
    written(table([1.0]).assign(id=[5.0], t=pd.Timestamp("2024-02-01")), tmp_path, "parquet", "2")
    with pytest.raises(SchemaError, match="id must have one type to name rows; found double and int64"):
        read_window(project(tmp_path))


@pytest.mark.parametrize(
    ("content", "csv", "message"),
    [
        (b"id,t,x,x,y\n1,2024-01-01,1,2,1\n", {}, "x must occur once"),
        (
            b"id;t;x;y\n1;2024-01-01;1,5;1\n",
            {},
            r"data must have columns separated by ','.*csv: \{delimiter: ';'\}",
        ),
        (
            b"id;t;x;y\n1;2024-01-01;1,5;1\n",
            {"delimiter": ";"},
            r"x must hold numbers written with a point; found '1,5'.*decimal: ','",
        ),
        (b"id,t,x,y\n1,2024-01-01,M\xfcnchen,1\n", {}, r"x must be UTF-8 text.*encoding: cp1252"),
        (
            b"id,t,x,y\n1,31/12/2024,2,1\n",
            {},
            r"t must hold times; found '31/12/2024'.*time_format: '%d/%m/%Y'",
        ),
        (
            b"id,t,x,y\n1,1704067200,2,1\n",
            {},
            r"t must hold times; found '1704067200'.*time_format: 'epoch_s'",
        ),
        (b"id,t,x,y\n1,20240101,2,1\n", {}, r"t must hold times; found '20240101'.*time_format: 'date_int'"),
    ],
)
def test_a_csv_written_otherwise_is_an_error_with_the_option_that_reads_it(
    tmp_path: Path, content: bytes, csv: dict[str, str], message: str
) -> None:
    """Never "no rows": the column, what stands there, and what to set."""
    (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_window(project(tmp_path / "x.csv", csv=csv))


def test_a_csv_is_read_as_it_says_that_it_is_written(tmp_path: Path) -> None:
    """Delimiter, decimal comma, thousands, encoding and times of a table from elsewhere."""
    (tmp_path / "x.csv").write_bytes(
        "id;t;x;c;y\n1;31.12.2024;1.234,5;München;1\n2;30.12.2024;-7;-;0\n".encode("cp1252")
    )
    dialect = {"delimiter": ";", "decimal": ",", "thousands": ".", "encoding": "cp1252"}
    facts = project(
        tmp_path / "x.csv", csv=dialect, time_format="%d.%m.%Y", missing=["", "-"], features=["x", "c"]
    )
    frame = read_window(facts)
    assert frame["x"].tolist() == [-7, 1234.5]
    assert frame["c"].fillna("?").tolist() == ["?", "München"]
    assert frame["t"].tolist() == [pd.Timestamp("2024-12-30"), pd.Timestamp("2024-12-31")]


@pytest.mark.parametrize("form", FORMATS)
def test_a_number_may_mean_missing(tmp_path: Path, form: str) -> None:
    """What a project lists as missing is missing as a number, too, in every reader and format; NA then is a name."""
    location = written(table([1.5, -999.0, 2.5], c=["NA", "a", "b"]), tmp_path, form)
    facts = project(location, missing=["-999"], features=["x", "c"])
    frame = read_window(facts)
    schema = Schema.infer(frame, features=["x", "c"], target="y", missing=facts.missing)
    assert meant(schema.coerce(frame)["x"]) == [1.5, None, 2.5]
    assert schema.coerce(frame)["c"].tolist() == ["NA", "a", "b"]
    values, fault = Reader(schema).read({"x": -999, "c": "NA"})
    assert (math.isnan(values[0]), values[1], fault) == (True, "NA", "")


def test_an_index_of_pandas_is_a_column_and_one_without_a_name_is_none(tmp_path: Path) -> None:
    """`set_index("t").to_parquet` keeps its time; `__index_level_0__` is nobody's column."""
    table([1.0, 2.0]).set_index("t").to_parquet(tmp_path / "a.parquet")
    assert read_window(project(tmp_path / "a.parquet"))["t"].tolist() == list(
        pd.date_range("2024-01-01", periods=2)
    )
    frame = table([1.0, 2.0, 3.0]).iloc[[2, 0, 1]]
    frame.to_parquet(tmp_path / "b.parquet")
    assert "__index_level_0__" in pq.read_schema(tmp_path / "b.parquet").names
    facts = project(tmp_path / "b.parquet", features=[])
    assert feature_columns(read_window(facts), facts) == ["x"]
    assert "__index_level_0__" not in profile_table(str(tmp_path / "b.parquet")).columns


def test_cells_of_several_values_are_left_out_and_told(tmp_path: Path) -> None:
    """Of automatic features; whoever names one gets an error that names it, too."""
    written(table([1.0, 2.0], tags=[["a"], ["b", "c"]]), tmp_path, "parquet")
    facts = project(tmp_path, features=[])
    with pytest.warns(UserWarning, match=r"left out of the features: tags \(list<"):
        frame = read_window(facts)
    assert feature_columns(frame, facts) == ["x"]
    with pytest.raises(SchemaError, match="tags must hold one value in each cell"):
        Schema.infer(read_window(project(tmp_path, features=["tags"])), features=["tags"], target="y")
    assert "several values" in profile_table(str(tmp_path / "table.parquet")).notes["tags"]


@pytest.mark.parametrize("form", FORMATS)
def test_rows_without_a_time_are_counted(tmp_path: Path, form: str) -> None:
    """They are in no window, and their number is known."""
    frame = table([1.0, 2.0, 3.0])
    frame.loc[1, "t"] = pd.NaT
    facts = project(written(frame, tmp_path, form))
    assert timeless_rows(facts) == (1, 3)
    assert len(read_window(facts)) == 2


def test_folders_keep_their_text(tmp_path: Path) -> None:
    """store=007 is the store 007, is told to be left out of automatic features, and may be named."""
    for store in ("007", "12"):
        folder = tmp_path / f"store={store}"
        folder.mkdir()
        written(table([1.0]).assign(id=[int(store)]), folder, "parquet")
    with pytest.warns(
        UserWarning, match=r"left out of the features: store \(comes from the names of folders\)"
    ):
        assert "store" not in read_window(project(tmp_path, features=[]))
    assert read_window(project(tmp_path, features=["x", "store"]))["store"].tolist() == ["007", "12"]


def test_columns_named_like_those_of_the_kit_are_not_overwritten(tmp_path: Path) -> None:
    """_row, row, index and prediction may be features, and positions get a name of their own."""
    names = ["_row", "row", "index", "prediction", "price", "price.eur"]
    frame = (
        table([0.0, 1.0]).drop(columns="id").assign(**{name: [at, at + 0.5] for at, name in enumerate(names)})
    )
    facts = project(written(frame, tmp_path, "parquet"), features=[], id_column=[])
    rows = read_window(facts)
    assert feature_columns(rows, facts) == ["x", *names]
    assert [rows[name].tolist() for name in names] == [[at, at + 0.5] for at in range(len(names))]
    assert rows["_row_"].tolist() == ["table.parquet#0", "table.parquet#1"]
    chunks = window_chunks(facts, features=names, batch_rows=10, chunk_rows=10, place=tmp_path)
    (batch,) = [batch for chunk in chunks for batch in chunk.batches()]
    assert chunks.keys == ["t", "_row_"]
    assert [batch[name].to_pylist() for name in names] == [[at, at + 0.5] for at in range(len(names))]


def test_a_label_that_comes_late_into_a_database_is_seen(tmp_path: Path) -> None:
    """The fingerprint of a database is that of its cells, not of its rows' number and ends."""
    facts = project(written(table([1.0, 2.0, 3.0, 4.0]), tmp_path, "sqlite"))
    before = source_digest(facts)
    with sqlite3.connect(tmp_path / "table.db") as connection:
        connection.execute("UPDATE rows SET y = 1 - y WHERE id IN (1, 2)")
        connection.execute("CREATE VIEW known AS SELECT id, y FROM rows")
    connection.close()
    assert source_digest(facts) != before
    apart = facts.model_copy(update={"data": written(table([1.0, 2.0, 3.0, 4.0]), tmp_path, "parquet")})
    apart = apart.model_copy(update={"labels": facts.data.replace("#rows", "#known")})
    before = source_digest(apart)
    with sqlite3.connect(tmp_path / "table.db") as connection:
        connection.execute("UPDATE rows SET y = 1 - y WHERE id = 3")
    connection.close()
    assert source_digest(apart) != before


def test_a_format_that_cannot_be_read_says_how_to_convert_it(tmp_path: Path) -> None:
    """Excel, feather and JSON lines are one line of pandas away."""
    (tmp_path / "x.xlsx").write_text("")
    with pytest.raises(DataError, match=r"must be Parquet or CSV.*pandas.read_excel\(PATH\).to_parquet"):
        read_window(project(tmp_path / "x.xlsx"))


@pytest.fixture
def postgres():
    """A schema of a PostgreSQL database, and its URL."""
    with own_schema() as (engine, schema, url):
        yield engine, schema, f"{url}#{schema}.orders"


def test_a_table_of_postgresql_means_what_it_holds(postgres):
    """Long ids of numeric(38,0) are exact, an endless time is the last that there is, jsonb is left out of features."""
    engine, schema, location = postgres
    with engine.begin() as rows:
        rows.execute(
            sa.text(
                f"CREATE TABLE {schema}.orders (id numeric(38,0), t timestamp, due timestamp, x double precision,"
                " code text, more jsonb, y boolean)"
            )
        )
        for number in range(3):
            due = "infinity" if number == 1 else f"2024-02-0{number + 1}"
            values = f"{10**30 + number}, '2024-01-0{number + 1}', '{due}', {number}, '00{number}'"
            more = f"'{{\"a\": 1}}', {number % 2 == 0}"
            rows.execute(sa.text(f"INSERT INTO {schema}.orders VALUES ({values}, {more})"))
    facts = project(location, features=[])
    with pytest.warns(UserWarning, match="more"):
        frame = read_window(facts)
    assert [str(each) for each in frame["id"]] == [str(10**30 + number) for number in range(3)]
    assert frame["due"].tolist()[0] == pd.Timestamp("2024-02-01")
    assert frame["due"].tolist()[1].year == 9999
    assert frame["code"].tolist() == ["000", "001", "002"]
    assert "more" not in feature_columns(frame, facts)
    before = source_digest(facts)
    with engine.begin() as rows:
        rows.execute(sa.text(f"UPDATE {schema}.orders SET y = NULL WHERE x = 1"))
    assert source_digest(facts) != before
