"""A person in the loop of a story: what they approve is carried out when it is told again, what they reject is not."""

from __future__ import annotations

from pathlib import Path

import pytest
from tables import written
from test_own_tables import actions, facts_beside, here, lived, shop

from prodkit.errors import RunError
from prodkit.lifecycle import Lifecycle
from prodkit.settings import using_outputs
from prodkit.store.registry import Store

__all__ = ["here"]  # a fixture

POLICY = [("retrain_now", "true"), ("approval", "required")]


def facts(folder: Path) -> Path:
    """A table whose story asks a person before each step."""
    frame = shop()
    frame["returned"] = (frame.pop("drive") > 0).astype(int)
    written(frame, folder)
    return facts_beside(folder / "orders.parquet")


def begun(folder: Path, file: Path) -> Lifecycle:
    """A story whose first champion was approved, and whose windows have each asked for a retraining."""
    out = folder / "out"
    assert "waits for a person: version 2 is proposed" in lived(out, file, *POLICY).notes[0]
    with stored(out) as store:
        store.approve(store.proposals()[0].run_id, actor="ann", reason="a beginning")
    return lived(out, file, *POLICY)


def stored(out: Path) -> Store:
    """The store of a story."""
    with using_outputs(out):
        return Store.open(f"sqlite:///{out}/store.db", str(out / "artifacts"))


def test_an_approved_retraining_is_carried_out_by_the_next_telling(tmp_path: Path, here: None) -> None:
    """Of two requests the newer one stands; it is trained and judged once, and the promotion waits for a person."""
    file, out = facts(tmp_path), tmp_path / "out"
    life = begun(tmp_path, file)
    assert [row["decision"] for row in life.rows] == ["retrain (rejected)", "retrain (proposed)"]
    first, second = (run["run_id"] for run in life.runs if run["notebook"] == "rollback")
    with stored(out) as store:
        reasons = {event.run_id: event.reason for event in store.history() if event.kind == "reject"}
        assert reasons == {first: f"superseded by {second}"}
        store.approve(second, actor="ann", reason="now")
    again = lived(out, file, *POLICY)
    assert [name for name, _ in actions(again)] == ["train", "validate"]
    assert again.runs[0]["parent"] == second
    decisions = [row["decision"] for row in again.rows]
    assert decisions[0] == "retrain (rejected)"
    assert decisions[1].startswith("retrain (approved), then ")
    third = lived(out, file, *POLICY)
    assert third.runs == []
    assert third.rows == again.rows


def test_a_first_champion_that_was_rejected_is_no_proposal_any_more(tmp_path: Path, here: None) -> None:
    """The next call does not ask to approve what a person has turned down."""
    file, out = facts(tmp_path), tmp_path / "out"
    lived(out, file, *POLICY)
    with stored(out) as store:
        store.reject(store.proposals()[0].run_id, actor="ann", reason="not this one")
    with pytest.raises(RunError, match=r"promoted no first champion.*models promote 1"):
        lived(out, file, *POLICY)
