"""A snapshot is the store as it was: whatever happened later is not in it, and the store itself is not touched."""

from __future__ import annotations

import tempfile
import uuid
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tables import Command, prodkit
from test_store import address

from prodkit.errors import LockedError, ParameterError, StoreError, VersionError
from prodkit.evidence import Window
from prodkit.settings import environment_set, store_places
from prodkit.store.registry import Store
from prodkit.store.snapshot import back_up, take_snapshot

__all__ = ["address", "prodkit"]  # fixtures

JANUARY = Window.parse("2013-01-01/2013-02-01")
LATE = Window.parse("2013-02-01/2013-03-01").end


def contents(store: Store) -> dict[str, Any]:
    """All that a notebook can read from a store."""
    return {
        "champion": store.champion(),
        "versions": store.versions(),
        "artifacts": [store.artifact(version.number) for version in store.versions()],
        "history": store.history(),
        "metrics": repr(store.metrics().to_dict("records")),  # as text: no NaN equals another
        "profile": store.latest_profile(LATE, clean=False),
        "clean profile": store.latest_profile(LATE),
    }


def metric(run_id: str, value: float) -> dict[str, Any]:
    """One row of metrics."""
    moments = {"window_start": "2013-01-01", "window_end": "2013-02-01", "known_at": "2013-02-01"}
    rest = {"notebook": "score", "version": None, "name": "rows", "low": None, "high": None, "n": 1}
    return {"run_id": run_id, "value": value, **moments, **rest}


def do(store: Store, step: str, number: int, count: int) -> None:
    """One step of a history; a step that the store refuses changes nothing."""
    generation = store.champion().generation
    said: dict[str, Any] = {"expected_generation": generation, "reason": f"reason {count}"}
    try:
        match step:
            case "register":
                store.register(f"model {number}".encode(), {"number": number}, run_id=f"train-{count}")
            case "promote":
                store.promote(number, **said)
            case "rollback":
                store.rollback(**said)
            case "hold" | "release":
                getattr(store, step)(**said)
            case "freeze" | "thaw":
                getattr(store, step)(reason="test")
            case "delete":
                store.delete(number)
            case "measure":
                store.record_metrics([metric(f"score-{count}", count)])
            case "measure again":
                store.record_metrics([metric(f"score-{number}", count)])
            case "profile":
                store.save_profile(JANUARY, {"n": count}, run_id=f"r{number}", version=None, clean=number > 1)
            case "propose":
                store.propose(
                    f"run-{count}", action="retrain", version=None, generation=generation, reason="x"
                )
    except (StoreError, VersionError):
        pass


STEPS = st.tuples(
    st.sampled_from(
        [
            *("register", "register", "promote", "promote", "rollback", "hold", "release", "freeze", "thaw"),
            *("delete", "measure", "measure again", "profile", "propose"),
        ]
    ),
    st.integers(1, 4),
)


TWO_CHAMPIONS = [("register", 1), ("promote", 1), ("register", 2), ("promote", 2)]


@pytest.fixture
def fresh(address: tuple[str, str]) -> Any:
    """Makes an empty store for each example."""
    if address[0].startswith("sqlite"):

        def make(folder: str) -> tuple[str, str]:
            return f"sqlite:///{folder}/store.db", f"{folder}/artifacts"
    else:

        def make(folder: str) -> tuple[str, str]:
            engine = sa.create_engine(address[0], poolclass=sa.NullPool)
            with engine.begin() as rows:
                for table in ("champion", "events", "layout", "metrics", "profiles", "runs", "versions"):
                    rows.execute(sa.text(f"DROP TABLE IF EXISTS {table} CASCADE"))
            return address[0], f"{folder}/artifacts"

    return make


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=st.lists(STEPS, max_size=10), after=st.lists(STEPS, max_size=6))
@example(before=TWO_CHAMPIONS, after=[("rollback", 1)])
@example(before=TWO_CHAMPIONS, after=[("register", 3), ("promote", 3), ("delete", 1)])
@example(
    before=[*TWO_CHAMPIONS, ("measure", 1), ("profile", 1)], after=[("measure again", 4), ("profile", 1)]
)
def test_a_snapshot_at_any_moment_is_the_store_as_it_was(
    fresh: Any, before: list[tuple[str, int]], after: list[tuple[str, int]]
) -> None:
    """Whatever happens later, a watermark gives back what could be read then, or says that something is gone."""
    with tempfile.TemporaryDirectory() as folder:
        places, copy = fresh(f"{folder}/real"), Path(folder, "copy")
        copy.mkdir()
        with Store.open(*places) as store:
            for count, (step, number) in enumerate(before):
                do(store, step, number, count)
            watermark, then = store.watermark(), contents(store)
            for count, (step, number) in enumerate(after, len(before)):
                do(store, step, number, count)
            serving = {then["champion"].version, then["champion"].predecessor} - {None}
            if serving - {version.number for version in store.versions()}:
                with pytest.raises(StoreError, match=r"must still exist.*deleted"):
                    take_snapshot(*places, at=watermark, folder=copy)
                return
            lost = take_snapshot(*places, at=watermark, folder=copy)
        with Store.open(f"sqlite:///{copy}/store.db", str(copy / "artifacts")) as again:
            assert lost or contents(again) == then
            assert (again.champion(), again.history()) == (then["champion"], then["history"])
            assert lost or again.check() == []


def stocked(address: tuple[str, str]) -> dict[str, int]:
    """A store with two versions, both promoted, and its watermark."""
    with Store.open(*address) as store:
        for number in (1, 2):
            store.register(f"model {number}".encode(), {}, run_id=f"train-{number}")
            store.promote(number, expected_generation=number - 1)
        store.record_metrics([metric("score-1", 1.0)])
        return store.watermark()


def test_a_snapshot_links_local_artifacts(address: tuple[str, str], tmp_path: Path) -> None:
    """The bytes of models are not copied; a file that is gone is missing in the copy as well."""
    watermark = stocked(address)
    with Store.open(*address) as store:
        gone = Path(address[1], store.version(1).location)
    gone.unlink()
    copy = tmp_path / "copy"
    copy.mkdir()
    take_snapshot(*address, at=watermark, folder=copy)
    files = list((copy / "artifacts" / "versions").iterdir())
    assert [path.is_symlink() for path in files] == [True]
    assert gone.name not in {path.name for path in files}


def test_artifacts_elsewhere_are_copied(tmp_path: Path) -> None:
    """Artifacts behind a URL are fetched, so that the copy needs nothing but its folder."""
    address = f"sqlite:///{tmp_path}/store.db", f"memory://{uuid.uuid4().hex}"
    watermark = stocked(address)
    copy = tmp_path / "copy"
    copy.mkdir()
    take_snapshot(*address, at=watermark, folder=copy)
    with Store.open(f"sqlite:///{copy}/store.db", str(copy / "artifacts")) as again:
        assert again.artifact(2) == b"model 2"


def test_a_history_that_was_changed_is_refused(address: tuple[str, str], tmp_path: Path) -> None:
    """A changed event, or a history that does not reach as far, is an error and not a snapshot."""
    watermark = stocked(address)
    with pytest.raises(StoreError, match=r"must lead to events 9.*found 4"):
        take_snapshot(*address, at=watermark | {"events": 9}, folder=tmp_path)
    with pytest.raises(StoreError, match=r"must lead to generation 1.*found 2"):
        take_snapshot(*address, at=watermark | {"generation": 1}, folder=tmp_path)
    engine = sa.create_engine(address[0], poolclass=sa.NullPool)
    with engine.begin() as rows:
        where = "" if engine.dialect.name == "sqlite" else " ON events"
        rows.execute(sa.text(f"DROP TRIGGER events_update{where}"))  # as whoever owns the database could
        rows.execute(sa.text("UPDATE events SET reason = 'another' WHERE number = 2"))
    with pytest.raises(StoreError, match=r"history must be unbroken; found event 2 \(promote\) was changed"):
        take_snapshot(*address, at=watermark, folder=tmp_path)


def test_while_a_run_is_verified_no_store_but_the_sandboxs_is_opened(tmp_path: Path) -> None:
    """Whatever store a notebook names it gets the copy, unless it lies in memory."""
    real = f"sqlite:///{tmp_path}/real.db", str(tmp_path / "artifacts")
    with environment_set(PRODKIT_SANDBOX=str(tmp_path / "box")):
        with Store.open(*real) as store:
            store.register(b"model", {})
        assert store_places("sqlite://", "memory://x") == ("sqlite://", "memory://x")
        assert store_places("postgresql://host/db", "s3://models") == (
            f"sqlite:///{tmp_path}/box/store.db",
            f"{tmp_path}/box/artifacts",
        )
    assert not (tmp_path / "real.db").exists()
    assert (tmp_path / "box" / "store.db").exists()


def test_a_backup_is_the_store_under_another_path(
    address: tuple[str, str], tmp_path: Path, prodkit: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signed store of either database is copied into a folder that opens with --out wherever it lies."""
    monkeypatch.setenv("PRODKIT_SIGNING_KEY", "a key of sixteen characters")
    stocked(address)
    with Store.open(*address) as store:
        store.record_plan({"number": 1}, reason="first")
        store.save_profile(JANUARY, {"n": 1}, run_id="score-1", version=2, clean=True)
        store.record_run({"run_id": "score-1", "status": "succeeded"})
        store.register(b"model 3", {}, run_id="train-3")
        store.delete(3)
        there, runs, plan = contents(store), store.runs(), store.plan()
    places = ("--store", address[0], "--artifacts", address[1])
    status, _, told = prodkit("backup", tmp_path / "copy", *places)
    assert (status, told) == (0, "")
    moved = (tmp_path / "copy").rename(tmp_path / "elsewhere")
    with Store.open(f"sqlite:///{moved}/store.db", str(moved / "artifacts"), create=False) as again:
        assert (contents(again), again.runs(), again.plan()) == (there, runs, plan)
        assert again.check() == []
        assert again.register(b"model 4", {}).number == 4
    assert "must be a new or empty folder" in prodkit("backup", moved, *places)[2]


def test_a_backup_of_a_damaged_store_copies_the_rest(address: tuple[str, str], tmp_path: Path) -> None:
    """A missing artifact is named; what a killed backup left is begun anew; nobody cleans meanwhile."""
    stocked(address)
    with Store.open(*address) as store:
        Path(address[1], store.version(1).location).unlink()
        (tmp_path / "copy").mkdir()
        (tmp_path / "copy" / ".store.db.unfinished").write_bytes(b"half")
        assert [problem.split(";")[0] for problem in back_up(*address, folder=tmp_path / "copy")] == [
            "version 1 must be readable"
        ]
        with (
            store.upkeep_turn(),
            pytest.raises(LockedError, match="must not be cleaned or backed up meanwhile"),
        ):
            back_up(*address, folder=tmp_path / "other")
    copy = f"sqlite:///{tmp_path}/copy/store.db", f"{tmp_path}/copy/artifacts"
    with Store.open(*copy, create=False) as again:
        assert again.artifact(2) == b"model 2"
        with pytest.raises(ParameterError, match="DIR must be a new or empty folder"):
            back_up(*address, folder=tmp_path / "copy")
