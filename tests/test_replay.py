"""A recorded decision follows from its record, or it is said where not: any changed byte of it is found."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import (
    FACTS,
    FEBRUARY,
    PROJECT,
    Command,
    opened,
    orders,
    params_for,
    prodkit,
    stocked,
    trained,
    written,
)
from test_verification import Record, shown_in
from test_whatif import CHALLENGER, HEALTH, LABELS, PREDECESSOR, contest, decided

from prodkit import open_run
from prodkit.decisions.record import DECIDED, decided_again, decision_digest
from prodkit.errors import ParameterError, ProdkitError
from prodkit.runs.replay import contradictions, replay_run
from prodkit.runs.runner import run_notebook
from prodkit.runs.verify import Verdict
from prodkit.settings import using_outputs

__all__ = ["prodkit"]  # a fixture


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Record]:
    """A champion that is a bad release, judged by a run; a challenger that another run has judged."""
    home = tmp_path_factory.mktemp("replay")
    data, out = written(orders(), home), home / "out"
    out.mkdir()
    bad = trained(params_for("train", data, window="2024-01-01/2024-02-01", drill={"returned": "scrambled"}))
    with opened(stocked(out, promoted=[1])) as store:
        store.register(*bad, run_id="train-3")
        store.promote(3, expected_generation=1, reason="test")
    own = {"store": "sqlite:///outputs/store.db", "artifacts": "outputs/artifacts"}
    shared = {**FACTS, "data": data, **own, "window": FEBRUARY, "min_rows": 100}
    asked: dict[str, dict[str, Any]] = {"rollback": {}, "validate": {"challenger": 2, "approval": "required"}}
    with pytest.MonkeyPatch.context() as patch, using_outputs(out):
        patch.chdir(PROJECT)
        runs = {name: run_notebook(name, {**shared, **policy}) for name, policy in asked.items()}
    assert {name: run["status"] for name, run in runs.items()} == dict.fromkeys(asked, "succeeded")
    return {name: Record(out, run["run_id"], home) for name, run in runs.items()}


@pytest.fixture
def forged(made: dict[str, Record], tmp_path: Path) -> Record:
    """A copy of outputs and store, to be falsified."""
    shutil.copytree(made["rollback"].out, tmp_path / "out")
    return Record(tmp_path / "out", made["rollback"].run_id, made["rollback"].home)


def test_a_recorded_run_is_opened_with_its_rows_model_evidence_and_figures(
    made: dict[str, Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`open_run` gives what a real run worked with, and a table of itself; a run that is not there is named."""
    monkeypatch.chdir(PROJECT)
    with using_outputs(made["validate"].out):
        run = open_run(made["validate"].run_id)
        assert run.rows["returned"].notna().sum() == run.document["inputs"][0]["rows"]
        assert np.isfinite(run.model.predict(run.rows[:5])).all()
        assert list(run.evidence["outcome"]) == [item["outcome"] for item in run.document["evidence"]]
        assert all(picture.data.startswith(b"\x89PNG") for picture in run.figures.values())
        assert run.figures
        assert repr(run).startswith(f"{run.document['run_id']}: ")
        assert "<table>" in run._repr_html_()
        with pytest.raises(ParameterError, match="RUN must be a recorded run; found rollback-1"):
            open_run("rollback-1")


def replayed(record: Record) -> Verdict:
    """Replay a run where it lies."""
    with using_outputs(record.out):
        return replay_run(record.run_id)


def falsify(record: Record, path: tuple[Any, ...], value: Any, *, thoroughly: bool = True) -> None:
    """Put another value at a place of result.json; thoroughly: in notebook and store's record, too."""

    def put(document: Any) -> None:
        for step in path[:-1]:
            document = document[step]
        document[path[-1]] = value

    record.change(put, "result.json")
    if thoroughly:
        record.change(lambda notebook: put(shown_in(notebook)))
        record.forge()


@pytest.mark.parametrize("notebook", ["rollback", "validate"])
def test_a_decision_is_made_again_as_recorded(
    made: dict[str, Record], notebook: str, prodkit: Command
) -> None:
    """A judgement and a proposed promotion are replayed from their records alone, and nothing is done again."""
    record = made[notebook]
    with opened(record.places) as store:
        before = store.history()
    verdict = replayed(record)
    assert verdict.matches, verdict.lines()
    status, printed, _ = prodkit("replay", record.run_id, "--out", record.out)
    assert (status, printed) == (0, f"{record.run_id}: {verdict.decided}, as recorded\n")
    with opened(record.places) as store:
        assert store.history() == before
    assert verdict.decided == json.loads((record.folder / "result.json").read_text())["action"]


def test_a_decision_whose_folder_was_removed_is_made_again(forged: Record, prodkit: Command) -> None:
    """The store's record is enough, and the answer says that there is nothing else."""
    with opened(forged.places) as store:
        store.record_cleaning([forged.run_id], requests=0, actor="test", reason="test")
    shutil.rmtree(forged.folder)
    status, printed, _ = prodkit("replay", forged.run_id, "--out", forged.out)
    assert (status, "as recorded" in printed, "its folder was removed" in printed) == (0, True, True)


CHANGES: list[tuple[tuple[Any, ...], Any, str]] = [
    (("action",), "keep", "action, which the evidence does not lead to"),
    (("generation",), 1, "generation, which the evidence does not lead to"),
    (("target_version",), 2, "target_version, which the evidence does not lead to"),
    (("reasons", 0), "because", "reasons, which the evidence does not lead to"),
    (("judged", "champion", "predecessor"), 2, "digest of the decision, the history has another"),
    (("judged", "champion", "version"), 2, "digest of the decision, the history has another"),
    (("evidence", 0, "note"), "", "digest of the decision, the history has another"),
    (("evidence", -1, "n"), 12345, "digest of the decision, the history has another"),
    (
        ("params", "rollback_margin"),
        0.0051,
        "performance.predecessor, limit, which rollback_margin does not give",
    ),
    (("params", "seed"), 1, "digest of the decision, the history has another"),
    (("outputs", "champion"), 2, ""),
]


@pytest.mark.parametrize(("path", "value", "what"), CHANGES)
def test_a_forgery_in_every_copy_is_found(
    forged: Record, prodkit: Command, path: tuple[Any, ...], value: Any, what: str
) -> None:
    """What is falsified alike in result.json, notebook and store is found by the rule, or by the history's digest."""
    falsify(forged, path, value)
    status, printed, _ = prodkit("replay", forged.run_id, "--out", forged.out)
    if what:
        assert (status, what in printed) == (1, True), printed
    else:  # no part of the decision, and the same everywhere
        assert status == 0


def test_a_byte_of_the_result_alone_is_found(forged: Record) -> None:
    """A number changed in its last digit in result.json only is named, with what notebook and store have."""
    document = json.loads((forged.folder / "result.json").read_text())
    number = next(i for i, item in enumerate(document["evidence"]) if item["low"])
    low = document["evidence"][number]["low"]
    falsify(forged, ("evidence", number, "low"), low * (1 + 2**-52), thoroughly=False)
    found = [each.what for each in replayed(forged).differences]
    assert any("the notebook shows another" in what for what in found)
    assert "digest of the decision, the history has another" in found


@settings(max_examples=100, deadline=None)
@given(name=st.sampled_from(["result.json", "notebook.ipynb"]), place=st.floats(0, 1), bit=st.integers(0, 7))
def test_any_changed_byte_is_found(made: dict[str, Record], name: str, place: float, bit: int) -> None:
    """One bit turned anywhere in notebook or result is told, in words, and never passes for the record."""
    path = made["rollback"].folder / name
    before = path.read_bytes()
    changed = bytearray(before)
    changed[int(place * (len(before) - 1))] ^= 1 << bit
    try:
        path.write_bytes(changed)
        assert not replayed(made["rollback"]).matches
    finally:
        path.write_bytes(before)


def test_an_event_changed_by_hand_is_found(forged: Record) -> None:
    """A forger who also rewrites the digest in the history breaks its chain."""
    falsify(forged, ("evidence", 0, "note"), "")
    document = json.loads((forged.folder / "result.json").read_text())
    with opened(forged.places) as store, store._database.engine.begin() as rows:
        rows.exec_driver_sql("DROP TRIGGER events_update")
        (detail,) = rows.exec_driver_sql(
            "SELECT detail FROM events WHERE kind = 'decide' AND run_id = ?", (forged.run_id,)
        ).scalars()
        changed = json.loads(detail) | {"decision": decision_digest(document)}
        text = json.dumps(changed, sort_keys=True, separators=(",", ":"))
        rows.exec_driver_sql(
            "UPDATE events SET detail = ? WHERE kind = 'decide' AND run_id = ?", (text, forged.run_id)
        )
    (found,) = replayed(forged).differences
    assert "(decide) was changed after it was written" in found.found


def test_a_decision_without_a_witness_is_found(forged: Record) -> None:
    """A run that no event bears witness to has not decided in this store."""
    with opened(forged.places) as store, store._database.engine.begin() as rows:
        rows.exec_driver_sql("DROP TRIGGER events_update")
        rows.exec_driver_sql("UPDATE events SET run_id = 'other' WHERE kind = 'decide'")
    assert "an event of this decision" in [each.recorded for each in replayed(forged).differences]


def test_what_is_no_decision_or_no_run_is_refused(forged: Record, prodkit: Command) -> None:
    """A run that decided nothing and evidence that cannot be read are errors; an unknown run is a wrong call."""
    falsify(forged, ("judged",), None)
    status, printed, _ = prodkit("replay", forged.run_id, "--out", forged.out)
    assert (status, "must be a run that decided something" in printed) == (1, True)
    falsify(forged, ("judged",), {"rule": "whim"})
    assert "must say by which rule" in replayed(forged).refused
    falsify(forged, ("evidence", 0, "surprise"), 1)
    assert "evidence line 1 must be readable" in replayed(forged).refused
    assert prodkit("replay", "rollback-none", "--out", forged.out)[0] == 2


DOCUMENTS = [
    decided(PREDECESSOR),
    decided(*HEALTH, CHALLENGER),
    decided(CHALLENGER, approval="required") | {"approval": "proposed"},
    decided(),
    contest(),
]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_an_honest_document_does_not_contradict_itself(document: dict[str, Any]) -> None:
    """Each action, made by the rule and written down, is come to again, also after a journey through JSON."""
    travelled = json.loads(json.dumps(document))
    assert contradictions(travelled) == []
    del travelled["params"]["csv"]  # as in a record of a version that had no such parameter
    assert contradictions(travelled) == []
    assert decision_digest(travelled) != decision_digest(document)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of everything in a document that is no mapping and no list."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    inner = list(inner)
    if not inner:
        yield path
    for key, each in inner:
        yield from leaves(each, (*path, key))


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.floats(-9, 9)
    | st.sampled_from(["", "pass", "fail", "x"])
)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_changed_field_of_a_decision_is_found(data: st.DataObject) -> None:
    """Whatever is changed has another digest; and where the rule then decides otherwise, the document says so."""
    document = copy.deepcopy(data.draw(st.sampled_from(DOCUMENTS)))
    path = data.draw(st.sampled_from(sorted(leaves({name: document[name] for name in DECIDED}), key=str)))
    place: Any = document
    for step in path[:-1]:
        place = place[step]
    before, value = place[path[-1]], data.draw(scalars)
    if json.dumps(before) == json.dumps(value):
        return
    honest = decided_again(document)
    digest = decision_digest(document)
    place[path[-1]] = value
    assert decision_digest(document) != digest
    try:
        again = decided_again(document)
        found = contradictions(document)
    except ProdkitError:  # it cannot be read any more, and says so
        return
    told = ("action", "outcome", "reasons", "target_version", "generation", "clears_hold")
    if any(getattr(again, name) != getattr(honest, name) for name in told):
        assert found, path


def test_too_few_labels_are_no_contradiction() -> None:
    """A finding that was not made for want of labels is held against their number, and may be."""
    few = {
        **LABELS.to_dict(),
        "name": "performance.challenger",
        "outcome": "inconclusive",
        "value": 90.0,
        "n": 90,
    }
    record = decided(LABELS.from_dict(few))
    assert contradictions(record) == []
