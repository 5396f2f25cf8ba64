"""Simulated lives of a linear model whose world changes in a known way, refitted in closed form: seconds for hundreds.

``python tests/lives.py [LIVES]`` prints regret, trainings and harm of each policy in each kind of world. A life has ten
windows of two steps after a history of three; losses are squared errors, in units of what the simple rule loses.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

import prodkit

STEPS, FIRST, LOOK, ROWS, COLUMNS = 26, 6, 2, 300, 6
PRICE_SHARE = 0.02  # of what the simple rule loses in 28 days; a window has 30
RECIPES = ("all", "recent", "mean")


def _path(kind: str, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients (steps, columns) of the world, and whether the labels of a step (steps,) are wrong."""
    start = random.normal(0, 1, COLUMNS)
    start *= np.sqrt(1.0 / (start @ start))  # a signal of one, a noise of one: skill .5
    path, wrong = np.repeat(start[None], STEPS, axis=0), np.zeros(STEPS, dtype=bool)
    turn = random.normal(0, 1, COLUMNS)
    turn -= turn @ start * start
    turn /= np.sqrt(turn @ turn)
    at = FIRST + int(random.integers(3, 12))
    step = np.arange(STEPS)

    def turned(angle: np.ndarray) -> np.ndarray:
        return np.cos(angle)[:, None] * start + np.sin(angle)[:, None] * turn

    if kind == "small":
        path = turned(np.where(step >= at, 0.25, 0.0))
    elif kind == "abrupt":
        path = turned(np.where(step >= at, 1.2, 0.0))
    elif kind == "gradual":
        path = turned(1.4 * np.clip((step - at + 3) / 8, 0, 1))
    elif kind in ("walk", "slow walk"):
        size = 0.2 if kind == "walk" else 0.06
        path = start + np.cumsum(random.normal(0, size, (STEPS, COLUMNS)), axis=0) * (step >= 1)[:, None]
    elif kind == "recurring":
        path = turned(np.where((step - at) % 10 < 5, 0.0, 0.7) * (step >= at))
    elif kind == "season":
        path = turned(0.35 * np.sin(2 * np.pi * step / 13))
    elif kind == "brief":
        path = turned(np.where((step >= at) & (step < at + 2), 1.0, 0.0))
    elif kind == "mislabelled":
        wrong[at : at + 2] = True
    return path, wrong


KINDS = (
    "nothing",
    "small",
    "abrupt",
    "gradual",
    "slow walk",
    "walk",
    "recurring",
    "season",
    "brief",
    "mislabelled",
)


class Life:
    """One world: the losses of every recipe fitted at every step, on every step, as labelled and in truth."""

    def __init__(self, kind: str, seed: int) -> None:
        random = np.random.default_rng([seed, KINDS.index(kind)])
        path, wrong = _path(kind, random)
        inputs = random.normal(0, 1, (STEPS, ROWS, COLUMNS))
        truth = np.einsum("src,sc->sr", inputs, path) + random.normal(0, 1, (STEPS, ROWS))
        truth += random.normal(0, 0.15, (STEPS, 15)).repeat(ROWS // 15, axis=1)  # days resemble themselves
        labels = truth.copy()
        for at in np.flatnonzero(wrong):
            labels[at] = random.permutation(labels[at])
        self.unit = float(np.mean(truth[:FIRST] ** 2))  # what the simple rule (nought) loses a row
        gram = np.cumsum([x.T @ x for x in inputs], axis=0)
        moment = np.cumsum([x.T @ y for x, y in zip(inputs, labels, strict=True)], axis=0)
        ridge = np.eye(COLUMNS)
        shape = (STEPS, STEPS, ROWS)
        self.errors = {name: np.full(shape, np.nan) for name in RECIPES}
        self.seen = {name: np.full(shape, np.nan) for name in RECIPES}
        for j in range(1, STEPS + 1):
            old = max(j - FIRST, 0)
            every = np.linalg.solve(gram[j - 1] + ridge, moment[j - 1])
            newest = (
                every
                if not old
                else np.linalg.solve(gram[j - 1] - gram[old - 1] + ridge, moment[j - 1] - moment[old - 1])
            )
            for name, fit in zip(RECIPES, (every, newest, (every + newest) / 2), strict=True):
                for i in range(j, STEPS):
                    answer = inputs[i] @ fit
                    self.errors[name][j, i] = (truth[i] - answer) ** 2 / self.unit
                    self.seen[name][j, i] = (labels[i] - answer) ** 2 / self.unit
        self.true = {name: errors.sum(axis=2) for name, errors in self.errors.items()}
        self.labelled = {name: errors.sum(axis=2) for name, errors in self.seen.items()}

    def oracle(self, start: int, end: int) -> float:
        """The least that any model of its time loses on these steps."""
        return min(self.true[name][j, start:end].sum() for name in RECIPES for j in range(FIRST, start + 1))


@dataclass
class Outcome:
    """What a policy came to: regret and harm in windows of the simple rule's loss, and its trainings."""

    regret: float
    trainings: int
    harm: float


Model = tuple[str, int]  # recipe, and the step at which it was fitted


def _gap(life: Life, one: Model, other: Model, start: int, end: int) -> tuple[np.ndarray, np.ndarray]:
    """Row by row what one lost more than another on these steps, and the day of each row."""
    gaps = (life.seen[one[0]][one[1]] - life.seen[other[0]][other[1]])[start:end].ravel()
    return gaps, np.arange(len(gaps)) // (ROWS // 15)


def live(life: Life, decide: Callable[[Life, Model, int], str | None], *, gate: bool = True) -> Outcome:
    """Live through the ten windows; ``decide`` names the recipe to train at a moment, or None."""
    price = PRICE_SHARE * LOOK * ROWS * 28 / 30
    champion: Model = ("all", FIRST)
    predecessor, since = None, FIRST
    lost, trainings, harm, slope = 0.0, 0, 0.0, 0.0
    for now in range(FIRST, STEPS, LOOK):
        if now > FIRST:
            if gate and predecessor is not None:
                gaps, days = _gap(life, champion, predecessor, since, now)
                age = champion[1] - predecessor[1]
                if prodkit.chance_worse(gaps, blocks=days, expected=-slope * age) > 0.9:
                    champion, predecessor = predecessor, None
            if recipe := decide(life, champion, now):
                slope = _slope(life, now)
                trainings, judged = trainings + 1, (recipe, now - 1)
                gaps, days = _gap(life, judged, champion, now - 1, now)
                expected = -slope * (judged[1] - champion[1])
                worse = prodkit.chance_worse(gaps, blocks=days, expected=expected, tolerated=0.05)
                if not gate or worse < 0.5:
                    predecessor, champion, since = champion, (recipe, now), now
        loss = life.true[champion[0]][champion[1], now : now + LOOK].sum()
        lost += loss - life.oracle(now, now + LOOK)
        if predecessor is not None:
            harm += max(loss - life.true[predecessor[0]][predecessor[1], now : now + LOOK].sum(), 0.0)
    window = LOOK * ROWS
    return Outcome((lost + trainings * price) / window, trainings, harm / window / max(trainings, 1))


def _ask(life: Life, champion: Model, now: int) -> prodkit.Retraining:
    served = np.full(now, np.nan)
    served[champion[1] :] = life.labelled[champion[0]][champion[1], champion[1] : now]
    losses = {name: table[:now, :now] for name, table in life.labelled.items()}
    price = PRICE_SHARE * LOOK * ROWS * 28 / 30
    return prodkit.worth_retraining(
        losses, np.full(now, float(ROWS)), trained_at=champion[1], served=served, look=LOOK, price=price
    )


def _slope(life: Life, now: int) -> float:
    return _ask(life, ("all", FIRST), now).slope


def economy(life: Life, champion: Model, now: int) -> str | None:
    """The rule."""
    answer = _ask(life, champion, now)
    return answer.recipe if answer.retrain else None


def never(life: Life, champion: Model, now: int) -> str | None:
    """Keep the first model."""
    return None


def every(life: Life, champion: Model, now: int) -> str | None:
    """Train at each window's end on all rows."""
    return "all"


def mean(
    kind: str, policy: Callable[[Life, Model, int], str | None], *, lives: int = 20, gate: bool = True
) -> Outcome:
    """Over some lives of a kind."""
    outcomes = [live(Life(kind, seed), policy, gate=gate) for seed in range(lives)]
    parts = ("regret", "trainings", "harm")
    return Outcome(*(float(np.mean([getattr(each, part) for each in outcomes])) for part in parts))


if __name__ == "__main__":
    count = int(sys.argv[1]) if sys.argv[1:] else 20
    for kind in KINDS:
        cells = [
            mean(kind, policy, lives=count, gate=gate)
            for policy, gate in ((economy, True), (never, True), (every, False))
        ]
        print(f"{kind:12}", *(f"{c.regret:7.3f} {c.trainings:4.1f} {c.harm:6.3f}" for c in cells), sep=" | ")
