"""A life of one's own table: how its time is laid out, what suits it, what is done once, and one life in full."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tables import PROJECT

from prodkit.errors import ParameterError
from prodkit.evidence import Window
from prodkit.journal import Journal
from prodkit.lifecycle import FLIGHTS_DRILLS, plan
from prodkit.outline import chapters
from prodkit.runs.runner import Run

MONTHS = [f"2024-{month:02d}" for month in (4, 5, 6)]


def shop(folder, *, rows=4_000, days=182):
    """A params file beside a table of orders of half a year; in March, what sends an order back changes."""
    random = np.random.default_rng(0)
    seconds = np.sort(random.integers(0, days * 86_400, rows))
    when = pd.Timestamp("2024-01-01") + pd.to_timedelta(seconds, unit="s")
    price, weight = random.normal(0, 1, rows), random.normal(0, 1, rows)
    drive = np.where(when < pd.Timestamp("2024-03-14"), 1.8 * price, -2.5 * price + 2.5 * weight)
    returned = (random.random(rows) < 1 / (1 + np.exp(-drive))).astype(int)
    city = random.choice(["Bergen", "Oslo", "Rome"], rows)
    frame = {"ordered_at": when, "price": price, "weight": weight, "city": city, "returned": returned}
    pd.DataFrame(frame).to_parquet(folder / "orders.parquet", index=False)
    facts = {
        "data": "orders.parquet",
        "time_column": "ordered_at",
        "target": "returned",
        "label_delay": "20d",
    }
    path = folder / "shop.yaml"
    path.write_text(yaml.safe_dump(facts))
    return path


# The outline


@given(
    start=st.datetimes(datetime(2000, 1, 1), datetime(2030, 1, 1)),
    length=st.timedeltas(timedelta(hours=1), timedelta(days=1_500)),
)
def test_chapters_tile_the_span(start, length):
    """Whatever the span: at least two parts that begin where it begins, end where it ends, and leave no gap."""
    span = Window(start, start + length)
    parts = chapters(span)
    assert (parts[0].start, parts[-1].end) == (span.start, span.end)
    assert all(before.end == after.start for before, after in pairwise(parts))
    assert len(parts) >= 2


@given(st.datetimes(datetime(2000, 1, 1), datetime(2030, 1, 1)), st.floats(220, 1_500))
def test_chapters_of_a_long_span_are_months(start, days):
    """From six whole months on every inner cut is the first of a month, and no part is shorter than ten days."""
    parts = chapters(Window(start, start + timedelta(days=days)))
    assert all((part.start.day, part.start.hour) == (1, 0) for part in parts[1:])
    assert all(10 <= part.days <= 41 for part in parts)


@pytest.mark.parametrize(("days", "count"), [(2, 2), (30, 6), (60, 12), (144, 12)])
def test_a_short_span_is_cut_into_equal_parts(days, count):
    """At most twelve, none shorter than five days, but two at least."""
    parts = chapters(Window(datetime(2024, 1, 1), datetime(2024, 1, 1) + timedelta(days=days)))
    assert [round(part.days, 3) for part in parts] == [round(days / count, 3)] * count


# The plan


def test_the_plan_of_an_own_table_has_no_drills(tmp_path):
    """Its months follow from its first and last row, the first training from its label delay, its ids from nothing."""
    life = plan([shop(tmp_path)], [("folds", "2")])
    assert str(life.first) == "2024-01-01/2024-04-01"
    assert [f"{window.start:%Y-%m}" for window in life.windows] == MONTHS
    assert life.drills == ()
    assert life.steps == 2 + 4 * 3
    assert life.suits["rollback"]["min_rows"] < 500


def test_the_plan_of_the_flights_has_two_drills():
    """January to March is learned from, nine months are lived through, and both rehearsals fall among them."""
    files = [PROJECT / "params" / f"{name}.yaml" for name in ("flights", "train", "validate", "rollback")]
    life = plan(files, [])
    assert str(life.first) == "2013-01-01/2013-04-01"
    assert [window.start.month for window in life.windows] == list(range(4, 13))
    assert life.drills == FLIGHTS_DRILLS
    starts = {f"{window.start:%Y-%m-%d}" for window in life.windows}
    assert {drill.month for drill in life.drills} <= starts
    assert life.steps == 2 + 4 * 9 + 1


def test_the_plan_keeps_to_the_window_that_is_given(tmp_path):
    """`window` says which part of the table the story covers; no notebook sees it as its own window."""
    life = plan([shop(tmp_path)], [("window", "2024-01-01/2024-05-31"), ("label_delay", "1d")])
    assert (life.first.start, life.windows[-1].end) == (datetime(2024, 1, 1), datetime(2024, 5, 31))
    assert "window" not in dict(life.given)


def test_the_plan_refuses_a_name_that_no_notebook_knows(tmp_path):
    """A mistyped `-p` is refused with the nearest known name before anything runs."""
    with pytest.raises(
        ParameterError, match=r"diagnostic_row is not a parameter.*Did you mean diagnostic_rows"
    ):
        plan([shop(tmp_path)], [("diagnostic_row", "500")])


# The journal


def finished(folder, run_id):
    """A run that left its result."""
    document = {"run_id": run_id, "status": "succeeded"}
    place = folder / "runs" / run_id
    place.mkdir(parents=True)
    (place / "result.json").write_text(json.dumps(document))
    return Run(place, document)


def test_a_journal_goes_on_where_it_stopped(tmp_path):
    """The same story finds its steps with their results, and its rows; what was not done is not there."""
    path, story = tmp_path / "lifecycle.json", {"windows": ["a/b"], "params": {"seed": 0}}
    first = Journal(path, story)
    assert not path.exists()
    first.did("train a/b", finished(tmp_path, "train-1"))
    first.closed("a/b", {"window": "a", "decision": "keep"})
    again = Journal(path, {"params": {"seed": 0}, "windows": ["a/b"]})
    assert again.steps == 1
    assert again.run_of("train a/b").repeated
    assert again.run_of("train a/b")["run_id"] == "train-1"
    assert again.row_of("a/b") == {"window": "a", "decision": "keep"}
    assert (again.run_of("score a/b"), again.row_of("b/c")) == (None, None)


@pytest.mark.parametrize(("story", "fresh"), [({"seed": 1}, False), ({"seed": 0}, True)])
def test_another_story_or_a_fresh_one_begins_anew(tmp_path, story, fresh):
    """Nothing of it is followed, and its first step replaces the file."""
    path = tmp_path / "lifecycle.json"
    Journal(path, {"seed": 0}).did("train a/b", finished(tmp_path, "train-1"))
    other = Journal(path, story, fresh=fresh)
    assert (other.steps, other.run_of("train a/b")) == (0, None)
    other.did("score a/b", finished(tmp_path, "score-1"))
    assert Journal(path, story).run_of("train a/b") is None
    assert Journal(path, story).run_of("score a/b")["run_id"] == "score-1"


def test_a_step_whose_result_is_gone_is_done_again(tmp_path):
    """A journal never vouches for a run that cannot be read."""
    journal = Journal(tmp_path / "lifecycle.json", {})
    run = finished(tmp_path, "train-1")
    journal.did("train a/b", run)
    (run.folder / "result.json").unlink()
    assert journal.run_of("train a/b") is None
