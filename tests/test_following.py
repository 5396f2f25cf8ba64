"""A service follows the champion of its store, whichever database that is in."""

from __future__ import annotations

import time

import sqlalchemy as sa
from tables import version_of
from test_serve import ROWS, start
from test_store import address

from prodkit.models.bundle import unpack
from prodkit.scoring.mutations import records
from prodkit.store.registry import Store

__all__ = ["address", "start"]  # fixtures


def test_a_promotion_is_followed_and_a_lost_connection_made_again(address, start):
    """Promotion, rollback and hold reach a running service without a restart, also after the database hung up on it."""
    url, artifacts = address
    row = records(ROWS.head(1), schema=unpack(version_of(2)[0]).schema)[0]
    with Store.open(url, artifacts) as store:
        for number in (1, 2):
            store.register(*version_of(number), run_id=f"train-{number}")
        store.promote(1, expected_generation=0, reason="test")
        service = start({"store": url, "artifacts": artifacts}, poll_seconds=0.1)

        def answered():
            (answer,) = service.predict([row]).json()["answers"]
            return answer["model_version"], answer["source"]

        assert answered() == (1, "champion")
        store.promote(2, expected_generation=1, reason="test")
        service.until(lambda found: found["model_version"] == 2)
        assert answered() == (2, "champion")
        if url.startswith("postgresql"):
            _hang_up(url)
            assert answered() == (2, "champion")
        store.rollback(expected_generation=2, reason="test")
        service.until(lambda found: found["model_version"] == 1 and not found["problems"])
        assert answered() == (1, "champion")
        store.hold(expected_generation=3, reason="price is empty")
        service.until(lambda found: found["hold"])
        assert answered() == (1, "rule")


def _hang_up(url: str) -> None:
    """End a connection of this test's in the middle of what it asks: the service makes a new one for each look."""
    engine = sa.create_engine(url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
    mine = "application_name = current_setting('application_name') AND pid != pg_backend_pid()"
    ending = sa.text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {mine}")
    end = time.monotonic() + 60
    with engine.connect() as rows:
        while not any(rows.scalars(ending)):
            assert time.monotonic() < end, "the service has not looked"
