"""Everything that a version needs to predict and to be judged by, as one artifact."""

from __future__ import annotations

import hashlib
import io
import math
import platform
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from importlib import import_module
from importlib.metadata import version
from typing import Any

import joblib
import numpy as np
import pandas as pd

from prodkit.data.schema import Schema
from prodkit.data.windows import blocks, digest
from prodkit.drift.counts import column_profile, profile
from prodkit.drift.profiles import ColumnProfile, Profile
from prodkit.drift.shifts import MIN_BLOCKS
from prodkit.errors import ModelError, ProdkitError
from prodkit.evidence import Estimate, Window
from prodkit.models.calibration import CalibrationSet
from prodkit.models.estimate import Estimated, estimated
from prodkit.models.estimators import Fallback, predictions
from prodkit.models.masks import Masked, MaskPrice, MaskSample
from prodkit.models.seen import Seen
from prodkit.models.training import OutOfTime, Split
from prodkit.params import ProjectParams, TrainParams
from prodkit.settings import own_modules, project_folder, project_on_path

__all__ = [
    "Bundle",
    "assemble",
    "changed_modules",
    "environment",
    "lead_score",
    "manifest",
    "measured",
    "pack",
    "unpack",
    "window_estimate",
]

# Artifacts name their classes by module: these are gone, and that is where their classes went. A class that leaves a
# module which stays is imported there; a renamed attribute is the business of __setstate__.
_MOVED: dict[str, str] = {
    "prodkit.drift.bins": "prodkit.drift.profiles",
    "prodkit.drift.columns": "prodkit.drift.profiles",
    "prodkit.drift.fingerprints": "prodkit.drift.profiles",
    "prodkit.spans": "prodkit.evidence",
}
_RENAMED = {"memory": "autocorrelation"}  # attributes of a bundle
_READING = threading.Lock()

_LIBRARIES = ("notebook-prodkit", "scikit-learn", "numpy", "scipy", "pandas", "joblib")
_GOLDEN_ROWS = 16
_RECENT = timedelta(days=14)


@dataclass(frozen=True)
class Bundle:
    """A fitted model with what it takes to use it safely.

    Attributes:
        model: fitted pipeline; takes ``schema.coerce(rows)``.
        schema: columns and types, frozen at training.
        fallback: the baseline, for rows that the model must not answer.
        trained: the window it has seen; rows inside it never judge it.
        holdout: the window left for validation.
        profile: summary of the rows it learned from.
        recent: summary of the newest of them: what its feed looked like at the end.
        scores: summary of predictions of the newest rows that it had not learned, to see predictions drift.
        importance: rise of the loss when the column is shuffled, for each feature.
        golden: a few rows, with
        golden_predictions: their predictions when the model was made.
        environment: versions of Python and of the libraries it was made with.
        digest: SHA-256 of the artifact that it was read from; empty before it is one.
        drill: the faults that were put into its training on purpose; empty for a real version.
        calibration: out-of-time rows that say what its predictions are worth while labels are missing; None for a
            version from before these were kept.
        autocorrelation: how much a day's mean loss resembles that of the day before, and the number of days it was
            estimated from.
        masks: out-of-time rows that say what it is worth without some of its columns, and
        seen: digests of the rows it learned from; None for a version from before these were kept.
    """

    model: Any
    schema: Schema
    fallback: Fallback
    trained: Window
    holdout: Window
    profile: Profile
    recent: Profile
    scores: ColumnProfile
    importance: dict[str, float]
    golden: pd.DataFrame
    golden_predictions: np.ndarray
    environment: dict[str, str] = field(default_factory=dict)
    digest: str = ""
    drill: dict[str, str] = field(default_factory=dict)
    calibration: CalibrationSet | None = None
    autocorrelation: tuple[float, int] | None = None
    masks: MaskSample | None = None
    seen: Seen | None = None

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({_RENAMED.get(name, name): value for name, value in state.items()})

    def predict(self, frame: pd.DataFrame) -> np.ndarray:
        """Predictions of the model, as :func:`prodkit.models.estimators.predictions`."""
        return predictions(self.model, frame, schema=self.schema)

    def without(self, columns: Sequence[str]) -> Bundle:
        """The same, asked without these columns."""
        return replace(self, model=Masked(self.model, columns)) if columns else self

    def mask_price(self, columns: Sequence[str]) -> MaskPrice:
        """What it is expected to lose without these columns, and the simple rule; not to be told of an old version."""
        if self.masks is None:
            return MaskPrice(tuple(columns), math.nan, math.inf, math.nan)
        return self.masks.price(self.model, columns, schema=self.schema)


def assemble(
    model: Any,
    split: Split,
    tested: OutOfTime,
    *,
    schema: Schema,
    params: TrainParams,
    importance: Mapping[str, float],
) -> Bundle:
    """Put a fitted model together with the summaries that later judge its input.

    Args:
        model: fitted on ``split.rows``.
        split: the rows it learned from, and the windows they and the holdout fill.
        tested: predictions by models that had not seen the rows: the reference of its scores.
        schema: frozen types of the columns.
        params: of the training.
        importance: of each feature, in units of the loss.
    """
    rows, feed = split.rows, split.feed
    days = blocks(feed[params.time_column])
    whole = profile(feed, schema, blocks=days)
    newest = (feed[params.time_column] >= feed[params.time_column].max() - _RECENT).to_numpy()
    golden = rows.iloc[np.linspace(0, len(rows) - 1, min(_GOLDEN_ROWS, len(rows))).astype(int)][schema.names]
    return Bundle(
        model=model,
        schema=schema,
        fallback=Fallback.fit(rows, schema=schema),
        trained=split.trained,
        holdout=split.holdout,
        profile=whole,
        recent=profile(feed[newest], schema, blocks=days[newest], like=whole),
        scores=_newest_scores(tested),
        importance=dict(importance),
        golden=golden.reset_index(drop=True),
        golden_predictions=predictions(model, golden, schema=schema),
        environment=environment(),
        drill=params.drill,
        calibration=CalibrationSet.of(tested, importance=importance),
        autocorrelation=tested.autocorrelation,
        masks=MaskSample.of(tested),
        seen=Seen.of(rows, schema),
    )


def _newest_scores(tested: OutOfTime) -> ColumnProfile:
    """What the model of the last fold says of it: of all folds it has learned from the most rows.

    Models of fewer rows are less sure of themselves, so that the version's answers would seem to have moved for ever.
    """
    part = tested.newest
    if len(np.unique(tested.days[part])) < MIN_BLOCKS:
        part = np.ones(len(part), dtype=bool)
    return column_profile(lead_score(tested.predicted[part]), blocks=tested.days[part])


def lead_score(predicted: np.ndarray) -> np.ndarray:
    """One number a row (n,) to follow over time: the prediction, or the largest class share of (n, k)."""
    return predicted if predicted.ndim == 1 else predicted.max(axis=1)


def environment() -> dict[str, str]:
    """The versions of Python and of the libraries that shape a prediction, and the digests of the project's modules."""
    versions = {name: version(name) for name in _LIBRARIES}
    return {"python": platform.python_version()} | versions | own_modules()


def manifest(
    bundle: Bundle, rows: pd.DataFrame, *, params: TrainParams, metrics: Mapping[str, Estimate]
) -> dict[str, Any]:
    """What the store keeps of a version, as JSON: its data, parameters, figures and environment."""
    figures = {
        name: {end: _finite(getattr(each, end)) for end in ("value", "low", "high")}
        for name, each in metrics.items()
    }
    return {
        "task": bundle.schema.task,
        "schema": bundle.schema.to_dict(),
        "trained": str(bundle.trained),
        "holdout": str(bundle.holdout),
        "rows": len(rows),
        "data_digest": digest(rows),
        "params": params.plain(),
        "metrics": figures,
        "importance": bundle.importance,
        "environment": bundle.environment,
    }


def _finite(number: float) -> float | None:
    """JSON knows no NaN and no infinity."""
    return float(number) if np.isfinite(number) else None


def measured(manifest: Mapping[str, Any]) -> dict[str, Estimate]:
    """The figures of a version from before it served, out of its manifest; NaN where one is not known."""
    figures = {}
    for name, ends in manifest.get("metrics", {}).items():
        given = (ends.get(end) for end in ("value", "low", "high"))
        value, low, high = (float(each) if isinstance(each, int | float) else float("nan") for each in given)
        figures[name] = Estimate(value, low, high, n=0, blocks=0)
    return figures


def window_estimate(
    rows: pd.DataFrame, params: ProjectParams, *, bundle: Bundle, confidence: float = 0.95, distrust: str = ""
) -> Estimated:
    """Estimate the performance of a version on a window, from the rows alone, without a look at any label.

    Args:
        rows: of the window.
        params: of the run.
        bundle: the version that answered.
        confidence: of the intervals.
        distrust: why it was not asked; then nothing is estimated.
    """
    if distrust:
        return Estimated(abstained=f"the model was not asked: {distrust}", rows=len(rows))
    if bundle.calibration is None:
        why = "the version was trained before calibration rows were kept with it: train it again"
        return Estimated(abstained=why, rows=len(rows))
    try:
        predicted, columns = bundle.predict(rows), bundle.calibration.encode(rows)
    except ProdkitError as error:
        return Estimated(abstained=f"the model does not answer: {error}", rows=len(rows))
    days = blocks(rows[params.time_column])
    return estimated(
        bundle.calibration, columns, predicted, days=days, confidence=confidence, seed=params.seed
    )


def pack(bundle: Bundle) -> bytes:
    """The bytes that the store keeps."""
    buffer = io.BytesIO()
    joblib.dump(bundle, buffer, compress=("zlib", 1))
    return buffer.getvalue()


def unpack(artifact: bytes, *, name: str = "artifact") -> Bundle:
    """Read what :func:`pack` wrote, and predict the golden rows before anybody relies on it.

    Only bytes whose digest has been verified may come here: unpickling runs what it reads.

    Raises:
        ModelError: it cannot be read in this environment, or answers otherwise than when it was made.
    """
    project_on_path()
    try:
        with _moved_names():
            bundle: Bundle = joblib.load(io.BytesIO(artifact))
        again = bundle.predict(bundle.golden)
    except Exception as error:
        rule = f"could not be read back: {type(error).__name__}: {error}"
        fix = "Install the versions its manifest names, or train it again."
        if isinstance(error, ModuleNotFoundError):
            fix = f"Put the module {error.name} back beside notebooks/ (looked in {project_folder()}), or install it."
        raise ModelError(name, rule=rule, fix=fix) from error
    gap = float(np.max(np.abs(again - bundle.golden_predictions), initial=0.0))
    scale = 1.0 + float(np.max(np.abs(bundle.golden_predictions), initial=0.0))
    if not gap <= 1e-6 * scale:
        made, here = bundle.environment, environment()
        changed = {key: f"{made.get(key)} -> {here[key]}" for key in here if made.get(key) != here[key]}
        rule = "must predict its golden rows as it did when it was made"
        fix = f"Changed since: {changed or 'nothing known'}. Train it again."
        raise ModelError(name, rule=rule, value=f"a difference of {gap:.2g}", fix=fix)
    return bundle


def changed_modules(bundle: Bundle) -> list[str]:
    """The project's modules that a version came from and that are not what they were then, or are gone."""
    folder = project_folder()
    now = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest() if (folder / name).is_file() else ""
        for name in bundle.environment
        if name.endswith(".py")
    }
    return [name for name, digest in now.items() if digest != bundle.environment[name]]


@contextmanager
def _moved_names() -> Iterator[None]:
    """Let an artifact be read that names classes by the modules they were in when it was written."""
    with _READING:
        sys.modules.update({old: import_module(new) for old, new in _MOVED.items()})
        try:
            yield
        finally:
            for old in _MOVED:
                del sys.modules[old]
