"""Two losses on the same rows: how much they differ, and how surely, for one look or for any number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from prodkit.errors import DataError, ParameterError
from prodkit.evidence import Estimate
from prodkit.models.metrics import autocorrelation, block_codes

__all__ = ["always_valid", "difference", "running_mean"]

Floats = NDArray[np.float64]


def difference(
    loss_a: ArrayLike,
    loss_b: ArrayLike,
    *,
    blocks: ArrayLike,
    confidence: float = 0.95,
    repeats: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Mean of ``loss_a - loss_b`` over the same rows; positive says that b is better. For one look only.

    A ratio of block sums to block sizes, with bootstrap-t over whole blocks (Davison & Hinkley 1997, section
    5.2; Cameron, Gelbach & Miller 2008), on neither side narrower than Student's t with blocks - 1 degrees of
    freedom. A loss of NaN makes all of it NaN.

    Raises:
        DataError: lengths differ, or a block is missing.
    """
    pair = _paired(loss_a, loss_b, blocks)
    if pair.count < 2 or not np.isfinite(pair.mean):
        return pair.unbounded()
    rest, rows, count = pair.rest, pair.rows, pair.count
    unit = np.sqrt(count / (count - 1))
    error = unit * np.sqrt(rest @ rest) / pair.n
    if error == 0:
        return pair.interval(0.0, 0.0)
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=repeats)
    drawn = draws @ rows
    shift = draws @ rest / drawn
    variance = draws @ rest**2 - 2 * shift * (draws @ (rest * rows)) + shift**2 * (draws @ rows**2)
    errors = unit * np.sqrt(np.maximum(variance, 0)) / drawn
    # A draw of one block only has no error to divide by: it counts as infinitely far out, not as nothing.
    ratios = np.divide(shift, errors, out=np.copysign(np.inf, shift), where=errors > 1e-6 * error)
    tail = (1 - confidence) / 2
    below, above = np.quantile(ratios, [tail, 1 - tail], method="inverted_cdf")
    student = stats.t.ppf(1 - tail, count - 1)
    return pair.interval(error * max(above, student), error * max(-below, student))


def always_valid(
    loss_a: ArrayLike,
    loss_b: ArrayLike,
    *,
    blocks: ArrayLike,
    confidence: float = 0.95,
    look: int = 1,
    horizon: int = 14,
    memory: float | None = None,
) -> Estimate:
    """Mean of ``loss_a - loss_b`` with an interval that holds however often, and whenever, one looks.

    The normal-mixture confidence sequence in its scale-invariant form, exact from the second block on for
    normal blocks of unknown variance (Lai 1976; Wang & Ramdas 2025, "Anytime-valid t-tests and confidence
    sequences for Gaussian means with unknown variance"); with many blocks it is the asymptotic one of
    Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas 2021. What a block takes after the one before it
    (:func:`prodkit.models.metrics.autocorrelation`) is taken out first, so that days may resemble each other. Within a
    window one may look after each block. Window number ``look`` spends alpha / (look (look + 1)), which adds up to less
    than alpha over all windows.

    Args:
        loss_a: (n,) losses of the model in place.
        loss_b: (n,) losses of the other one, on the same rows.
        blocks: (n,) day of each row.
        confidence: of all windows together, both sides.
        look: number of the window since promotion, from 1.
        horizon: number of blocks at which the interval shall be tightest; choose it before looking.
        memory: how much a block takes after the one before, where more of them than these can tell.

    Raises:
        DataError: lengths differ, or a block is missing.
        ParameterError: ``look`` below 1.
    """
    if look < 1:
        raise ParameterError("look", rule="must be 1 or more", value=look, fix="Count windows from 1.")
    pair = _paired(loss_a, loss_b, blocks)
    if pair.count < 2 or not np.isfinite(pair.mean):
        return pair.unbounded()
    found = autocorrelation(pair.figures) if memory is None else memory
    return _whitened(pair, phi=found, alpha=(1 - confidence) / (look * (look + 1)), horizon=horizon)


def running_mean(
    sums: ArrayLike, rows: ArrayLike, *, confidence: float = 0.95, horizon: int = 45, usual: float = 0.7
) -> Estimate:
    """A mean loss from sums of blocks, with an interval that holds after each block: :func:`always_valid` of one model.

    The dependence of neighbours is taken out as it is there.

    Args:
        sums: (blocks,) sum of the losses of each block, in order.
        rows: (blocks,) how many rows it holds.
        confidence: of all looks together, both sides.
        horizon: number of blocks at which the interval shall be tightest; choose it before looking.
        usual: dependence of neighbours before any is seen.

    Raises:
        DataError: lengths differ.
    """
    totals, sizes = np.asarray(sums, dtype=float), np.asarray(rows, dtype=float)
    if totals.shape != sizes.shape or totals.ndim != 1:
        raise DataError(
            "sums, rows", rule="must be of the same blocks", value=f"{totals.shape}, {sizes.shape}"
        )
    pair = _Pair(totals, sizes)
    if pair.count < 2 or not np.isfinite(pair.mean) or sizes.sum() <= 0:
        return pair.unbounded()
    phi = autocorrelation(pair.figures, usual=usual)
    return _whitened(pair, phi=phi, alpha=1 - confidence, horizon=horizon)


def _whitened(pair: _Pair, *, phi: float, alpha: float, horizon: int) -> Estimate:
    """The confidence sequence of a pair from which the dependence of neighbouring blocks has been taken out."""
    fresh = _Pair(*(part[1:] - phi * part[:-1] for part in (pair.sums, pair.rows)))
    if fresh.count < 2 or fresh.rows.sum() <= 0:
        return pair.unbounded()
    found = _sequence(fresh, alpha=alpha, horizon=horizon)
    # the mean is that of all rows, which the interval of what is left must not exclude
    return pair.interval(max(pair.mean - found.low, 0.0), max(found.high - pair.mean, 0.0))


def _sequence(pair: _Pair, *, alpha: float, horizon: int) -> Estimate:
    """The confidence sequence of :func:`always_valid` at the last block of a pair."""
    rest, rows, count = pair.rest, pair.rows, pair.count
    prior = horizon / (1 - 2 * np.log(alpha) + np.log(-2 * np.log(alpha)))  # tightest at the horizon
    # With x = sums - m rows, T = sum x and Q = (count + prior) sum x^2, a mean of m is excluded once its
    # e-value sqrt(prior / (count + prior)) (Q / (Q - T^2))^(count / 2) reaches 1 / alpha: a quadratic in m.
    ratio = np.exp((np.log((count + prior) / prior) - 2 * np.log(alpha)) / count)
    scale = (ratio - 1) * (count + prior)
    curve = ratio * rows.sum() ** 2 - scale * (rows @ rows)
    if curve <= 0:
        return pair.unbounded()
    tilt = scale * (rest @ rows)
    half = np.sqrt(tilt**2 + curve * scale * (rest @ rest))
    return pair.interval((half + tilt) / curve, (half - tilt) / curve)


@dataclass(frozen=True, slots=True)
class _Pair:
    """Two losses of the same rows, as sums of their difference and numbers of rows, one of each a block."""

    sums: Floats
    rows: Floats

    @property
    def count(self) -> int:
        return len(self.rows)

    @property
    def n(self) -> int:
        return round(float(self.rows.sum()))

    @property
    def mean(self) -> float:
        return float(self.sums.sum() / self.rows.sum()) if self.rows.sum() else float("nan")

    @property
    def rest(self) -> Floats:
        """What each block sum differs from its share of the whole."""
        return self.sums - self.mean * self.rows

    @property
    def figures(self) -> Floats:
        """The mean of each block; nought for one that has no rows."""
        return np.divide(self.sums, self.rows, out=np.zeros(len(self.rows)), where=self.rows > 0)

    def interval(self, below: float, above: float) -> Estimate:
        return Estimate(self.mean, float(self.mean - below), float(self.mean + above), self.n, self.count)

    def unbounded(self) -> Estimate:
        """Too few blocks to exclude anything; NaN if there is not even a mean."""
        half = np.inf if np.isfinite(self.mean) else np.nan
        return self.interval(half, half)


def _paired(loss_a: ArrayLike, loss_b: ArrayLike, blocks: ArrayLike) -> _Pair:
    first, second = np.asarray(loss_a, dtype=float), np.asarray(loss_b, dtype=float)
    if first.shape != second.shape or first.ndim != 1:
        raise DataError("losses", rule="must be of the same rows", value=f"{first.shape} and {second.shape}")
    codes, count = block_codes(blocks, len(first))
    gap = np.subtract(first, second, out=np.full(len(first), np.nan), where=np.isfinite(first + second))
    return _Pair(np.bincount(codes, gap, count).astype(float), np.bincount(codes, None, count).astype(float))
