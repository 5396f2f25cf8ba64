"""Models as a bad release brings them: slow, or without an answer to some rows."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

__all__ = ["FailingClassifier", "FailingRegressor", "SlowClassifier", "SlowRegressor"]

_SLOW_SECONDS = 0.3  # for a single request; a batch is answered as ever
_FAILS = 10  # one row of so many


class _Around(BaseEstimator):
    """Wraps histogram trees."""

    def __init__(self, max_iter: int = 40, random_state: int = 0, categorical_features: Any = None) -> None:
        self.max_iter = max_iter
        self.random_state = random_state
        self.categorical_features = categorical_features

    def fit(self, X: Any, y: Any) -> _Around:
        made = (
            HistGradientBoostingRegressor
            if isinstance(self, RegressorMixin)
            else HistGradientBoostingClassifier
        )
        more = {} if isinstance(self, RegressorMixin) else {"early_stopping": False}
        self.inner_ = made(
            learning_rate=0.05,
            max_iter=self.max_iter,
            random_state=self.random_state,
            categorical_features=self.categorical_features,
            **more,
        ).fit(X, y)
        if isinstance(self, ClassifierMixin):
            self.classes_ = self.inner_.classes_
        return self

    def predict(self, X: Any) -> Any:
        return self.spoilt(self.inner_.predict(X))

    def predict_proba(self, X: Any) -> Any:
        return self.spoilt(self.inner_.predict_proba(X))


class _Slow(_Around):
    def spoilt(self, said: Any) -> Any:
        if len(said) == 1:
            time.sleep(_SLOW_SECONDS)
        return said


class _Failing(_Around):
    def spoilt(self, said: Any) -> Any:
        said = said.astype(float)
        if len(said) > 16:  # its golden rows were answered
            said[::_FAILS] = np.nan
        return said


class SlowClassifier(ClassifierMixin, _Slow):
    """Slow to name a class."""


class SlowRegressor(RegressorMixin, _Slow):
    """Slow to name a number."""


class FailingClassifier(ClassifierMixin, _Failing):
    """Names no class for some rows."""


class FailingRegressor(RegressorMixin, _Failing):
    """Names no number for some rows."""
