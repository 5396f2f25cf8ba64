"""What is due: the calendar, and the steps of a plan, as properties of any table that grows."""

from datetime import datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prodkit.data.arrays import times
from prodkit.errors import ParameterError
from prodkit.evidence import Window, utc
from prodkit.schedule import (
    Calendar,
    Done,
    Plan,
    agenda,
    next_due,
    require_decidable,
    silent_since,
    without_strays,
)

EVERY = ["month", "week", "day", "6h", "36h", "10d", "90min"]
ZONES = ["UTC", "Europe/Rome", "America/St_Johns", "Australia/Lord_Howe", "Asia/Kathmandu"]
moments = st.datetimes(datetime(1995, 1, 1), datetime(2040, 1, 1))
calendars = st.builds(Calendar, st.sampled_from(EVERY), st.sampled_from(ZONES))


@given(calendars, moments)
def test_a_moment_lies_in_its_period_and_so_does_its_start(calendar, moment):
    """Each moment has one period; the start of a period lies in it, and its end in the next."""
    period = calendar.period(moment)
    assert moment in period
    assert calendar.period(period.start) == period
    assert calendar.period(period.end).start == period.end


@given(calendars, moments, st.timedeltas(timedelta(0), timedelta(days=20)), moments)
def test_periods_follow_one_another_without_a_gap(calendar, start, length, live):
    """Whatever is asked for, the periods tile it; none reaches over the day on which a champion went live."""
    first = Window(live - timedelta(days=9), live)
    periods = list(Plan(1, calendar.every, calendar.timezone, first).between(start, start + length))
    assert not any(each.start < live < each.end for each in periods)
    assert all(one.end == two.start for one, two in pairwise(periods))
    assert not periods or (start in periods[0] and periods[-1].start < start + length <= periods[-1].end)


@given(st.sampled_from(["month", "week", "day"]), st.sampled_from(ZONES), moments)
def test_months_weeks_and_days_begin_at_a_midnight_of_the_time_zone(every, zone, moment):
    """A day may have 23 or 25 hours, but it begins at midnight; a week begins on a Monday, a month on the first."""
    start = (
        Calendar(every, zone).period(moment).start.replace(tzinfo=ZoneInfo("UTC")).astimezone(ZoneInfo(zone))
    )
    assert (start.hour, start.minute, start.second) == (0, 0, 0)
    assert every != "week" or start.weekday() == 0
    assert every != "month" or start.day == 1


def test_a_day_on_which_the_clock_changes_has_23_or_25_hours():
    """In Rome the last Sunday of March has 23 hours and that of October 25."""
    calendar = Calendar("day", "Europe/Rome")
    hours = [calendar.period(datetime(2024, *day, 12)).days * 24 for day in ((3, 31), (10, 27), (6, 1))]
    assert [round(each) for each in hours] == [23, 25, 24]


@pytest.mark.parametrize(("every", "zone", "match"), [
    ("fortnight", "UTC", "every must be month, week, day or a duration"),
    ("5s", "UTC", "every must be a minute or longer"),
    ("99999999d", "UTC", "every must be a minute or longer, and no decades"),
    ("9999999999w", "UTC", "every must be month, week, day or a duration"),
    ("month", "Rome", "timezone must be a time zone"),
    ("month", "America", "timezone must be a time zone"),
])  # fmt: skip
def test_an_unknown_period_or_time_zone_is_refused(every, zone, match):
    """The error names the parameter, the rule and the value."""
    with pytest.raises(ParameterError, match=match):
        Calendar(every, zone)


def plan(every="month", zone="UTC"):
    """A plan that goes live in April 2013."""
    calendar = Calendar(every, zone)
    start = calendar.period(datetime(2013, 4, 10)).start
    return Plan(1, every, zone, Window(start - timedelta(days=90), start), {"target": "late"})


def counted(life, times, moment):
    """The rows of each period that are there at a moment."""
    rows = {}
    for each in times:
        if each < moment:
            period = life.calendar.period(each)
            rows[period] = rows.get(period, 0) + 1
    return rows


def carry_out(life, done, log, times, moment, *, grace=timedelta(), retrain=lambda window: False, most=10**6):
    """Do what is due at a moment, step by step as the loop does; stop after so many steps, as a kill would."""
    while most:
        rows = counted(life, times, moment)
        entries = agenda(life, moment=moment, grace=grace, rows=rows, done=done)
        due = next_due(entries)
        if due is None:
            return
        step = due.steps[0]
        action = "retrain" if step == "rollback" and retrain(due.window) else None
        done[step, due.window] = Done(action, due.rows)
        log.append((step, due.window))
        most -= 1


tables = st.lists(st.datetimes(datetime(2013, 3, 1), datetime(2013, 9, 1)), max_size=60)


@given(
    st.sampled_from(["month", "week", "10d"]),
    tables,
    st.lists(st.datetimes(datetime(2013, 4, 1), datetime(2013, 9, 1)), max_size=6),
    st.integers(1, 7),
)
def test_living_is_replaying(every, times, looks, most):
    """A table looked at whenever, and killed at any step, sees the same steps in the same order."""
    life, end, retrain = plan(every), datetime(2013, 9, 1), lambda window: window.start.day % 2 == 0
    once: list = []
    carry_out(life, {}, once, times, end, retrain=retrain)
    done, grown = {}, []
    for moment in [*sorted(looks), end]:
        carry_out(life, done, grown, times, moment, retrain=retrain, most=most)
    carry_out(life, done, grown, times, end, retrain=retrain)
    assert grown == once


@given(tables, st.sampled_from(["month", "week"]))
def test_done_is_done(times, every):
    """After everything is done, the same look finds nothing due, and each step was done once."""
    life, done, log = plan(every), {}, []
    carry_out(life, done, log, times, datetime(2013, 9, 1))
    assert len(log) == len(set(log))
    rows = counted(life, times, datetime(2013, 9, 1))
    states = {entry.state for entry in agenda(life, moment=datetime(2013, 9, 1), rows=rows, done=done)}
    assert "due" not in states


def test_a_row_of_the_far_future_closes_nothing():
    """One row of 2099 does not make the running month due, nor any empty period."""
    life, moment = plan(), datetime(2013, 5, 10)
    times = [datetime(2013, 4, 5), datetime(2099, 1, 1)]
    entries = agenda(life, moment=moment, rows=counted(life, times, moment), done={})
    assert [entry.state for entry in entries] == ["due", "open"]


def test_a_period_without_rows_between_others_is_empty_and_one_at_the_end_is_open():
    """An off-season is passed over; a feed that is silent at the end closes nothing."""
    life, moment = plan(), datetime(2013, 9, 1)
    rows = counted(life, [datetime(2013, 4, 5), datetime(2013, 6, 5)], moment)
    states = [entry.state for entry in agenda(life, moment=moment, rows=rows, done={})]
    assert states == ["due", "empty", "due", "open"]


def test_grace_keeps_a_period_open():
    """A period whose rows are complete only after three days is due then, not before."""
    life = plan()
    rows = {Window(datetime(2013, 4, 1), datetime(2013, 5, 1)): 5}
    for day, state in ((3, "open"), (4, "due")):
        moment = datetime(2013, 5, day)
        entries = agenda(life, moment=moment, grace=timedelta(days=3), rows=rows, done={})
        assert entries[0].state == state


def test_rows_that_came_after_a_period_was_done_are_counted():
    """412 rows of April that came later make it restated, by 412 rows; nothing of it is due again."""
    life, moment = plan(), datetime(2013, 5, 2)
    april = Window(datetime(2013, 4, 1), datetime(2013, 5, 1))
    done = {(step, april): Done(None, 1_000) for step in ("score", "drift", "monitor", "rollback")}
    entry = agenda(life, moment=moment, rows={april: 1_412}, done=done)[0]
    assert (entry.state, entry.late_rows, entry.steps) == ("restated", 412, ())


def test_a_feed_is_silent_once_a_whole_period_has_passed_without_rows():
    """Its last row names the moment; a period that is not over yet says nothing."""
    life, last = plan(), datetime(2013, 4, 20)
    assert silent_since(life, moment=datetime(2013, 5, 20), last=last) is None
    assert silent_since(life, moment=datetime(2013, 6, 1), last=last) == last


def test_a_plan_is_read_back_as_it_was_written():
    """It survives its way through the store."""
    assert Plan.from_dict(plan("week", "Europe/Rome").to_dict()) == plan("week", "Europe/Rome")


@given(st.sampled_from(ZONES), st.lists(st.datetimes(datetime(1996, 1, 1), datetime(2038, 1, 1)), min_size=1))
def test_a_time_without_an_offset_lies_in_the_day_that_its_clock_shows(zone, clocks):
    """However it is written and however many are read at once; an hour that the clock leaves out lies after it."""
    local = Plan(1, "day", zone, Window(datetime(2000, 1, 1), datetime(2000, 1, 2))).local
    there = [clock for clock in clocks if local(utc(clock, zone)) == clock]
    written = [pa.array(clocks, pa.timestamp("us")), pa.array(list(map(str, clocks)))]
    read = [times(cells, "time", zone=zone).tolist() for cells in written]
    assert read == [[utc(clock, zone) for clock in clocks]] * 2
    for clock in there:
        day = Calendar("day", zone).period(utc(clock, zone))
        assert local(day.start) == datetime(*clock.timetuple()[:3])
    aware = pa.array(clocks, pa.timestamp("us", "UTC"))
    assert times(aware, "time", zone=zone).tolist() == clocks


def test_hours_that_clocks_repeat_or_leave_out():
    """In Rome half past two of the last Sunday of March is half past three, and that of October the first of two."""
    read = times(
        pa.array([datetime(2024, 3, 31, 2, 30), datetime(2024, 10, 27, 2, 30)]), "time", zone="Europe/Rome"
    )
    assert read.tolist() == [datetime(2024, 3, 31, 1, 30), datetime(2024, 10, 27, 0, 30)]


def test_a_few_rows_long_before_all_others_are_no_beginning():
    """One row of 1970 does not make the table begin there; a first season that pauses does."""
    months = [plan().calendar.period(datetime(2013, month, 1)) for month in range(1, 13)]
    epoch = plan().calendar.period(datetime(1970, 1, 1))
    assert without_strays({epoch: 1, **dict.fromkeys(months, 30)}) == months
    season = {month: 30 for month in months if month.start.month not in (5, 6, 7, 8)}
    assert without_strays(season) == list(season)


@pytest.mark.parametrize(("every", "rate", "match"), [
    ("month", 1.0, r"every must hold enough labelled rows .*month: about 29 of 50.*Set `every: 91d`"),
    ("day", 20.0, "Set `every: week`"),
    ("month", 0.01, "Collect more rows"),
])  # fmt: skip
def test_periods_that_never_hold_enough_are_refused_with_some_that_do(every, rate, match):
    """A row a day by month can never decide: the error proposes a length that can."""
    period = Calendar(every).period(datetime(2013, 4, 10))
    with pytest.raises(ParameterError, match=match):
        require_decidable(period, every=every, label_delay=timedelta(days=1), rows_a_day=rate)
    require_decidable(period, every=every, label_delay=timedelta(0), rows_a_day=100.0)


def test_a_retraining_that_was_approved_late_comes_last_and_only_the_newest_does():
    """What is due by the calendar goes before it; a later request makes an earlier one out of date."""
    life, months = plan(), [Window(datetime(2013, at, 1), datetime(2013, at + 1, 1)) for at in (4, 5, 6, 7)]
    rows, moment = dict.fromkeys(months, 9), datetime(2013, 8, 1)
    done = {(step, month): Done(None, 9) for step in ("score", "drift", "monitor") for month in months[:3]}
    done |= {("rollback", month): Done("retrain", 9) for month in months[:2]} | {
        ("rollback", months[2]): Done("keep")
    }
    entries = agenda(life, moment=moment, rows=rows, done=done)
    assert [entry.state for entry in entries] == ["done", "due", "done", "due"]
    assert next_due(entries).window == months[3]
    done |= {(step, months[3]): Done(None, 9) for step in ("score", "drift", "monitor", "rollback")}
    due = next_due(agenda(life, moment=moment, rows=rows, done=done))
    assert (due.window, due.steps) == (months[1], ("train", "validate"))
