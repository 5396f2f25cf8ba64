"""How far two histograms lie apart, how surely, and how far windows without drift lie apart anyway.

Rows of one block, a day or a stretch of consecutive rows, resemble each other, and so do neighbouring blocks. By how
much is learned from the reference, whose blocks are kept: for the test, as the variance of its counts between longer
and longer batches of blocks; for the size, by comparing windows of it with its rest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy.special import fdtrc, rel_entr

__all__ = ["MIN_BLOCKS", "Shift", "combined", "divergence", "mean_shift_p", "property_shift", "shift"]

MIN_BLOCKS = 5  # fewer say nothing of how blocks differ
_MIN_BATCHES = 15  # that blocks are put together to, in search of longer autocorrelation
_DEGREES = 4  # of the smooth test
_EXPECTED = 5.0  # independent rows that a bin should hold in the smaller sample (Cochran 1954)
_MAX_WINDOWS = 128  # of the reference that are compared with its rest
_USUAL = 0.95  # quantile of their effects that a drift must exceed
_CAREFUL = 1.645  # standard errors that are added to an estimated correlation
_MANY = 100  # blocks from which on their likeness to independent ones is believed
_DOUBT, _SURE = 2.5, 3.5  # standard errors at which autocorrelation begins to count, and counts in full

_EXTREME = np.errstate(over="ignore", invalid="ignore", divide="ignore")  # values near the largest floats


class Shift(NamedTuple):
    """How far two histograms lie apart, and whether that is more than chance and habit make of it.

    Attributes:
        effect: Jensen-Shannon distance less what chance makes of it; NaN if either side has no rows.
        p_value: of a test that nothing has changed; NaN if nothing can be said.
        design_effect: by how much dependent rows inflate the variance, averaged over both samples.
        floor: effect that one of 20 windows of the reference exceeds against the rest of it.
    """

    effect: float
    p_value: float = math.nan
    design_effect: float = math.nan
    floor: float = 0.0


def divergence(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Jensen-Shannon divergence in bits of shares (..., bins); its root is a metric.

    Source: Endres & Schindelin (2003), A new metric for probability distributions.
    """
    middle = (p + q) / 2
    total = (rel_entr(p, middle) + rel_entr(q, middle)).sum(axis=-1)
    return np.asarray(np.maximum(0.0, total / (2 * math.log(2))))


def combined(p_values: Sequence[float], *, weights: Sequence[float] | None = None) -> float:
    """One p-value of several that may depend on each other; NaN if there is none.

    Args:
        p_values: NaN ones do not count.
        weights: how much each counts; alike if not given.

    Source: Liu & Xie (2020), Cauchy combination test.

    >>> round(combined([0.01, 0.01]), 6), round(combined([0.001, 0.9]), 4), math.isnan(combined([]))
    (0.01, 0.002, True)
    """
    pairs = zip(p_values, weights or [1.0] * len(p_values), strict=True)
    known = [(p, weight) for p, weight in pairs if not math.isnan(p)]
    if not known:
        return math.nan
    total = sum(weight for _, weight in known)
    smallest, weight = min(known)
    if smallest < 1e-9:  # the tangent of what is so near to a right angle has no digits left
        return min(1.0, smallest * total / weight)
    # One that is nearly 1 is no evidence against the others.
    angles = [weight * math.tan((0.5 - min(p, 0.9)) * math.pi) for p, weight in known]
    return 0.5 - math.atan(sum(angles) / total) / math.pi


def shift(reference: np.ndarray, current: np.ndarray, *, ordered: bool = True) -> Shift:
    """Effect, test and floor of two histograms over ordered bins, given as counts by block (b, bins).

    Pearson's X2 of dependent rows is a sum of chi-squares weighted with the generalised design effects, the
    eigenvalues of a covariance that is estimated between batches of blocks of the reference. Their mean
    divides X2 (first order), their spread makes the degrees of freedom (second order), and as they are
    estimated, F takes the place of chi-square. Neighbouring bins are put together until each holds 5
    independent rows of the smaller sample.

    Source: Rao & Scott (1981, 1984); Thomas & Rao (1987); the second-order expansion of the divergence.
    """
    before, now = reference.sum(axis=0), current.sum(axis=0)
    if not (before.sum() and now.sum()):
        return Shift(math.nan)
    used = before + now > 0
    before, now = before[used], now[used]
    reference, current = (side[side.sum(axis=1) > 0][:, used] for side in (reference, current))
    if len(before) == 2:
        return property_shift(reference, current)
    if len(before) == 1:  # all rows are alike, on both sides
        return Shift(0.0, 1.0, 1.0) if len(reference) >= MIN_BLOCKS else Shift(0.0)
    distance, unit = divergence(before / before.sum(), now / now.sum()), 1 / before.sum() + 1 / now.sum()
    own = _autocorrelation(reference)
    if own is None:
        return Shift(_beyond_chance(distance, len(before), 1.0, unit))
    design, _, _ = _designs(own.design_effect, reference, current)
    return Shift(
        effect=_beyond_chance(distance, len(before), design, unit),
        p_value=_p_value(own, reference, current, ordered=ordered),
        design_effect=design,
        floor=_floor(reference, current, design=own.design_effect),
    )


def property_shift(reference: np.ndarray, current: np.ndarray, *, expected: float = 0.0) -> Shift:
    """The same for rows without and with a property, given as counts by block (b, 2).

    Shares are compared after Anscombe's transformation, for which rare properties and small samples are no
    trouble, in units of independent rows.

    Args:
        reference: counts (b, 2).
        current: counts (c, 2).
        expected: share that is expected even if less of the reference has it.

    Source: Anscombe (1948), The transformation of Poisson, binomial and negative-binomial data.
    """
    n1, n2 = float(reference.sum()), float(current.sum())
    if not (n1 and n2):
        return Shift(math.nan)
    reference, current = reference[reference.sum(axis=1) > 0], current[current.sum(axis=1) > 0]
    x1, x2 = max(float(reference[:, 1].sum()), expected * n1), float(current[:, 1].sum())
    if not x1 and not x2:
        return Shift(0.0)
    p, q = np.array([1 - x1 / n1, x1 / n1]), np.array([1 - x2 / n2, x2 / n2])
    distance, unit = divergence(p, q), 1 / n1 + 1 / n2
    own = _autocorrelation(reference)
    if own is None:
        return Shift(_beyond_chance(distance, 2, 1.0, unit))
    deff = own.design_effect
    if (reference > 0).sum(
        axis=0
    ).min() < MIN_BLOCKS:  # so rare before that only the window tells how it clusters
        windows = _autocorrelation(current)
        deff = max(deff, windows.design_effect if windows else float(current.sum() / len(current)))
    design, first, second = _designs(deff, reference, current)
    a, b = ((x / d + 0.375) / (n / d + 0.75) for x, n, d in ((x1, n1, first), (x2, n2, second)))
    z = 2 * (math.asin(math.sqrt(a)) - math.asin(math.sqrt(b))) / math.sqrt(first / n1 + second / n2)
    return Shift(
        effect=_beyond_chance(distance, 2, design, unit),
        p_value=float(fdtrc(1.0, own.df, z * z)),
        design_effect=design,
        floor=_floor(reference, current, design=deff),
    )


@_EXTREME
def mean_shift_p(
    reference: tuple[np.ndarray, np.ndarray, np.ndarray], current: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> float:
    """P-value of a test that two means are equal; NaN if nothing can be said.

    Bins saturate where values leave the range of the reference, which a mean does not. Its variance is learned
    from the blocks of the reference as for the bins, and is never less than that of independent rows.

    Args:
        reference: values (b,), their means (b,) and sums of squared deviations (b,) of each block.
        current: the same of the window.
    """
    n, means, squares = (part[reference[0] > 0] for part in reference)
    rows, later_rows = n.sum(), current[0].sum()
    if len(n) < MIN_BLOCKS or not later_rows:
        return math.nan
    mean, later = (float(np.average(means, weights=k)) for means, k in ((means, n), current[1::-1]))
    deviations = (n * (means - mean))[:, None]
    within = float(squares.sum()) / rows
    batches = _batched(deviations, n)
    variances = [float((d**2).sum()) / k * len(d) / (len(d) - 1) * _inflation(d) for d, k in batches]
    best = int(np.argmax(variances))
    first = max(within, variances[best])
    if not 0 < first < math.inf:
        return math.nan
    longest, larger = batches[best][0], (later_rows / max(1, (current[0] > 0).sum())) / (rows / len(n))
    doubt = _doubt(deviations / np.sqrt(within * n)[:, None]) if within > 0 else 1.0
    first = within + doubt * (first - within)
    second = within + (first - within) * max(1.0, larger)
    df = (len(longest) - 1) * _independent(_inflation(longest)) / max(doubt, 1e-3)
    gap = later - mean
    return float(fdtrc(1.0, max(1.0, df), gap * gap / (first / rows + second / later_rows)))


@dataclass(frozen=True, eq=False)
class _Autocorrelation:
    """How much blocks of the reference differ: deviations of batches (b, bins) from their expected counts."""

    deviations: np.ndarray
    rows: int
    inflation: float
    design_effect: float
    doubt: float = 1.0

    @property
    def df(self) -> float:
        """Degrees of freedom of its variance."""
        return self.batches(self.inflation)

    def batches(self, inflation: float) -> float:
        """How many independent batches these are worth, less one; more if autocorrelation is in doubt."""
        return max(1.0, (len(self.deviations) - 1) * _independent(inflation)) / max(self.doubt, 1e-3)

    def design_effects(self, directions: np.ndarray, rank: int) -> tuple[float, float, float]:
        """Sums of the generalised design effects in some directions, of their squares, and their inflation.

        The direction in which batches differ most is where they depend on each other most: it has a
        correlation of its own.

        Args:
            directions: (bins, k), so scaled that independent rows have the covariance of a projection.
            rank: of that projection.
        """
        scaled = self.deviations @ directions / math.sqrt(self.rows)
        covariance = scaled.T @ scaled * (len(scaled) / (len(scaled) - 1))
        trace, square = float(np.trace(covariance)), float((covariance**2).sum())
        # What the square owes to being estimated from few batches (unbiased for normal deviations).
        v = len(scaled) - 1
        square = max(trace**2 / rank, v * v / ((v - 1) * (v + 2)) * (square - trace**2 / v))
        sizes, axes = np.linalg.eigh(covariance)
        first = min(float(sizes[-1]), math.sqrt(square))
        along = max(self.inflation, _inflation(scaled @ axes[:, -1:]))
        total = self.inflation * (trace - first) + along * first
        squares = self.inflation**2 * (square - first**2) + (along * first) ** 2
        inflation = total / trace if trace > 0 else 1.0
        total, squares = (rank + self.doubt * (each - rank) for each in (total, squares))
        return total, squares, inflation


def _autocorrelation(counts: np.ndarray) -> _Autocorrelation | None:
    """What the blocks (b, bins) of a sample say of how its rows depend on each other; None if they are too few.

    Blocks are put together to batches of 1, 2, 4, ... of them. That length is taken which makes rows look most
    dependent, and what correlation is left between neighbouring batches is added as that of an AR(1).
    """
    if len(counts) < MIN_BLOCKS:
        return None
    rows, shares = counts.sum(axis=1), counts.sum(axis=0) / counts.sum()
    deviations = counts - rows[:, None] * shares
    some = max(1, int((shares > 0).sum()) - 1)
    weights = 1 / np.where(shares > 0, shares, 1.0)
    lengths = []
    for summed, n in _batched(deviations, rows):
        inflation = _inflation(summed * np.sqrt(weights))
        squares = float((summed**2 @ weights).sum()) / n / some
        design = squares * len(summed) / (len(summed) - 1) * inflation
        lengths.append(_Autocorrelation(summed, n, inflation, max(1.0, design)))
    most = max(lengths, key=lambda length: length.design_effect)
    doubt = _doubt(deviations @ _smooth(shares, _DEGREES) / np.sqrt(np.maximum(1, rows))[:, None])
    return replace(most, doubt=doubt, design_effect=1 + doubt * (most.design_effect - 1))


def _batched(deviations: np.ndarray, rows: np.ndarray) -> list[tuple[np.ndarray, int]]:
    """Sums of deviations (blocks, k) over batches of 1, 2, 4, ... blocks, and the rows these hold."""
    sums, length = [], 1
    while length == 1 or len(deviations) // length >= _MIN_BATCHES:
        start = len(deviations) % length
        summed = np.add.reduceat(deviations[start:], np.arange(0, len(deviations) - start, length), axis=0)
        sums.append((summed, int(rows[start:].sum())))
        length *= 2
    return sums


def _inflation(deviations: np.ndarray) -> float:
    """By how much correlation of neighbours inflates the variance of a sum of deviations (batches, k).

    That of an AR(1) whose correlation is estimated over all k, each in units of its variance; the estimate is
    too low by about (1 + 3 rho) / n (Kendall 1954). Where it exceeds its standard error (Bartlett 1946), that is
    added: few neighbours cannot tell how much they resemble each other, and too low an estimate alarms on nothing.
    (Not for fewer than 30: of several lengths, theirs would be taken by chance.)
    """
    batches, squares = len(deviations), float((deviations**2).sum())
    correlation = float((deviations[1:] * deviations[:-1]).sum()) / squares if squares > 0 else 0.0
    correlation = (correlation * batches + 1) / max(1, batches - 3)
    error = math.sqrt(max(0.0, 1 - correlation**2) / batches)
    if batches >= 30 and correlation > error:
        correlation += _CAREFUL * error
    correlation = min(0.95, max(0.0, correlation))
    return (1 + correlation) / (1 - correlation)


def _independent(inflation: float) -> float:
    """Share of the batches of an AR(1) that their variance is worth in independent ones: (1 - r^2) / (1 + r^2)."""
    return 2 * inflation / (inflation**2 + 1)


def _doubt(standard: np.ndarray) -> float:
    """How far the blocks of a reference are from being independent rows: 0 if nothing speaks against it, to 1.

    The variance of batches and the correlation of neighbours are known if rows are independent. Where none of them
    exceeds that by more than a few standard errors, as the largest of so many would by chance, the difference is
    noise, and no power is paid for it. A few blocks cannot tell.

    Args:
        standard: deviations (b, k) of variance 1, if rows are independent, in k directions.
    """
    blocks = len(standard)
    if blocks < _MANY or not standard.size:
        return 1.0
    excess = [np.abs((standard[1:] * standard[:-1]).sum(axis=0)) / math.sqrt(blocks)]
    for summed, _ in _batched(standard, np.ones(blocks)):
        excess.append(((summed**2).sum(axis=0) / blocks - 1) * math.sqrt(len(summed) / 2))
    return min(1.0, max(0.0, (float(np.max(excess)) - _DOUBT) / (_SURE - _DOUBT)))


def _beyond_chance(distance: np.ndarray, bins: int, design: float, unit: float) -> float:
    """Root of a divergence less what chance makes of no drift, which is about X2 (1/n1 + 1/n2) / (8 ln 2)."""
    return math.sqrt(max(0.0, float(distance) - _chance(bins, design) * unit))


def _chance(bins: int, design: float) -> float:
    return (bins - 1) * design / (8 * math.log(2))


def _designs(design: float, reference: np.ndarray, current: np.ndarray) -> tuple[float, float, float]:
    """Design effects: the mean, that of the reference, and that of the window, whose blocks may hold more rows."""
    n1, n2 = float(reference.sum()), float(current.sum())
    larger = max(1.0, (n2 / len(current)) / (n1 / len(reference)))
    second = 1 + (design - 1) * larger
    return (design / n1 + second / n2) / (1 / n1 + 1 / n2), design, second


def _p_value(own: _Autocorrelation, reference: np.ndarray, current: np.ndarray, *, ordered: bool) -> float:
    """Of a test of all bins, and of some that see the likeliest changes sooner.

    Where bins are ordered, that is a smooth one and one of the spread; of levels it is one of rows scattered over all
    of them. NaN if there are too few independent rows for either.
    """
    before, now = reference.sum(axis=0), current.sum(axis=0)
    n1, n2 = before.sum(), now.sum()
    pooled, gap = (before + now) / (n1 + n2), now / n2 - before / n1
    _, first, second = _designs(own.design_effect, reference, current)
    fewest = float(min(n1 / first, n2 / second))
    tests = [_grouped(pooled * fewest, pooled)]
    if fewest >= 2 * _EXPECTED:
        tests.append(_smooth(pooled, _DEGREES) if ordered else _scattered(pooled))
    # Where days depend on each other, one that is far off is also far from the middle: squares then alarm too often.
    if ordered and fewest >= 20 * _EXPECTED and own.doubt < 1:
        tests.append(_spread(pooled))
    p_values = []
    for directions in tests:
        rank = directions.shape[1] - (directions is tests[0])
        if rank < 1:
            continue
        total, squares, inflation = own.design_effects(directions, rank)
        df = min(float(rank), max(1.0, total**2 / squares)) if squares > 0 else float(rank)
        # Days that resemble each other more than chance would are no reason to be surer than chance allows.
        design, _, _ = _designs(max(1.0, total / rank), reference, current)
        x2 = float(((gap @ directions) ** 2).sum()) / (1 / n1 + 1 / n2)
        p_values.append(float(fdtrc(df, max(1.0, df * own.batches(inflation)), x2 / (design * rank))))
    return combined(p_values)


def _grouped(expected: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Directions (bins, groups) of Pearson's X2 over groups of neighbours that hold at least 5 rows each."""
    starts, rows = [0], 0.0
    for place, more in enumerate(expected.tolist()):
        if rows >= _EXPECTED:
            starts.append(place)
            rows = 0.0
        rows += more
    if rows < _EXPECTED and len(starts) > 1:
        starts.pop()
    group = np.searchsorted(starts, np.arange(len(shares)), side="right") - 1
    members = group[:, None] == np.arange(len(starts))
    return np.asarray(members / np.sqrt(np.add.reduceat(shares, starts)))


def _smooth(shares: np.ndarray, degree: int) -> np.ndarray:
    """Directions (bins, degree) of Neyman's smooth test: polynomials of the rank, orthonormal under these shares.

    Source: Neyman (1937); Rayner, Thas & Best (2009), Smooth Tests of Goodness of Fit.
    """
    rank = np.cumsum(shares) - shares / 2
    return _orthonormal((2 * rank[:, None] - 1) ** np.arange(min(degree + 1, len(shares))), shares)[:, 1:]


def _spread(shares: np.ndarray) -> np.ndarray:
    """The direction (bins, 1) of a change of spread: squares of normal scores, without their part in a shift.

    Source: Klotz (1962), Nonparametric tests for scale; the normal quantile by Tukey's lambda distribution.
    """
    rank = np.cumsum(shares) - shares / 2
    score = (rank**0.135 - (1 - rank) ** 0.135) / 0.1975
    return _orthonormal(score[:, None] ** np.arange(min(3, len(shares))), shares)[:, 2:]


def _scattered(shares: np.ndarray) -> np.ndarray:
    """The direction (bins, 1) of rows that take any level at random: rare ones gain; none if all are alike.

    Not by the order of levels in the reference: what chance put there is undone in any window, and levels that are
    equally frequent would seem to have drifted. The likelihood's own score, 1 / share, would leave all to the rarest
    levels, so its root.
    """
    score = 1 / np.sqrt(shares)
    directions = _orthonormal(score[:, None] ** np.arange(2), shares)[:, 1:]
    return directions if np.ptp(score) > 1e-9 * score.max() else directions[:, :0]


def _orthonormal(columns: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """The same (bins, k), each without its part in those before it, and of length 1 under these shares."""
    root = np.sqrt(shares)[:, None]
    basis, _ = np.linalg.qr(columns * root)
    return np.asarray(basis / np.where(root > 0, root, 1.0))


def _floor(reference: np.ndarray, current: np.ndarray, *, design: float) -> float:
    """Effect that 1 of 20 windows of the reference exceeds against its rest; 0 if it is too short for two."""
    blocks = len(reference)
    length = round(current.sum() / reference.sum() * blocks)
    length = min(max(1, length), len(current), blocks // 2)
    if length < 1:
        return 0.0
    starts = np.unique(np.linspace(0, blocks - length, _MAX_WINDOWS).astype(int))
    below = np.concatenate([np.zeros((1, reference.shape[1])), np.cumsum(reference, axis=0)])
    windows = below[starts + length] - below[starts]
    rest = below[-1] - windows
    n1, n2 = rest.sum(axis=1, keepdims=True), windows.sum(axis=1, keepdims=True)
    chance = _chance(reference.shape[1], design) * (1 / n1 + 1 / n2)[:, 0]
    effects = np.sqrt(np.maximum(0.0, divergence(rest / n1, windows / n2) - chance))
    return float(np.quantile(effects, _USUAL, method="higher"))
