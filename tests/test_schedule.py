"""What is due: the calendar, and the steps of a plan, as properties of any table that grows."""

from datetime import datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prodkit.errors import ParameterError
from prodkit.evidence import Window
from prodkit.schedule import Calendar, Done, Plan, agenda, silent_since

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


@given(calendars, moments, st.timedeltas(timedelta(0), timedelta(days=20)))
def test_periods_follow_one_another_without_a_gap(calendar, start, length):
    """Whatever is asked for, the periods tile it."""
    periods = list(calendar.between(start, start + length))
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
        due = next((entry for entry in entries if entry.state == "due"), None)
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
