"""A small share of the soak: a service under load and faults, whose champion changes meanwhile."""

from __future__ import annotations

from benchmarks.soak import SOURCES, staged
from tables import opened, orders, places, version_of

__all__ = ["places"]  # a fixture


def test_no_request_is_lost_or_answered_by_the_wrong_version(places, monkeypatch):
    """Stalls, locks, hang-ups, damage and three changes: each answer is its version's number, and it was champion."""
    monkeypatch.setenv("PYTHONPATH", "")  # is set by the soak
    artifacts, rows = [version_of(number)[0] for number in (1, 2)], orders(days=2, seed=9)
    with opened(places) as store, staged(artifacts, rows, store, pause=0.2, patience=20.0) as soak:
        found = soak.soak(rate=60.0, led_rate=40.0, seconds=15.0, every=0.5, least_faults=20)
        assert found.step.share("failed") == 0, found.told()
        assert not found.wrong, found.told()
        assert all(done == good for done, good in found.faults.values()), found.told()
        assert len(found.faults) >= 9, found.told()
        assert {SOURCES[source] for source in found.answers["source"]} >= {"champion", "predecessor"}
        assert found.fifths()[-1] > 0
        for field, change, rule in (
            ("version", 1, "version"),
            ("prediction", 1e-6, "number"),
            ("reason", True, "degraded, or reason"),
            ("generation", 99, "generation"),
            ("sent", 600.0, "too late"),
        ):
            spoiled = found.answers.copy()
            spoiled[field][spoiled["generation"] < spoiled["generation"].max()] += change
            assert soak._judged(spoiled)[0][rule] > 0, rule
