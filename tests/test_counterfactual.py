"""What else could have served a window: tried on rows that nobody has seen, with labels that were known then."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from tables import FEBRUARY, opened, orders, orders_file, params_for, places, stocked, written

import prodkit.decisions.probes as probes_module
from prodkit.data.windows import read_window
from prodkit.decisions.counterfactual import counterfactuals, served_figures
from prodkit.decisions.decide import judgement
from prodkit.decisions.ladder import economy_evidence
from prodkit.decisions.performance import performance_evidence
from prodkit.decisions.probes import Probes
from prodkit.decisions.soundness import left_out, sound_rows
from prodkit.decisions.survey import inspect_window
from prodkit.decisions.triangle import steps_until
from prodkit.errors import IdentityError, ModelError, ParameterError, WindowError
from prodkit.evidence import Window
from prodkit.store.workspace import load_version

__all__ = ["orders_file", "places"]  # fixtures


@pytest.fixture
def store(places):
    """Version 2 is champion, 1 its predecessor."""
    with opened(places) as kept:
        yield kept


@pytest.fixture
def champion(store):
    """Its bundle."""
    return load_version(store, 2)


def params_of(data, **given):
    """Parameters of `rollback`, content with few rows."""
    return params_for("rollback", data, **{"window": FEBRUARY, "min_rows": 100, "min_blocks": 4, **given})


def probes_of(store, champion, params):
    """The probes that `rollback` asks in this window."""
    return Probes.of_champion(store, params, champion, store.version(2).manifest)


def fresh(store, champion, data, **given):
    """The newest model that would be fitted in this window, and the step that judges it."""
    probes = probes_of(store, champion, params_of(data, **given))
    store.keep_probe(f"{probes.steps[-1].start:%Y-%m-%d}", b"", since="")  # each time anew
    return probes.at(len(probes.steps) - 1).bundle(champion, "all"), probes.steps[-1]


def poisoned(frame, chosen):
    """The orders with the labels of some turned round."""
    return frame.assign(returned=frame["returned"].where(~chosen, 1 - frame["returned"]))


@pytest.mark.parametrize(
    ("given", "days"),
    [
        ({}, [1, 8, 15]),
        ({"challenger_share": 0.3}, [1, 5, 9, 13, 15]),
        ({"challenger_share": 0.01}, list(range(1, 16))),
        ({"challenger_share": 1.0}, [1, 15]),
        ({"as_of": "2024-02-09"}, [1, 8, 9]),
    ],
)
def test_a_window_is_judged_in_steps_that_begin_at_midnights(orders_file, given, days):
    """Halves of a fortnight are its weeks; no step is shorter than a day; a run within it stands at its moment."""
    params = params_of(orders_file, **given)
    since = params.window.start
    steps = steps_until(params.window, params.moment, share=params.challenger_share, since=since)
    assert [part.start.day for part in steps] == days[:-1]
    assert [part.end.day for part in steps] == days[1:]


@pytest.mark.parametrize(
    ("window", "zone", "starts"),
    [
        ("2024-03-01/2024-04-01", "UTC", ["02-01", "02-15", "03-01", "03-16"]),
        ("2024-02-29T23:00/2024-03-31T22:00", "Europe/Rome", ["01-31", "02-14", "02-29", "03-15"]),
        ("2024-03-11/2024-03-18", "UTC", ["02-26", "02-29", "03-04", "03-07", "03-11", "03-14"]),
        ("2024-03-11T06:00/2024-03-11T12:00", "UTC", ["03-09", "03-10", "03-11"]),
    ],
)
def test_steps_stay_where_they_are_as_windows_follow_one_another(window, zone, starts):
    """Months, weeks and hours, in any time zone, are cut alike whichever of them is the newest."""
    window = Window.parse(window)
    since = pd.Timestamp(f"2024-{starts[0]}T23:30").to_pydatetime()
    steps = steps_until(window, window.end, share=0.5, since=since, timezone=zone)
    assert [f"{step.start:%m-%d}" for step in steps] == starts
    assert steps[-1].end == window.end


def test_a_fresh_challenger_learns_only_what_was_known_when_its_judgement_began(store, champion, tmp_path):
    """Labels known later may be poisoned at will: the same model comes out; an earlier one poisoned changes it."""
    frame, answers = orders(), {}
    known_until = pd.Timestamp("2024-02-07")  # judged from the 8th on, and a label takes a day
    changes = {
        "as it is": frame["order"] < 0,
        "later labels": frame["ordered_at"] >= known_until,
        "the last known day": (frame["ordered_at"] < known_until)
        & (frame["ordered_at"] >= known_until - pd.Timedelta(days=1)),
    }
    for name, chosen in changes.items():
        data = written(poisoned(frame, chosen), tmp_path, name.replace(" ", "-"))
        bundle, judged = fresh(store, champion, data)
        assert judged.start == pd.Timestamp("2024-02-08")
        assert bundle.trained.end == known_until
        answers[name] = bundle.predict(frame)
    assert np.array_equal(answers["as it is"], answers["later labels"])
    assert not np.allclose(answers["as it is"], answers["the last known day"])


def test_nobody_learns_from_a_window_that_came_broken(store, champion, tmp_path):
    """What stood in a window that was found broken changes no challenger, until it is scored again and found sound."""
    frame, week = orders(), Window.parse("2024-02-01/2024-02-08")
    inside = frame["ordered_at"].between(week.start, week.end, "left")
    tables = {
        name: written(poisoned(frame, chosen), tmp_path, name)
        for name, chosen in (("sound", inside & False), ("broken", inside))
    }
    params = params_of(tables["broken"])

    def answers():
        made = (fresh(store, champion, data)[0] for data in tables.values())
        return [bundle.predict(frame) for bundle in made]

    assert not np.allclose(*answers())
    store.save_profile(week, {}, run_id="score-1", version=2, clean=False)
    assert np.array_equal(*answers())
    (line,) = left_out(store, params, read_window(params))
    assert line.note.startswith("420 rows of 2024-02-01/2024-02-08 are left out")
    store.save_profile(week, {}, run_id="score-2", version=2, clean=True)
    assert not np.allclose(*answers())
    assert left_out(store, params, read_window(params)) == []


def test_a_window_that_repeated_itself_is_left_out_and_the_rest_is_learned_from(store, champion, tmp_path):
    """Ids that come twice are refused, unless all of them are of a window that was found broken for it."""
    frame, week = orders(), Window.parse("2024-02-01/2024-02-08")
    again = frame[frame["ordered_at"].between(week.start, week.end, "left")]
    data = written(pd.concat([frame, again]), tmp_path, "again")
    with pytest.raises(IdentityError, match=r"order must name one row each; found 4\d\d rows"):
        fresh(store, champion, data)
    store.save_profile(week, {}, run_id="score-1", version=2, clean=False)
    once = fresh(store, champion, written(frame, tmp_path))[0]
    assert np.array_equal(fresh(store, champion, data)[0].predict(frame), once.predict(frame))


def test_where_labels_are_late_rows_that_came_broken_judge_nobody(store, champion, orders_file):
    """The window is judged by the labels of an earlier one, but for those days of it that came broken."""
    params = params_of(orders_file, window="2024-02-15/2024-02-29", label_delay="9d")
    rows = read_window(params)
    days = [pd.Timestamp(2024, 2, day) for day in (6, 12, 15)]
    trials = counterfactuals(store, params, rows, champion=champion)
    assert trials.whole.rows["ordered_at"].min().floor("D") == days[0]
    store.save_profile(Window(days[0], days[1]), {}, run_id="score-1", version=2, clean=False)
    left = counterfactuals(store, params, rows, champion=champion).whole.rows["ordered_at"]
    assert left.min().floor("D") == days[1]


def test_a_window_that_came_broken_as_a_whole_teaches_nothing(store, orders_file):
    """If no other row is left the error says so."""
    params = params_of(orders_file)
    store.save_profile(params.window, {}, run_id="score-1", version=2, clean=False)
    with pytest.raises(WindowError, match="must hold rows whose input was sound; found 840 rows"):
        sound_rows(store, params, read_window(params))


def test_a_fresh_challenger_is_judged_on_rows_after_all_it_learned_from(store, champion, orders_file):
    """Between the last row that it learned from and the first that judges it lies the label delay."""
    params = params_of(orders_file)
    trials = counterfactuals(store, params, read_window(params), champion=champion)
    times = trials.retrained.rows["ordered_at"]
    assert set(trials.retrained.losses) == {"champion", "challenger", "predecessor", "baseline"}
    assert list(times) == list(trials.whole.rows["ordered_at"])
    assert times.max() < params.labels_until
    assert trials.missing == {}


def test_each_step_is_judged_by_the_challenger_of_its_time(store, champion, orders_file):
    """The second week is answered by a challenger that has learned from the first, and the first by an older one."""
    params = params_of(orders_file)
    trial = counterfactuals(store, params, read_window(params), champion=champion).retrained
    probes = probes_of(store, champion, params)
    for place, part in list(enumerate(probes.steps))[-2:]:
        inside = trial.rows["ordered_at"].between(part.start, part.end, "left").to_numpy()
        made = probes.at(place).bundle(champion, "all")
        assert made.trained.end == part.start - params.label_delay
        assert np.array_equal(trial.predicted["challenger"][inside], made.predict(trial.rows[inside]))


def test_nobody_is_judged_by_rows_that_he_has_seen(store, champion, orders_file):
    """Of a window that reaches back into a training, only the days after it judge."""
    params = params_of(orders_file, window="2024-01-20/2024-02-15")
    trials = counterfactuals(store, params, read_window(params), champion=champion)
    for bundle in (champion, load_version(store, 1)):
        assert trials.whole.rows["ordered_at"].min() >= bundle.trained.end
    assert set(trials.whole.losses) == {"champion", "predecessor", "baseline"}
    assert len(trials.whole.rows) < len(read_window(params)) * 0.8


def test_a_window_that_all_have_seen_gives_a_reason(store, champion, orders_file):
    """Rows of the training alone judge nobody: a reason, no crash, and the champion stays."""
    params = params_of(orders_file, window="2024-01-05/2024-01-19")
    trials = counterfactuals(store, params, read_window(params), champion=champion)
    assert (trials.whole, trials.retrained) == (None, None)
    assert "that no judged model has seen" in trials.missing["challenger"]
    assert served_figures(trials, sound=True) == {}


@pytest.mark.parametrize("given", [{"label_delay": "30d"}, {"as_of": "2024-02-02"}])
def test_a_window_without_labels_gives_a_reason(store, champion, orders_file, given):
    """Labels that are late, or not there yet, leave an inconclusive line with the day they will come."""
    params = params_of(orders_file, **given)
    trials = counterfactuals(store, params, read_window(params), champion=champion)
    assert (trials.whole, trials.retrained) == (None, None)
    assert "is known after" in trials.missing["labels"]
    evidence = performance_evidence(params, trials, look=1, since=champion.holdout.end)
    assert [(item.name, item.outcome) for item in evidence] == [("performance.labels", "inconclusive")]
    decision = judgement(evidence, champion=store.champion())
    assert decision.action == "keep"
    assert trials.scores().empty
    assert trials.daily_loss().empty


def test_a_step_without_labels_yet_leaves_the_others_to_judge(store, champion, orders_file):
    """If the newest step has no labels yet, those before it have."""
    params = params_of(orders_file, label_delay="2d", challenger_share=0.1)
    trials = counterfactuals(store, params, read_window(params), champion=champion)
    assert len(trials.retrained.rows) == len(trials.whole.rows)
    assert trials.retrained.rows["ordered_at"].max() < params.labels_until


@pytest.mark.parametrize("share", [0.0, -0.5, 1.5])
def test_a_share_that_judges_nobody_is_refused(orders_file, share):
    """Nothing, less than nothing and more than all of a window are no stretches."""
    with pytest.raises(ParameterError, match="challenger_share is wrong"):
        params_of(orders_file, challenger_share=share)


def test_without_a_predecessor_there_is_a_reason(tmp_path, orders_file):
    """The first champion has nobody to return to, and is judged by the others all the same."""
    with opened(stocked(tmp_path, promoted=[2])) as store:
        params, bundle = params_of(orders_file), load_version(store, 2)
        trials = counterfactuals(store, params, read_window(params), champion=bundle)
    assert trials.missing == {"predecessor": "there is no predecessor"}
    assert set(trials.whole.losses) == {"champion", "baseline"}


def test_a_broken_feed_trains_nobody(store, champion, orders_file, monkeypatch):
    """On broken input no model is built at all; what was served is told by the simple rule's figures."""

    def refuse(*_, **__):
        raise AssertionError("a model was trained on a broken feed")

    monkeypatch.setattr("prodkit.decisions.probes.fit_recipe", refuse)
    params = params_of(orders_file, drill={"price": "scaled"})
    rows = read_window(params)
    inspection = inspect_window(store, params, rows, version=2, bundle=champion)
    assert not inspection.sound
    trials = counterfactuals(store, params, rows, champion=champion, sound=inspection.sound)
    assert trials.retrained is None
    assert "must not learn from a broken feed" in trials.missing["challenger"]
    baseline = trials.whole.losses["baseline"].mean()
    assert served_figures(trials, sound=False)["log_loss"] == pytest.approx(baseline)
    evidence = [
        *inspection.evidence,
        *performance_evidence(params, trials, look=1, since=champion.holdout.end),
    ]
    assert judgement(evidence, champion=store.champion(), retrain_now=True).action == "hold"


def test_a_challenger_that_cannot_be_trained_is_a_reason(store, champion, orders_file, monkeypatch):
    """A model that refuses its rows leaves its words, and the other trials stand."""

    def fail(*_, **__):
        raise ModelError("model", rule="could not be fitted: no luck")

    monkeypatch.setattr("prodkit.decisions.probes.fit_recipe", fail)
    params = params_of(orders_file)
    trials = counterfactuals(store, params, read_window(params), champion=champion)
    assert trials.retrained is None
    assert "no luck" in trials.missing["challenger"]
    assert trials.whole is not None


def counted_fits(monkeypatch):
    """Every fit of a probe from now on."""
    fits, fit = [], probes_module.fit_recipe
    monkeypatch.setattr(probes_module, "fit_recipe", lambda *a, **k: fits.append(len(a[2])) or fit(*a, **k))
    return fits


def triangle_of(store, champion, data, **given):
    """What `rollback` knows of the age of models in this window."""
    params = params_of(data, **given)
    return counterfactuals(store, params, read_window(params), champion=champion).triangle


def test_the_triangle_grows_by_its_newest_steps_and_nothing_is_fitted_twice(
    store, champion, orders_file, monkeypatch
):
    """Asked again, nothing is fitted and all is as it was; the next window fits the models of its own two steps."""
    fits = counted_fits(monkeypatch)
    first = triangle_of(store, champion, orders_file)
    count = len(fits)
    assert count == 6  # of the weeks from January 4 on, and of both of the window
    again = triangle_of(store, champion, orders_file)
    later = triangle_of(store, champion, orders_file, window="2024-02-15/2024-02-29")
    assert len(fits) == count + 2
    known = len(first.rows)
    assert np.array_equal(first.losses["all"], again.losses["all"], equal_nan=True)
    settled = known - 1  # the last day of the window had no labels yet
    assert np.array_equal(
        first.losses["all"][:settled, :settled], later.losses["all"][:settled, :settled], equal_nan=True
    )
    assert later.rows[settled] > first.rows[settled]
    assert np.isfinite(later.losses["all"][-1, -1])
    assert np.isnan(later.losses["all"][-1, :-1]).all()


def test_labels_that_were_corrected_are_judged_anew_and_rows_on_hold_count_nowhere(store, champion, tmp_path):
    """A column whose labels changed is summed again by the models on record; that of a broken window has no rows."""
    frame, week = orders(), Window.parse("2024-02-01/2024-02-08")
    inside = frame["ordered_at"].between(week.start, week.end, "left")
    before = triangle_of(store, champion, written(frame, tmp_path))
    after = triangle_of(store, champion, written(poisoned(frame, inside), tmp_path, "corrected"))
    assert after.losses["all"][1, -2] > before.losses["all"][1, -2]
    assert after.losses["all"][1, 1] == before.losses["all"][1, 1]
    store.save_profile(week, {}, run_id="score-1", version=2, clean=False)
    assert triangle_of(store, champion, written(frame, tmp_path)).rows[-2] == 0


def test_a_model_that_cannot_be_copied_is_never_retrained(store, champion, orders_file, monkeypatch):
    """The reason is told, and the champion stays."""

    def fail(*_, **__):
        raise ModelError("model", rule="cannot be fitted again: no copies")

    monkeypatch.setattr(probes_module, "fit_recipe", fail)
    params = params_of(orders_file)
    trials = counterfactuals(store, params, read_window(params), champion=champion)
    found = economy_evidence(params, trials, champion=(2, champion), earlier={})
    training = next(item for item in found if item.name == "economy.training")
    assert training.outcome == "inconclusive"
    assert "no copies" in training.note
