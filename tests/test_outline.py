"""The story of a table: its parts are whole, and what is asked of each can be had."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tables import orders, params_for, written

from prodkit.errors import LabelError, WindowError
from prodkit.evidence import Window, parse_duration
from prodkit.outline import chapters, outline, read_outline

SPANS = st.builds(
    lambda start, hours: Window(start, start + timedelta(hours=hours)),
    st.datetimes(datetime(1999, 1, 1), datetime(2031, 1, 1)),
    st.integers(2, 24 * 2000),
)
YEAR = Window.parse("2023-01-05/2024-01-05")


@given(SPANS)
def test_chapters_share_out_the_whole_span(span):
    """They follow one another without gap or overlap, from the first moment to the last."""
    parts = chapters(span)
    assert (parts[0].start, parts[-1].end) == (span.start, span.end)
    assert all(a.end == b.start for a, b in pairwise(parts))
    assert len(parts) >= 2


@given(SPANS)
def test_no_chapter_is_too_short_to_tell_anything(span):
    """Of a fortnight or more, each part has four whole days at least, and months keep ten."""
    shortest = min(part.days for part in chapters(span))
    assert shortest >= (4 if span.days >= 14 else 0)
    assert shortest >= 10 or span.days < 250


def test_a_year_is_told_by_months_and_a_few_weeks_by_whole_days():
    """A short rest goes with the month beside it; equal parts are cut at midnight."""
    year = [str(part) for part in chapters(YEAR)]
    assert (len(year), year[0], year[-1]) == (12, "2023-01-05/2023-02-01", "2023-12-01/2024-01-05")
    weeks = [str(part) for part in chapters(Window.parse("2023-01-05/2023-01-26"))]
    assert weeks == [
        *("2023-01-05/2023-01-10", "2023-01-10/2023-01-15"),
        *("2023-01-15/2023-01-20", "2023-01-20/2023-01-26"),
    ]


@given(SPANS, st.floats(0, 24 * 60), st.floats(0.01, 1e6))
def test_what_is_asked_can_be_had(span, hours, rows_a_day):
    """If there is a story at all, it learns, waits for labels and judges within the first window."""
    delay = timedelta(hours=hours)
    try:
        laid = outline(span, label_delay=delay, rows_a_day=rows_a_day)
    except WindowError:
        return
    holdout = parse_duration(laid.policies["train"]["holdout"])
    learned = laid.first.end - laid.first.start - holdout - delay
    assert abs(learned - laid.learned) <= timedelta(hours=1)
    assert learned / timedelta(days=1) > delay / timedelta(days=1) + laid.policies["train"]["folds"]
    judged_days = (holdout - delay) / timedelta(days=1)
    assert laid.policies["validate"]["min_blocks"] <= judged_days + 1
    assert [laid.first.end, span.end] == [laid.rest[0].start, laid.rest[-1].end]
    for policy in (laid.policies["validate"], laid.policies["rollback"]):
        assert 50 <= policy["min_rows"] <= 500
        assert 2 <= policy["min_blocks"] <= 7


def test_plenty_of_rows_in_a_year_ask_for_the_usual():
    """A quarter is learned from; a judgement needs 500 rows on seven days."""
    laid = outline(Window.parse("2013-01-01/2014-01-01"), label_delay=timedelta(days=1), rows_a_day=900)
    assert str(laid.first) == "2013-01-01/2013-04-01"
    assert laid.policies["train"] == {"holdout": "15d", "folds": 4}
    assert laid.policies["validate"] == {"min_rows": 500, "min_blocks": 7}
    assert laid.policies["rollback"] == {"min_rows": 500, "min_blocks": 7, "challenger_share": 0.5}


def test_late_labels_make_the_first_window_longer():
    """With labels after a month, three months would leave a fortnight to learn from: four are taken."""
    laid = outline(YEAR, label_delay=timedelta(days=30), rows_a_day=900)
    assert str(laid.first) == "2023-01-05/2023-05-01"
    assert parse_duration(laid.policies["train"]["holdout"]) == timedelta(days=44)


@pytest.mark.parametrize(("span", "days"), [("2023-01-01/2023-01-08", 0.1), (str(YEAR), 200)])
def test_a_table_too_short_for_its_labels_is_refused(span, days):
    """A week, or a year of labels that take most of it: the error says so before anything runs."""
    with pytest.raises(WindowError, match="long enough to learn, to wait for labels and to judge"):
        outline(Window.parse(span), label_delay=timedelta(days=days), rows_a_day=900)


def outline_of(frame: pd.DataFrame, folder, **given):
    """The outline of the two months of such a table."""
    params = params_for("train", written(frame, folder), model_args={}, **given)
    return read_outline(params, Window.parse("2024-01-01/2024-03-01"))


def test_windows_without_rows_are_passed_over(tmp_path):
    """A feed that rested for ten days leaves no window that nothing can be said of."""
    frame = orders()
    day = frame["ordered_at"].dt.strftime("%Y-%m-%d")
    laid = outline_of(frame[(day < "2024-02-05") | (day >= "2024-02-15")], tmp_path)
    assert laid.rest
    assert not any("2024-02-05" <= f"{part.start:%Y-%m-%d}" < "2024-02-10" for part in laid.rest)


def test_few_rows_get_a_simpler_model_unless_one_is_named(tmp_path):
    """A table of 60 rows a day is soon learned by heart; what a person has chosen stays."""
    assert outline_of(orders(), tmp_path).policies["train"]["model_args"]["max_leaf_nodes"] == 8
    named = outline_of(orders(), tmp_path, model="sklearn.linear_model.LogisticRegression")
    assert "model_args" not in named.policies["train"]


def test_a_table_that_begins_without_labels_is_refused(tmp_path):
    """Nothing can be learned from the first quarter: the error names the target."""
    frame = orders()
    frame.loc[frame["ordered_at"] < "2024-02-01", "returned"] = np.nan
    with pytest.raises(LabelError, match="returned must hold labels"):
        outline_of(frame, tmp_path)
