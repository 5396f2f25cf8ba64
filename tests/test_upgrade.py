"""A store that the first version made is brought to the present layout, with all it held."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import uuid
from pathlib import Path

import pytest
import sqlalchemy as sa
from tables import prodkit

from prodkit.errors import ArtifactError, ParameterError, StoreError
from prodkit.store.registry import Store
from prodkit.store.upgrade import upgrade_store

__all__ = ["prodkit"]  # fixture

OLD, KEY = Path(__file__).parent / "layout1", "0123456789abcdef0123"


def with_artifacts(folder: Path) -> str:
    """The two artifacts of the old store."""
    (folder / "artifacts/versions").mkdir(parents=True)
    for content in (b"model one", b"model two"):
        name = f"{hashlib.sha256(content).hexdigest()}.joblib"
        (folder / "artifacts/versions" / name).write_bytes(content)
    return str(folder / "artifacts")


@pytest.fixture
def old(tmp_path):
    """Make an old SQLite store from a script."""

    def make(script: str) -> tuple[str, str]:
        with sqlite3.connect(tmp_path / "store.db") as rows:
            rows.executescript((OLD / f"{script}.sql").read_text())
        return f"sqlite:///{tmp_path}/store.db", with_artifacts(tmp_path)

    return make


@pytest.fixture
def old_postgres(tmp_path):
    """An old signed store in PostgreSQL, in a schema of its own."""
    url = os.environ.get("PRODKIT_TEST_POSTGRES")
    if not url:
        pytest.skip("PRODKIT_TEST_POSTGRES holds no URL of a PostgreSQL database to test on")
    schema, engine = f"old_{uuid.uuid4().hex}", sa.create_engine(url, poolclass=sa.NullPool)
    script = (OLD / "signed-postgres.sql").read_text()
    with engine.begin() as rows:
        rows.exec_driver_sql(f"CREATE SCHEMA {schema}; SET search_path TO {schema}; {script}")
    scoped = sa.make_url(url).update_query_dict({"options": f"-csearch_path={schema}"})
    yield scoped.render_as_string(hide_password=False), with_artifacts(tmp_path)
    with engine.begin() as rows:
        rows.execute(sa.text(f"DROP SCHEMA {schema} CASCADE"))


def require_whole(address: tuple[str, str]) -> None:
    """Everything that the old store held is there, sound, and goes on."""
    with Store.open(*address) as store:
        assert store.check() == []
        events = store.history()
        kinds = ["register", "register", "promote", "promote", "hold", "release", "rollback", "quarantine"]
        assert [event.kind for event in events] == [*kinds, "upgrade"]
        assert (store.champion().version, store.champion().generation) == (1, 3)
        assert [store.artifact(number) for number in (1, 2)] == [b"model one", b"model two"]
        assert (len(store.metrics()), len(store.runs()), store.plan()) == (1, 1, None)
        store.promote(2, expected_generation=3, reason="on", force=True)
        assert store.check() == []


def test_an_unsigned_store_is_upgraded_once_with_a_backup(old, prodkit, tmp_path):
    """The command keeps the store as it was beside it, says where, and has nothing to do the second time."""
    address = old("plain")
    before = (tmp_path / "store.db").read_bytes()
    with pytest.raises(StoreError, match=r"must have layout 2; found 1 .* prodkit update"):
        Store.open(*address)
    status, shown, _ = prodkit("update", "--out", tmp_path)
    assert (status, "the store was upgraded" in shown) == (0, True)
    (backup,) = tmp_path.glob("store.db.layout1-*")
    with sqlite3.connect(backup) as copy, sqlite3.connect(":memory:") as same:
        same.executescript((OLD / "plain.sql").read_text())
        assert list(copy.iterdump()) == list(same.iterdump())
    assert backup.stat().st_mode & 0o777 == 0o600
    assert before != (tmp_path / "store.db").read_bytes()
    require_whole(address)
    assert prodkit("update", "--out", tmp_path)[1].strip() == "the store is up to date"


def test_a_backup_is_of_the_store_whatever_its_folder_is_called(tmp_path):
    """A sign that means something in an address does not lead the copy elsewhere."""
    folder = tmp_path / "a#1"
    folder.mkdir()
    with sqlite3.connect(folder / "store.db") as rows:
        rows.executescript((OLD / "plain.sql").read_text())
    backup = upgrade_store(f"sqlite:///{folder}/store.db", with_artifacts(folder))
    with sqlite3.connect(backup) as copy:
        assert copy.execute("SELECT count(*) FROM versions").fetchone() == (2,)


def test_a_file_that_is_no_database_is_named(tmp_path, prodkit):
    """Update says what is wrong, and shows no traceback."""
    (tmp_path / "store.db").write_bytes(b"no database " * 100)
    status, _, told = prodkit("update", "--out", tmp_path)
    assert (status, "must be a working prodkit database" in told, "Traceback" in told) == (1, True, False)


def test_a_signed_store_needs_its_key(old, monkeypatch):
    """Without it, or with another, nothing is changed; with it, each version is signed for its own number."""
    address = old("signed")
    with pytest.raises(ParameterError, match="PRODKIT_SIGNING_KEY must be set to upgrade a signed store"):
        upgrade_store(*address)
    monkeypatch.setenv("PRODKIT_SIGNING_KEY", "another key of someone")
    with pytest.raises(ArtifactError, match="found a signature by another key"):
        upgrade_store(*address)
    with pytest.raises(StoreError, match="must have layout 2; found 1"):
        Store.open(*address)
    monkeypatch.setenv("PRODKIT_SIGNING_KEY", KEY)
    assert upgrade_store(*address)
    require_whole(address)


def test_a_store_in_postgresql_is_upgraded(old_postgres, monkeypatch):
    """The same there, with copies of the old tables kept."""
    monkeypatch.setenv("PRODKIT_SIGNING_KEY", KEY)
    assert upgrade_store(*old_postgres) == "tables layout1_*"
    require_whole(old_postgres)


def by_hand(address: tuple[str, str], statement: str) -> None:
    """Change a store past its triggers."""
    with sqlite3.connect(address[0].removeprefix("sqlite:///")) as rows:
        for name in ("insert", "update", "delete"):
            rows.execute(f"DROP TRIGGER IF EXISTS events_{name}")
        rows.execute(statement)


def test_a_broken_history_is_not_upgraded(old):
    """An event that was changed is told, and the store stays as it is."""
    address = old("plain")
    by_hand(address, "UPDATE events SET reason = 'another' WHERE number = 3")
    with pytest.raises(StoreError, match="history must be unbroken; found event 3"):
        upgrade_store(*address)


@pytest.mark.parametrize("number", [2, 10])
def test_a_time_that_was_changed_is_found(old, number):
    """Whether the event is from before the upgrade, or from after it."""
    address = old("plain")
    upgrade_store(*address)
    with Store.open(*address) as store:
        store.freeze(reason="a look")
        by_hand(
            address, f"UPDATE events SET created_at = '1999-01-01T00:00:00+00:00' WHERE number = {number}"
        )
        assert any("time of an event" in line or "was changed" in line for line in store.check())


def test_one_version_never_opens_as_another(old, monkeypatch):
    """Bytes and signature of version 1 under the number of version 2 are refused."""
    monkeypatch.setenv("PRODKIT_SIGNING_KEY", KEY)
    address = old("signed")
    upgrade_store(*address)
    by_hand(
        address,
        "UPDATE versions SET (digest, location, signature, manifest, size_bytes) ="
        " (SELECT digest, location, signature, manifest, size_bytes FROM versions WHERE number = 1)"
        " WHERE number = 2",
    )
    with Store.open(*address) as store, pytest.raises(ArtifactError, match="version 2 must"):
        store.artifact(2)
