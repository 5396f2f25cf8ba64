"""The audit: a history that only grows, stores of another layout, signatures, and what people decide by name."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from tables import FACTS, FEBRUARY, PROJECT, Command, opened, orders_file, params_for, places, prodkit
from test_cli import SIGNED, at
from test_store import address, by_hand, fill, promote_all, store

from prodkit.decisions.actions import carry_out
from prodkit.decisions.contest import challenge
from prodkit.decisions.cooldown import cooldown
from prodkit.decisions.decide import Decision, judgement, promotion
from prodkit.errors import ArtifactError, ParameterError, StoreError, VersionError
from prodkit.evidence import Evidence
from prodkit.params import NOTEBOOKS
from prodkit.runs.runner import run_notebook
from prodkit.settings import using_outputs
from prodkit.store.database import LAYOUT
from prodkit.store.registry import Champion, Store

__all__ = ["address", "at", "orders_file", "places", "prodkit", "store"]  # fixtures

KEY, OTHER = "correct-horse-battery-staple", "another-horse-another-staple"

# A history that only grows


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET reason = 'other' WHERE number = 1",
        "UPDATE events SET created_at = '1999-01-01'",
        "DELETE FROM events WHERE number = 2",
        "DELETE FROM events",
        "INSERT INTO events SELECT 9, version, generation, kind, run_id, actor, reason, detail, digest, previous,"
        " created_at FROM events WHERE number = 1",
        "INSERT INTO events SELECT 4, version, generation, kind, run_id, actor, reason, detail, digest, 'x',"
        " created_at FROM events WHERE number = 1",
    ],
)
def test_the_database_itself_refuses_to_change_the_history(
    store: Store, address: tuple[str, str], statement: str
) -> None:
    """No statement changes, removes or inserts an event, whoever makes it; the next event is still appended."""
    fill(store, 2)
    promote_all(store, 1)
    before = store.history()
    with pytest.raises(sa.exc.SQLAlchemyError, match="the history is append-only"):
        by_hand(address, statement, guarded=True)
    assert store.history() == before
    assert promote_all(store, 2).version == 2
    assert store.check() == []


def test_an_event_cannot_be_replaced_or_truncated(store: Store, address: tuple[str, str]) -> None:
    """Nor does what SQLite and PostgreSQL know besides lead round the triggers."""
    fill(store, 2)
    statement = "TRUNCATE events"
    if address[0].startswith("sqlite"):
        statement = "INSERT OR REPLACE INTO events SELECT * FROM events WHERE number = 1"
    with pytest.raises(sa.exc.SQLAlchemyError, match="the history is append-only"):
        by_hand(address, statement, guarded=True)
    assert len(store.history()) == 2


def test_a_changed_trigger_is_a_problem(store: Store, address: tuple[str, str]) -> None:
    """One of the same name that lets everything pass is found, and so is one that nobody asked for."""
    if address[0].startswith("sqlite"):
        harmless = "CREATE TRIGGER events_delete BEFORE DELETE ON events WHEN FALSE BEGIN SELECT 1; END"
        by_hand(address, "DROP TRIGGER events_delete", guarded=True)
        by_hand(address, harmless, guarded=True)
        by_hand(address, harmless.replace("events_delete", "other"), guarded=True)
    else:
        body = "RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN OLD; END $$"
        by_hand(address, f"CREATE OR REPLACE FUNCTION events_delete() {body}", guarded=True)
        by_hand(
            address,
            "CREATE TRIGGER other BEFORE DELETE ON events FOR EACH ROW EXECUTE FUNCTION events_delete()",
            guarded=True,
        )
    assert store.check() == [
        "the history can be changed: its trigger events_delete is missing, off or changed",
        "the history has a trigger that is not the store's: other",
    ]


# Rows and files that are not what was registered


def test_the_bytes_of_another_version_are_refused(store: Store, address: tuple[str, str]) -> None:
    """Genuine bytes under another version's row, which would undo a rollback, are no artifact of that version."""
    store.register(b"old", {}, run_id="a")
    store.register(b"new", {}, run_id="b")
    old = store.version(1)
    by_hand(
        address,
        f"UPDATE versions SET digest = '{old.digest}', location = '{old.location}', size_bytes = 3 WHERE number = 2",
    )
    with pytest.raises(ArtifactError, match="version 2 must have the artifact that it was registered with"):
        store.artifact(2)
    assert any("must have the artifact" in problem for problem in store.check())
    assert store.artifact(1) == b"old"


def test_a_location_never_leads_out_of_the_folder(
    store: Store, address: tuple[str, str], tmp_path: Path
) -> None:
    """A row that names another file neither reads nor removes it, and `check` says so."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"model 1")
    fill(store, 1)
    by_hand(address, "UPDATE versions SET location = '../victim'")
    for call in (store.artifact, store.delete):
        with pytest.raises(ArtifactError, match="version 1 must lie under its content name"):
            call(1)
    assert victim.exists()
    assert any("content name" in problem for problem in store.check())
    assert [version.number for version in store.versions()] == [1]


def test_what_a_store_writes_is_for_its_owner_alone(tmp_path: Path) -> None:
    """Database, artifacts and their folders are 0600 and 0700, however wide the umask."""
    before = os.umask(0)
    try:
        with Store.open(f"sqlite:///{tmp_path}/store.db", str(tmp_path / "artifacts")) as store:
            fill(store, 1)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert modes == {
        **dict.fromkeys(["store.db", Path(store.version(1).location).name], 0o600),
        **dict.fromkeys(["artifacts", "versions", "incoming", "probes"], 0o700),
    }


def test_a_clock_that_runs_ahead_sweeps_nothing(
    address: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that believes it is tomorrow leaves what another one writes just now."""
    Store.open(*address).close()
    unfinished = Path(address[1], "incoming", "unfinished")
    unfinished.touch()
    ahead = time.time() + 86_400
    monkeypatch.setattr("time.time", lambda: ahead)
    Store.open(*address).close()
    assert unfinished.exists()


# Commands that read


@pytest.mark.parametrize(
    "call",
    [
        *(("models", "list"), ("models", "history"), ("models", "check"), ("models", "show", "1")),
        *(("models", "rollback", *SIGNED), ("report",), ("whatif", "-p", "rollback_margin", "0.1")),
        ("serve", "--port", "0", "-p", "data", "none.parquet"),
    ],
)
def test_a_command_that_reads_makes_no_store(
    prodkit: Command, tmp_path: Path, call: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no store it says so, ends with 2, and creates nothing."""
    monkeypatch.setenv("PRODKIT_OUT", str(tmp_path / "out"))
    status, printed, told = prodkit(*call, "--out", tmp_path / "out")
    assert (status, printed) == (2, "")
    assert "store must be there to be read; found no such file" in told
    assert not (tmp_path / "out").exists()


def test_an_empty_database_is_no_store(address: tuple[str, str]) -> None:
    """Neither an empty file nor a database without tables is made a store by reading it."""
    if address[0].startswith("sqlite"):
        Path(address[0].removeprefix("sqlite:///")).touch()
    with pytest.raises(ParameterError, match="store must be there to be read; found no store"):
        Store.open(*address, create=False)
    with pytest.raises(ParameterError, match="found no store"):
        Store.open(*address, create=False)


def test_a_store_that_is_gone_is_an_error_and_not_an_empty_one(tmp_path: Path) -> None:
    """A database that vanishes while it is open is missed, and no new file takes its place."""
    path = tmp_path / "store.db"
    with Store.open(f"sqlite:///{path}", str(tmp_path / "artifacts")) as store:
        path.unlink()
        with pytest.raises(StoreError, match="must be a working prodkit database"):
            store.champion()
        with pytest.raises(StoreError, match="must be a working prodkit database"):
            store.register(b"model", {})
    assert not path.exists()


# The layout


@pytest.mark.parametrize(
    ("number", "whose"), [(LAYOUT + 1, "a newer prodkit"), (LAYOUT - 1, "an older prodkit")]
)
def test_a_store_of_another_layout_is_refused(
    store: Store, address: tuple[str, str], number: int, whose: str
) -> None:
    """It is refused when it is opened, with both numbers and what to do, and nothing in it is touched."""
    fill(store, 1)
    by_hand(address, f"UPDATE layout SET number = {number}", guarded=True)
    with pytest.raises(StoreError, match=rf"must have layout {LAYOUT}; found {number} .* made by {whose}"):
        Store.open(*address)
    by_hand(address, f"UPDATE layout SET number = {LAYOUT}", guarded=True)
    with Store.open(*address) as again:
        assert again.check() == []


def test_a_layout_that_says_nothing_is_refused(store: Store, address: tuple[str, str]) -> None:
    """A table that has lost its row is no store that anybody may write to."""
    by_hand(address, "DELETE FROM layout", guarded=True)
    with pytest.raises(StoreError, match=f"must have layout {LAYOUT}; found -1"):
        Store.open(*address)


def test_tables_of_somebody_else_are_left_alone(tmp_path: Path) -> None:
    """A database that has a table of the same name, but other columns, is refused and not changed."""
    url = f"sqlite:///{tmp_path}/other.db"
    by_hand((url, ""), "CREATE TABLE events (id INTEGER, what TEXT)", guarded=True)
    before = (tmp_path / "other.db").read_bytes()
    with pytest.raises(
        StoreError, match="must have the columns of a store in its table events; found id, what"
    ):
        Store.open(url, str(tmp_path))
    assert (tmp_path / "other.db").read_bytes() == before


# Signatures


def test_with_a_key_only_signed_artifacts_load(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key refuses what was registered without it or under another; without a key, what is signed is refused."""
    store.register(b"unsigned", {})
    monkeypatch.setenv("PRODKIT_SIGNING_KEY", KEY)
    store.register(b"signed", {})
    with pytest.raises(
        ArtifactError, match="version 1 must be signed with PRODKIT_SIGNING_KEY; found no signature"
    ):
        store.artifact(1)
    assert store.artifact(2) == b"signed"
    monkeypatch.setenv("PRODKIT_SIGNING_KEY", OTHER)
    with pytest.raises(ArtifactError, match="found a signature by another key") as refused:
        store.artifact(2)
    assert not {KEY, OTHER} & set(str(refused.value).split())
    monkeypatch.delenv("PRODKIT_SIGNING_KEY")
    with pytest.raises(
        ArtifactError, match="version 2 must be verified with PRODKIT_SIGNING_KEY, since it is signed"
    ):
        store.artifact(2)
    assert store.artifact(1) == b"unsigned"


@pytest.mark.parametrize("key", ["", "short", f" {KEY}", f"{KEY}\n", " " * 40])
def test_a_malformed_key_is_refused_and_not_shown(
    store: Store, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    """Empty, short, or with the line end of a file: nothing is registered or read with it, and no part of it told."""
    fill(store, 1)
    monkeypatch.setenv("PRODKIT_SIGNING_KEY", key)
    for act in (lambda: store.artifact(1), lambda: store.register(b"x", {})):
        with pytest.raises(
            ParameterError, match="PRODKIT_SIGNING_KEY must have 16 or more characters"
        ) as refused:
            act()
        assert not key.strip() or key.strip() not in str(refused.value)
    assert len(store.versions()) == 1


def test_a_signature_that_is_no_text_of_ours_is_refused(
    store: Store, address: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever stands in the row, it is an error of the artifact and not of the program."""
    monkeypatch.setenv("PRODKIT_SIGNING_KEY", KEY)
    fill(store, 1)
    by_hand(address, "UPDATE versions SET signature = 'ünlesbar'")
    with pytest.raises(ArtifactError, match="found a signature by another key"):
        store.artifact(1)


class Bomb:
    """Unpickled, it leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_no_byte_is_unpickled_before_the_signature_is_verified(
    prodkit: Command, at: Any, places: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may write to the store, but has no key, runs no code: artifact and digest agree, and are refused."""
    monkeypatch.setenv("PRODKIT_SIGNING_KEY", OTHER)
    fired = tmp_path / "fired"
    with opened(places) as store:
        store.register(pickle.dumps(Bomb(fired)), {}, run_id="evil")
    monkeypatch.setenv("PRODKIT_SIGNING_KEY", KEY)
    status, _, told = prodkit("models", "check", *at)
    assert (status, "version 3 must be signed with PRODKIT_SIGNING_KEY" in told) == (1, True)
    assert not fired.exists()
    monkeypatch.setenv("PRODKIT_SIGNING_KEY", OTHER)
    assert "version 3 could not be read back" in prodkit("models", "check", *at)[2]
    assert fired.exists()  # the bomb works


def test_a_version_is_signed_by_who_vouches_for_it(
    prodkit: Command, at: Any, places: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was registered without a key is signed by name, after its bytes were compared, and then loads."""
    assert "PRODKIT_SIGNING_KEY must be set to sign with" in prodkit("models", "sign", "1", *SIGNED, *at)[2]
    monkeypatch.setenv("PRODKIT_SIGNING_KEY", KEY)
    assert prodkit("models", "check", *at)[:2] == (1, "4 events, 2 problems\n")
    for number in (1, 2):
        assert prodkit("models", "sign", number, *SIGNED, *at)[0] == 0
    assert prodkit("models", "check", *at)[:2] == (0, "6 events, 0 problems\n")
    with opened(places) as store:
        assert [(e.kind, e.version, e.actor) for e in store.history()[4:]] == [
            ("sign", 1, "Ada"),
            ("sign", 2, "Ada"),
        ]
        location = store.version(1).location
    path = Path(places["artifacts"], location)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert "must have the SHA-256" in prodkit("models", "sign", "1", *SIGNED, *at)[2]


def test_the_key_is_in_nothing_that_is_written(
    places: dict[str, str], at: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in the store, not in an artifact, not in what the command says when it works and when it fails."""
    monkeypatch.setenv("PRODKIT_SIGNING_KEY", KEY)
    command = [sys.executable, "-c", "from prodkit.cli import main; main()"]
    said = b""
    for call in (["models", "sign", "1", *SIGNED], ["models", "check"], ["models", "show", "1"]):
        done = subprocess.run([*command, *map(str, [*call, *at])], capture_output=True, check=False)
        said += done.stdout + done.stderr
    assert b"version 2 must be signed" in said
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert all(KEY.encode() not in text for text in [said, *written])


def test_a_notebook_reads_signed_models_and_tells_nobody_the_key(
    places: dict[str, str], orders_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real run, with a kernel that has the key: it works with the key and fails without, and writes it nowhere."""
    monkeypatch.chdir(PROJECT)
    monkeypatch.setenv("PRODKIT_SIGNING_KEY", KEY)
    with opened(places) as store:
        for number in (1, 2):
            store.sign(number, reason="test")
    given = {**FACTS, **places, "data": orders_file, "window": FEBRUARY, "min_rows": 100}
    with using_outputs(tmp_path / "out"):
        run = run_notebook("rollback", given)
        assert run["status"] == "succeeded", run["reasons"]
        monkeypatch.delenv("PRODKIT_SIGNING_KEY")
        failed = run_notebook("rollback", given, force=True)
    assert "must be verified with PRODKIT_SIGNING_KEY, since it is signed" in " ".join(failed["reasons"])
    written = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert [path for path, text in written.items() if KEY.encode() in text] == []


# What opens


def test_check_opens_every_version(prodkit: Command, at: Any, places: dict[str, str]) -> None:
    """Bytes that are those registered, but no model, are found; every problem is told, not the first."""
    with opened(places) as store:
        store.register(b"no model", {}, run_id="train-3")
        store.register(b"nor this", {}, run_id="train-4")
    status, printed, told = prodkit("models", "check", *at)
    assert (status, printed) == (1, "6 events, 2 problems\n")
    assert all(f"version {number} could not be read back" in told for number in (3, 4))


# Quarantine


def test_a_quarantine_is_lifted_by_name(prodkit: Command, at: Any, places: dict[str, str]) -> None:
    """What was rolled back returns after a person has lifted its quarantine, with a reason that stays on record."""
    prodkit("models", "rollback", *SIGNED, *at)
    assert prodkit("models", "promote", "2", *SIGNED, *at)[0] == 1
    status, _, told = prodkit("models", "quarantine", "2", "--off", "--name", "Eve", "--reason", "  ", *at)
    assert (status, "must not be blank" in told) == (2, True)
    reason = ("--name", "Eve", "--reason", "the feed was at fault")
    assert prodkit("models", "quarantine", "2", "--off", *reason, *at)[0] == 0
    assert prodkit("models", "promote", "2", *SIGNED, *at)[1] == "champion: v2, generation 4\n"
    with opened(places) as store:
        (lifted,) = [event for event in store.history() if event.kind == "readmit"]
        assert (lifted.version, lifted.actor, lifted.reason) == (2, "Eve", "the feed was at fault")
        assert store.check() == []


def test_a_version_is_quarantined_by_hand(store: Store) -> None:
    """Only one that nobody may fall back on just now; twice is an error, and so is lifting what is not set."""
    fill(store, 3)
    promote_all(store, 1, 2)
    assert store.quarantine(3, reason="trained on a leak", actor="ann").quarantined
    with pytest.raises(VersionError, match=r"version 3 must not be in quarantine\. There is nothing to do"):
        store.quarantine(3, reason="again")
    with pytest.raises(VersionError, match="version 3 must not be in quarantine"):
        promote_all(store, 3)
    for number in (1, 2):
        with pytest.raises(VersionError, match="must not be quarantined while it is the champion"):
            store.quarantine(number, reason="why")
    assert not store.quarantine(3, lift=True, reason="it was none").quarantined
    with pytest.raises(VersionError, match="version 3 must be in quarantine"):
        store.quarantine(3, lift=True, reason="again")
    with pytest.raises(ParameterError, match="reason must be given"):
        store.quarantine(3, reason="")
    assert promote_all(store, 3).version == 3
    assert store.check() == []


# Decisions on record


def decision(action: Any, **other: Any) -> Decision:
    """A decision about the champion of generation 2."""
    return Decision(action, "pass", ("since",), (), other.pop("target", None), 2, **other)


@pytest.mark.parametrize(
    ("action", "target", "kinds"),
    [
        ("keep", None, ["decide"]),
        ("promote", 3, ["decide", "promote"]),
        ("rollback", 1, ["decide", "rollback", "quarantine"]),
        ("retrain", None, ["decide"]),
        ("hold", None, ["decide", "hold"]),
    ],
)
def test_every_decision_stands_in_the_history_before_what_follows_from_it(
    store: Store, action: str, target: int | None, kinds: list[str]
) -> None:
    """Also one that leaves all as it is; with the moment at which the run stood, and once however often it is told."""
    fill(store, 3)
    promote_all(store, 1, 2)
    params = NOTEBOOKS["rollback"].check({"store": "sqlite:///x.db"})
    assert carry_out(store, params, decision(action, target=target)) is None
    events = store.history()[5:]
    assert [event.kind for event in events] == kinds
    assert (events[0].generation, events[0].reason) == (2, "since")
    assert events[0].detail["as_of"] == "2013-05-01T00:00:00"
    if action == "keep":
        carry_out(store, params, decision("keep"))
        assert len(store.history()) == 6
    assert store.check() == []


def test_a_frozen_champion_is_put_before_a_person(store: Store) -> None:
    """What evidence asks for during a freeze is proposed, so that neither decision nor freeze is lost."""
    fill(store, 2)
    promote_all(store, 1, 2)
    store.freeze(reason="audit", actor="ann")
    params = NOTEBOOKS["rollback"].check({"store": "sqlite:///x.db"})
    assert carry_out(store, params, decision("rollback", target=1)) == "proposed"
    (waiting,) = store.proposals()
    with pytest.raises(StoreError, match="must not be frozen"):
        store.approve(waiting.run_id, actor="ann", reason="yes")
    store.thaw(reason="done", actor="ann")
    assert store.settled(waiting.run_id) == "proposed"
    assert store.approve(waiting.run_id, actor="ann", reason="yes").version == 1
    assert (store.settled(waiting.run_id), store.settled("another")) == ("approved", None)


def test_the_list_shows_what_waits_for_a_person(prodkit: Command, at: Any, places: dict[str, str]) -> None:
    """Each open proposal with its run, and whether the champion has changed since."""
    with opened(places) as store:
        store.propose("rollback-7", action="rollback", version=1, generation=2, reason="it is better")
        store.propose("validate-6", action="promote", version=1, generation=1, reason="it was better")
    printed = prodkit("models", "list", *at)[1]
    assert "proposed: rollback, by rollback-7: it is better\n" in printed
    assert "by validate-6: it was better (the champion changed since: it can only be rejected)" in printed
    document = json.loads(prodkit("models", "list", "--json", *at)[1])
    assert [event["run_id"] for event in document["proposals"]] == ["rollback-7", "validate-6"]


# Cool-down


def rolled_back(store: Store, *, until: str) -> None:
    """A champion that a run has rolled back, at the end of its window."""
    fill(store, 3)
    promote_all(store, 1, 2)
    params = NOTEBOOKS["rollback"].check({"store": "sqlite:///x.db", "window": f"2013-04-01/{until}"})
    carry_out(store, params, decision("rollback", target=1))


def standing(until: str, notebook: str = "rollback", **policy: Any) -> Any:
    """Parameters of a run that stands at the end of its window."""
    return NOTEBOOKS[notebook].check({"window": f"2013-04-02/{until}", **policy})


def test_a_rollback_cools_down_in_the_time_of_the_data(store: Store) -> None:
    """Days count from where the run stood that rolled back, up to where this one stands; before it there was none."""
    assert cooldown(store, standing("2013-05-01")) == []
    rolled_back(store, until="2013-05-01")
    (line,) = cooldown(store, standing("2013-05-04"))
    assert (line.outcome, line.value, line.limit) == ("inconclusive", 3.0, 7.0)
    assert "version 2 was rolled back" in line.note
    assert [each.outcome for each in cooldown(store, standing("2013-05-08"))] == ["pass"]
    assert [each.outcome for each in cooldown(store, standing("2013-05-04", cool_down="2d"))] == ["pass"]
    assert cooldown(store, standing("2013-04-30")) == []


def test_a_rollback_by_hand_counts_from_the_clock(store: Store) -> None:
    """A run that stands today waits; one that replays a past day does not know of it."""
    fill(store, 2)
    promote_all(store, 1, 2)
    store.rollback(expected_generation=2, actor="ann", reason="by hand")
    now = datetime.now(UTC).replace(tzinfo=None).isoformat()
    assert [each.outcome for each in cooldown(store, standing("2013-05-04", as_of=now))] in (
        ["inconclusive"],
        [],
    )
    late = datetime.now(UTC).replace(microsecond=0).isoformat()
    assert [each.outcome for each in cooldown(store, standing("2013-05-04", as_of=late))] == ["inconclusive"]
    assert cooldown(store, standing("2013-05-04")) == []


def test_nothing_new_is_tried_while_it_cools_down() -> None:
    """A better challenger is watched, a full set of passes is not promoted; who asks for a retraining gets it."""
    sound = Evidence("contract.columns", "pass", rung=1)
    better = Evidence("performance.challenger", "fail", 0.1, 0.05, 0.2, 0.01, 900, 3, "gain")
    recent = Evidence("cooldown", "inconclusive", value=3.0, limit=7.0, note="days")
    champion = Champion(2, 1, 5)
    found = judgement([sound, better, recent], champion=champion)
    assert (found.action, found.reasons[0]) == ("watch", "days: 3, limit 7")
    assert judgement([sound, better], champion=champion).action == "retrain"
    assert judgement([sound, better, recent], champion=champion, retrain_now=True).action == "retrain"
    kept = judgement([sound, recent], champion=champion)
    assert (kept.action, kept.outcome) == ("keep", "pass")
    gain = Evidence("gain.champion", "pass", 0.1, 0.05, 0.2, 0.0, 900, 3)
    assert promotion([gain], challenger=3, generation=5).action == "promote"
    assert promotion([gain, recent], challenger=3, generation=5).action == "keep"
    worse = Evidence("predecessor", "pass", rung=0)
    assert promotion([gain, worse, recent], challenger=3, generation=5).outcome == "inconclusive"


def test_a_quarantined_version_is_no_challenger(places: dict[str, str], orders_file: str) -> None:
    """The newest that may be promoted is judged; one named in spite of its quarantine is refused before it is."""
    with opened(places) as store:
        store.rollback(expected_generation=2, reason="test")
        given = {"window": "2024-02-01/2024-02-15", "min_rows": 100}
        with pytest.raises(
            VersionError, match="challenger must not be the champion already; found version 1"
        ):
            challenge(store, params_for("validate", orders_file, **given))
        with pytest.raises(VersionError, match="challenger must not be in quarantine; found version 2"):
            challenge(store, params_for("validate", orders_file, challenger=2, **given))
        store.quarantine(2, lift=True, reason="test")
        rivals = challenge(store, params_for("validate", orders_file, **given))
        assert (rivals.number, rivals.incumbent) == (2, "champion")
