"""The loop on tables of one's own that grow: living is replaying, and nothing is done twice."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import datetime, timedelta
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
        with using_outputs(tmp_path / folder / "out"), life.store() as store:
            digests.append([version.manifest["data_digest"] for version in store.versions()])
    assert digests[0] == digests[1]


def test_a_call_with_nothing_due_says_when_the_next_period_ends(here, table, tmp_path):
    """Nothing runs, and a running period stays open."""
    call(tmp_path, table, ENDS[1])
    again = call(tmp_path, table, datetime(2024, 1, 19))
    assert again.runs == []
    assert again.notes == ["nothing is due; the next period ends 2024-01-22 00:00 (UTC)"]
    back = call(tmp_path, table, datetime(2024, 1, 14))  # a clock that went back undoes nothing
    assert (back.runs, back.notes) == ([], ["nothing is due; the next period ends 2024-01-17 00:00 (UTC)"])


@pytest.mark.parametrize("ids", [["order"], []])
def test_rows_that_come_late_are_scored_once_and_told_with_new_figures(here, table, tmp_path, ids):
    """By id, or by file and position where none names a row; two deliveries, a call without one, old figures kept."""
    table["mark"] = np.arange(len(table)) % 7
    late = (table["ordered_at"] >= "2024-01-15") & (table["ordered_at"] < "2024-01-16")
    first = late & (table["mark"] < 3)
    given, later = ("id_column", json.dumps(ids)), datetime(2024, 1, 18)  # when all labels are known
    before = lived(call(tmp_path, table[~late], ENDS[1], given), tmp_path)
    for part, rows in ((table[~late | first], first), (table, late & ~first)):
        life = call(tmp_path, part, later, given)
        assert [run["notebook"] for run in life.runs] == ["score", "monitor"]
        told = f"{rows.sum()} rows of 2024-01-12/2024-01-17 came after it was scored; v"
        assert [note for note in life.notes if note.startswith(told) and note.endswith("has scored them")]
        assert call(tmp_path, part, later, given).runs == []
    after = lived(life, tmp_path)
    assert (after[0], [row["decision"] for row in after[1:]]) == (
        before[0],
        [f"{first.sum()} late rows", f"{(late & ~first).sum()} late rows"],
    )
    assert after[0]["roc_auc"] != after[1]["roc_auc"] != after[2]["roc_auc"]
    scored = pd.concat(pd.read_parquet(path) for path in tmp_path.glob("out/predictions/*/*/*.parquet"))
    expected = table[(table["ordered_at"] >= "2024-01-12") & (table["ordered_at"] < "2024-01-17")]
    assert sorted(scored["ordered_at"]) == sorted(expected["ordered_at"])
    if ids:
        assert sorted(scored["order"]) == sorted(expected["order"])
        again = call(tmp_path, pd.concat([table, table[first]]), later, given)
        told = f"{first.sum()} rows of 2024-01-12/2024-01-17 came after it was scored; they bear ids that were scored"
        assert again.notes[0] == f"{told} before"


def test_what_vanished_or_was_rewritten_is_told(prodkit: Command, here, table, tmp_path):
    """Rows of a closed period that are gone, cells and labels that are others: with the period, and never taken."""
    whole, inside = table, (table["ordered_at"] >= "2024-01-12") & (table["ordered_at"] < "2024-01-13")
    early = table["ordered_at"] < "2024-01-02"
    call(tmp_path, whole, ENDS[1])
    rewritten = whole.assign(returned=whole["returned"].where(~inside, 1 - whole["returned"]))
    check = ("models", "check", "--data", "-f", facts_beside(Path(written(rewritten, tmp_path))))
    status, _, said = prodkit(*check, "--store", places(tmp_path)["url"], "--out", tmp_path / "out")
    assert (status, "known labels of 2024-01-12/2024-01-17 were changed on 1 day" in said) == (1, True)
    told = call(tmp_path, rewritten, ENDS[1]).notes
    assert "known labels of 2024-01-12/2024-01-17 were changed on 1 day" in told
    cells = rewritten.assign(price=rewritten["price"].where(~inside, 0.0))
    assert "rows of 2024-01-12/2024-01-17 were rewritten on 1 day" in call(tmp_path, cells, ENDS[1]).notes
    for _ in range(2):  # as long as they are gone
        told = call(tmp_path, cells[~inside], ENDS[1]).notes
        assert "rows of 2024-01-12/2024-01-17 fell from 300 to 240" in told
    told = call(tmp_path, cells[~inside & ~early], ENDS[1]).notes
    assert "rows of 2023-12-28/2024-01-02 fell from 60 to 0" in told
    assert not any("rewritten" in line or "changed" in line for line in told)


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
    with pytest.raises(ParameterError, match=r"every must hold enough labelled rows.*Set `every: week`"):
        call(tmp_path, table, ENDS[2], ("every", "day"), ("label_delay", "11h"), reason="daily from now on")
    life = call(tmp_path, table, datetime(2024, 1, 20), ("every", "2d"), reason="shorter from now on")
    assert [row["window"] for row in lived(life, tmp_path)] == [
        "2024-01-17/2024-01-18",  # what lies between the old calendar and the new is a period of its own
        "2024-01-18/2024-01-20",
    ]
    with using_outputs(tmp_path / "out"), life.store() as store:
        assert [event.reason for event in store.history() if event.kind == "plan"] == [
            "the first call",
            "shorter from now on",
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
        assert lifecycle([file], [], until=datetime(2023, 1, 1)).plan


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
        with life.store() as store:
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


def test_status_tells_where_the_model_stands(prodkit: Command, here, table, tmp_path):
    """Champion, last period, what is due, figures with intervals and what waits; no store is made to tell so."""
    file = facts_beside(Path(written(table, tmp_path)))
    status, _, said = prodkit("status", "-f", file, "--out", tmp_path / "out")
    assert (status, "store must be there to be read" in said) == (2, True)
    assert not (tmp_path / "out").exists()
    life = call(tmp_path, table, ENDS[1], ("approval", "automatic"))
    with using_outputs(tmp_path / "out"), Store.open(**places(tmp_path)) as store:
        serving = store.champion().version
    status, shown, _ = prodkit("status", "-f", file, "--out", tmp_path / "out", "--json")
    document = json.loads(shown)
    assert (status, document["champion"]["version"], document["problem"]) == (0, serving, "")
    assert document["last"]["period"] == "2024-01-12/2024-01-17"
    assert lived(life, tmp_path)[0]["decision"].startswith(document["last"]["action"])
    assert [(each["period"], each["steps"]) for each in document["due"]] == [
        ("2024-01-17/2024-01-22", ["score", "drift", "monitor", "rollback"])
    ]
    (lead, loss) = document["figures"]
    assert (lead["name"], loss["name"]) == ("roc_auc", "log_loss")
    assert lead["low"] < lead["value"] < lead["high"]
    with using_outputs(tmp_path / "out"), Store.open(**places(tmp_path)) as store:
        store.freeze(actor="ann", reason="an audit")
    Path(written(table, tmp_path)).unlink()
    lines = prodkit("status", "-f", file, "--out", tmp_path / "out")[1]
    assert f"Champion v{serving} since 20" in lines
    assert "What is due is not known: data must be a file that exists" in lines
    assert "  prodkit models freeze --off --name YOU --reason WHY --out" in lines


def places(folder: Path) -> dict[str, str]:
    """The store of a life."""
    return {"url": f"sqlite:///{folder}/out/store.db", "artifacts": str(folder / "out" / "artifacts")}


@pytest.mark.parametrize("store", ["demo", "sqlite://", "sqlite:///:memory:"])
def test_a_store_that_ends_with_the_call_is_refused(table, tmp_path, store):
    """Each call of the loop would begin anew."""
    file = facts_beside(Path(written(table, tmp_path)))
    with pytest.raises(ParameterError, match="store must outlast the call"):
        lifecycle([file], [("store", store)])


def test_the_loop_never_stands_in_the_future(table, tmp_path):
    """A moment that has not come yet would close a period whose rows are still coming."""
    now = datetime.now().replace(microsecond=0)
    recent = table.assign(ordered_at=table["ordered_at"] + (now - table["ordered_at"].max()))
    file = facts_beside(Path(written(recent, tmp_path)))
    with using_outputs(tmp_path / "out"):
        life = lifecycle([file], [], until=now + timedelta(days=40))
        assert life.moment <= now + timedelta(days=1)
        assert life.notes[0].endswith("has not come yet: the loop stands at now")
        assert [entry.state for entry in life.agenda()][-1] == "open"
        assert "the next period ends" in life.following(life.agenda())


def test_a_stray_row_of_1970_does_not_spoil_the_plan(table, tmp_path):
    """The plan begins where the table does, and says what it left out."""
    strange = table.copy()
    strange.loc[0, "ordered_at"] = pd.Timestamp("1970-01-01 05:00")
    file = facts_beside(Path(written(strange, tmp_path)))
    with using_outputs(tmp_path / "out"):
        life = lifecycle([file], [], until=datetime(2024, 1, 22))
        assert str(life.plan.first) == "2024-01-01/2024-01-12"
        assert life.notes == ["1 rows long before 2023-12-28 are taken for slips: the plan begins there"]


@pytest.mark.parametrize("kind", ["parquet", "csv", "sqlite"])
def test_periods_are_cut_in_the_time_zone_of_the_project(table, tmp_path, kind):
    """Times without an offset are meant in it: the same agenda as that of the same moments in UTC."""
    clocks = table["ordered_at"] + pd.Timedelta(days=80)  # over the night on which summer time begins
    moments = clocks.dt.tz_localize("Europe/Rome", ambiguous=True, nonexistent="shift_forward")
    agendas, facts = [], {"every": "day", "timezone": "Europe/Rome", "label_delay": "1h"}
    for name, column in (("local", clocks), ("moments", moments)):
        frame = table.assign(ordered_at=column if kind == "parquet" else column.map(str))
        data = tmp_path / f"{name}.{kind}"
        if kind == "parquet":
            frame.to_parquet(data)
        elif kind == "csv":
            frame.to_csv(data, index=False)
        else:
            frame.to_sql("orders", f"sqlite:///{data}", index=False)
            facts["id_column"] = ["order"]
        file = facts_beside(
            data, **facts, **({"data": f"sqlite:///{data}#orders"} if kind == "sqlite" else {})
        )
        with using_outputs(tmp_path / "out"):
            life = lifecycle([file], [("live_from", "2024-03-31")], until=datetime(2024, 4, 3))
            agendas.append([(str(entry.window), entry.state, entry.rows) for entry in life.agenda()])
            assert life.parameters("score", window=life.agenda()[0].window)["window"].endswith("+00:00")
    assert agendas[0] == agendas[1]
    assert agendas[0][0][:2] == ("2024-03-30T23:00:00/2024-03-31T22:00:00", "due")  # 23 hours
