"""How often chance acts in a year, and how soon a worse ranking is caught: ``python tests/benchmarks/lifetime.py``.

Lives are simulated at the level of what a day leaves: for each of the four comparisons that can act, the daily
gain of the other model. Gains are normal, with an assumed spread from day to day (the false rate hardly depends
on it, the delay does, so delays are given for three); the intervals are those of
:func:`prodkit.decisions.paired.always_valid`, written for all lives at once and checked against it.

"Each day" looks at a window that grows day by day until the next begins; "sliding" looks each day at the last
thirty days, which is not what the interval was made for.
"""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from prodkit.decisions.paired import always_valid

Floats = NDArray[np.float64]

SEED, LIVES, DAYS, LENGTH = 20_130_101, 4_000, 365, 30
CONFIDENCE = 0.975  # half of the allowed error to either way to act
HORIZONS = {"predecessor": 14, "ranking": 14, "challenger": 14, "since": 45}
MARGINS = {"predecessor": 0.005, "ranking": 0.010, "challenger": 0.005, "since": 0.005}
SPREADS = {"predecessor": 0.030, "ranking": 0.030, "challenger": 0.030, "since": 0.030}  # of a day's gain
MIN_DAYS = 7


def lower(sums: Floats, squares: Floats, count: np.float64, *, look: int, horizon: int) -> Floats:
    """Lower end of the always-valid interval of a mean of daily gains, from their sums.

    Args:
        sums: of the gains so far.
        squares: of their squares.
        count: of their days, two or more.
        look: number of the window.
        horizon: where the interval is tightest, days.
    """
    alpha = (1 - CONFIDENCE) / (look * (look + 1))
    prior = horizon / (1 - 2 * np.log(alpha) + np.log(-2 * np.log(alpha)))
    ratio = np.exp((np.log((count + prior) / prior) - 2 * np.log(alpha)) / count)
    scale = (ratio - 1) * (count + prior)
    curve = (ratio * count - scale) * count
    rest = np.maximum(squares - sums**2 / count, 0)
    half = np.sqrt(np.maximum(curve, 0) * scale * rest) / np.where(curve > 0, curve, 1)
    return np.where(curve > 0, sums / count - half, -np.inf)


def first_day(gains: Floats, *, limit: float, horizon: int, looks: str, whole_life: bool = False) -> Floats:
    """Day on which each life first sees a reason to act, infinity if it never does.

    Args:
        gains: (lives, days) of the other model over the champion.
        limit: that the lower end must exceed.
        horizon: of the interval, days.
        looks: ``each day``, ``12 windows`` (at the end of each) or ``sliding``.
        whole_life: one interval over all days, not one for each window.
    """
    found = np.full(len(gains), np.inf)
    start = np.zeros((len(gains), 1))
    sums, squares = (np.hstack([start, part.cumsum(axis=1)]) for part in (gains, gains**2))
    for day in range(MIN_DAYS, gains.shape[1] + 1):
        begin = 0 if whole_life else day - LENGTH if looks == "sliding" else (day - 1) // LENGTH * LENGTH
        if begin < 0 or day - begin < MIN_DAYS or (looks == "12 windows" and day % LENGTH):
            continue
        look = 1 if whole_life else 1 + begin // LENGTH
        parts = (total[:, day] - total[:, begin] for total in (sums, squares))
        low = lower(*parts, np.float64(day - begin), look=look, horizon=horizon)
        found[(low > limit) & np.isinf(found)] = day
    return found


def check() -> None:
    """The formula for all lives is that of the package."""
    random = np.random.default_rng(SEED)
    for look, horizon, days in ((1, 14, 9), (5, 14, 30), (1, 45, 200)):
        gains = random.normal(0.01, 0.03, days)
        known = always_valid(
            gains, np.zeros(days), blocks=np.arange(days), confidence=CONFIDENCE, look=look, horizon=horizon
        )
        here = lower(gains.sum(), (gains**2).sum(), np.float64(days), look=look, horizon=horizon)
        np.testing.assert_allclose(here, known.low)


def false_actions(*, looks: str, margins: bool) -> dict[str, float]:
    """Share of lives between models of equal worth that see a reason to act within a year, by comparison.

    Args:
        looks: as in :func:`first_day`.
        margins: gains are truly nil and must exceed the margins; else they must exceed nil, the hardest case.
    """
    random = np.random.default_rng([SEED, margins])
    anything, shares = np.zeros(LIVES, dtype=bool), {}
    shared = random.normal(0, 1, (LIVES, DAYS))
    for name, horizon in HORIZONS.items():
        # a window's challenger also counts in the comparison since the promotion: the same gains, looked at twice
        alone = shared if name in ("challenger", "since") else random.normal(0, 1, (LIVES, DAYS))
        acted = np.isfinite(
            first_day(
                SPREADS[name] * alone,
                limit=MARGINS[name] if margins else 0.0,
                horizon=horizon,
                looks=looks,
                whole_life=name == "since",
            )
        )
        shares[name] = float(acted.mean())
        anything |= acted
    return {**shares, "any": float(anything.mean())}


def delays(drop: float, spread: float) -> tuple[float, float]:
    """Median days until a ranking that is worse by ``drop`` in AUC is caught, and the share caught in a year."""
    random = np.random.default_rng([SEED, round(1_000 * drop), round(1_000 * spread)])
    gains = drop + random.normal(0, spread, (LIVES, DAYS))
    days = first_day(gains, limit=MARGINS["ranking"], horizon=14, looks="each day")
    return float(np.quantile(days, 0.5, method="inverted_cdf")), float(np.isfinite(days).mean())


def main() -> None:
    """Print both tables."""
    began = time.perf_counter()
    check()
    print(f"{LIVES:,} lives of {DAYS} days, windows of {LENGTH} days, seed {SEED}\n")
    columns = [*HORIZONS, "any"]
    print("share of lives with a false reason to act")
    print(f"{'looks':10}{'gain must exceed':>18}" + "".join(f"{name:>13}" for name in columns))
    for looks in ("each day", "12 windows", "sliding"):
        for margins in (False, True):
            shares = false_actions(looks=looks, margins=margins)
            limit = "its margin" if margins else "nil"
            print(f"{looks:10}{limit:>18}" + "".join(f"{shares[name]:13.4f}" for name in columns))
    print("\nmedian days until a worse ranking is caught, looking each day (share caught within the year)")
    spreads = (0.015, 0.030, 0.060)
    print(f"{'drop in AUC':12}" + "".join(f"{f'day-to-day {spread}':>24}" for spread in spreads))
    for drop in (0.02, 0.05, 0.1):
        found = [delays(drop, spread) for spread in spreads]
        texts = [
            f"{days:.0f} ({share:.1%})" if np.isfinite(days) else f"never ({share:.1%})"
            for days, share in found
        ]
        print(f"{drop:<12}" + "".join(f"{text:>24}" for text in texts))
    print(f"\n{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
