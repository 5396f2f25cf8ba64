"""How often the data contract holds a window without change, and how often one with a break: known answers.

``python tests/benchmarks/contract_calibration.py [WINDOWS]`` prints both tables. A quarter is followed by a
month of the same law, on columns of a dozen shapes in turn; in the second table one column is broken.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable

import numpy as np

from prodkit.drift.contract import breaks
from prodkit.drift.counts import column_profile
from prodkit.drift.profiles import Profile

Draw = Callable[[np.random.Generator, np.ndarray], np.ndarray]
QUARTER, MONTH, FORTNIGHT = 90, 30, 14


def names(codes: np.ndarray, prefix: str = "l") -> np.ndarray:
    """Levels (n,) of these codes."""
    return np.array([f"{prefix}{code}" for code in codes], dtype=object)


def some(values: np.ndarray, gone: np.ndarray) -> np.ndarray:
    """Values (n,), missing where they are gone (n,)."""
    return np.where(gone, np.nan, values)


def daily(seed: int, days: np.ndarray, *, season: float = 0.0) -> np.ndarray:
    """A level of each day (n,), alike for rows of a day, with a season of half a year."""
    table = np.random.default_rng(seed).normal(size=400)
    return table[days] + season * np.sin(days / 30)


SHAPES: dict[str, Draw] = {
    "normal": lambda rng, day: rng.normal(50, 10, len(day)),
    "heavy tail": lambda rng, day: np.round(np.exp(rng.normal(5, 1.3, len(day))), 2),
    "Pareto": lambda rng, day: 100 * rng.pareto(1.2, len(day)),
    "amounts, mostly 0": lambda rng, day: np.exp(rng.normal(3, 1, len(day))) * (rng.random(len(day)) < 0.3),
    "counts": lambda rng, day: rng.poisson(3, len(day)).astype(float),
    "rating": lambda rng, day: rng.choice(np.arange(1.0, 6.0), len(day), p=[0.05, 0.05, 0.2, 0.4, 0.3]),
    "weather": lambda rng, day: 15 + 4 * daily(1, day) + rng.normal(0, 2, len(day)),
    "weather of a day": lambda rng, day: np.round(15 + 4 * daily(2, day), 1),
    "a tenth missing": lambda rng, day: some(rng.normal(size=len(day)), rng.random(len(day)) < 0.1),
    "outages": lambda rng, day: some(rng.normal(size=len(day)), daily(3, day) > 1.5),
    "four levels": lambda rng, day: names(rng.choice(4, len(day), p=[0.6, 0.3, 0.08, 0.02])),
    "many levels": lambda rng, day: names(rng.zipf(1.5, len(day)) % 10**6),
    "staff": lambda rng, day: names(rng.integers(0, 20, len(day)) + day // 20),
    "flag": lambda rng, day: (rng.random(len(day)) < 0.03).astype(float),
}


def tables(
    rng: np.random.Generator,
    rows: int,
    shapes: dict[str, Draw],
    spoil: Callable[..., np.ndarray] | None = None,
) -> tuple[Profile, Profile, Profile]:
    """Recent rows, the window, and training: three times as many rows as the window."""
    before = np.sort(rng.integers(0, QUARTER, 3 * rows))
    after = QUARTER + np.sort(rng.integers(0, MONTH, rows))
    sides: tuple[dict, dict, dict] = ({}, {}, {})
    late = before >= QUARTER - FORTNIGHT
    for name, draw in shapes.items():
        old, new = draw(rng, before), draw(rng, after)
        if spoil is not None:
            new = spoil(rng, new)
        kind = "categorical" if old.dtype == object else "numeric"
        sides[2][name] = column_profile(old, blocks=before, kind=kind)
        sides[0][name] = column_profile(old[late], blocks=before[late], like=sides[2][name])
        sides[1][name] = column_profile(new, blocks=after, like=sides[2][name])
    counts = (int(late.sum()), rows, len(before))
    recent, window, training = (Profile(n, side) for n, side in zip(counts, sides, strict=True))
    return recent, window, training


def held(seed: int, *, rows: int, columns: int) -> list[str]:
    """What is called broken in one window without change."""
    rng = np.random.default_rng([seed, rows, columns])
    every = list(SHAPES)
    turn = [every[(seed + place) % len(every)] for place in range(columns)]
    shapes = {f"{name} {place}": SHAPES[name] for place, name in enumerate(turn)}
    recent, window, training = tables(rng, rows, shapes)
    return [item.name for item in breaks(recent, window, training=training) if item.outcome != "pass"]


def part(share: float, value: float) -> Callable[..., np.ndarray]:
    """So many of the rows have this value."""
    return lambda rng, x: np.where(rng.random(len(x)) < share, value, x)


BREAKS: dict[str, Callable[..., np.ndarray]] = {
    "a third is -999": part(1 / 3, -999.0),
    "a tenth is -1": part(0.1, -1.0),
    "a third is 9999": part(1 / 3, 9999.0),
    "a tenth is 1e20": part(0.1, 1e20),
    "1.8 x + 32": lambda rng, x: 1.8 * x + 32,
    "1.609 x": lambda rng, x: 1.609344 * x,
    "1000 x": lambda rng, x: 1000 * x,
    "x / 100": lambda rng, x: x / 100,
    "one value": lambda rng, x: np.full(len(x), x[0]),
    "half missing": lambda rng, x: some(x, rng.random(len(x)) < 0.5),
}


def main() -> None:
    """Print both tables."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    print("no change: windows that are held, in percent")
    sizes, tries = (50, 150, 500, 5000), 4
    print(f"{'columns':12}" + "".join(f"{rows:>10,} rows" for rows in sizes))
    what: Counter[str] = Counter()
    for columns in (5, 30, 300):
        cells = []
        for rows in sizes:
            windows = max(20, count // (1 if columns < 300 else 5))
            found = [held(seed, rows=rows, columns=columns) for seed in range(windows)]
            what.update(
                " ".join(name.split(".")[1].split()[:-1]) + "." + name.split(".")[-1]
                for each in found
                for name in each
            )
            cells.append(f"{100 * np.mean([bool(each) for each in found]):.1f} of {windows}")
        print(f"{columns:<12}" + "".join(f"{cell:>15}" for cell in cells), flush=True)
    print("held:", dict(what.most_common(12)))
    numeric = [
        name for name, draw in SHAPES.items() if draw(np.random.default_rng(0), np.arange(9)).dtype != object
    ]
    print("\na break of one column: windows of 500 rows that are held, in percent")
    print(f"{'':20}" + "".join(f"{kind:>17}" for kind in BREAKS))
    for name in numeric:
        cells = []
        for spoil in BREAKS.values():
            found = []
            for seed in range(tries):
                sides = tables(np.random.default_rng(seed), 500, {name: SHAPES[name]}, spoil)
                found.append(
                    any(item.outcome == "fail" for item in breaks(sides[0], sides[1], training=sides[2]))
                )
            cells.append(f"{100 * np.mean(found):.0f}")
        print(f"{name:20}" + "".join(f"{cell:>17}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
