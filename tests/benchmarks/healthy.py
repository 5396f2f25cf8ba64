"""How often would prodkit act on a champion with which nothing is wrong? A simulation of many lives.

Champion, predecessor and fresh challenger are equally good, though each errs in its own way and leans its own way.
Days differ in their share of positives, as bad weather makes them do. A life is a year of windows, each judged
as `rollback` judges it, until something is done. Run `python tests/benchmarks/healthy.py [LIVES]` for the table.
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from unittest.mock import patch

import numpy as np
import pandas as pd

from prodkit.decisions.counterfactual import Counterfactuals
from prodkit.decisions.decide import judgement
from prodkit.decisions.gains import daily_gains
from prodkit.decisions.performance import performance_evidence
from prodkit.decisions.trial import Trial
from prodkit.evidence import Evidence, Window
from prodkit.params import RollbackParams
from prodkit.store.history import Champion

MODELS = ("champion", "predecessor", "challenger")
START = datetime(2024, 1, 1)
SOUND = Evidence("contract.columns", "pass", rung=1)


@dataclass(frozen=True)
class World:
    """What the days are like.

    Attributes:
        shock: standard deviation, in logits, of the share of positives from day to day.
        memory: correlation of that share with the day before; 0.4 on the flights, as is that of the daily gains.
        rows: a day.
        days: of a life.
        window: days of a window.
        step: days from one window to the next.
    """

    shock: float = 0.8
    memory: float = 0.0
    rows: int = 100
    days: int = 360
    window: int = 30
    step: int = 30


@dataclass(frozen=True)
class Life:
    """Mean loss (days,) and AUC within the day (days,) of each model."""

    losses: dict[str, np.ndarray]
    aucs: dict[str, np.ndarray]


def share(logit: np.ndarray) -> np.ndarray:
    """Probabilities of logits."""
    return 1 / (1 + np.exp(-logit))


def shocks(draw: np.random.Generator, world: World) -> np.ndarray:
    """What moves a whole day (days,), in logits: normal, and with a memory if the world has one."""
    fresh = draw.normal(size=world.days) * np.sqrt(1 - world.memory**2)
    moved = np.empty(world.days)
    last = draw.normal()
    for day in range(world.days):
        last = moved[day] = world.memory * last + fresh[day]
    return world.shock * moved


def lived(draw: np.random.Generator, world: World) -> Life:
    """A year of days, each answered by three models that are equally good."""
    shape = (world.days, world.rows)
    drive = draw.normal(0, 0.7, shape)
    truth = draw.random(shape) < share(-1.3 + drive + shocks(draw, world)[:, None])
    losses, aucs = {}, {}
    for name, lean in zip(MODELS, (0.1, -0.1, 0.0), strict=True):
        said = share(-1.2 + lean + 0.8 * drive + draw.normal(0, 0.15, shape))
        losses[name] = -np.where(truth, np.log(said), np.log(1 - said)).mean(axis=1)
        ranks = said.argsort(axis=1).argsort(axis=1) + 1
        hits = truth.sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):  # a day of one class has no AUC
            aucs[name] = ((ranks * truth).sum(axis=1) - hits * (hits + 1) / 2) / (hits * (world.rows - hits))
    return Life(losses, aucs)


def lives(count: int, world: World, *, seed: int = 0) -> list[Life]:
    """So many lives, in which the three lose exactly the same in the mean of all of them."""
    draws = np.random.default_rng(seed).spawn(count)
    found = [lived(draw, world) for draw in draws]
    means = {name: np.mean([life.losses[name] for life in found]) for name in MODELS}
    level = {name: means[name] - means["champion"] for name in MODELS}
    return [Life({name: life.losses[name] - level[name] for name in MODELS}, life.aucs) for life in found]


def trial_of(life: Life, days: np.ndarray, *names: str) -> Trial:
    """These days as a trial of one row a day; what is predicted is the day's AUC (see :func:`judged`)."""
    losses = pd.DataFrame({name: life.losses[name][days] for name in names})
    truth = np.arange(len(days)) % 2
    said = {name: life.aucs[name][days] for name in names}
    dates = (START - datetime(1970, 1, 1)).days + days
    return Trial(
        "binary", pd.DataFrame(index=range(len(days))), truth, said, dict.fromkeys(names, 0.0), losses, dates
    )


def judged(life: Life, world: World, *, cautious: bool = True) -> str:
    """The first action of a life, or ``keep``; without caution any gain above nought is worth it."""
    margins = {} if cautious else {"rollback_margin": 0.0, "ranking_margin": 0.0, "retrain_cost": 0.0}
    champion = Champion(version=2, predecessor=1, generation=2)
    earlier: dict[str, pd.Series[float]] = {}
    for start in range(0, world.days - world.window + 1, world.step):
        begin = START + timedelta(days=start)
        window = Window(begin, begin + timedelta(days=world.window))
        params = RollbackParams.check({"window": str(window), "min_rows": 1, **margins})
        days = np.arange(start, start + world.window)
        whole = trial_of(life, days, *MODELS[:2])
        fresh = trial_of(life, days, *MODELS)
        for trial in (whole, fresh):
            trial.losses["baseline"] = trial.losses["champion"] + 0.05
            trial.predicted["baseline"] = np.full(len(days), 0.5)
        trials = Counterfactuals(whole, fresh, {})
        look = 1 + start // world.window
        with patch(
            "prodkit.decisions.gains.daily_auc",
            lambda _, said, blocks: pd.Series(said, index=blocks).dropna(),
        ):
            past = {name: kept[kept.index < pd.Timestamp(begin)] for name, kept in earlier.items()}
            found = performance_evidence(params, trials, look=look, since=START, earlier=past)
            for name, gains in daily_gains(trials).items():
                kept = earlier.get(name)
                earlier[name] = gains if kept is None else kept.combine_first(gains)
        action = judgement([SOUND, *found], champion=champion).action
        if action in ("rollback", "retrain"):
            return action
    return "keep"


def actions(count: int, world: World, *, cautious: bool = True, seed: int = 0) -> Counter[str]:
    """How many of so many healthy lives ended in each way."""
    return Counter(judged(life, world, cautious=cautious) for life in lives(count, world, seed=seed))


WORLDS = {
    "calm days": World(shock=0.2),
    "days differ": World(),
    "days differ much": World(shock=1.5),
    "spells as on the flights": World(memory=0.4),
    "spells of 2 days": World(memory=0.5),
    "spells of 4 days": World(memory=0.75),
    "windows of a fortnight": World(window=14, step=14),
    "windows of 30 days, each week": World(step=7),
    "the same, spells of 4 days": World(step=7, memory=0.75),
}


def main() -> None:
    """Print the share of healthy lives in which something was done, with and without margins."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    print(f"{count} healthy lives each: share with a rollback or a retraining, in percent (95% interval)")
    print(f"{'world':32}{'margins at nought':>34}{'margins as by default':>34}")
    for name, world in WORLDS.items():
        cells = []
        for cautious in (False, True):
            found = actions(count, world, cautious=cautious)
            acted = count - found["keep"]
            half = 196 * np.sqrt((acted + 2) / (count + 4) * (1 - (acted + 2) / (count + 4)) / (count + 4))
            each = f"{found['rollback']} rolled, {found['retrain']} retrained"
            cells.append(f"{100 * acted / count:5.1f} +-{half:3.1f}  ({each})")
        print(f"{name:32}{cells[0]:>34}{cells[1]:>34}", flush=True)


if __name__ == "__main__":
    main()
