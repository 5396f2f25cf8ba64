"""The store keeps its promises: compare-and-set, whole writes, verified bytes, a history that cannot be bent."""

from __future__ import annotations

import math
import os
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import own_schema

from prodkit.errors import (
    ArtifactError,
    ConflictError,
    LockedError,
    ParameterError,
    ProdkitError,
    StoreError,
    VersionError,
)
from prodkit.evidence import Window
from prodkit.store.registry import Champion, Store

JANUARY, FEBRUARY = Window.parse("2013-01-01/2013-02-01"), Window.parse("2013-02-01/2013-03-01")


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """URL and artifacts of a store that is not there yet."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/store.db", str(tmp_path / "artifacts")
        return
    with own_schema() as (_, schema, url):
        own = {"options": f"-csearch_path={schema}", "application_name": schema}
        scoped = sa.make_url(url).update_query_dict(own)
        yield scoped.render_as_string(hide_password=False), str(tmp_path / "artifacts")


@pytest.fixture
def store(address: tuple[str, str]) -> Iterator[Store]:
    """An empty store."""
    with Store.open(*address) as opened:
        yield opened


def fill(store: Store, count: int) -> None:
    """Register versions 1 to count, each with bytes of its own."""
    for number in range(1, count + 1):
        store.register(f"model {number}".encode(), {"number": number}, run_id=f"train-{number}")


def promote_all(store: Store, *numbers: int) -> Champion:
    """Promote one after the other."""
    for number in numbers:
        champion = store.promote(number, expected_generation=store.champion().generation)
    return champion


def by_hand(address: tuple[str, str], statement: str, *, guarded: bool = False) -> None:
    """Change the database behind the store's back, its triggers put out of the way and back again."""
    engine = sa.create_engine(address[0], poolclass=sa.NullPool)
    with engine.begin() as rows:
        kept = [] if guarded or rows.dialect.name != "sqlite" else unguard(rows)
        if not guarded and rows.dialect.name != "sqlite":
            rows.execute(sa.text("SET session_replication_role = replica"))
        rows.execute(sa.text(statement))
        for trigger in kept:
            rows.exec_driver_sql(trigger)


def unguard(rows: sa.Connection) -> list[str]:
    """Drop the triggers of a SQLite store, and give what makes them again."""
    found = rows.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").all()
    for name, _ in found:
        rows.exec_driver_sql(f"DROP TRIGGER {name}")
    return [made for _, made in found]


def is_sound(store: Store) -> bool:
    """Whether nothing is wrong and every artifact loads."""
    return store.check() == [] and all(store.artifact(version.number) for version in store.versions())


# Versions and artifacts


def test_a_version_comes_back_as_it_was_registered(store: Store, address: tuple[str, str]) -> None:
    """Number, digest, size, manifest with its order of keys, and bytes survive opening the store again."""
    made = store.register(b"bytes", {"z": 1, "a": [None, 0.5]}, run_id="r")
    with Store.open(*address) as again:
        found = again.version(1)
        assert (found, list(found.manifest)) == (made, ["z", "a"])
        assert (found.number, found.size_bytes, found.quarantined) == (1, 5, False)
        assert again.artifact(1) == b"bytes"


def test_registering_again_makes_no_second_version(store: Store) -> None:
    """A run that is repeated after a kill finds its version; another run with the same bytes makes its own."""
    first = store.register(b"bytes", {}, run_id="a")
    assert store.register(b"bytes", {}, run_id="a") == first
    assert store.register(b"bytes", {}, run_id="b").number == 2
    assert [event.kind for event in store.history()] == ["register", "register"]


def test_a_flipped_byte_is_found_before_the_bytes_are_returned(
    store: Store, address: tuple[str, str]
) -> None:
    """One changed byte in an artifact is refused by `artifact` and named by `check`."""
    version = store.register(b"model", {})
    (Path(address[1]) / version.location).write_bytes(b"mOdel")
    with pytest.raises(ArtifactError, match="version 1 must have the SHA-256"):
        store.artifact(1)
    assert any("SHA-256" in problem for problem in store.check())


def test_a_missing_file_is_an_artifact_error(store: Store, address: tuple[str, str]) -> None:
    """A version whose file is gone is refused by name, and found by `check`."""
    version = store.register(b"model", {})
    (Path(address[1]) / version.location).unlink()
    with pytest.raises(ArtifactError, match=r"version 1 must be readable; found FileNotFoundError"):
        store.artifact(1)
    assert len(store.check()) == 1


@pytest.mark.parametrize("number", [0, 3, 2**70])
def test_an_unknown_version_is_refused_with_the_known_ones(store: Store, number: int) -> None:
    """Whoever asks for a version that does not exist is told which do."""
    fill(store, 2)
    for call in (store.version, store.artifact, store.delete):
        with pytest.raises(VersionError, match=r"must be a registered one. Known are: 1, 2"):
            call(number)


@pytest.mark.parametrize("manifest", [{"a": math.nan}, {"a": math.inf}, {"a": object()}])
def test_a_manifest_that_is_not_json_leaves_nothing(store: Store, manifest: dict[str, Any]) -> None:
    """NaN, infinity and objects are refused before anything is written."""
    with pytest.raises(ProdkitError, match="manifest must be plain JSON"):
        store.register(b"bytes", manifest)
    assert (store.versions(), store.history()) == ([], [])


def test_champion_and_predecessor_cannot_be_deleted(store: Store, address: tuple[str, str]) -> None:
    """Only a version that nobody may fall back on is deleted, with its artifact; its number is not reused."""
    fill(store, 3)
    promote_all(store, 1, 2)
    location = store.version(3).location
    for number in (1, 2):
        with pytest.raises(VersionError, match="must not be deleted"):
            store.delete(number)
    store.delete(3)
    assert not (Path(address[1]) / location).exists()
    assert [version.number for version in store.versions()] == [1, 2]
    assert store.register(b"new", {}).number == 4
    assert is_sound(store)


def test_deleting_keeps_the_bytes_that_another_version_shares(store: Store) -> None:
    """Two versions with the same bytes share a file, which lasts as long as either."""
    store.register(b"same", {}, run_id="a")
    store.register(b"same", {}, run_id="b")
    store.delete(1)
    assert store.artifact(2) == b"same"


def test_bytes_deleted_while_they_are_registered_are_published_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the version that shared the bytes is deleted between publication and row, the file is put back."""
    publish, calls = store._artifacts.publish, []

    def publish_and_lose(artifact: bytes) -> str:
        location = publish(artifact)
        if not calls:
            store._artifacts.remove(sha256(artifact).hexdigest())
        calls.append(location)
        return location

    monkeypatch.setattr(store._artifacts, "publish", publish_and_lose)
    store.register(b"bytes", {})
    assert store.artifact(1) == b"bytes"


def test_an_object_store_holds_artifacts_too(tmp_path: Path) -> None:
    """Any fsspec URL will do, here one in memory."""
    with Store.open(f"sqlite:///{tmp_path}/store.db", f"memory://{tmp_path.name}") as store:
        fill(store, 2)
        store.delete(2)
        assert is_sound(store)
        assert store.artifact(1) == b"model 1"


def test_the_group_gets_new_files_where_it_was_given_the_folder(address: tuple[str, str]) -> None:
    """A store is its owner's alone; whoever shares the folder with a group shares what comes later."""
    with Store.open(*address) as store:
        modes = []
        for number, shared in enumerate((0o700, 0o770, 0o750)):
            Path(address[1], "versions").chmod(shared)
            version = store.register(f"model {number}".encode(), {})
            modes.append(Path(address[1], version.location).stat().st_mode & 0o777)
    assert modes == [0o600, 0o660, 0o640]


def test_unfinished_uploads_are_swept_once_they_are_old(address: tuple[str, str]) -> None:
    """What a killed process left aside goes at the next opening, but not what may still be written."""
    Store.open(*address).close()
    incoming = Path(address[1]) / "incoming"
    for name, age in (("old", 7200), ("young", 0)):
        (incoming / name).touch()
        os.utime(incoming / name, (time.time() - age,) * 2)
    Store.open(*address).close()
    assert [file.name for file in incoming.iterdir()] == ["young"]


# Champion


def test_a_stale_generation_is_refused_everywhere(store: Store) -> None:
    """Whoever judged an earlier champion may not act on the present one, with or without force."""
    fill(store, 3)
    promote_all(store, 1, 2)
    before = store.history()
    for act in (
        lambda: store.promote(3, expected_generation=1),
        lambda: store.promote(3, expected_generation=3, force=True),
        lambda: store.rollback(expected_generation=1),
        lambda: store.hold(expected_generation=1, reason="why"),
        lambda: store.release(expected_generation=1, reason="why"),
    ):
        with pytest.raises(ConflictError, match="found generation 2, version 2"):
            act()
    assert store.history() == before


def test_a_rollback_restores_the_chain_step_by_step(store: Store) -> None:
    """Each rollback restores the predecessor, whose own predecessor comes back with it, until none is left."""
    fill(store, 3)
    promote_all(store, 1, 2, 3)
    assert store.rollback(expected_generation=3) == Champion(2, 1, 4)
    assert store.rollback(expected_generation=4) == Champion(1, None, 5)
    assert [version.quarantined for version in store.versions()] == [False, True, True]
    with pytest.raises(VersionError, match="predecessor must exist"):
        store.rollback(expected_generation=5)


def test_a_version_rolled_back_returns_by_force_only(store: Store) -> None:
    """A-B-A does not flap: the quarantined version needs force, and then serves and falls back as any other."""
    fill(store, 2)
    promote_all(store, 1, 2)
    store.rollback(expected_generation=2)
    with pytest.raises(VersionError, match="version 2 must not be in quarantine"):
        store.promote(2, expected_generation=3)
    assert store.promote(2, expected_generation=3, force=True) == Champion(2, 1, 4)
    assert store.rollback(expected_generation=4) == Champion(1, None, 5)


def test_a_quarantined_or_deleted_version_is_no_predecessor(store: Store) -> None:
    """A restored version gets back whom it replaced only while that one may still serve."""
    fill(store, 4)
    promote_all(store, 1, 2, 1)
    assert store.rollback(expected_generation=3) == Champion(2, None, 4)  # 2 replaced 1, now in quarantine
    promote_all(store, 3, 4)
    store.delete(1)
    store.delete(2)
    assert store.rollback(expected_generation=6) == Champion(3, None, 7)  # 3 replaced 2, now deleted


def test_a_frozen_champion_moves_by_force_only(store: Store) -> None:
    """A freeze stops promotion and rollback, not a hold, until it is thawed or overruled."""
    fill(store, 3)
    promote_all(store, 1, 2)
    assert store.freeze(reason="audit", actor="ann").frozen
    for act in (
        lambda: store.promote(3, expected_generation=2),
        lambda: store.rollback(expected_generation=2),
    ):
        with pytest.raises(StoreError, match="champion must not be frozen"):
            act()
    assert store.hold(expected_generation=2, reason="broken feed").hold == "broken feed"
    assert store.promote(3, expected_generation=2, force=True).frozen
    assert not store.thaw(reason="done", actor="ann").frozen
    assert store.rollback(expected_generation=3).version == 2


def test_a_hold_is_kept_by_promotions_and_ended_by_release(store: Store) -> None:
    """A hold changes neither champion nor generation, and lasts until it is released."""
    fill(store, 2)
    promote_all(store, 1)
    assert store.hold(expected_generation=1, reason="unit changed") == Champion(1, None, 1, "unit changed")
    assert store.promote(2, expected_generation=1) == Champion(2, 1, 2, "unit changed")
    assert store.release(expected_generation=2, reason="clean window") == Champion(2, 1, 2)


# Proposals


def propose(store: Store, action: str, *, run: str = "run", version: int | None = None) -> None:
    """Propose something about the champion of now."""
    generation = store.champion().generation
    store.propose(run, action=action, version=version, generation=generation, reason="since", actor="nb")


@pytest.mark.parametrize(
    ("action", "version", "expected"),
    [
        ("promote", 3, Champion(3, 2, 3)),
        ("rollback", None, Champion(1, None, 3)),
        ("hold", 2, Champion(2, 1, 2, "since")),
        ("release", None, Champion(2, 1, 2)),
        ("retrain", None, Champion(2, 1, 2)),
    ],
)
def test_an_approved_proposal_is_carried_out_once(
    store: Store, action: str, version: int | None, expected: Champion
) -> None:
    """Nothing moves before the approval; after it the action is done, recorded, and not to be approved again."""
    fill(store, 3)
    promote_all(store, 1, 2)
    propose(store, action, version=version)
    assert [event.detail["action"] for event in store.proposals()] == [action]
    assert store.champion() == Champion(2, 1, 2)
    assert store.approve("run", actor="ann", reason="agreed") == expected == store.champion()
    assert store.proposals() == []
    approval = next(event for event in store.history() if event.kind == "approve")
    assert (approval.actor, approval.run_id, approval.reason) == ("ann", "run", "agreed")
    with pytest.raises(StoreError, match="that nobody has settled yet"):
        store.approve("run", actor="ann")
    assert is_sound(store)


def test_a_rejected_proposal_is_settled(store: Store) -> None:
    """A rejection moves nothing, and neither approval nor rejection is possible after it."""
    fill(store, 1)
    propose(store, "promote", version=1)
    store.reject("run", actor="ann", reason="no")
    for settle in (store.approve, store.reject):
        with pytest.raises(StoreError, match=r"run run must have a proposal .* None is open"):
            settle("run", actor="ann")
    assert store.champion() == Champion()


def test_a_proposal_about_an_earlier_champion_conflicts_and_stays_open(store: Store) -> None:
    """An approval that comes too late changes nothing, and leaves no event behind."""
    fill(store, 2)
    propose(store, "promote", version=2)
    promote_all(store, 1)
    before = store.history()
    with pytest.raises(ConflictError, match="found generation 1"):
        store.approve("run", actor="ann")
    assert store.history() == before
    assert [event.run_id for event in store.proposals()] == ["run"]


def test_an_approval_that_cannot_be_carried_out_leaves_nothing(store: Store) -> None:
    """Approval and action are one transaction: a frozen champion undoes both."""
    fill(store, 1)
    propose(store, "promote", version=1)
    store.freeze(reason="audit")
    with pytest.raises(StoreError, match="must not be frozen"):
        store.approve("run", actor="ann")
    assert "approve" not in [event.kind for event in store.history()]
    assert len(store.proposals()) == 1


def test_a_run_proposes_once(store: Store) -> None:
    """A repeated run finds its proposal, open or settled; a different one under the same name is refused."""
    fill(store, 2)
    propose(store, "promote", version=1)
    propose(store, "promote", version=1)
    assert len(store.proposals()) == 1
    with pytest.raises(StoreError, match="must make one proposal only"):
        propose(store, "promote", version=2)
    store.reject("run", actor="ann")
    propose(store, "promote", version=1)
    assert store.proposals() == []


def test_a_newer_promotion_supersedes_one_that_waits(store: Store) -> None:
    """Of two proposed promotions only the newer can be approved; the older is settled, with the run that did it."""
    fill(store, 2)
    propose(store, "promote", run="first", version=1)
    propose(store, "retrain", run="other")
    propose(store, "promote", run="second", version=2)
    assert [event.run_id for event in store.proposals()] == ["other", "second"]
    rejected = store.history()[-1]
    assert (rejected.kind, rejected.run_id, rejected.reason) == (
        "reject",
        "first",
        "superseded by run second",
    )
    assert store.settled("first") == "rejected"
    assert is_sound(store)


def test_a_wrong_proposal_is_refused(store: Store) -> None:
    """An unknown action, an unknown version and a missing reason are refused at once."""
    with pytest.raises(ParameterError, match="action must be one of promote, rollback"):
        propose(store, "explode")
    with pytest.raises(VersionError, match="None is registered yet"):
        propose(store, "promote", version=1)
    with pytest.raises(ParameterError, match="reason must be given"):
        store.propose("run", action="retrain", version=None, generation=0, reason="", actor="nb")


# History


def test_every_act_is_an_event_with_who_and_why(store: Store) -> None:
    """Events are numbered without gaps, and keep version, generation, run, actor and reason."""
    fill(store, 2)
    store.promote(1, expected_generation=0, run_id="v1", actor="ann", reason="better")
    promote_all(store, 2)
    store.rollback(expected_generation=2)
    events = store.history()
    assert [event.number for event in events] == [1, 2, 3, 4, 5, 6]
    assert [event.kind for event in events[2:]] == ["promote", "promote", "rollback", "quarantine"]
    assert [(event.version, event.generation) for event in events[2:]] == [(1, 1), (2, 2), (1, 3), (2, 3)]
    assert (events[2].run_id, events[2].actor, events[2].reason) == ("v1", "ann", "better")
    assert datetime.fromisoformat(events[0].created_at).tzinfo is not None


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("UPDATE events SET reason = 'other' WHERE number = 4", "event 4 (promote) was changed"),
        (
            "UPDATE events SET detail = '{}' WHERE number = 1",
            "event 1 (register) was changed",
        ),
        ("UPDATE events SET detail = '{' WHERE number = 4", "event 4 must be JSON"),
        ("DELETE FROM events WHERE number = 2", "event 2 is missing"),
        ("DELETE FROM events WHERE number = 4", "does not end with the event"),
        ("UPDATE champion SET version = 1, predecessor = NULL", "the history leads to"),
        ("UPDATE champion SET generation = 7", "the history leads to"),
        ("UPDATE versions SET manifest = '{}' WHERE number = 1", "version 1: manifest is not"),
        ("UPDATE versions SET quarantined = true WHERE number = 1", "version 1: quarantined is not"),
        ("UPDATE versions SET run_id = 'other' WHERE number = 1", "version 1: run is not"),
        ("UPDATE versions SET size_bytes = 9999 WHERE number = 1", "version 1: size is not"),
        (
            "UPDATE versions SET number = 9 WHERE number = 3",
            "version 3 is registered, but its row is missing",
        ),
        ("DELETE FROM champion", "working prodkit database"),
    ],
)
def test_a_change_by_hand_is_found(
    store: Store, address: tuple[str, str], statement: str, problem: str
) -> None:
    """Whatever is changed behind the store's back, in events, pointer or versions, `check` names it."""
    fill(store, 3)
    promote_all(store, 2)
    by_hand(address, statement)
    assert any(problem in found for found in store.check()), store.check()


# What runs leave


def metric(name: str = "auc", run: str = "m1", window: Window = JANUARY, **other: Any) -> dict[str, Any]:
    """One row for `record_metrics`."""
    start, end = str(window).split("/")
    row = {"run_id": run, "notebook": "monitor", "version": 1, "window_start": start, "window_end": end}
    return row | {"name": name, "value": 0.7, "low": 0.6, "high": 0.8, "n": 10, "known_at": end} | other


def test_metrics_are_found_by_what_they_are_about(store: Store) -> None:
    """Each filter keeps what matches, in order of window and name, whatever the order of writing."""
    store.record_metrics(
        [
            metric("auc", "m2", FEBRUARY, version=2),
            metric("loss"),
            metric("auc", notebook="validate", version=None),
        ]
    )
    assert store.metrics()["name"].tolist() == ["auc", "loss", "auc"]
    assert store.metrics(name="loss")["run_id"].tolist() == ["m1"]
    assert store.metrics(notebook="validate")["version"].isna().tolist() == [True]
    assert store.metrics(version=2)["window_start"].tolist() == [FEBRUARY.start]
    assert store.metrics(window=JANUARY)["name"].tolist() == ["auc", "loss"]
    assert len(store.metrics(window=Window(JANUARY.start, FEBRUARY.end))) == 3
    assert store.metrics(name="none").dtypes["value"] == "float64"


def test_a_metric_does_not_exist_before_it_is_known(store: Store) -> None:
    """A replay of a past day sees what was known by then, to the moment, with offsets understood."""
    store.record_metrics(
        [metric(known_at="2013-02-15T12:00:00"), metric("x", known_at="2013-02-15T13:30+02:00")]
    )
    assert store.metrics(until=datetime(2013, 2, 15, 11, 29)).empty
    assert store.metrics(until=datetime(2013, 2, 15, 11, 30))["name"].tolist() == ["x"]
    assert len(store.metrics(until=datetime(2013, 2, 15, 12))) == 2


def test_metrics_of_a_repeated_run_replace_the_first(store: Store) -> None:
    """No row is doubled: the same run and name are written anew, others stay."""
    store.record_metrics([metric(value=0.1), metric("loss"), metric(window=FEBRUARY)])
    store.record_metrics([metric(value=0.9)])
    assert store.metrics(name="auc")["value"].tolist() == [0.9]
    assert len(store.metrics()) == 2


def test_a_number_that_is_not_finite_is_a_missing_one(store: Store) -> None:
    """NaN and infinity are no measurements."""
    store.record_metrics([metric(value=math.nan, high=math.inf)])
    assert store.metrics()[["value", "high"]].isna().all(axis=None)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"colour": "red"}, "must have no keys but"),
        ({"known_at": None}, "must have known_at"),
        ({"known_at": "soon"}, "must have moments in ISO text"),
        ({"n": "many"}, "must have moments in ISO text, and numbers"),
    ],
)
def test_a_wrong_metric_leaves_none_of_its_batch(store: Store, change: dict[str, Any], problem: str) -> None:
    """One wrong row refuses all rows."""
    with pytest.raises(ParameterError, match=problem):
        store.record_metrics([metric(), metric("bad", **change)])
    assert store.metrics().empty


def test_the_latest_clean_profile_is_that_of_the_newest_window(store: Store) -> None:
    """Windows that end later, and unclean ones unless asked for, do not count; a repeated run replaces its own."""
    march = Window.parse("2013-03-01/2013-04-01")
    for window, clean in ((march, True), (FEBRUARY, False), (JANUARY, True)):
        store.save_profile(window, {"of": str(window)}, run_id="r", version=1, clean=clean)
    assert store.latest_profile(JANUARY.start) is None
    assert store.latest_profile(FEBRUARY.end) == {"of": str(JANUARY)}
    assert store.latest_profile(FEBRUARY.end, clean=False) == {"of": str(FEBRUARY)}
    store.save_profile(march, {"of": "again"}, run_id="r", version=None, clean=True)
    assert store.latest_profile(march.end) == {"of": "again"}
    assert store.latest_profile(march.end, version=1) == {"of": str(JANUARY)}
    with pytest.raises(StoreError, match="profile must be plain JSON"):
        store.save_profile(march, {"of": math.nan}, run_id="r", version=None, clean=True)


def test_the_record_of_a_run_is_replaced_in_its_place(store: Store) -> None:
    """Records come back as given, in the order in which the runs came, the newest state of each."""
    for run, notebook in (("a", "train"), ("b", "drift"), ("c", "train")):
        store.record_run({"run_id": run, "notebook": notebook, "status": "running"})
    done = {"run_id": "a", "notebook": "train", "status": "succeeded", "document": {"evidence": [1.5]}}
    store.record_run(done)
    assert [record["run_id"] for record in store.runs()] == ["a", "b", "c"]
    assert [record["run_id"] for record in store.runs("train")] == ["a", "c"]
    assert store.run("a") == done
    assert store.run("zz") is None
    with pytest.raises(StoreError, match="record of run a must be plain JSON"):
        store.record_run({"run_id": "a", "document": {"x": math.nan}})
    with pytest.raises(ParameterError, match="run_id must name the run"):
        store.record_run({"notebook": "train"})


# Trouble


def test_a_locked_store_gives_up_after_its_timeout(store: Store, address: tuple[str, str]) -> None:
    """While somebody else writes, a writer waits for its timeout and says so; a reader is not disturbed."""
    with Store.open(*address, timeout_seconds=0.3) as patient, store._database.write():
        started = time.monotonic()
        with pytest.raises(LockedError, match=r"must come free within 0\.3 seconds"):
            patient.freeze(reason="now")
        assert 0.25 < time.monotonic() - started < 9
        assert patient.champion() == Champion()
    assert store.freeze(reason="now").frozen


def test_an_error_in_a_write_undoes_all_of_it(store: Store) -> None:
    """A write that fails half-way leaves neither rows nor events, and the store free for the next."""
    fill(store, 1)

    def fail_half_way() -> None:
        with store._database.write(actor="x") as write:
            write.append("promote", version=1)
            raise KeyError("half-way")

    with pytest.raises(KeyError, match="half-way"):
        fail_half_way()
    assert store.champion() == Champion()
    assert promote_all(store, 1).version == 1


@pytest.mark.parametrize(
    "url", ["nonsense", "oracle+none://me:secret@host/db", "sqlite:////dev/null/x/store.db"]
)
def test_a_wrong_address_is_a_parameter_error(url: str, tmp_path: Path) -> None:
    """An address that leads nowhere is named as the parameter `store`, and its password is not shown."""
    with pytest.raises(ParameterError, match="store must be the SQLAlchemy URL") as error:
        Store.open(url, str(tmp_path))
    assert "secret" not in str(error.value)


def test_a_file_that_is_no_database_is_a_store_error(tmp_path: Path) -> None:
    """A wrong file is refused, and left as it is."""
    (tmp_path / "store.db").write_text("no database, but long enough to be taken for the header of one" * 9)
    with pytest.raises(StoreError, match="must be a working prodkit database; found file is not a database"):
        Store.open(f"sqlite:///{tmp_path}/store.db", str(tmp_path))


def test_a_damaged_database_is_a_store_error(tmp_path: Path) -> None:
    """Even one whose own description is no text any more."""
    path = tmp_path / "store.db"
    where = f"sqlite:///{path}", str(tmp_path / "artifacts")
    with Store.open(*where) as store:
        fill(store, 1)
    path.write_bytes(path.read_bytes().replace(b"NOT NULL", b"N\xd5T NULL"))
    with pytest.raises(StoreError, match="must be a working prodkit database"), Store.open(*where) as store:
        store.check()


def test_sqlite_is_set_up_to_lose_nothing(tmp_path: Path) -> None:
    """Each connection syncs fully, keeps a rollback journal and holds foreign keys."""
    with Store.open(f"sqlite:///{tmp_path}/store.db", str(tmp_path)) as store, store._database.read() as rows:
        found = [rows.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")]
        assert found == ["delete", 3]
        assert rows.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1


# Any sequence


@dataclass
class Model:
    """The champion, told again in the simplest way."""

    versions: dict[int, bool] = field(default_factory=dict)  # number: in quarantine
    replaced: dict[int, int | None] = field(default_factory=dict)
    champion: Champion = field(default_factory=Champion)

    def promote(self, number: int) -> None:
        """Put a version before the one that was champion."""
        old = self.champion
        self.replaced[number] = old.version
        self.champion = Champion(number, old.version, old.generation + 1, old.hold, old.frozen)

    def rollback(self) -> None:
        """Go back to the predecessor, and to whom that one had replaced."""
        old = self.champion
        assert old.version is not None
        assert old.predecessor is not None
        self.versions[old.version] = True
        before = self.replaced[old.predecessor]
        usable = before in self.versions and not self.versions[before]
        self.champion = Champion(
            old.predecessor, before if usable else None, old.generation + 1, old.hold, old.frozen
        )


ACTS = st.one_of(
    st.tuples(st.just("register"), st.just(0), st.just(False)),
    st.tuples(st.just("promote"), st.integers(1, 5), st.booleans()),
    st.tuples(st.sampled_from(["rollback", "freeze", "thaw", "hold", "release"]), st.just(0), st.just(False)),
    st.tuples(st.just("delete"), st.integers(1, 5), st.just(False)),
)


def act_on_both(store: Store, model: Model, kind: str, number: int, force: bool) -> None:
    """Do one thing to the store, and to the model if the store let it happen."""
    now = model.champion
    if kind == "register":
        version = store.register(os.urandom(8), {})
        model.versions[version.number] = False
    elif kind == "promote":
        allowed = number in model.versions and number != now.version
        allowed = allowed and (force or not (model.versions[number] or now.frozen))
        try:
            store.promote(number, expected_generation=now.generation, force=force)
        except StoreError:
            assert not allowed
        else:
            assert allowed
            model.promote(number)
    elif kind == "rollback":
        try:
            store.rollback(expected_generation=now.generation)
        except StoreError:
            assert now.predecessor is None or now.frozen
        else:
            model.rollback()
    elif kind == "delete":
        try:
            store.delete(number)
        except VersionError:
            assert number not in model.versions or number in (now.version, now.predecessor)
        else:
            del model.versions[number]
    elif kind in ("freeze", "thaw"):
        model.champion = getattr(store, kind)(reason="r")
        assert model.champion.frozen == (kind == "freeze")
    else:
        model.champion = getattr(store, kind)(expected_generation=now.generation, reason="r")
        assert model.champion.hold == ("r" if kind == "hold" else "")


@settings(max_examples=40, deadline=None)
@given(st.lists(ACTS, max_size=20))
def test_any_sequence_of_acts_leads_where_the_simple_model_does(acts: list[tuple[str, int, bool]]) -> None:
    """After any acts the champion and quarantines are the model's, and replaying the history agrees."""
    with tempfile.TemporaryDirectory() as folder:
        model = Model()
        with Store.open(f"sqlite:///{folder}/store.db", folder) as store:
            for kind, number, force in [("register", 0, False)] * 3 + acts:
                act_on_both(store, model, kind, number, force)
                assert store.champion() == model.champion
            assert {v.number: v.quarantined for v in store.versions()} == model.versions
            assert is_sound(store)


def test_projects_share_a_postgresql_database_in_schemas_of_their_own(tmp_path):
    """``?schema=`` makes one; versions, champion and the turn of the loop are each project's own."""
    url = os.environ.get("PRODKIT_TEST_POSTGRES")
    if not url:
        pytest.skip("PRODKIT_TEST_POSTGRES holds no URL of a PostgreSQL database to test on")
    names = [f"test_{uuid.uuid4().hex}" for _ in range(2)]
    places = [(f"{url}?schema={name}", str(tmp_path / name)) for name in names]
    try:
        with pytest.raises(ParameterError, match="store must be there to be read"):
            Store.open(*places[0], create=False)
        with Store.open(*places[0]) as one, Store.open(*places[1]) as other:
            fill(one, 2)
            fill(other, 1)
            with one.loop_turn() as holder, other.loop_turn() as second:
                assert (holder, second) == ("", "")
                with Store.open(*places[0], create=False) as again, again.loop_turn() as third:
                    assert third.startswith("the process of database session")
            assert [len(store.versions()) for store in (one, other)] == [2, 1]
            assert one.check() == other.check() == []
        with pytest.raises(ParameterError, match="store must name one schema, in small letters"):
            Store.open(f"{url}?schema=My-Own", str(tmp_path))
    finally:
        with sa.create_engine(url, poolclass=sa.NullPool).begin() as rows:
            for name in names:
                rows.execute(sa.text(f"DROP SCHEMA IF EXISTS {name} CASCADE"))
