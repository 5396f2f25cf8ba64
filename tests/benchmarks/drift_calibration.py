"""How often a window without drift has any drift alarm, and how often drift is found: simulations with known answers.

A reference is followed by a window of the same process, in which nothing, or something of known size, has changed. An
alarm is one of any column: of values, of missing ones or of unseen levels. Beside it the plain rule that any p-value
of a two-sample KS or chi-square test below .05 is an alarm. Run `python tests/benchmarks/drift_calibration.py
[WINDOWS] [NAME]` for the tables, or for the rows of independent columns whose names hold NAME; the 95% interval of 5%
in 200 windows is 2.4% to 9%.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.signal import lfilter
from scipy.stats import chi2_contingency, ks_2samp

from prodkit.drift.compare import differences
from prodkit.drift.counts import Blocks, column_profile
from prodkit.drift.profiles import Profile

Draw = Callable[[np.random.Generator, int], np.ndarray]
Change = Callable[[np.random.Generator, np.ndarray], np.ndarray]
SIGNALS = ("drifted", "missing_drifted", "unseen_drifted")
ROWS_A_DAY = 50


def normal(rng: np.random.Generator, n: int) -> np.ndarray:
    """Independent values."""
    return rng.normal(size=n)


def autocorrelated(correlation: float) -> Draw:
    """An AR(1): values that each resemble the one before."""

    def draw(rng: np.random.Generator, n: int) -> np.ndarray:
        fresh = rng.normal(size=n + 500) * np.sqrt(1 - correlation**2)
        return np.asarray(lfilter([1], [1, -correlation], fresh))[500:]

    return draw


def levels(count: int, *, power: float = 1.0) -> Draw:
    """Levels whose frequencies fall as Zipf found in words; or faster, or not at all."""
    shares = 1 / np.arange(1, count + 1) ** power
    names = np.array([f"l{i}" for i in range(count)], dtype=object)
    return lambda rng, n: names[rng.choice(count, size=n, p=shares / shares.sum())]


def days(*, season: float = 0.0, correlation: float = 0.0, shock: float = 0.0) -> Draw:
    """Days of 50 rows, with a season of the week and with shocks to whole days that may be autocorrelated."""

    def draw(rng: np.random.Generator, n: int) -> np.ndarray:
        count = n // ROWS_A_DAY
        moved = shock * autocorrelated(correlation)(rng, count)
        moved = moved + season * np.sqrt(2) * np.sin(2 * np.pi * (np.arange(count) + rng.integers(7)) / 7)
        return rng.normal(size=n) + np.repeat(moved, ROWS_A_DAY)

    return draw


def blocks(n: int, *, by_day: bool) -> Blocks:
    """Days of 50 rows, or 128 stretches of consecutive rows."""
    return Blocks.stretches(0, n, length=ROWS_A_DAY if by_day else -(-n // 128))


def plain(reference: np.ndarray, current: np.ndarray) -> float:
    """P-value of the test that most tools run."""
    if reference.dtype != object:
        return float(ks_2samp(reference[:20_000], current[:20_000], method="asymp").pvalue)
    names = np.unique(np.concatenate([reference, current]))
    counts = [[(side == name).sum() for name in names] for side in (reference, current)]
    return float(chi2_contingency(counts).pvalue)


def judged(
    draw: Draw,
    seed: int,
    *,
    n: int,
    reference: int,
    columns: int,
    by_day: bool,
    change: Change | None,
    floor: float,
) -> tuple[bool, bool]:
    """Is there any alarm in one window, by prodkit and by the plain rule? The first column is the changed one."""
    rng = np.random.default_rng([seed, n, columns])
    sides: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    naive = False
    for name in map(str, range(columns)):
        values = draw(rng, reference + n)
        before, now = values[:reference], values[reference:]
        if change is not None and name == "0":
            now = change(rng, now)
        kind = "categorical" if values.dtype == object else "numeric"
        sides[0][name] = column_profile(before, blocks=blocks(reference, by_day=by_day), kind=kind)
        sides[1][name] = column_profile(now, blocks=blocks(n, by_day=by_day), like=sides[0][name])
        if columns <= 5 and (kind == "numeric" or len(sides[0][name].bins.levels) <= 20):
            naive = naive or plain(before, now[[x == x for x in now]] if kind == "numeric" else now) < 0.05
    rows = differences(Profile(reference, sides[0]), Profile(n, sides[1]), min_effect=floor)
    return any(row[signal] for row in rows for signal in SIGNALS), naive


def shares(count: int, draw: Draw, **given: Any) -> tuple[float, float]:
    """Share of windows with an alarm, in percent, by both rules."""
    settings: dict[str, Any] = {
        "reference": 10_000,
        "columns": 5,
        "by_day": False,
        "change": None,
        "floor": 0.1,
    }
    found = [judged(draw, seed, **settings | given) for seed in range(count)]
    ours, naive = np.mean(found, axis=0)
    return 100 * float(ours), 100 * float(naive)


def shifted(by: float) -> Change:
    """All values moved by so many standard deviations."""
    return lambda rng, values: values + by


def emptied(share: float) -> Change:
    """So many values missing."""
    return lambda rng, values: np.where(rng.random(len(values)) < share, np.nan, values)


def swapped(rng: np.random.Generator, values: np.ndarray) -> np.ndarray:
    """The two most frequent levels exchanged."""
    return np.where(values == "l0", "l1", np.where(values == "l1", "l0", values)).astype(object)


def false_alarms(count: int, only: str = "") -> None:
    """The table without drift, or those of its first rows whose names hold this."""
    print(f"no drift: windows with any alarm of 5 columns, in percent of {count}; in brackets any p < .05")
    sizes = (50, 200, 1000, 10_000)
    print(f"{'reference of 10,000 rows, window of':34}" + "".join(f"{n:>16,}" for n in sizes))
    worlds: dict[str, Draw] = {"independent": normal}
    worlds |= {f"{k} levels": levels(k) for k in (2, 20, 100, 1000)}
    worlds |= {f"{k} equally frequent levels": levels(k, power=0) for k in (5, 20, 100)}
    worlds |= {f"AR(1) of {correlation}": autocorrelated(correlation) for correlation in (0.5, 0.8, 0.95)}
    for name, draw in worlds.items():
        if only not in name:
            continue
        cells = []
        for n in sizes:
            ours, naive = shares(count, draw, n=n)
            known = "" if name in ("100 levels", "1000 levels") else f" ({naive:.0f})"
            cells.append(f"{ours:.1f}{known}")
        print(f"{name:34}" + "".join(f"{cell:>16}" for cell in cells), flush=True)
    if only:
        return
    print(f"{'days of 50 rows, window of':34}" + "".join(f"{n:>13} d." for n in (1, 2, 7, 30)))
    for name, draw, length in (
        ("60 days, season of the week", days(season=0.5), 60),
        ("60 days, season and shocks", days(season=0.5, shock=0.3), 60),
        ("60 days, shocks of AR(1) .5", days(shock=0.5, correlation=0.5), 60),
        ("60 days, shocks of AR(1) .8", days(shock=0.5, correlation=0.8), 60),
        ("180 days, shocks of AR(1) .8", days(shock=0.5, correlation=0.8), 180),
        ("180 days, shocks of AR(1) .95", days(shock=0.5, correlation=0.95), 180),
    ):
        given = [
            {"n": n * ROWS_A_DAY, "reference": length * ROWS_A_DAY, "by_day": True} for n in (1, 2, 7, 30)
        ]
        cells = ["{:.1f} ({:.0f})".format(*shares(count, draw, **each)) for each in given]
        print(f"{name:34}" + "".join(f"{cell:>16}" for cell in cells), flush=True)
    few = max(10, count // 10)
    for columns, n in ((1, 1000), (20, 1000), (200, 200)):
        ours, _ = shares(few if columns > 20 else count, normal, n=n, columns=columns)
        print(f"{columns:4} independent columns, n = {n:,}: {ours:.1f}")
    ours, _ = shares(max(5, count // 20), normal, n=10**6, reference=10**6, columns=1)
    print(f"   1 independent column of 1,000,000 rows against 1,000,000: {ours:.1f}", flush=True)


def power(count: int) -> None:
    """The table with drift."""
    print(
        f"\ndrift of one column alone: windows with an alarm, in percent of {count}; in brackets any p < .05"
    )
    sizes = (50, 200, 1000, 10_000)
    print(f"{'window of':34}" + "".join(f"{n:>16,}" for n in sizes))
    changes: list[tuple[str, Draw, Change, float]] = [
        *((f"shift of {by} sd, min_effect .1", normal, shifted(by), 0.1) for by in (0.1, 0.2, 0.5)),
        *((f"shift of {by} sd, min_effect .03", normal, shifted(by), 0.03) for by in (0.1, 0.2, 0.5)),
        ("shift of 0.5 sd, AR(1) .8", autocorrelated(0.8), shifted(0.5), 0.1),
        ("two levels of 20 swapped", levels(20), swapped, 0.1),
        ("5% missing, none before", normal, emptied(0.05), 0.1),
        ("20% missing, none before", normal, emptied(0.2), 0.1),
    ]
    for name, draw, change, floor in changes:
        found = [shares(count, draw, n=n, columns=1, change=change, floor=floor) for n in sizes]
        known = [("" if "missing" in name else f" ({naive:.0f})") for _, naive in found]
        print(
            f"{name:34}" + "".join(f"{f'{x:.0f}{y}':>16}" for (x, _), y in zip(found, known, strict=True)),
            flush=True,
        )


def main() -> None:
    """Print both tables."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    only = sys.argv[2] if len(sys.argv) > 2 else ""
    false_alarms(count, only)
    if not only:
        power(max(20, count // 2))


if __name__ == "__main__":
    main()
