"""The types of a table's columns, frozen at training and never guessed again."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from prodkit.data.cells import (
    MISSING,
    Kind,
    Label,
    boolean,
    distinct,
    is_missing,
    is_nested,
    kind_of,
    kind_of_cells,
    label,
    number,
    numbers,
    present,
    read,
    read_cells,
    text,
    texts,
)
from prodkit.errors import LabelError, ParameterError, SchemaError, missing_column

__all__ = ["MAX_LEVELS", "Column", "Kind", "Label", "Schema"]

_Task = Literal["binary", "multiclass", "regression"]

MAX_LEVELS = 1000  # of a categorical column, the most frequent; also the most classes of a target
_MAX_INTEGER_CLASSES = 20  # an integer target with more distinct values is a quantity


@dataclass(frozen=True)
class Column:
    """One feature, as training saw it.

    Attributes:
        name: of the column.
        kind: how its values are read from now on.
        levels: of a categorical, the (at most ``MAX_LEVELS`` most frequent) texts seen, sorted; else None.
        integer: a numeric column that held whole numbers only.
    """

    name: str
    kind: Kind
    levels: tuple[str, ...] | None = None
    integer: bool = False


@dataclass(frozen=True)
class Schema:
    """The features, the target and the task of a model.

    Attributes:
        features: one :class:`Column` each, in the order that the model takes them.
        target: the label column.
        task: ``binary``, ``multiclass`` or ``regression``.
        classes: the labels, sorted, as plain values (the second is the positive one of ``binary``); empty for
            ``regression``.
        missing: texts that mean a missing value, in whatever is read by this schema.
        weight: column of the weights that rows are learned with; empty where all count alike.

    >>> rows = pd.DataFrame({"height": ["1.5", None, "2"], "city": ["Rome", "Oslo", "Rome"], "y": [1, 0, 1]})
    >>> schema = Schema.infer(rows, features=["height", "city"], target="y")
    >>> [column.kind for column in schema.features], schema.task, schema.classes
    (['numeric', 'categorical'], 'binary', (0, 1))
    >>> schema.coerce(rows).height.tolist()
    [1.5, nan, 2.0]
    """

    features: tuple[Column, ...]
    target: str
    task: _Task
    classes: tuple[Label, ...] = ()
    missing: tuple[str, ...] = tuple(sorted(MISSING))
    weight: str = ""

    @classmethod
    def infer(
        cls,
        frame: pd.DataFrame,
        *,
        features: Sequence[str],
        target: str,
        task: _Task | None = None,
        missing: Collection[str] = MISSING,
        weight: str = "",
    ) -> Schema:
        """Freeze what labelled training rows hold.

        Raises:
            SchemaError: a column is missing, occurs twice or holds several values in a cell, or the target is among
                the features.
            LabelError: one class only, or labels that contradict ``task``.
            ParameterError: no features at all.
        """
        if not features:
            raise ParameterError("features", rule="must name at least one column", value="none")
        if target in features:
            fix = "Remove it from `features`: a model that is told the answer learns nothing."
            raise SchemaError(target, rule="must not be both target and feature", fix=fix)
        nothing = frozenset(missing)
        columns = tuple(_column(_values(frame, name), nothing) for name in features)
        task, classes = _task(_values(frame, target), task, nothing)
        return cls(columns, target, task, classes, tuple(sorted(nothing)), weight)

    @property
    def names(self) -> list[str]:
        """The features' names, in order."""
        return [column.name for column in self.features]

    def column(self, name: str) -> Column:
        """The feature of this name; raises SchemaError when there is none."""
        for column in self.features:
            if column.name == name:
                return column
        raise missing_column(name, self.names, place="the model's schema")

    def coerce(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The features of ``frame`` (n rows), in order and with their frozen types.

        Numeric and boolean become float64, datetime becomes naive UTC datetime64[us], categorical becomes
        object: text, or NaN where missing. What cannot be read as its kind is missing (see ``malformed``).

        Raises:
            SchemaError: a feature is missing or occurs twice.
        """
        columns = {
            column.name: read(_values(frame, column.name), column.kind, frozenset(self.missing))[0]
            for column in self.features
        }
        return pd.DataFrame(columns, index=frame.index)

    def malformed(self, frame: pd.DataFrame) -> dict[str, int]:
        """Per feature, how many values are there but cannot be read as its frozen kind."""
        return {
            column.name: int(read(_values(frame, column.name), column.kind, frozenset(self.missing))[1].sum())
            for column in self.features
        }

    def encode(self, given: pd.Series | np.ndarray | Sequence[Any]) -> np.ndarray:
        """Labels (n,) as class numbers 0..k-1 (int64), or as float64 for ``regression``.

        Raises:
            LabelError: a label is missing, was not seen at training, or is not a finite number.
        """
        values = given if isinstance(given, pd.Series) else pd.Series(given)
        coded = self._coded(values)
        wrong = coded.isna().to_numpy()
        if wrong.any():
            names = [str(label) for label in self.classes]
            rule = f"must be one of {', '.join(names[:10])}" + (", ..." if len(names) > 10 else "")
            rule = "must be a finite number" if self.task == "regression" else rule
            found = f"{values[wrong].iloc[0]!r} ({wrong.sum()} such values)"
            fix = "Keep labelled rows only, or train again if a class is new."
            raise LabelError(self.target, rule=rule, value=found, fix=fix)
        return coded.to_numpy(dtype="float64" if self.task == "regression" else "int64")

    def knows(self, labels: pd.Series) -> np.ndarray:
        """Which labels (n,) :meth:`encode` takes: those of a class seen at training, or finite numbers."""
        return self._coded(labels).notna().to_numpy()

    def _coded(self, values: pd.Series) -> pd.Series:
        if self.task == "regression":
            return numbers(values, frozenset(self.missing))
        codes, cells = distinct(values)
        known = [self._code(cell) for cell in cells]
        return pd.Series(np.array(known, dtype="float64")[codes], index=values.index)

    def _code(self, cell: Any) -> float:
        """The number of the class that a cell names, however it is written; NaN of none."""
        if is_missing(cell, frozenset(self.missing)) or is_nested(cell):
            return np.nan
        names = [label(cell), text(cell)]
        for reader in (number, boolean):
            with suppress(ValueError, ArithmeticError):
                names += [reader(cell), text(reader(cell))]
        return next((float(self.classes.index(name)) for name in names if name in self.classes), np.nan)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> Schema:
        """Read back what :meth:`to_dict` wrote, before or after a trip through JSON."""
        columns = [
            Column(**(entry | {"levels": None if entry["levels"] is None else tuple(entry["levels"])}))
            for entry in document["features"]
        ]
        missing = tuple(sorted(document.get("missing", MISSING)))
        task, classes = document["task"], tuple(document["classes"])
        return cls(tuple(columns), document["target"], task, classes, missing, document.get("weight", ""))


def _values(frame: pd.DataFrame, name: str) -> pd.Series:
    if name not in frame.columns:
        raise missing_column(name, frame.columns)
    values = frame[name]
    if isinstance(values, pd.DataFrame):
        raise SchemaError(name, rule="must occur once", value=f"{values.shape[1]} columns of this name")
    return values


def _column(values: pd.Series, missing: frozenset[str]) -> Column:
    name, kind = str(values.name), kind_of(values, missing)
    if kind == "numeric":
        there = numbers(values, missing).dropna()
        return Column(name, kind, integer=bool(len(there) and (there % 1 == 0).all()))
    if kind == "categorical":
        if any(map(is_nested, distinct(values)[1])):
            fix = "Leave it out of `features`, or make columns of its parts."
            raise SchemaError(name, rule="must hold one value in each cell", value="lists", fix=fix)
        counts = texts(values, missing).value_counts()
        frequent = sorted(counts.items(), key=lambda level: (-level[1], str(level[0])))[:MAX_LEVELS]
        return Column(name, kind, levels=tuple(sorted(str(level) for level, _ in frequent)))
    return Column(name, kind)


def _task(values: pd.Series, given: _Task | None, missing: frozenset[str]) -> tuple[_Task, tuple[Label, ...]]:
    """The task and the sorted classes of a target's values."""
    name, cells = str(values.name), distinct(values[present(values, missing)])[1][:-1]
    labels = _one_type([label(cell) for cell in cells])
    if len(labels) < 2:
        rule, fix = "must hold at least two classes", "Choose a longer `window`, or another `target`."
        raise LabelError(name, rule=rule, value=", ".join(map(str, labels)) or "no label at all", fix=fix)
    fractions = any(isinstance(each, float) for each in labels)
    measured = (
        not any(isinstance(each, bool) for each in labels) and not read_cells(labels, "numeric")[1].any()
    )
    task: _Task = given or "multiclass"
    if not given and len(labels) == 2:
        task = "binary"
    elif not given and measured and (fractions or len(labels) > _MAX_INTEGER_CLASSES):
        task = "regression"
    rule, holds = {
        "binary": ("must hold exactly two classes", len(labels) == 2),
        "multiclass": (f"must hold at most {MAX_LEVELS} classes", len(labels) <= MAX_LEVELS),
        "regression": ("must hold finite numbers", measured),
    }[task]
    if task == "multiclass" and fractions:
        rule, holds = "must hold no fractions", False
    if not holds:
        shown = f"{len(labels)} distinct values such as {min(map(str, labels))}"
        fix = "Set `task` to binary, multiclass or regression as fits, or choose another `target`."
        raise LabelError(name, rule=f"{rule} for the task {task}", value=shown, fix=fix)
    return task, () if task == "regression" else tuple(sorted(labels))


def _one_type(labels: Sequence[Label]) -> set[Label]:
    """Labels of several types as those of one: 0 and 1 beside truths are truths, digits beside numbers are numbers."""
    kinds = {type(each) for each in labels}
    if bool in kinds and all(str(each) in ("True", "False", "0", "1") for each in labels):
        return {bool(boolean(each)) for each in labels}
    digits = str in kinds and bool not in kinds and kind_of_cells(labels) == "numeric"
    if (len(kinds) > 1 and digits) or (bool in kinds and str not in kinds):
        return {label(number(each)) for each in labels}
    return {text(each) for each in labels} if str in kinds else set(labels)
