"""How often chance acts in a year, and how soon a worse ranking is caught: ``python tests/benchmarks/lifetime.py``.

Lives are simulated at the level of what a day leaves: for each of the four comparisons that can act, the daily
gain of the other model. Gains are normal, with an assumed spread from day to day (the false rate hardly depends
on it, the delay does, so delays are given for three); the rule is that of
:func:`prodkit.decisions.performance.performance_evidence`, written for all lives at once: the intervals are checked
against :func:`prodkit.decisions.paired.always_valid`, and that the other model must be ahead in the newest window, too,
is left out, which only adds false actions.
"""

from __future__ import annotations

import sys
import time

import numpy as np
from numpy.typing import NDArray

from prodkit.decisions.paired import always_valid
from prodkit.decisions.performance import _EVERY, _FEW, _HORIZON
from prodkit.models.metrics import MOST, PRIOR_BLOCKS, USUAL

Floats = NDArray[np.float64]

SEED, LIVES, DAYS, LENGTH = 20_130_101, 2_000, 365, 30
PRIOR = {"usual": USUAL, "weight": float(PRIOR_BLOCKS)}  # of how much days resemble each other
TRAINED, TRUSTED = 60, 40.0  # days of training, from which it may be known, and for how many that counts
MEMORIES = (0.0, 0.4, 0.75)  # correlation of a day's gain with that of the day before
CONFIDENCE = 0.975  # a quarter of the allowed error to the lower end of each of the four
MARGINS = {"predecessor": 0.010, "ranking": 0.010, "challenger": 0.020, "challenger ranking": 0.010}
SPREADS = {
    "predecessor": 0.060,
    "ranking": 0.030,
    "challenger": 0.060,
    "challenger ranking": 0.030,
}  # of a day's gain
LOOKS = ("each day", "each month")
MIN_DAYS = 7


class Gains:
    """Daily gains of many lives (lives, days), from whose sums each stretch of days is summed up at once."""

    def __init__(self, gains: Floats) -> None:
        self.gains = gains
        start = np.zeros((len(gains), 1))
        steps = np.hstack([start, gains[:, 1:] * gains[:, :-1]])
        self.sums, self.squares, self.steps = (
            np.hstack([start, part.cumsum(axis=1)]) for part in (gains, gains**2, steps)
        )

    def memory(self, begin: int, end: int) -> Floats:
        """How much a day resembles the one before (lives,): :func:`prodkit.models.metrics.autocorrelation`."""
        days, first, last = end - begin, self.gains[:, begin], self.gains[:, end - 1]
        total, squares = (part[:, end] - part[:, begin] for part in (self.sums, self.squares))
        products, mean = self.steps[:, end] - self.steps[:, begin + 1], total / days
        spread = np.maximum(squares - total * mean, 1e-300)
        seen = (products - mean * (2 * total - first - last) + (days - 1) * mean**2) / spread
        found = seen + (1 + 3 * np.maximum(seen, 0)) / days
        return np.clip((days * found + PRIOR["weight"] * PRIOR["usual"]) / (days + PRIOR["weight"]), 0, MOST)

    def lower(self, begin: int, end: int, *, look: int, horizon: int, phi: Floats) -> Floats:
        """Lower end (lives,) of the always-valid interval of the mean of the days from begin to end.

        Args:
            begin: first day.
            end: the day after the last.
            look: number of the window.
            horizon: where the interval is tightest, days.
            phi: how much a day resembles the one before (lives,).
        """
        days, first, last = end - begin, self.gains[:, begin], self.gains[:, end - 1]
        total, squares = (part[:, end] - part[:, begin] for part in (self.sums, self.squares))
        products = self.steps[:, end] - self.steps[:, begin + 1]
        mean = total / days
        fresh = (total - first) - phi * (total - last)
        fresh_squares = (squares - first**2) - 2 * phi * products + phi**2 * (squares - last**2)
        low = lower(
            fresh / (1 - phi),
            fresh_squares / (1 - phi) ** 2,
            np.float64(days - 1),
            look=look,
            horizon=horizon,
        )
        return np.minimum(low, mean)


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


def first_day(gains: Floats, *, limit: float, looks: str, since: int = 0) -> Floats:
    """Day on which each life first sees a reason to act, infinity if it never does.

    Args:
        gains: (lives, days) of the other model over the champion.
        limit: that the lower end must exceed.
        looks: ``each day``, or ``each month``, at its end.
        since: day before which nobody looks.
    """
    found, lives = np.full(len(gains), np.inf), Gains(gains)
    known = {
        begin: lives.memory(0, begin) for begin in range(_EVERY, gains.shape[1], _EVERY) if begin >= _FEW
    }
    for day in range(max(MIN_DAYS, since), gains.shape[1] + 1):
        if looks == "each month" and day % LENGTH:
            continue
        for number, begin in enumerate(range(0, day - MIN_DAYS + 1, _EVERY), 1):
            phi = known.get(begin)
            low = lives.lower(
                begin,
                day,
                look=number,
                horizon=_HORIZON,
                phi=lives.memory(begin, day) if phi is None else phi,
            )
            found[(low > limit) & np.isinf(found)] = day
    return found


def resembling(random: np.random.Generator, memory: float) -> Floats:
    """Days (lives, days) of unit spread, of which each resembles the one before by ``memory``."""
    days = random.normal(0, 1, (LIVES, DAYS))
    for day in range(1, DAYS):
        days[:, day] = memory * days[:, day - 1] + np.sqrt(1 - memory**2) * days[:, day]
    return days


def check() -> None:
    """The formula for all lives is that of the package."""
    random = np.random.default_rng(SEED)
    for look, horizon, days in ((1, 14, 9), (5, 14, 30), (1, 45, 200)):
        gains = random.normal(0.01, 0.03, days)
        known = always_valid(
            gains, np.zeros(days), blocks=np.arange(days), confidence=CONFIDENCE, look=look, horizon=horizon
        )
        here = Gains(gains[None, :]).lower(
            0, days, look=look, horizon=horizon, phi=Gains(gains[None, :]).memory(0, days)
        )
        np.testing.assert_allclose(here[0], known.low)


def false_actions(memory: float, *, looks: str, margins: bool) -> dict[str, float]:
    """Share of lives between models of equal worth that see a reason to act within a year, by comparison.

    Args:
        memory: how much a day resembles the one before.
        looks: as in :func:`first_day`.
        margins: gains are truly nil and must exceed the margins; else they must exceed nil, the hardest case.
    """
    random = np.random.default_rng([SEED, margins])
    anything, shares = np.zeros(LIVES, dtype=bool), {}
    for name, spread in SPREADS.items():
        gains = spread * resembling(random, memory)
        acted = np.isfinite(first_day(gains, limit=MARGINS[name] if margins else 0.0, looks=looks))
        shares[name] = float(acted.mean())
        anything |= acted
    return {**shares, "any": float(anything.mean())}


def delays(drop: float, spread: float, memory: float, *, after: int = 0) -> tuple[float, float]:
    """Median days until a ranking that is worse by ``drop`` in AUC is caught, and the share caught in a year.

    It gets worse ``after`` so many good days; the days are counted from then on.
    """
    random = np.random.default_rng([SEED, round(1_000 * drop), round(1_000 * spread)])
    gains = np.where(np.arange(DAYS) < after, 0.0, drop) + spread * resembling(random, memory)
    days = first_day(gains, limit=MARGINS["ranking"], looks="each day", since=after) - after
    return float(np.quantile(days, 0.5, method="inverted_cdf")), float(np.isfinite(days).mean())


def known(memory: float) -> None:
    """Let training have seen how much days resemble each other."""
    usual = (TRAINED * memory + PRIOR_BLOCKS * USUAL) / (TRAINED + PRIOR_BLOCKS)
    PRIOR.update(usual=usual, weight=TRUSTED)


def main() -> None:
    """Print both tables; with ``--known`` as if training had seen how much days resemble each other."""
    began = time.perf_counter()
    check()
    print(f"{LIVES:,} lives of {DAYS} days, windows of {LENGTH} days, seed {SEED}\n")
    columns = [*MARGINS, "any"]
    print("share of lives with a false reason to act")
    print(f"{'memory':8}{'looks':11}{'gain must exceed':>18}" + "".join(f"{name:>20}" for name in columns))
    for memory in MEMORIES:
        if "--known" in sys.argv:
            known(memory)
        for looks in LOOKS:
            for margins in (False, True):
                shares = false_actions(memory, looks=looks, margins=margins)
                limit = "its margin" if margins else "nil"
                print(
                    f"{memory:<8}{looks:11}{limit:>18}" + "".join(f"{shares[name]:20.4f}" for name in columns)
                )
    spreads = (0.015, 0.030, 0.060)
    for after in (0, 120):
        when = f"gets worse after {after} days" if after else "is worse from the first day on"
        print(
            f"\nmedian days until a ranking is caught that {when}, looking each day (share caught in the year)"
        )
        print(f"{'memory':8}{'drop in AUC':12}" + "".join(f"{f'day-to-day {each}':>24}" for each in spreads))
        for memory in MEMORIES:
            if "--known" in sys.argv:
                known(memory)
            for drop in (0.02, 0.05, 0.1):
                found = [delays(drop, spread, memory, after=after) for spread in spreads]
                texts = [
                    f"{days:.0f} ({share:.1%})" if np.isfinite(days) else f"never ({share:.1%})"
                    for days, share in found
                ]
                print(f"{memory:<8}{drop:<12}" + "".join(f"{text:>24}" for text in texts))
    print(f"\n{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
