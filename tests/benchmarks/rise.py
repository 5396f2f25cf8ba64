"""How often a year of daily looks takes a healthy model for a worse one, and how soon it sees one that is worse.

``python tests/benchmarks/rise.py [LIVES]``: daily mean losses are simulated as AR(1) around .6 with a spread of .12,
much as on the flights; 45 of them are the reference, with the interval that training gives it (Student's t over
days); then :func:`prodkit.decisions.sequential.loss_rise` looks after each of 365 days. Its rule is used as it stands.
"""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
from scipy import stats

from prodkit.decisions.sequential import MIN_DAYS, rise_path
from prodkit.evidence import Estimate

SEED, LIVES, DAYS, BEFORE = 20_130_101, 200, 365, 45
LEVEL, SPREAD, ROWS, MARGIN = 0.6, 0.12, 900, 0.02

Floats = np.ndarray


def resembling(phi: float, count: int, random: np.random.Generator) -> Floats:
    """Days that follow AR(1), whose spread is the same whatever phi is."""
    found, noise = np.empty(count), random.normal(0, SPREAD, count)
    found[0] = noise[0]
    for day in range(1, count):
        found[day] = phi * found[day - 1] + np.sqrt(1 - phi**2) * noise[day]
    return found


def reference(losses: Floats) -> Estimate:
    """What training says of its days."""
    half = stats.t.ppf(0.975, len(losses) - 1) * losses.std(ddof=1) / np.sqrt(len(losses))
    mean = float(losses.mean())
    return Estimate(mean, mean - half, mean + half, len(losses), len(losses))


def first_alarm(phi: float, random: np.random.Generator, *, rise: float, margin: float) -> float:
    """The day on which a life sees its first alarm, infinity if it never does."""
    losses = LEVEL + resembling(phi, BEFORE + DAYS, random)
    limit = reference(losses[:BEFORE]).high + margin
    path = rise_path(pd.DataFrame({"loss": losses[BEFORE:] + rise, "n": float(ROWS)}))
    alarms = np.flatnonzero((path["low"] > limit).to_numpy())
    return float(alarms[0] + MIN_DAYS) if len(alarms) else np.inf


def main(lives: int) -> None:
    """Print both tables."""
    print(
        f"a healthy model, {lives} lives of {DAYS} daily looks: share that ever sees an alarm (declared: 5%)"
    )
    print("resemblance of neighbouring days |  no margin  margin .02")
    for phi in (0.0, 0.4, 0.75, 0.9):
        random = np.random.default_rng(SEED)
        shares = [
            np.mean([np.isfinite(first_alarm(phi, random, rise=0.0, margin=margin)) for _ in range(lives)])
            for margin in (0.0, MARGIN)
        ]
        print(f"{phi:32} |" + "".join(f"{share:11.1%}" for share in shares))
    print(
        f"\na model that is worse from its first day, margin {MARGIN}: days until the alarm, and share that sees one"
    )
    print("rise of the mean loss | days (independent)  caught | days (resemblance .4)  caught")
    for rise in (0.05, 0.1, 0.2):
        cells = []
        for phi in (0.0, 0.4):
            random = np.random.default_rng(SEED)
            days = [first_alarm(phi, random, rise=rise, margin=MARGIN) for _ in range(lives // 2)]
            cells.append(f"{np.median(days):19.0f} {np.isfinite(days).mean():7.0%}")
        print(f"{rise:21} |" + " |".join(cells))


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else LIVES)
