"""The upper tail of the F distribution, for whom importing scipy takes longer than all comparisons."""

from __future__ import annotations

import math

__all__ = ["f_tail"]

_TINY = 1e-300
_TERMS = 10_000


def f_tail(x: float, df1: float, df2: float) -> float:
    """Probability that an F with ``df1`` and ``df2`` degrees of freedom, fractions allowed, exceeds ``x``.

    It is the regularised incomplete beta function ``I(df2 / (df2 + df1 x); df2 / 2, df1 / 2)``, here by its
    continued fraction. With ``df1 = 1`` it is the two-sided tail of Student's t at the root of ``x``.

    Source: NIST Digital Library of Mathematical Functions, 8.17.22 and 8.17.4; Lentz (1976) in the form of
    Thompson & Barnett (1986).

    >>> round(f_tail(4.0, 1.0, 10.0), 6), f_tail(0.0, 3.0, 10.0), math.isnan(f_tail(math.nan, 3.0, 10.0))
    (0.073388, 1.0, True)
    """
    if math.isnan(x) or not (df1 > 0 and df2 > 0):
        return math.nan
    if x <= 0:
        return 1.0
    if math.isinf(x):
        return 0.0
    z = df2 / (df2 + df1 * x)
    a, b = df2 / 2, df1 / 2
    # The fraction converges fast on one side of the mean only; the other side is its complement.
    if z < (a + 1) / (a + b + 2):
        return _beta(z, 1 - z, a, b)
    return 1 - _beta(df1 * x / (df2 + df1 * x), z, b, a)


def _beta(z: float, rest: float, a: float, b: float) -> float:
    """``I(z; a, b)`` where the fraction converges; ``rest`` is ``1 - z`` without loss of digits."""
    if z <= 0:
        return 0.0
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(z) + b * math.log(rest)
    c, d = 1.0, 1 / _away_from_zero(1 - (a + b) * z / (a + 1))
    fraction = d
    for m in range(1, _TERMS):
        even = m * (b - m) * z / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * z / ((a + 2 * m) * (a + 2 * m + 1))
        step = 1.0
        for term in (even, odd):
            d = 1 / _away_from_zero(1 + term * d)
            c = _away_from_zero(1 + term / c)
            step = c * d
            fraction *= step
        if abs(step - 1) < 1e-15:
            break
    return min(1.0, math.exp(log_front) * fraction / a)


def _away_from_zero(x: float) -> float:
    return x if abs(x) > _TINY else _TINY
