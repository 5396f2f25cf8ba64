"""The champion followed: promoted, reverted, held; damaged artifacts and locked stores; and nobody left without."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from tables import locked, opened, places, stocked, version_of

from prodkit.scoring.breaker import Limits
from prodkit.scoring.guard import Guard
from prodkit.serving.follower import Follower
from prodkit.store.registry import Store

__all__ = ["places"]  # fixture


class Followed:
    """A follower of a store, and all it ever told."""

    def __init__(self, places, **settings):
        self.told = []
        self.follower = Follower(
            lambda: Store.open(places["store"], places["artifacts"], timeout_seconds=0.2),
            self.told.append,
            url=places["store"],
            limits=Limits(),
            **{"poll_seconds": 0.2} | settings,
        )

    def until(self, condition):
        """Wait for it."""
        deadline = time.monotonic() + 20
        while not condition(self.follower):
            assert time.monotonic() < deadline, vars(self.follower)
            time.sleep(0.005)

    @property
    def now(self):
        """Champion, predecessor and generation."""
        route = self.follower.route
        versions = [each and each.version for each in (route.champion, route.predecessor)]
        return (*versions, route.generation)


@pytest.fixture
def follow():
    """Start to follow a store; ended with the test."""
    started = []

    def start(places, **settings):
        followed = Followed(places, **settings)
        followed.follower.start()
        started.append(followed)
        return followed

    yield start
    for followed in started:
        followed.follower.stop()


def test_it_begins_with_the_champion_and_has_its_predecessor_at_hand(places, follow):
    """Both versions are in memory when it has looked, each with its compiled path."""
    followed = follow(places)
    assert followed.now == (2, 1, 2)
    assert followed.follower.route.quick


def test_a_rollback_is_a_change_of_pointers(places, follow):
    """The version that comes back is the very one in memory, and nobody waits for the next look into the database."""
    followed = follow(places, poll_seconds=3600)
    before = followed.follower.route
    with opened(places) as store:
        store.rollback(expected_generation=2, reason="test")
        followed.until(lambda f: f.route.generation == 3)
    assert followed.follower.route.champion is before.predecessor


def test_a_promotion_is_loaded_before_the_old_one_is_let_go(tmp_path, follow):
    """There is never a route without a champion, and each goes with its generation."""
    places = stocked(tmp_path, promoted=[1])
    followed = follow(places)
    assert followed.now == (1, None, 1)
    with opened(places) as store:
        store.promote(2, expected_generation=1, reason="test")
    followed.until(lambda f: f.route.generation == 2)
    assert followed.now == (2, 1, 2)
    assert all(route.champion is not None for route in followed.told)
    assert [route.generation for route in followed.told] == sorted(s.generation for s in followed.told)


def test_a_hold_and_its_release_are_followed(places, follow):
    """A hold is distrust with its reason; the release takes it back."""
    followed = follow(places)
    with opened(places) as store:
        store.hold(expected_generation=2, reason="price is empty")
        followed.until(lambda f: f.route.distrust == "on hold: price is empty")
        store.release(expected_generation=2, reason="clean again")
        followed.until(lambda f: f.route.distrust == "")
        price = {"columns": ["price"], "other": [], "masked": ["price"]}
        store.hold(expected_generation=2, reason="odd", detail=price)
        followed.until(lambda f: f.route.masked == ("price",))
        weight = {"columns": ["weight"], "other": [], "masked": None}  # priced by whoever loads the version
        store.hold(expected_generation=2, reason="odd", detail=weight)
        followed.until(lambda f: f.route.masked == ("weight",))
        answer = Guard(followed.follower.route).answer_row(
            {"city": "Rome", "price": 3.5, "weight": "heavy", "express": True}
        )
        assert (answer.degraded, answer.reason, answer.version) == (False, "masked: weight", 2)
        store.hold(expected_generation=2, reason="twice", detail={"columns": [], "other": ["rows.copied"]})
        followed.until(lambda f: f.route.distrust == "on hold: twice")
        assert (followed.follower.route.masked, followed.follower.route.hold) == ((), "twice")
    assert followed.now == (2, 1, 2)


def artifact(places, number):
    """The file of a version."""
    with opened(places) as store:
        return Path(places["artifacts"], store.version(number).location)


def test_a_version_that_cannot_be_loaded_leaves_the_old_one_in_place(tmp_path, follow, monkeypatch):
    """Damaged bytes: who has answered goes on, as predecessor, with the reason; repaired, the champion comes."""
    monkeypatch.setattr("prodkit.serving.follower._RETRY_SECONDS", 0.1)
    places = stocked(tmp_path, promoted=[1])
    followed = follow(places)
    path = artifact(places, 2)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"x")
    with opened(places) as store:
        store.promote(2, expected_generation=1, reason="test")
    followed.until(lambda f: f.load_problem)
    assert followed.now == (None, 1, 2)
    assert "version 2 could not be loaded: version 2 must have the SHA-256" in followed.follower.route.problem
    path.write_bytes(whole)
    followed.until(lambda f: f.route.champion is not None)
    assert followed.now == (2, 1, 2)
    assert followed.follower.load_problem == ""


def test_with_a_damaged_champion_from_the_start_the_predecessor_begins(places, follow):
    """A service that starts into the trouble answers all the same."""
    artifact(places, 2).write_bytes(b"nothing")
    followed = follow(places)
    assert followed.now == (None, 1, 2)
    assert "version 2" in followed.follower.load_problem


def test_a_damaged_predecessor_does_not_hinder_the_champion(places, follow):
    """The champion answers; what is missing is told."""
    artifact(places, 1).write_bytes(b"nothing")
    followed = follow(places)
    assert followed.now == (2, None, 2)
    assert "version 1 could not be loaded" in followed.follower.load_problem


def test_a_locked_store_changes_nothing_but_is_told(places, follow):
    """While somebody holds the database, who is in memory goes on; afterwards it is followed again."""
    followed = follow(places)
    with locked(places, reads_too=True):
        followed.until(lambda f: f.store_problem)
        assert "must come free" in followed.follower.store_problem
        assert followed.now == (2, 1, 2)
    followed.until(lambda f: not f.store_problem)


def test_a_store_that_is_not_there_yet_is_waited_for(tmp_path, follow):
    """No champion, no route; the first promotion brings one."""
    places = stocked(tmp_path, promoted=[])
    followed = follow(places)
    assert followed.follower.route is None
    with opened(places) as store:
        store.promote(1, expected_generation=0, reason="test")
    followed.until(lambda f: f.route is not None)
    assert followed.now == (1, None, 1)


def test_a_store_that_lost_its_champion_or_vanished_is_told_and_the_model_goes_on(places, follow):
    """Emptied, exchanged for an older copy, or gone: who is in memory goes on, and no new store is made."""
    file = Path(places["store"].removeprefix("sqlite:///"))
    followed = follow(places)
    whole, aside = file.read_bytes(), file.with_suffix(".aside")
    file.rename(aside)
    followed.until(lambda f: "its file is gone" in f.store_problem)
    assert not file.exists()
    empty = stocked(file.parent / "other", promoted=[])
    Path(empty["store"].removeprefix("sqlite:///")).rename(file)
    followed.until(lambda f: "the store has lost its champion" in f.store_problem)
    older = stocked(file.parent / "older", promoted=[1])
    Path(older["store"].removeprefix("sqlite:///")).replace(file)
    followed.until(lambda f: "the generation fell from 2 to 1" in f.store_problem)
    assert followed.now == (2, 1, 2)
    file.write_bytes(whole)
    followed.until(lambda f: not f.store_problem)


def test_numbers_of_another_store_are_other_models(places, follow):
    """An older copy that caught up has a version and a generation of the same numbers: they are loaded anew."""
    file = Path(places["store"].removeprefix("sqlite:///"))
    followed = follow(places)
    before = followed.follower.route.champion
    older = stocked(file.parent / "older", promoted=[1])
    Path(older["store"].removeprefix("sqlite:///")).replace(file)
    followed.until(lambda f: "the generation fell from 2 to 1" in f.store_problem)
    with opened(places) as store:
        store.promote(2, expected_generation=1, reason="test")
    followed.until(lambda f: f.route.champion is not before and followed.now == (2, 1, 2))
    assert not followed.follower.store_problem


def test_no_more_than_two_versions_stay_in_memory(places, follow):
    """Who is neither champion nor predecessor is let go."""
    followed = follow(places)
    with opened(places) as store:
        number = store.register(version_of(2)[0], version_of(2)[1], run_id="again").number
        store.promote(number, expected_generation=2, reason="test")
    followed.until(lambda f: f.route.generation == 3)
    followed.until(lambda f: set(f._models) == {2, 3})
