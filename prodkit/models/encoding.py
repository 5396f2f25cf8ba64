"""What the encoder of a fitted pipeline does to each feature, read back as tables and formulas."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from prodkit.data.schema import Schema
from prodkit.errors import ModelError
from prodkit.models.estimators import clock_parts

__all__ = ["UNKNOWN", "Source", "clock_part", "refusal", "sources"]

UNKNOWN = "\N{REPLACEMENT CHARACTER} a level that nobody has seen"
_EPOCH, _DAY = datetime(1970, 1, 1), timedelta(days=1)


@dataclass
class Source:
    """Where encoded columns come from: the levels of one feature by a table, or its number by a formula.

    Attributes:
        feature: position in the schema.
        columns: positions of the encoded columns.
        levels: of a categorical, what each level is encoded as (w,); None is "missing", ``UNKNOWN`` any other.
        part: of a datetime, which of :func:`prodkit.models.estimators.clock_parts`; None of a number.
        fill: what a missing number is replaced by; NaN if it stays missing.
        mean: what is taken off a number, and
        scale: what it is then divided by.
    """

    feature: int
    columns: list[int]
    levels: dict[str | None, Any] | None = None
    part: int | None = None
    fill: float = math.nan
    mean: float = 0.0
    scale: float = 1.0


def refusal(why: str) -> ModelError:
    """The error that a model cannot be taken apart."""
    fix = "Nothing needs to be done: the pipeline answers, more slowly."
    return ModelError("model", rule=f"has no compiled row path: {why}", fix=fix)


def sources(encoder: Any, *, schema: Schema) -> list[Source]:
    """Take a fitted encoder of :func:`prodkit.models.estimators.build_model` apart: all encoded columns, in order.

    Raises:
        ModelError: it has steps that are not of the kit's making.
    """
    places = {column.name: place for place, column in enumerate(schema.features)}
    found: list[Source] = []
    for name, step, columns in encoder.transformers_:
        where = encoder.output_indices_[name]
        if name == "remainder" or where.start == where.stop:
            continue
        if name in ("categorical", "many levels"):
            found += _level_sources(step, [str(column) for column in columns], places, where.start)
        elif name in ("numbers", "datetime"):
            parts = [None] if name == "numbers" else list(range(4))
            made = [Source(places[str(c)], [], part=part) for c in columns for part in parts]
            for offset, source in enumerate(made):
                source.columns = [where.start + offset]
            _scaling(step, made)
            found += made
        else:
            raise refusal(f"its encoder has a step of its own, {name}")
    return found


def _level_sources(step: Any, names: list[str], places: dict[str, int], start: int) -> list[Source]:
    """The tables of categorical columns, by asking the fitted encoder for every level."""
    base = np.asarray(step.transform(pd.DataFrame({name: [np.nan] for name in names}, dtype=object)))[0]
    found, begin = [], 0
    widths = getattr(step, "_n_features_outs", None) or [1] * len(names)
    for name, width, known in zip(names, widths, step.categories_, strict=True):
        levels = [level for level in known if isinstance(level, str)]
        if UNKNOWN in levels:
            raise refusal("a level is named as unknown levels are")
        asked: list[Any] = [*levels, UNKNOWN, np.nan]
        frame = pd.DataFrame({other: np.full(len(asked), np.nan) for other in names}, dtype=object)
        frame[name] = pd.Series(asked, dtype=object)
        said = np.asarray(step.transform(frame), dtype=float)
        block = slice(begin, begin + width)
        if not np.array_equal(np.delete(said, block, axis=1)[0], np.delete(base, block), equal_nan=True):
            raise refusal("its encoder mixes columns")
        table = dict(zip([*levels, UNKNOWN, None], said[:, block], strict=True))
        found.append(Source(places[name], list(range(start + begin, start + begin + width)), table))
        begin += width
    return found


def _scaling(step: Any, given: list[Source]) -> None:
    """Read how numbers are imputed and scaled, if they are."""
    steps = list(step.named_steps.values()) if isinstance(step, Pipeline) else [step]
    for each in steps:
        if isinstance(each, FunctionTransformer):
            if each.func not in (None, clock_parts):
                raise refusal("its encoder has a function of its own")
            continue
        for position, source in enumerate(given):
            if hasattr(each, "statistics_"):
                source.fill = float(each.statistics_[position])
            elif hasattr(each, "mean_"):
                source.mean, source.scale = float(each.mean_[position]), float(each.scale_[position])
            elif each != "passthrough":
                raise refusal(f"its encoder has a step of its own, {type(each).__name__}")


def clock_part(moment: datetime, part: int) -> float:
    """One of :func:`prodkit.models.estimators.clock_parts`."""
    if part == 0:
        return (moment - _EPOCH) / _DAY
    return float((moment.month, moment.weekday(), moment.hour)[part - 1])
