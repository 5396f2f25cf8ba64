"""A real year: what each policy of retraining would have made of the flights of 2013.

``python tests/benchmarks/year.py [--every week|month] [--label-delay 1d] [--verbose]``: the first quarter is learned
from, then each policy decides at the end of every week (or month) who serves the next one:

- never: the first champion stays; always: trained anew each time on all that is labelled, or on the newest 90 days;
- Evidently's alarm, prodkit's drift: trained anew, on all that is labelled, once the data has drifted since the
  training of the model in place;
- prodkit: the functions that `score`, `rollback`, `train` and `validate` call, on a store in memory, with the
  parameters of `params/`; by the week, `rollback` judges the last four weeks;
- best schedule: knows beforehand when a training on all rows pays for itself;
- oracle: knows the outcome, and takes of all models that any of them could have had the one that loses least.

Figures are summed over the labelled flights of the periods served. ``value`` is that of the decisions that a
probability leads to when a late flight that nobody was warned of costs 5 and a warning 1. A training costs what
``retrain_cost``, a share of what the simple rule loses, is in log-loss over the rows of a month.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
from stories import judged, scored
from story_rivals import evidently_share
from versions import trained

from prodkit.data.schema import Schema
from prodkit.data.windows import blocks, feature_columns, labelled, read_window
from prodkit.decisions.actions import carry_out
from prodkit.decisions.contest import budget_evidence, challenge, contest_evidence
from prodkit.decisions.decide import Decision, promotion, sentence
from prodkit.decisions.paired import difference
from prodkit.decisions.soundness import sound_rows
from prodkit.drift.compare import comparison
from prodkit.drift.counts import profile
from prodkit.drift.profiles import Profile
from prodkit.evidence import Window
from prodkit.models.bundle import Bundle
from prodkit.models.estimators import fit_model, predictions
from prodkit.models.metrics import row_losses, row_values
from prodkit.models.training import model_for
from prodkit.params import NOTEBOOKS, RollbackParams, ScoreParams, TrainParams, ValidateParams
from prodkit.settings import read_files
from prodkit.store.registry import Store
from prodkit.store.workspace import champion_of

PARAMS = Path(__file__).parents[2] / "params"
FIRST = Window.parse("2013-01-01/2013-04-01")
END = datetime(2014, 1, 1)
COSTS = {"False": {"leave": 0, "warn": -1}, "True": {"leave": -5, "warn": -1}}
RECENT = timedelta(days=90)
LOOK = timedelta(days=28)  # what `rollback` judges where decisions are weekly
MONTH_ROWS = 27_000
SIMPLE = 0.53  # log-loss of the simple rule, a row


def periods(every: str) -> list[Window]:
    """The weeks, or months, that are lived through; a rest of days belongs to the last."""
    if every == "month":
        starts = list(pd.date_range(FIRST.end, END, freq="MS").to_pydatetime())
    else:
        count = (END - FIRST.end) // timedelta(days=7)
        starts = [FIRST.end + timedelta(days=7 * week) for week in range(count)] + [END]
    return [Window(first, last) for first, last in pairwise(starts)]


@dataclass(frozen=True)
class Served:
    """Who served a period: a model of the year, by name, or the simple rule of its own."""

    name: str
    fallback: bool = False


@dataclass
class Policy:
    """What a policy came to.

    Attributes:
        served: one entry a period.
        trainings: how often it asked for a new model and got one.
        adopted: how many of these came to serve.
        log: what it did, and when.
    """

    served: list[Served] = field(default_factory=list)
    trainings: int = 0
    adopted: int = 0
    log: list[str] = field(default_factory=list)


_FITTED: dict[Any, Any] = {}


def fitted_once(model: Any, rows: pd.DataFrame, *, schema: Schema) -> Any:
    """:func:`fit_model`, whose results the policies share where model, columns and rows are the same."""
    times = rows["time"]
    key = repr(model), repr(schema), len(rows), times.iloc[0], times.iloc[-1]
    if key not in _FITTED:
        _FITTED[key] = fit_model(model, rows, schema=schema)
    return _FITTED[key]


class Year:
    """The flights, and every model that anybody has trained on them, each fitted once."""

    def __init__(self, every: str, given: dict[str, Any]) -> None:
        self.every, self.given, self.periods = every, given, periods(every)
        self.models: dict[str, tuple[datetime, Callable[[pd.DataFrame], np.ndarray]]] = {}
        self.bundles: dict[str, Bundle] = {}
        self._losses: dict[tuple[Served, int], tuple[np.ndarray, np.ndarray]] = {}

    def params(self, notebook: str, **given: Any) -> Any:
        """Checked parameters of a notebook: those of `params/`, then these."""
        files = [PARAMS / "flights.yaml", PARAMS / f"{notebook}.yaml"]
        facts = read_files(notebook, [path for path in files if path.is_file()])
        texts = {name: str(value) if isinstance(value, Window) else value for name, value in given.items()}
        return NOTEBOOKS[notebook].check({**facts, **self.given, "value": COSTS, **texts})

    @property
    def price(self) -> float:
        """What a training costs, in summed log-loss."""
        return float(self.params("train").retrain_cost * SIMPLE * MONTH_ROWS)

    @cached_property
    def rows(self) -> list[pd.DataFrame]:
        """The rows of each period with all the labels that ever came."""
        params = self.params("train", window=Window(FIRST.start, END), as_of="2014-06-01")
        frame = read_window(params)
        return [frame[frame["time"].between(p.start, p.end, "left")] for p in self.periods]

    @cached_property
    def known(self) -> list[pd.DataFrame]:
        """Of these, the rows that have a label."""
        params = self.params("train", window=Window(FIRST.start, END), as_of="2014-06-01")
        return [labelled(rows, params).reset_index(drop=True) for rows in self.rows]

    def fitted(self, now: datetime, *, recent: bool = False) -> str:
        """A model of all rows that were labelled at a moment, or of the newest ones; its name."""
        name = f"{'recent' if recent else 'all'} {now:%Y-%m-%d}"
        if name not in self.models:
            window = Window(now - RECENT if recent else FIRST.start, now)
            params = self.params("train", window=window)
            rows = labelled(read_window(params), params)
            features = feature_columns(rows, params)
            schema = Schema.infer(rows, features=features, target=params.target, task=params.task)
            model = fitted_once(model_for(params, params.model_args, schema=schema), rows, schema=schema)
            self.models[name] = now, lambda frame: predictions(model, frame, schema=schema)
        return name

    @lru_cache(maxsize=8)  # noqa: B019  (there is one year at a time)
    def learned(self, until: datetime) -> pd.DataFrame:
        """The rows that a model trained at a moment has learned from."""
        return read_window(self.params("train", window=Window(FIRST.start, until)))

    @lru_cache(maxsize=8)  # noqa: B019
    def profiled(self, until: datetime) -> tuple[Schema, Profile]:
        """Their summary."""
        rows, params = self.learned(until), self.params("drift")
        schema = Schema.infer(rows, features=params.features, target=params.target, task="binary")
        return schema, profile(rows, schema, blocks=blocks(rows["time"]))

    def registered(self, name: str, bundle: Bundle, since: datetime) -> str:
        """A version of prodkit's, as one of the models of the year."""
        self.models[name], self.bundles[name] = (since, bundle.predict), bundle
        return name

    def losses(self, served: Served, period: int) -> tuple[np.ndarray, np.ndarray]:
        """Log-loss and value of each labelled row of a period."""
        if (served, period) not in self._losses:
            rows = self.known[period]
            truth = rows["late"].astype(bool).to_numpy()
            if served.fallback:
                bundle = self.bundles[served.name]
                said = bundle.fallback.predict(rows, schema=bundle.schema)
            else:
                said = self.models[served.name][1](rows)
            loss = row_losses(truth.astype(int), said, task="binary")
            worth = row_values(truth.astype(int), said, costs=COSTS, classes=[False, True])
            self._losses[served, period] = loss, worth
        return self._losses[served, period]

    def oracle(self, *, by_value: bool = False) -> Policy:
        """Of all models that were there when a period began, the one that turned out best."""
        policy = Policy()
        for number, period in enumerate(self.periods):
            there = [Served(name) for name, (since, _) in self.models.items() if since <= period.start]
            policy.served.append(
                max(there, key=lambda who: self.losses(who, number)[1].sum())
                if by_value
                else min(there, key=lambda who: self.losses(who, number)[0].sum())
            )
        policy.trainings = policy.adopted = len({who.name for who in policy.served}) - 1
        return policy


def best_schedule(year: Year) -> Policy:
    """The moments of training on all rows that turn out best, each training paid: what any schedule can come to."""
    names = ["v1", *(year.fitted(period.start) for period in year.periods[1:])]
    last = len(names) - 1
    ahead: dict[tuple[int, int], tuple[float, list[int]]] = {
        (last + 1, model): (0.0, []) for model in range(last + 1)
    }
    for number in range(last, -1, -1):
        for model in range(number + 1):
            rest, path = ahead[number + 1, model]
            if number < last:
                anew = ahead[number + 1, number + 1][0] + year.price
                rest, path = min(
                    (rest, path), (anew, ahead[number + 1, number + 1][1]), key=lambda each: each[0]
                )
            loss = float(year.losses(Served(names[model]), number)[0].sum())
            ahead[number, model] = loss + rest, [model, *path]
    served = ahead[0, 0][1]
    trainings = len(set(served)) - 1
    return Policy([Served(names[model]) for model in served], trainings, trainings)


def always(year: Year, *, recent: bool = False) -> Policy:
    """A new model for each period but the first."""
    policy = Policy([Served("v1")])
    for period in year.periods[1:]:
        policy.served.append(Served(year.fitted(period.start, recent=recent)))
        policy.trainings += 1
    policy.adopted = policy.trainings
    return policy


def on_alarm(year: Year, alarm: Callable[[Year, datetime, pd.DataFrame], bool]) -> Policy:
    """A new model once the rows of a period have drifted from those that the model in place learned from."""
    policy, place, since = Policy(), Served("v1"), year.bundles["v1"].trained.end
    for number, period in enumerate(year.periods):
        policy.served.append(place)
        if period is not year.periods[-1] and alarm(year, since, year.rows[number]):
            place, since = Served(year.fitted(period.end)), period.end
            policy.trainings += 1
            policy.log.append(f"{period.end:%m-%d}")
    policy.adopted = policy.trainings
    return policy


def evidently(year: Year, since: datetime, current: pd.DataFrame) -> bool:
    """Half of the columns have drifted, by the default rule of its preset."""
    return evidently_share(year.learned(since), current, year.params("train").features) >= 0.5


def drifted(year: Year, since: datetime, current: pd.DataFrame) -> bool:
    """Any column has, as the notebook `drift` would say of its values, missing values and levels."""
    params, (schema, before) = year.params("drift"), year.profiled(since)
    now = profile(current, schema, blocks=blocks(current["time"]), like=before)
    table = comparison(before, now, alpha=params.alpha, min_effect=params.min_effect)
    return bool(table[["drifted", "missing_drifted", "unseen_drifted"]].any(axis=None))


def trained_version(year: Year, store: Store, window: Window) -> tuple[int, Window]:
    """What `train` leaves behind: a version, and the rows that are to judge it."""
    params: TrainParams = year.params("train", window=window)
    artifact, said = trained(params, sound_rows(store, params, read_window(params)))
    number = store.register(artifact, said, run_id=f"train {window}").number
    return number, Window.parse(said["holdout"])


def validated(year: Year, store: Store, number: int, holdout: Window, **gate: Any) -> Decision:
    """What `validate` decides about a version, and does."""
    # how fast one row is answered says more of what else this machine does than of the model
    given = {"window": holdout, "challenger": number, "latency_limit_ms": 10_000, **gate}
    params: ValidateParams = year.params("validate", **given)
    rivals = challenge(store, params)
    evidence = [*contest_evidence(params, rivals), *budget_evidence(store, params, rivals)]
    decision = promotion(evidence, challenger=rivals.number, generation=rivals.generation)
    carry_out(store, params, decision)
    return decision


def looked_at(year: Year, period: Window) -> Window:
    """The window that `rollback` judges when a period ends."""
    return period if year.every == "month" else Window(period.end - LOOK, period.end)


def prodkit(year: Year, *, asked: bool = False, **gate: Any) -> Policy:
    """What the notebooks would have done, from the first training on.

    Args:
        year: to live through.
        asked: whether a training is asked for each time (``retrain_now``), so that the gate alone decides.
        gate: parameters of `validate`.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        Store.open("sqlite://", f"memory://{uuid.uuid4().hex}") as store,
    ):
        return _lived_by_prodkit(year, store, folder, asked=asked, gate=gate)


def _lived_by_prodkit(year: Year, store: Store, folder: str, *, asked: bool, gate: dict[str, Any]) -> Policy:
    policy, kind = Policy(), f"{'asked ' if asked else ''}{gate.get('margin', '')}"
    first = validated(year, store, *trained_version(year, store, FIRST))
    assert first.action == "promote", first.reasons
    for period in year.periods:
        version, bundle = champion_of(store)
        name = f"v{version}" if version == 1 else f"{kind}v{version}"
        year.registered(name, bundle, year.models.get(name, (period.start,))[0])
        params: ScoreParams = year.params("score", window=period, predictions=folder, backend="threading")
        degraded = scored(store, params)[1].degraded_share > 0
        policy.served.append(Served(name, degraded))
        if period is year.periods[-1]:
            break
        look: RollbackParams = year.params("rollback", window=looked_at(year, period), retrain_now=asked)
        decision = judged(store, look, drift=False)
        said = decision.action
        if said == "retrain":
            policy.trainings += 1
            made = trained_version(year, store, Window(FIRST.start, period.end))
            outcome = validated(year, store, *made, **gate)
            policy.adopted += outcome.action == "promote"
            said += f", then {outcome.action}: {'; '.join(outcome.reasons[:2])}"
        shown = [each for each in decision.evidence if each.name in SHOWN and each.value is not None]
        policy.log.append(f"{period.end:%m-%d} v{version} {said}")
        policy.log += [f"      {each.name.split('.')[1]} {each.outcome}: {sentence(each)}" for each in shown]
    return policy


SHOWN = ("performance.challenger", "performance.challenger_ranking")


def lived(year: Year, margins: Sequence[float]) -> dict[str, Policy]:
    """Every policy; prodkit first, since its first version is everybody's."""
    ours = prodkit(year)
    never = Policy([Served("v1")] * len(year.periods))
    found = {
        "never": never,
        "always, all rows": always(year),
        "always, newest 90 days": always(year, recent=True),
        "Evidently's alarm": on_alarm(year, evidently),
        "prodkit's drift": on_alarm(year, drifted),
        "prodkit": ours,
    }
    for margin in margins:
        found[f"prodkit, asked, margin {margin:g}"] = prodkit(year, asked=True, margin=margin)
    found |= {"best schedule": best_schedule(year)}
    return found | {"oracle": year.oracle(), "oracle of value": year.oracle(by_value=True)}


def table(year: Year, policies: dict[str, Policy]) -> pd.DataFrame:
    """A row for each policy: what it lost, what it was worth, and what the oracle would have saved."""
    found = {}
    for name, policy in policies.items():
        loss, worth = (
            np.concatenate([year.losses(who, number)[which] for number, who in enumerate(policy.served)])
            for which in (0, 1)
        )
        found[name] = {
            "trainings": policy.trainings,
            "adopted": policy.adopted,
            "mean loss": loss.mean(),
            "loss": loss.sum(),
            "and trainings": loss.sum() + year.price * policy.trainings,
            "value": worth.sum(),
        }
    frame = pd.DataFrame.from_dict(found, orient="index")
    frame.insert(4, "regret", frame["loss"] - frame.loc["oracle", "loss"])
    frame["regret of value"] = frame.loc["oracle of value", "value"] - frame["value"]
    frame["regret, trainings paid"] = frame["regret"] + year.price * frame["trainings"]
    return frame


def compared(year: Year, policies: dict[str, Policy], who: str, other: str) -> str:
    """How much less one loses a row than another, with its interval over whole weeks."""
    pair = [
        np.concatenate(
            [year.losses(served, number)[0] for number, served in enumerate(policies[name].served)]
        )
        for name in (other, who)
    ]
    weeks = np.concatenate([blocks(rows["time"]) // 7 for rows in year.known])
    gain = difference(*pair, blocks=weeks)
    return f"{who} loses {gain.value:.4f} a row less than {other} ({gain.low:.4f} to {gain.high:.4f})"


def told(every: str, given: dict[str, Any], *, margins: Sequence[float], verbose: bool) -> None:
    """Live through the year, and print it."""
    began = time.perf_counter()
    year = Year(every, given)
    places = ("versions", "prodkit.decisions.counterfactual", "prodkit.models.training")
    with ExitStack() as stack:
        for place in places:
            stack.enter_context(patch(f"{place}.fit_model", fitted_once))
        policies = lived(year, margins)
    frame = table(year, policies)
    total = sum(map(len, year.known))
    print(f"\nby the {every}: {len(year.periods)} periods, {total:,} labelled flights")
    print(frame.round({name: 4 if name == "mean loss" else 0 for name in frame}).to_string())
    fixed = frame.loc[["never", "always, all rows", "always, newest 90 days"]]
    for name in ("regret", "regret, trainings paid", "regret of value"):
        best = fixed[name].idxmin()
        ratio = frame.loc["prodkit", name] / fixed.loc[best, name]
        print(f"{name}: prodkit's is {ratio:.2f} of that of the best fixed policy ({best})")
    for other in ("never", "always, all rows"):
        print(compared(year, policies, "prodkit", other))
    if verbose:
        by_period = {
            name: [year.losses(who, number)[0].mean() for number, who in enumerate(policy.served)]
            for name, policy in policies.items()
        }
        index = [f"{period.start:%m-%d}" for period in year.periods]
        print(pd.DataFrame(by_period, index=index).round(4).to_string())
        for name, policy in policies.items():
            print(f"\n{name}: {', '.join(who.name for who in policy.served)}")
            print("\n".join(f"  {line}" for line in policy.log))
    print(f"{time.perf_counter() - began:.0f} s")


def main() -> None:
    """Print the year by week and by month, or by one of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", choices=["week", "month"], action="append")
    parser.add_argument("--label-delay", default="")
    parser.add_argument(
        *("--margins", "-m"),
        nargs="*",
        type=float,
        default=[],
        help="prodkit, too, with a training asked for each time and this margin of `validate`",
    )
    parser.add_argument("--verbose", action="store_true", help="show what prodkit saw and did")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    given = {"label_delay": asked.label_delay} if asked.label_delay else {}
    for every in asked.every or ["week", "month"]:
        told(every, given, margins=asked.margins, verbose=asked.verbose)


if __name__ == "__main__":
    main()
