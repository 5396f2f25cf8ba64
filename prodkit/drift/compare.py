"""What differs between two profiles, by how much and how surely."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from prodkit.drift.profiles import ColumnProfile, Profile
from prodkit.drift.shifts import MIN_BLOCKS, combined, divergence, mean_shift_p, property_shift, shift

__all__ = [
    "SIGNALS",
    "adjusted",
    "compare_columns",
    "comparison",
    "differences",
    "jensen_shannon",
    "kolmogorov_smirnov",
    "psi",
    "wasserstein",
]

_WEIGHT_OF_MEAN = 2  # beside the test of the histogram: most drift that matters moves a column as a whole
SIGNALS = ("", "missing_", "unseen_")


def psi(reference: np.ndarray, current: np.ndarray) -> float:
    """Population stability index of two histograms: ``sum (q - p) ln(q / p)``.

    Half a row is added to each bin, for an empty one would make it infinite. It grows with the number
    of bins and with small samples, so compare it only between runs of the same size.

    Args:
        reference: counts (bins,).
        current: counts (bins,).

    Source: Lewis (1994), An Introduction to Credit Scoring.

    >>> psi(np.array([50, 50]), np.array([50, 50]))
    0.0
    >>> round(psi(np.array([500, 500]), np.array([250, 750])), 3)
    0.274
    """
    if not (reference.sum() and current.sum()):
        return math.nan
    p, q = _shares(reference + 0.5), _shares(current + 0.5)
    return float(((q - p) * np.log(q / p)).sum())


def jensen_shannon(reference: np.ndarray, current: np.ndarray) -> float:
    """Jensen-Shannon distance of two histograms: 0 if they are alike, 1 if they share no bin.

    The square root of the divergence in bits, which makes it a metric. NaN if either has no rows.

    Args:
        reference: counts (bins,).
        current: counts (bins,).

    Source: Endres & Schindelin (2003), A new metric for probability distributions.

    >>> jensen_shannon(np.array([1, 0]), np.array([0, 1]))
    1.0
    >>> jensen_shannon(np.array([1, 3]), np.array([2, 6]))
    0.0
    """
    if not (reference.sum() and current.sum()):
        return math.nan
    return math.sqrt(float(divergence(_shares(reference), _shares(current))))


def kolmogorov_smirnov(reference: np.ndarray, current: np.ndarray) -> float:
    """Largest gap between two cumulative histograms over ordered bins, from 0 to 1.

    Args:
        reference: counts (bins,), in the order of the values.
        current: counts (bins,), in the same order.

    >>> kolmogorov_smirnov(np.array([5, 5, 0]), np.array([0, 5, 5]))
    0.5
    """
    if not (reference.sum() and current.sum()):
        return math.nan
    return float(np.abs(np.cumsum(_shares(reference)) - np.cumsum(_shares(current))).max())


def _shares(counts: np.ndarray) -> np.ndarray:
    return np.asarray(counts / counts.sum())


def wasserstein(reference: ColumnProfile, current: ColumnProfile) -> float:
    """How far the values moved on average, in standard deviations of the reference.

    The mean gap between 200 quantiles, which are exact for up to 256 distinct values and else interpolated
    within bins (up to a third too far if values pile up in an end bin). NaN for categories, without
    values, or without spread before.
    """
    if not reference.sd > 0:
        return math.nan
    q = (np.arange(200) + 0.5) / 200
    return float(np.abs(reference.quantile(q) - current.quantile(q)).mean() / reference.sd)


def adjusted(p_values: np.ndarray) -> np.ndarray:
    """P-values adjusted for the number of tests (n,); NaN stays NaN and does not count as a test.

    Source: Benjamini & Hochberg (1995), Controlling the false discovery rate.

    >>> adjusted(np.array([0.01, 0.04, np.nan])).tolist()
    [0.02, 0.04, nan]
    """
    out = np.full(len(p_values), math.nan)
    tested = np.flatnonzero(~np.isnan(p_values))
    order = tested[np.argsort(p_values[tested])[::-1]]
    ranks = np.arange(len(order), 0, -1)
    out[order] = np.minimum.accumulate(p_values[order] * len(order) / ranks)
    return out


def compare_columns(reference: ColumnProfile, current: ColumnProfile) -> dict[str, Any]:
    """Everything that differs between two profiles of one column, one entry a column of :func:`comparison`.

    ``effect`` is the Jensen-Shannon distance less what chance makes of it: the histograms of few rows, or of
    few independent days, differ even without drift. ``floor`` is that of :func:`prodkit.drift.shifts.shift`, and
    ``p_value`` combines its test with that of the mean. ``missing_`` and ``unseen_`` are the same for the two
    shares; new levels to expect are those that parts of the reference had which were held back.

    Raises:
        DataError: the bins differ.
    """
    reference.merge(current)  # refuses other bins
    sides = reference, current
    values = shift(*(side.block_counts[:, :-1] for side in sides), ordered=reference.kind != "categorical")
    of_mean = math.nan
    if reference.kind not in ("categorical", "boolean"):
        of_mean = mean_shift_p(*((side.block_n, side.block_means, side.block_m2s) for side in sides))
    p_value = combined([values.p_value, of_mean], weights=[1, _WEIGHT_OF_MEAN])
    missing = property_shift(*(_two(side, side.block_counts[:, -1]) for side in sides))
    expected = min(reference.bins.novelty, current.share(current.unseen))
    unseen = property_shift(*(_two(side, side.block_unseen) for side in sides), expected=expected)
    return {
        "kind": reference.kind,
        "effect": values.effect,
        "floor": values.floor,
        "psi": psi(reference.counts, current.counts),
        "ks": math.nan
        if reference.kind == "categorical"
        else kolmogorov_smirnov(reference.counts, current.counts),
        "wasserstein": wasserstein(reference, current),
        "p_value": p_value,
        "design_effect": values.design_effect,
        "missing_reference": reference.share(reference.missing),
        "missing_current": current.share(current.missing),
        "missing_p": missing.p_value,
        "missing_effect": missing.effect,
        "missing_floor": missing.floor,
        "unseen_reference": reference.unseen_share,
        "unseen": current.share(current.unseen),
        "unseen_p": unseen.p_value,
        "unseen_effect": unseen.effect,
        "unseen_floor": unseen.floor,
        "note": _note(reference, current, tested=not math.isnan(p_value)),
    }


def _two(profile: ColumnProfile, part: np.ndarray) -> np.ndarray:
    """Rows of each block without and with a property (b, 2)."""
    return np.stack([profile.block_rows - part, part], axis=1)


def _note(reference: ColumnProfile, current: ColumnProfile, *, tested: bool) -> str:
    """Why a row of the table holds no numbers, if so."""
    for when, profile in (("reference", reference), ("window", current)):
        if not profile.rows:
            return f"no rows in the {when}"
        if not profile.n:
            return f"all missing in the {when}"
    if (reference.block_n > 0).sum() < MIN_BLOCKS:
        return "too few days in the reference"
    return "" if tested else "too few independent rows"


def differences(
    reference: Profile,
    current: Profile,
    *,
    alpha: float = 0.05,
    min_effect: float = 0.1,
    importance: Mapping[str, float] | None = None,
) -> list[dict[str, Any]]:
    """Compare each column of two profiles: the rows of :func:`comparison`."""
    if reference.columns.keys() != current.columns.keys():
        reference.merge(current)  # says which
    rows = [
        {"column": name} | compare_columns(column, current.columns[name])
        for name, column in reference.columns.items()
    ]
    tests = [(row, signal) for row in rows for signal in SIGNALS]
    p_values = adjusted(np.array([row[f"{signal}p" if signal else "p_value"] for row, signal in tests]))
    for (row, signal), p_value in zip(tests, p_values.tolist(), strict=True):
        row[f"{signal}p_adjusted"] = p_value
        floor = max(min_effect, row[f"{signal}floor"])
        row[f"{signal}drifted"] = p_value < alpha and row[f"{signal}effect"] >= floor
    for row in rows:
        row["unseen_drifted"] &= (
            row["unseen"] > row["unseen_reference"]
        )  # fewer new levels than expected are none
        row["note"] = current.notes.get(row["column"]) or reference.notes.get(row["column"]) or row["note"]
        row["importance"] = math.nan
        weight = 1.0
        if importance is not None:
            row["importance"] = weight = max(0.0, importance.get(row["column"], 0.0))
        effects = [row[f"{signal}effect"] for signal in SIGNALS]
        row["damage"] = weight * max((x for x in effects if not math.isnan(x)), default=0.0)
    return sorted(rows, key=lambda row: (-row["damage"], -np.nan_to_num(row["effect"], nan=-1.0)))


def comparison(
    reference: Profile,
    current: Profile,
    *,
    alpha: float = 0.05,
    min_effect: float = 0.1,
    importance: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """Compare each column of two profiles; one row a column, the most harmful first.

    A column has drifted if its shift is sure (``p_adjusted < alpha``), large (``effect >= min_effect``) and
    larger than windows of the reference commonly differ from its rest (``effect >= floor``); the same holds
    for ``missing_drifted`` and ``unseen_drifted``. P-values are adjusted over all tests of all columns.
    ``damage`` is the largest of the three effects, times the importance where one is given.

    Args:
        reference: profile of the training rows.
        current: profile of the window, with the same bins.
        alpha: false discovery rate over the columns.
        min_effect: Jensen-Shannon distance (0 to 1) below which a shift is ignored.
        importance: what each column is worth to the model; others count 0, and negative ones, too.

    Returns:
        Columns as :func:`compare_columns` gives them, then ``p_adjusted`` and ``drifted``, both also with
        ``missing_`` and ``unseen_`` before them, ``importance`` (NaN if not given) and ``damage``; the index
        is called ``column``.

    Raises:
        DataError: the columns or their bins differ.
    """
    rows = differences(reference, current, alpha=alpha, min_effect=min_effect, importance=importance)
    return pd.DataFrame(rows).set_index("column")
