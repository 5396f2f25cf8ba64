"""The loop on tables of one's own that grow: living is replaying, and nothing is done twice."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tables import Command, prodkit, written
from test_own_tables import actions, facts_beside, here, shop

from prodkit.errors import ParameterError, WindowError
from prodkit.evidence import Window
from prodkit.lifecycle import Lifecycle, lifecycle
from prodkit.settings import using_outputs
from prodkit.store.registry import Store

__all__ = ["here", "prodkit"]  # fixtures

ENDS = [datetime(2024, 1, day) for day in (12, 17, 22)]


@pytest.fixture
def table(tmp_path) -> pd.DataFrame:
    """Three weeks of orders that came back or did not."""
    frame = shop(rows=60)
    frame["returned"] = (frame.pop("drive") > 0).astype(int)
    return frame


def call(
    folder: Path, frame: pd.DataFrame, until: datetime, *pairs: tuple[str, str], reason: str = ""
) -> Lifecycle:
    """One call of the loop on the rows that are there."""
    file = facts_beside(Path(written(frame, folder)))
    with using_outputs(folder / "out"):
        life = lifecycle([file], [("live_from", "2024-01-12"), *pairs], until=until, reason=reason)
        life.tell = lambda step: None
        life.live()
    return life


def lived(life: Lifecycle, folder: Path) -> list[dict[str, str]]:
    """Its periods."""
    with using_outputs(folder / "out"):
        return life.table()


def test_a_table_that_grows_lives_as_one_that_is_there_at_once(here, table, tmp_path):
    """The same periods, actions, figures and trainings, whether looked at once or after each period."""
    (tmp_path / "once").mkdir()
    (tmp_path / "grown").mkdir()
    once = call(tmp_path / "once", table, ENDS[-1], ("retrain_now", "true"))
    made = []
    for until in (datetime(2024, 1, 9), *ENDS, ENDS[-1]):
        rows = table[table["ordered_at"] < until]
        grown = call(tmp_path / "grown", rows, until, ("retrain_now", "true"))
        made += actions(grown)
    assert made == actions(once)
    assert lived(grown, tmp_path / "grown") == lived(once, tmp_path / "once")
    digests = []
    for folder, life in (("once", once), ("grown", grown)):
        with using_outputs(tmp_path / folder / "out"), life._store() as store:
            digests.append([version.manifest["data_digest"] for version in store.versions()])
    assert digests[0] == digests[1]


def test_a_call_with_nothing_due_says_when_the_next_period_ends(here, table, tmp_path):
    """Nothing runs, and a running period stays open."""
    call(tmp_path, table, ENDS[1])
    again = call(tmp_path, table, datetime(2024, 1, 19))
    assert again.runs == []
    assert again.notes == ["nothing is due; the next period ends 2024-01-22 00:00 (UTC)"]


def test_rows_that_come_late_are_counted_and_change_nothing(here, table, tmp_path):
    """What came after its period was scored is told by its number; the period is not done again."""
    late = (table["ordered_at"] >= "2024-01-15") & (table["ordered_at"] < "2024-01-16")
    before = call(tmp_path, table[~late], ENDS[1])
    after = call(tmp_path, table, ENDS[1])
    assert after.runs == []
    assert f"{late.sum()} rows of 2024-01-12/2024-01-17 came after it was scored" in after.notes
    assert lived(after, tmp_path) == lived(before, tmp_path)


def test_an_empty_period_is_passed_over_and_a_silent_feed_is_told_once(here, table, tmp_path):
    """An off-season between rows is noted; weeks without any rows at the end are one alert."""
    rest = table[(table["ordered_at"] < "2024-01-12") | (table["ordered_at"] >= "2024-01-17")]
    life = call(tmp_path, rest, datetime(2024, 2, 20))
    assert [row["window"] for row in lived(life, tmp_path)] == ["2024-01-17/2024-01-22"]
    assert "2024-01-12/2024-01-17 has no rows, and was passed over" in life.notes
    assert [note for note in life.notes if note.startswith("feed is silent since 2024-01-21")]


def test_a_row_of_the_far_future_closes_nothing(here, table, tmp_path):
    """One row of 2099 neither ends the running period nor makes empty ones."""
    strange = table.copy()
    strange.loc[strange.index[-1], "ordered_at"] = pd.Timestamp("2099-01-01")
    life = call(tmp_path, strange, datetime(2024, 1, 20))
    assert [row["window"] for row in lived(life, tmp_path)] == ["2024-01-12/2024-01-17"]


def test_a_changed_fact_of_the_plan_is_refused_and_a_new_plan_needs_a_reason(here, table, tmp_path):
    """The plan is recorded once; another period of life is another plan, from the next period on."""
    call(tmp_path, table, ENDS[1])
    with pytest.raises(ParameterError, match="every must stay 5d, which the plan rests on; found day"):
        call(tmp_path, table, ENDS[2], ("every", "day"))
    life = call(tmp_path, table, datetime(2024, 1, 19), ("every", "day"), reason="daily from now on")
    assert [row["window"] for row in lived(life, tmp_path)] == [
        "2024-01-17/2024-01-18",
        "2024-01-18/2024-01-19",
    ]
    with using_outputs(tmp_path / "out"), life._store() as store:
        assert [event.reason for event in store.history() if event.kind == "plan"] == [
            "the first call",
            "daily from now on",
        ]


def test_a_table_too_short_to_begin_says_what_to_do(table, tmp_path):
    """A few days are not enough to learn, to wait for labels and to judge."""
    file = facts_beside(Path(written(table, tmp_path)))
    with (
        using_outputs(tmp_path / "out"),
        pytest.raises(WindowError, match=r"long enough to learn.*Call again"),
    ):
        lifecycle([file], [], until=datetime(2024, 1, 5)).live()


def test_a_moment_before_the_first_row_is_refused(table, tmp_path):
    """--until must lie within the table."""
    file = facts_beside(Path(written(table, tmp_path)))
    with (
        using_outputs(tmp_path / "out"),
        pytest.raises(WindowError, match="--until must be after the first row"),
    ):
        lifecycle([file], [], until=datetime(2023, 1, 1))


@pytest.mark.parametrize(("day", "match"), [
    ("soon", "live_from must be a date such as 2013-04-01; found soon"),
    ("2023-12-30", "live_from must lie in a period that begins after the first row"),
])  # fmt: skip
def test_a_day_to_go_live_that_cannot_be_is_refused(table, tmp_path, day, match):
    """A text that is no date, or a day before there is anything to learn from."""
    with pytest.raises(ParameterError, match=match):
        call(tmp_path, table, ENDS[1], ("live_from", day))


def test_moments_with_a_time_zone_are_meant_in_utc(table, tmp_path):
    """A window or a day to go live with an offset are the same moments without."""
    file = facts_beside(Path(written(table, tmp_path)))
    pairs = [("window", "2024-01-01T01:00+01:00/2024-01-20T01:00+01:00")]
    with using_outputs(tmp_path / "out"):
        life = lifecycle([file], [*pairs, ("live_from", "2024-01-12T02:00+02:00")])
        assert next(str(entry.window) for entry in life.agenda()) == "2024-01-12/2024-01-17"
    assert life.moment == datetime(2024, 1, 20)


def test_a_plan_that_nobody_lived_by_is_made_anew(here, table, tmp_path):
    """A day to go live that was mistyped into another century is put right with a reason."""
    call(tmp_path, table, ENDS[1], ("live_from", "2924-01-12"))
    life = call(tmp_path, table, ENDS[1], ("live_from", "2024-01-12"), reason="a slip")
    assert (life.plan.number, str(life.plan.first)) == (2, "2024-01-01/2024-01-12")
    assert [row["window"] for row in lived(life, tmp_path)] == ["2024-01-12/2024-01-17"]


@pytest.mark.parametrize(("challenger", "status", "action"), [
    (1, "interrupted", "promote"), (1, "failed", "promote"), (2, "interrupted", None),
])  # fmt: skip
def test_a_run_that_ended_after_it_had_acted_is_taken_as_done(table, tmp_path, challenger, status, action):
    """What it did counts, if it was about the same rows and the same challenger; it is not judged twice."""
    call(tmp_path, table, datetime(2024, 1, 9))
    file, window = facts_beside(Path(written(table, tmp_path))), Window.parse("2024-01-08/2024-01-12")
    with using_outputs(tmp_path / "out"):
        life = lifecycle([file], [("live_from", "2024-01-12")], until=ENDS[1])
        with life._store() as store:
            for content in (b"one", b"two"):
                store.register(content, {})
            ran = {"params": {"window": str(window), "challenger": 1}}
            store.record_run({"run_id": "v", "notebook": "validate", "status": status, "document": ran})
            decided = {
                "action": "promote",
                "generation": 0,
                "reason": "better",
                "digest": "0",
                "as_of": "2024",
            }
            store.decide("v", **decided)
            store.promote(1, expected_generation=0, run_id="v", reason="better")
            done = life._acted(store, "validate", {"window": window, "challenger": challenger, "parent": "t"})
    assert (done and done["action"]) == action


def test_the_plan_is_shown_and_nothing_is_done(prodkit: Command, table, tmp_path):
    """--plan prints each period with its state and steps, makes no store and runs nothing."""
    file = facts_beside(Path(written(table, tmp_path)))
    status, shown, _ = prodkit("lifecycle", "-f", file, "--out", tmp_path / "out", "--plan", "--json")
    document = json.loads(shown)
    assert status == 0
    assert [(row["window"], row["state"]) for row in document["periods"]][:2] == [
        ("2024-01-12/2024-01-17", "due"),
        ("2024-01-17/2024-01-22", "due"),
    ]
    assert document["periods"][0]["steps"] == ["score", "drift", "monitor", "rollback"]
    assert not (tmp_path / "out" / "store.db").exists()
    assert not (tmp_path / "out" / "runs").exists()


def test_one_call_at_a_time(prodkit: Command, here, table, tmp_path):
    """A second call says who is at it and ends well; the lock ends with the process that held it."""
    call(tmp_path, table, ENDS[0])
    hold = (
        "import sys, time; from prodkit.store.registry import Store\n"
        f"with Store.open('sqlite:///{tmp_path}/out/store.db', '{tmp_path}/out/artifacts').loop_turn() as holder:\n"
        "    print('held', holder, flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline().strip() == "held"
    blocked = call(tmp_path, table, ENDS[1])
    assert (blocked.runs, len(blocked.notes)) == ([], 1)
    assert f"process {other.pid} on " in blocked.notes[0]
    other.kill()
    other.wait()
    assert next(name for name, _ in actions(call(tmp_path, table, ENDS[1]))) == "score"


def test_an_error_in_its_turn_is_the_error_that_is_told(tmp_path):
    """A process that cannot be started, for one, is not taken for a lock that somebody holds."""
    with (
        Store.open(f"sqlite:///{tmp_path}/store.db", str(tmp_path / "artifacts")) as store,
        pytest.raises(BlockingIOError, match="no more processes"),
        store.loop_turn(),
    ):
        raise BlockingIOError("no more processes")


def test_a_life_that_is_killed_goes_on_as_if_it_had_not_been(table, tmp_path):
    """The whole command killed at several moments, and called again, ends with the same table as one that was not."""
    file = facts_beside(Path(written(table, tmp_path)))
    command = [
        sys.executable,
        "-c",
        "from prodkit.cli import main; main()",
        "lifecycle",
        "-f",
        str(file),
        "--json",
    ]
    command += ["--until", "2024-01-22", "-p", "retrain_now", "true", "--out"]
    whole = subprocess.run([*command, str(tmp_path / "a")], capture_output=True, text=True, check=True)
    random = np.random.default_rng(0)
    for _ in range(2):
        killed = subprocess.Popen(
            [*command, str(tmp_path / "b")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(random.uniform(3, 12))
        killed.kill()
        killed.wait()
    again = subprocess.run([*command, str(tmp_path / "b")], capture_output=True, text=True, check=True)
    first, second = (json.loads(done.stdout)["periods"] for done in (whole, again))
    assert [row["window"] for row in second] == [row["window"] for row in first]
    assert [row["decision"] for row in second] == [row["decision"] for row in first]


def test_the_drills_of_the_flights_are_in_the_period_of_their_day():
    """In a life of weeks, too, although no week begins on the first of these months."""
    life = lifecycle([], [("every", "week")], until=datetime(2013, 12, 1))
    weeks = (Window.parse("2013-08-26/2013-09-02"), Window.parse("2013-10-28/2013-11-04"))
    assert [life._drill(week).kind for week in weeks] == ["bad release", "broken feed"]
    assert life._drill(Window.parse("2013-09-02/2013-09-09")) is None
