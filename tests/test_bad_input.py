"""Bad input, where a user would meet it: a clear error, its exit status, and nothing half-written."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tables import (
    FEBRUARY,
    TRAINING,
    WINDOWS,
    Command,
    contents,
    facts_file,
    locked,
    opened,
    orders,
    orders_file,
    params_for,
    places,
    prodkit,
    run_cells,
    stocked,
    written,
)

from prodkit.errors import (
    DataError,
    IdentityError,
    LabelError,
    LockedError,
    ProdkitError,
    SchemaError,
    VersionError,
    WindowError,
)
from prodkit.params import NOTEBOOKS
from prodkit.store.registry import Store
from prodkit.store.workspace import open_store

__all__ = ["orders_file", "places", "prodkit"]  # fixtures

# The monitor's history comes from the store: it reads rows only for windows that have been scored there.
EVERY = sorted({*NOTEBOOKS} - {"monitor"})
every_notebook = pytest.mark.parametrize("notebook", EVERY)
SPANS = {
    "train": WINDOWS[2],
    **{"validate": FEBRUARY, "score": FEBRUARY, "drift": FEBRUARY, "rollback": FEBRUARY, "stress": FEBRUARY},
}


@pytest.fixture(autouse=True)
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for results; the command is typed in the project's."""
    monkeypatch.chdir(Path(__file__).parent.parent)
    monkeypatch.setenv("PRODKIT_OUT", str(tmp_path / "out"))
    return tmp_path / "out"


@pytest.fixture
def shop(notebook: str, tmp_path: Path) -> dict[str, str]:
    """A store that a notebook can work in: `validate` finds a challenger, the others a champion."""
    folder = tmp_path / "shop"
    folder.mkdir()
    return stocked(folder, promoted=[1] if notebook == "validate" else [1, 2])


@pytest.fixture
def judged(tmp_path: Path) -> dict[str, str]:
    """A store whose version 1 is champion and 2 a challenger."""
    folder = tmp_path / "judged"
    folder.mkdir()
    return stocked(folder, promoted=[1])


def given_to(notebook: str, data: str, places: dict[str, str], **given: Any) -> dict[str, Any]:
    """Parameters of a notebook, as papermill injects them."""
    few = {"validate": {"min_rows": 100, "slices": ["city"]}, "rollback": {"min_rows": 100}}
    values = {"window": SPANS[notebook], **few.get(notebook, {}), **places, **given}
    return {**params_for(notebook, data).plain(), **values}


def refused(notebook: str, data: str, places: dict[str, str], out: Path, **given: Any) -> ProdkitError:
    """The error in which a notebook ends, after a look that it has written nothing anywhere."""
    before = contents(places)
    with pytest.raises(ProdkitError, match=r"\w") as raised:
        run_cells(notebook, given_to(notebook, data, places, **given))
    assert contents(places) == before
    assert not list(out.rglob("*.parquet"))
    return raised.value


def says(error: ProdkitError, kind: type[ProdkitError], pattern: str) -> None:
    """It is of this kind, names thing and rule, and proposes a next step."""
    assert type(error) is kind
    assert re.search(pattern, str(error)), str(error)
    assert error.name
    assert error.rule
    assert error.fix


# Parameters: found before any kernel starts, any folder is made or any store opened


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (("holdoot", "7d"), r"holdoot is not a parameter \(in -p, for train\)\. Did you mean holdout\?"),
        (
            ("folds", "many"),
            r"folds is wrong: .*valid integer; found 'many' \(in .*train.ipynb\)\. It means: ",
        ),
        (("folds", "1"), r"folds is wrong: .*greater than or equal to 2; found 1"),
        (("holdout", "7 days"), r"holdout is wrong: a duration is a number and one of w, d.*found '7 days'"),
        (("window", "2024-01-01"), r"window is wrong: a window is written start/end.*2024-01-01"),
        (("window", "2024-02-01/2024-01-01"), r"window is wrong: a window must start before it ends"),
        (("task", "clustering"), r"task is wrong: .*'binary', 'multiclass' or 'regression'"),
        (("features", "price"), r"features is wrong: .*valid list; found 'price'"),
        (("retrain_cost", ".nan"), r"retrain_cost is wrong: .*valid number; found .\.nan"),
    ],
)
def test_an_unknown_or_mistyped_parameter_is_refused_before_anything_runs(
    prodkit: Command, tmp_path, out, orders_file, pair, message
):
    """A wrong name, type or bound ends with 2 and one sentence, and not even a folder has been made."""
    shared = facts_file(tmp_path, orders_file)
    status, printed, told = prodkit("run", "train", "-f", shared, "-p", *pair, "--out", out, "--json")
    assert (status, printed) == (2, "")
    assert re.search(message, told), told
    assert "Traceback" not in told
    assert not out.exists()


@every_notebook
def test_plain_papermill_refuses_a_mistyped_parameter_too(notebook, orders_file, shop, out):
    """The notebook itself checks what it was given, before it opens anything."""
    error = refused(notebook, orders_file, shop, out, seed="zero")
    assert re.search(r"seed is wrong: .*valid integer; found 'zero'.*random seed", str(error))


# The table


@every_notebook
def test_a_missing_file_is_named(notebook, shop, out, tmp_path):
    """A table that is not there: its path as it was written, and what `data` may be."""
    error = refused(notebook, str(tmp_path / "ordres.parquet"), shop, out)
    says(error, DataError, r"data must be a file that exists; found .*ordres\.parquet\. Set `data` to a path")


def test_a_missing_file_ends_with_1_before_a_kernel_starts(prodkit: Command, tmp_path, out):
    """`prodkit run` finds it while it identifies the work: no run, no champion, no version."""
    shared = facts_file(tmp_path, str(tmp_path / "ordres.parquet"))
    status, printed, told = prodkit("run", "train", "-f", shared, "--out", out, "--json")
    assert (status, printed) == (1, "")
    assert re.fullmatch(r"prodkit: data must be a file that exists; found .*ordres\.parquet\. .*\n", told)
    assert not (out / "runs").exists()


@every_notebook
@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"target": "retruned"},
            r"retruned must be a column of the table .*Did you mean returned\? .*`target`",
        ),
        ({"features": ["city", "prize"]}, r"prize must be a column .*Did you mean price\? Set `features`"),
        ({"time_column": "day"}, r"day must be a column .*There are: order, ordered_at.*Set `time_column`"),
        ({"id_column": ["ordr"]}, r"ordr must be a column .*Did you mean order\? Set `id_column`"),
    ],
)
def test_a_missing_column_is_named_with_the_nearest(notebook, orders_file, shop, out, given, message):
    """Target, feature, time or id: the error names table, column, the nearest one and the parameter to set."""
    says(refused(notebook, orders_file, shop, out, **given), SchemaError, message)


def test_a_missing_target_leaves_the_whole_record_of_a_failed_run(
    prodkit: Command, tmp_path, out, orders_file
):
    """Found by the notebook, it ends with 1; notebook, result and report say so, and no version was registered."""
    shared = facts_file(tmp_path, orders_file, **TRAINING, target="retruned")
    window = ("-p", "window", WINDOWS[2])
    status, printed, told = prodkit("run", "train", "-f", shared, *window, "--out", out, "--json")
    assert status == 1
    result = json.loads(printed)
    assert (result["status"], result["outcome"], result["action"]) == ("failed", "error", None)
    assert re.match(
        r"SchemaError: retruned must be a column of the table .*Did you mean returned", *result["reasons"]
    )
    assert "Traceback" not in told
    (folder,) = (out / "runs").iterdir()
    assert {path.name for path in folder.iterdir()} == {"notebook.ipynb", "result.json", "report.html"}
    assert "Did you mean returned" in (folder / "report.html").read_text()
    with Store.open(f"sqlite:///{out}/store.db", str(out / "artifacts")) as store:
        assert (store.versions(), store.history()) == ([], [])
        assert [run["status"] for run in store.runs()] == ["failed"]


@every_notebook
def test_a_window_without_rows_is_told_what_there_is(notebook, orders_file, shop, out):
    """A window outside the table: first and last moment of the table, and what to choose."""
    error = refused(notebook, orders_file, shop, out, window="2031-01-01/2031-02-01")
    says(
        error,
        WindowError,
        r"window must hold rows; found .* holds 2024-01-01 .* to 2024-02-29 .*Choose another",
    )


@every_notebook
def test_duplicate_ids_are_refused_everywhere(notebook, shop, out, tmp_path):
    """Two rows of one name: how many, an example, the place; nothing is scored, judged or learned."""
    frame = orders()
    doubled = frame[frame["ordered_at"].dt.day == 5]
    data = written(pd.concat([frame, doubled]), tmp_path, "doubled")
    error = refused(notebook, data, shop, out)
    says(
        error,
        IdentityError,
        r"order must name one row each; found \d+ rows such as \d+ \(in .*doubled.*, 2024",
    )


@pytest.mark.parametrize("notebook", ["score", "drift", "rollback"])
def test_a_feed_that_repeats_itself_is_held_and_not_refused(notebook, shop, out, tmp_path):
    """Each row twice under its own id: the window is answered by the simple rule and put on hold, and told of."""
    frame = orders()
    later = frame[frame["ordered_at"] >= FEBRUARY.partition("/")[0]]
    data = written(pd.concat([frame, later]), tmp_path, "doubled")
    done = run_cells(notebook, given_to(notebook, data, shop))
    if notebook != "drift":
        (told,) = [item for item in done["inspection"].evidence if item.outcome == "fail"]
        assert told.name == "contract.rows.repeated"
        assert re.match(
            r"100.0% of the rows bear an id \(order\) that another row .* such as \d+$", told.note
        )
    if notebook == "rollback":
        assert done["decision"].action == "hold"
    if notebook == "score":
        assert done["scored"].degraded_share == 1.0


# Labels


@pytest.mark.parametrize(
    ("notebook", "as_of"), [("train", "2024-01-01T20:00"), ("validate", "2024-02-01T20:00")]
)
def test_a_window_without_labels_yet_is_told_when_there_will_be(judged, out, orders_file, notebook, as_of):
    """Training and judging need labels: the error says when the first is known."""
    error = refused(notebook, orders_file, judged, out, as_of=as_of)
    says(error, LabelError, r"returned must hold labels; found \d+ rows, none .*first label .*2024-0\d-02")


@pytest.mark.parametrize("notebook", ["train", "validate"])
def test_a_window_that_never_gets_labels_says_so(judged, out, tmp_path, notebook):
    """A target that is empty throughout is no matter of waiting: choose other rows, or another target."""
    data = written(orders().assign(returned=np.nan), tmp_path, "empty")
    says(
        refused(notebook, data, judged, out),
        LabelError,
        r"returned must hold labels.*Choose an earlier `window`",
    )


def test_a_window_without_labels_is_still_scored_looked_at_and_decided_on(places, out, tmp_path):
    """Late labels stop neither scoring nor drift; the decision is to keep, inconclusive, and the champion stays."""
    frame = orders()
    data = written(
        frame.assign(returned=frame["returned"].where(frame["ordered_at"] < "2024-02-01")), tmp_path
    )
    predictions = {"predictions": str(tmp_path / "p")}
    scored = run_cells("score", given_to("score", data, places, **predictions))["scored"]
    assert (scored.rows, scored.degraded_share) == (840, 0.0)
    assert len(run_cells("drift", given_to("drift", data, places))["table"]) == 4
    decision = run_cells("rollback", given_to("rollback", data, places))["decision"]
    assert (decision.action, decision.outcome) == ("keep", "inconclusive")
    assert any("returned must hold labels" in reason for reason in decision.reasons)
    with opened(places) as store:
        assert (store.champion().version, store.champion().generation) == (2, 2)


def test_one_class_only_cannot_be_learned(places, out, tmp_path):
    """A target with a single class is refused by training, with the class that was found."""
    data = written(orders().assign(returned=1.0), tmp_path, "single")
    error = refused("train", data, places, out)
    says(error, LabelError, r"returned must hold at least two classes; found 1.*Choose a longer `window`")


def test_a_window_of_one_class_is_judged_without_a_crash(judged, places, out, tmp_path):
    """All orders of a fortnight came back: validate compares losses, rollback holds such labels; nothing breaks."""
    frame = orders()
    data = written(
        frame.assign(returned=frame["returned"].where(frame["ordered_at"] < "2024-02-01", 1.0)), tmp_path
    )
    decision = run_cells("validate", given_to("validate", data, judged))["decision"]
    assert decision.action in ("keep", "reject", "promote")
    decision = run_cells("rollback", given_to("rollback", data, places))["decision"]
    assert decision.action == "hold"
    assert all(np.isfinite(item.value) for item in decision.evidence if item.value is not None)


def test_a_label_that_training_never_saw_refuses_the_challenger(judged, places, out, tmp_path):
    """A third class among two judges nobody, promotes nobody, and is told to whoever watches the champion."""
    frame = orders()
    frame.loc[frame["order"] % 7 == 0, "returned"] = 2.0
    data = written(frame, tmp_path)
    decision = run_cells("validate", given_to("validate", data, judged))["decision"]
    assert decision.action == "reject"
    assert any("of a class that no model knows: 0.1" in reason for reason in decision.reasons)
    decision = run_cells("rollback", given_to("rollback", data, places))["decision"]
    found = {item.name: item.outcome for item in decision.evidence}
    assert found["performance.unknown_classes"] == "fail"


# Features


def test_an_empty_feature_is_learned_from_as_such(places, out, tmp_path):
    """A feature without a single value trains a model all the same, with any estimator; it has no importance."""
    data = written(orders().assign(weight=np.nan), tmp_path, "hollow")
    for model in ("auto", "sklearn.linear_model.LogisticRegression"):
        arguments = {"max_iter": 20 if model == "auto" else 500}
        names = run_cells("train", given_to("train", data, places, model=model, model_args=arguments))
        assert names["schema"].column("weight").kind == "numeric"
        assert np.isfinite(names["tested"].predicted).all()
        assert names["leaned_on"].loc["weight", "mean"] == pytest.approx(0.0, abs=1e-9)


def test_a_feature_that_has_become_empty_is_a_broken_input(places, out, tmp_path):
    """Scored without that column, as each row says; the decision is to hold, and nobody is trained."""
    frame = orders()
    data = written(
        frame.assign(price=frame["price"].where(frame["ordered_at"] < "2024-02-01")), tmp_path, "emptied"
    )
    scored = run_cells("score", given_to("score", data, places, predictions=str(tmp_path / "p")))["scored"]
    assert scored.degraded_share == 0.0
    assert (scored.table()["reason"] == "masked: price").all()
    names = run_cells("rollback", given_to("rollback", data, places))
    assert names["decision"].action == "hold"
    assert names["trials"].retrained is None
    with opened(places) as store:
        assert "price is empty" in store.champion().hold
        assert store.champion().generation == 2


def test_a_category_that_was_never_seen_is_predicted_and_reported(places, judged, out, tmp_path):
    """A few orders from a new city: each is predicted by the model, drift names the level, validation goes on."""
    frame = orders()
    new = (frame["ordered_at"] >= "2024-02-01") & (frame["order"] % 10 == 0)
    data = written(frame.assign(city=frame["city"].where(~new, "Atlantis")), tmp_path, "wider")
    scored = run_cells("score", given_to("score", data, places, predictions=str(tmp_path / "p")))["scored"]
    assert np.isfinite(scored.table()["prediction"]).all()
    assert (scored.rows, scored.degraded_share) == (840, 0.0)
    report = run_cells("drift", given_to("drift", data, places))["report"]
    assert report.columns.loc["city", "unseen"] == pytest.approx(0.1)
    assert run_cells("validate", given_to("validate", data, judged))["decision"].outcome != "error"
    assert run_cells("rollback", given_to("rollback", data, places))["decision"].action in ("keep", "watch")


# The store


def test_a_version_that_does_not_exist_is_refused(prodkit: Command, judged, out, orders_file):
    """By the notebook and by the command: the number, and those that there are; nothing moves."""
    error = refused("validate", orders_file, judged, out, challenger=99)
    says(error, VersionError, r"version 99 must be a registered one\. Known are: 1, 2\.")
    before = contents(judged)
    at = ("--store", judged["store"], "--artifacts", judged["artifacts"])
    signed = ("--name", "Ada", "--reason", "a test")
    for arguments in (["promote", 99, *signed], ["show", 99]):
        status, printed, told = prodkit("models", *arguments, *at)
        assert (status, printed) == (1, "")
        assert told == "prodkit: version 99 must be a registered one. Known are: 1, 2.\n"
    assert contents(judged) == before


@pytest.mark.parametrize("notebook", ["score", "drift", "rollback"])
def test_a_store_without_a_champion_says_how_to_get_one(notebook, out, orders_file, tmp_path):
    """Before the first promotion nothing can be scored, looked at or rolled back."""
    error = refused(notebook, orders_file, stocked(tmp_path, promoted=[]), out)
    says(
        error,
        VersionError,
        r"champion must exist before it can be asked; found none\. Run train and validate first",
    )


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores wait for others a moment only."""
    for door in (Store.open.__func__, open_store):  # type: ignore[attr-defined]
        monkeypatch.setitem(door.__kwdefaults__, "timeout_seconds", 0.1)


LOCKED = (
    r"store must come free within 0\.1 seconds; found another writer \(in sqlite:///.*store\.db\)\. Run again"
)


def test_a_locked_store_is_said_to_be_locked(prodkit: Command, places, out, orders_file, tmp_path, impatient):
    """`prodkit run` and `models` end with 1 while somebody else has the store for himself; no run has begun."""
    at = ("--store", places["store"], "--artifacts", places["artifacts"])
    shared = facts_file(tmp_path, orders_file, **places)
    window = ("-p", "window", FEBRUARY)
    with locked(places, reads_too=True):
        for arguments in (("models", "list", *at), ("run", "score", "-f", shared, *window, "--out", out)):
            status, printed, told = prodkit(*arguments)
            assert (status, printed) == (1, "")
            assert re.search(LOCKED, told), told
            assert "Traceback" not in told
    assert not (out / "runs").exists()


@pytest.mark.parametrize("notebook", ["train", "score", "validate", "rollback"])
def test_a_writer_in_the_way_leaves_nothing_half_written(shop, orders_file, tmp_path, impatient, notebook):
    """The notebook works, cannot write, and says so; afterwards the store is as before, and a second try succeeds."""
    at = stocked(tmp_path, promoted=[]) if notebook == "validate" else shop  # the first one is sure to win
    given = given_to(notebook, orders_file, at, predictions=str(tmp_path / "p"))
    given = {name: value for name, value in given.items() if name in NOTEBOOKS[notebook].model_fields}
    if notebook == "rollback":
        given["drill"] = {"price": "scaled"}  # asks for a hold, which is to be written
    champion, history, _, *rest = contents(at)
    with locked(at), pytest.raises(LockedError, match=LOCKED):
        run_cells(notebook, given)
    now = contents(at)
    assert (now[0], now[1], now[3:]) == (champion, history, tuple(rest))
    with opened(at) as store:
        assert store.check() == []
    run_cells(notebook, given)
    if notebook == "score":  # what had been scored was kept, and each row is there once
        ids = pd.concat(pd.read_parquet(path) for path in (tmp_path / "p").rglob("*.parquet"))["order"]
        assert (len(ids), ids.is_unique) == (840, True)
        assert not list((tmp_path / "p").rglob("*.tmp"))
    else:
        assert contents(at) != now


def test_a_damaged_artifact_is_never_read(places, out, orders_file):
    """A changed file is found before it is unpickled, by each notebook that needs it."""
    with opened(places) as store:
        path = Path(places["artifacts"], store.version(2).location)
    path.write_bytes(path.read_bytes() + b"x")
    for notebook in ("score", "drift", "rollback"):
        error = refused(notebook, orders_file, places, out)
        assert re.search(r"version 2 must have the SHA-256 .* that was registered.*restore it", str(error))


def test_a_store_that_is_no_database_is_refused(prodkit: Command, tmp_path):
    """A file that is something else is left as it was."""
    wrong = tmp_path / "store.db"
    wrong.write_text("a shopping list, and a rather long one so that it is no empty database")
    status, printed, told = prodkit(
        "models", "list", "--store", f"sqlite:///{wrong}", "--out", tmp_path / "o"
    )
    assert (status, printed) == (1, "")
    assert "store must be a working prodkit database" in told
    assert wrong.read_text().startswith("a shopping list")
