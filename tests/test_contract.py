"""Broken input is named, on real flights of every month, and nature's changes are not."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from prodkit.data.schema import Column, Schema
from prodkit.data.windows import blocks, read_window
from prodkit.drift.contract import CONVERSIONS, Conversion, Limits, breaks
from prodkit.drift.counts import profile
from prodkit.drift.profiles import Profile
from prodkit.evidence import Window
from prodkit.params import ProjectParams

MONTHS = range(4, 13)
FAULTS = {
    "temp.unit": lambda rows: rows.assign(temp=(rows["temp"] - 32) / 1.8),
    "wind_speed.unit": lambda rows: rows.assign(wind_speed=(rows["wind_speed"] * 1.609344).round(1)),
    "pressure.missing": lambda rows: rows.assign(pressure=math.nan),
    "visib.missing": lambda rows: rows.drop(columns="visib"),
    "distance.unit": lambda rows: rows.assign(distance=(rows["distance"] * 1.609344).round()),
    "humid.unit": lambda rows: rows.assign(humid=rows["humid"] * 1000),
    "carrier.unseen": lambda rows: rows.assign(carrier="X" + rows["carrier"].astype(object)),
    "dewp.malformed": lambda rows: rows.assign(dewp="n/a?"),
    "temp.constant": lambda rows: rows.assign(temp=50.0),
    "pressure.range": lambda rows: rows.assign(pressure=-9999.0 + rows["pressure"] % 7),
}


class Year:
    """Profiles of a year of flights on the bins of its first weeks, and the rows of each month."""

    def __init__(self) -> None:
        facts = ProjectParams(window=Window.parse("2013-01-01/2014-01-01"))
        self.rows = read_window(facts)
        self.day = blocks(self.rows["time"])
        labelled = self.rows[(self.rows["time"] < "2013-03-18") & self.rows["late"].notna()]
        self.schema = Schema.infer(labelled, features=facts.features, target="late", task="binary")
        first = self.rows["time"] < "2013-03-18"
        self.training = profile(self.rows[first], self.schema, blocks=self.day[first])
        self.months = {month: self.rows["time"].dt.month == month for month in range(3, 13)}
        self.profiles = {month: self.of(self.rows[chosen]) for month, chosen in self.months.items()}

    def of(self, rows: pd.DataFrame) -> Profile:
        """The profile of some of the rows."""
        return profile(rows, self.schema, blocks=blocks(rows["time"]), like=self.training)

    def before(self, month: int) -> Profile:
        """What was last known to be in order when this month began."""
        return self.training if month == 4 else self.profiles[month - 1]


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory) -> Year:
    """The year, read once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRODKIT_OUT", str(tmp_path_factory.mktemp("out")))
        return Year()


def names(reference: Profile, current: Profile, **others: Profile) -> set[str]:
    """What is broken."""
    return {item.name.removeprefix("contract.") for item in breaks(reference, current, **others)}


def test_no_natural_month_is_broken(year: Year) -> None:
    """From April to December the weather and the timetable change, and no month is called broken."""
    for month in MONTHS:
        found = breaks(year.before(month), year.profiles[month], training=year.training)
        assert [(item.name, item.outcome) for item in found] == [("contract.columns", "pass")], month
        assert found[0].n == 16


def test_no_month_is_broken_beside_an_old_reference(year: Year) -> None:
    """Nor if the winter is all there is to compare the summer with, or if there are no training rows."""
    for month in MONTHS:
        assert names(year.training, year.profiles[month]) == {"columns"}, month
        assert names(year.profiles[month - 1], year.profiles[month]) == {"columns"}, month


def test_no_natural_week_is_broken(year: Year) -> None:
    """Nor is any week beside the one before; only the last day of the year truly lacks its weather."""
    week = (year.day - year.day[0]) // 7
    weeks = [year.of(year.rows[week == number]) for number in range(53)]
    found = [names(a, b, training=year.training) for a, b in pairwise(weeks)]
    assert [number for number, broken in enumerate(found, start=1) if broken != {"columns"}] == [52]
    assert {name.split(".")[1] for name in found[-1]} == {"missing"}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found_in_every_month(year: Year, fault: str) -> None:
    """A converted, emptied, garbled, stuck or recoded column is named, in each month, and no other is."""
    for month in MONTHS:
        rows = FAULTS[fault](year.rows[year.months[month]])
        assert names(year.before(month), year.of(rows), training=year.training) == {fault}, month


def test_a_single_day_is_enough_for_an_empty_column(year: Year) -> None:
    """One day of a column that was never empty for a day is a break; a column that is often empty has to wait."""
    day = year.rows[year.rows["time"].dt.normalize() == pd.Timestamp("2013-10-09")]
    recent = year.profiles[9]
    assert names(recent, year.of(day), training=year.training) == {"columns"}
    assert names(recent, year.of(day.assign(temp=math.nan)), training=year.training) == {"temp.missing"}
    assert names(recent, year.of(day.assign(wind_gust=math.nan)), training=year.training) == {"columns"}


def test_the_note_names_column_kind_and_numbers(year: Year) -> None:
    """A reader is told what happened without looking at the data."""
    rows = year.rows[year.months[11]]
    (found,) = breaks(year.profiles[10], year.of(FAULTS["temp.unit"](rows)), training=year.training)
    assert found.note == "temp looks converted from Fahrenheit to Celsius: median 7.8, before 62.06"
    assert (found.outcome, found.rung, found.n) == ("fail", 1, len(rows))
    assert found.value == pytest.approx(7.8)
    json.dumps(found.to_dict(), allow_nan=False)


def test_several_faults_are_each_named(year: Year) -> None:
    """The broken weather feed of the story, a unit changed and a column emptied, is two breaks."""
    rows = FAULTS["temp.unit"](year.rows[year.months[11]]).assign(pressure=math.nan)
    assert names(year.profiles[10], year.of(rows), training=year.training) == {
        "temp.unit",
        "pressure.missing",
    }


def small(values: object, *, kind: str = "numeric", days: int = 10, like: Profile | None = None) -> Profile:
    """A table of one column x, its rows spread evenly over days."""
    levels = ("a", "b") if kind == "categorical" else None
    schema = Schema((Column("x", kind, levels),), "y", "binary", (0, 1))  # type: ignore[arg-type]
    frame = pd.DataFrame({"x": values})
    return profile(frame, schema, blocks=np.arange(len(frame)) * days // max(len(frame), 1), like=like)


def noise(rows: int, *, seed: int = 0, mean: float = 50.0) -> np.ndarray:
    """Numbers that all differ."""
    return np.random.default_rng(seed).normal(mean, 5, size=rows)


def test_a_window_without_rows_is_an_error() -> None:
    """Nothing to look at is neither good nor bad."""
    (found,) = breaks(small(noise(1000)), small([]))
    assert (found.name, found.outcome) == ("contract.rows", "error")


@pytest.mark.parametrize(("rows", "broken"), [(30, True), (300, False), (4000, False), (6000, True)])
def test_row_counts_far_from_the_usual_are_broken(rows: int, broken: bool) -> None:
    """Less than a fifth or more than five times the usual rows a day is a break."""
    assert names(small(noise(1000)), small(noise(rows, seed=1))) == ({"rows"} if broken else {"columns"})


def test_a_quiet_day_like_an_earlier_one_is_no_break() -> None:
    """Sundays may have a tenth of the usual rows if some recent day had as few."""
    schema = Schema((Column("x", "numeric"),), "y", "binary", (0, 1))
    rows, days = noise(1010), np.append(np.arange(1000) // 100, np.full(10, 10))
    week = profile(pd.DataFrame({"x": rows}), schema, blocks=days)
    sunday = profile(pd.DataFrame({"x": noise(12, seed=1)}), schema, blocks=np.full(12, 11), like=week)
    assert names(week, sunday) == {"columns"}


@pytest.mark.parametrize("known", CONVERSIONS, ids=lambda known: known.name)
def test_conversions_are_undone_exactly(known: Conversion) -> None:
    """Undoing what a conversion does gives the values back."""
    values = np.array([-40.0, 0.0, 12.5])
    np.testing.assert_allclose(known.undo(known.slope * values + known.offset), values, atol=1e-9)


def test_a_column_of_many_values_is_judged_by_its_days() -> None:
    """Where all numbers differ, a change of scale is found by level and spread, and a mere shift is not one."""
    before = small(noise(2000))
    assert names(before, small(noise(2000, seed=1) / 100)) == {"x.unit"}
    assert names(before, small(noise(2000, seed=1) * 1.609344)) == {"x.unit"}
    assert names(before, small(noise(2000, seed=1, mean=60))) == {"columns"}


def test_a_counter_may_grow() -> None:
    """Numbers that grow from window to window leave the range of training without being broken."""
    training = small(np.arange(1000.0))
    recent, now = (small(np.arange(start, start + 1000.0), like=training) for start in (1500, 2500))
    assert now.columns["x"].beyond == 1000
    assert names(recent, now, training=training) == {"columns"}
    assert names(recent, small(np.arange(70_000.0, 71_000.0), like=training), training=training) == {
        "x.range"
    }


def test_a_season_is_not_a_change_of_unit() -> None:
    """Days that move by as much as knots differ from miles an hour may be nature, if days differ anyway."""
    days = np.repeat(np.random.default_rng(2).normal(0, 1.3, size=10), 200)
    assert names(small(noise(2000) + days), small((noise(2000, seed=1) + days) * 1.150779)) == {"columns"}


def test_a_handful_of_rows_a_day_is_not_a_change_of_unit() -> None:
    """The spread of two rows is small whatever the unit is: thirty rows of a column around nought convert nothing."""
    draw = np.random.default_rng(0)
    for _ in range(40):
        before = small(draw.lognormal(2.5, 1.3, 4200) - 15, days=28)
        few = draw.lognormal(2.5, 1.3, 30) - 15
        assert "x.unit" not in names(before, small(few, days=18, like=before))


def test_a_column_that_was_often_constant_may_stay_so() -> None:
    """A column with one value for days on end is stuck only after twice the longest such time."""
    rows = np.where(np.arange(1000) // 100 < 5, 0.0, noise(1000))
    assert names(small(rows), small(np.zeros(1000), days=10)) == {"columns"}
    assert names(small(rows), small(np.zeros(1100), days=11)) == {"x.constant"}
    levels = np.random.default_rng(0).choice(["a", "b"], size=1000)
    assert names(small(levels, kind="categorical"), small(["a"] * 1000, kind="categorical")) == {"x.constant"}


def test_a_few_missing_values_of_few_rows_are_no_break() -> None:
    """Seven of thirty, where one in ten is usual, are what chance makes of thirty rows; not of three thousand."""
    usual = np.where(np.arange(3000) % 10 == 0, np.nan, noise(3000))
    before = small(usual, days=40)
    few, many = (np.where(np.arange(n) % 30 < 7, np.nan, noise(n, seed=1)) for n in (30, 3000))
    assert "x.missing" not in names(before, small(few, days=18, like=before))
    assert "x.missing" in names(before, small(many, days=18, like=before))


def test_limits_can_be_set() -> None:
    """Whoever expects more malformed values says so."""
    mixed = noise(1000).astype(object)
    mixed[::10] = "broken"
    before, now = small(noise(1000, seed=1)), small(mixed)
    assert names(before, now) == {"x.malformed"}
    (found,) = breaks(before, now, limits=Limits(malformed_share=0.2))
    assert found.outcome == "pass"


def test_what_was_always_so_is_no_break() -> None:
    """Missing, malformed and unseen values are held against the references, not against perfection."""
    dirty = noise(1000).astype(object)
    dirty[::2], dirty[1::4] = None, "broken"
    assert names(small(dirty), small(dirty)) == {"columns"}
    others = np.random.default_rng(0).choice(["a", "b", "z"], size=1000)
    assert names(small(others, kind="categorical"), small(others, kind="categorical")) == {"columns"}
