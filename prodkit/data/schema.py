"""The types of a table's columns, frozen at training and never guessed again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from prodkit.data.cells import Kind, Label, booleans, kind_of, labels, moments, numbers, present, texts
from prodkit.errors import LabelError, ParameterError, SchemaError, missing_column

__all__ = ["MAX_LEVELS", "Column", "Kind", "Label", "Schema"]

_Task = Literal["binary", "multiclass", "regression"]

MAX_LEVELS = 1000  # of a categorical column, the most frequent; also the most classes of a target
_MAX_INTEGER_CLASSES = 20  # an integer target with more distinct values is a quantity
_READ = {"numeric": numbers, "boolean": booleans, "categorical": texts, "datetime": moments}


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

    @classmethod
    def infer(
        cls, frame: pd.DataFrame, *, features: Sequence[str], target: str, task: _Task | None = None
    ) -> Schema:
        """Freeze what labelled training rows hold.

        Raises:
            SchemaError: a column is missing or occurs twice, or the target is among the features.
            LabelError: one class only, or labels that contradict ``task``.
            ParameterError: no features at all.
        """
        if not features:
            raise ParameterError("features", rule="must name at least one column", value="none")
        if target in features:
            fix = "Remove it from `features`: a model that is told the answer learns nothing."
            raise SchemaError(target, rule="must not be both target and feature", fix=fix)
        columns = tuple(_column(_values(frame, name)) for name in features)
        task, classes = _task(_values(frame, target), task)
        return cls(columns, target, task, classes)

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
        read = {column.name: _READ[column.kind](_values(frame, column.name)) for column in self.features}
        return pd.DataFrame(read, index=frame.index)

    def malformed(self, frame: pd.DataFrame) -> dict[str, int]:
        """Per feature, how many values are there but cannot be read as its frozen kind."""
        counts = {}
        for column in self.features:
            values = _values(frame, column.name)
            lost = _READ[column.kind](values).isna().to_numpy() & present(values)
            counts[column.name] = int(lost.sum())
        return counts

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
            return numbers(values)
        lookup: dict[Any, int] = {str(label): code for code, label in enumerate(self.classes)}
        lookup |= {label: code for code, label in enumerate(self.classes)}  # the value before its name
        plain = labels(values)
        return plain.map(lookup).fillna(plain.map(str).map(lookup))

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
        return cls(tuple(columns), document["target"], document["task"], tuple(document["classes"]))


def _values(frame: pd.DataFrame, name: str) -> pd.Series:
    if name not in frame.columns:
        raise missing_column(name, frame.columns)
    values = frame[name]
    if isinstance(values, pd.DataFrame):
        raise SchemaError(name, rule="must occur once", value=f"{values.shape[1]} columns of this name")
    return values


def _column(values: pd.Series) -> Column:
    name, kind = str(values.name), kind_of(values)
    if kind == "numeric":
        seen = numbers(values).dropna()
        return Column(name, kind, integer=bool(len(seen) and (seen % 1 == 0).all()))
    if kind == "categorical":
        counts = texts(values).value_counts()
        frequent = sorted(counts.items(), key=lambda level: (-level[1], str(level[0])))[:MAX_LEVELS]
        return Column(name, kind, levels=tuple(sorted(str(level) for level, _ in frequent)))
    return Column(name, kind)


def _task(values: pd.Series, given: _Task | None) -> tuple[_Task, tuple[Label, ...]]:
    """The task and the sorted classes of a target's values."""
    name, seen = str(values.name), values[present(values)]
    plain = labels(seen)
    texts_too = any(isinstance(label, str) for label in set(plain))
    distinct: set[Label] = set(plain.map(str) if texts_too else plain)  # among texts, False and 0 are two
    if len(distinct) < 2:
        rule, fix = "must hold at least two classes", "Choose a longer `window`, or another `target`."
        raise LabelError(name, rule=rule, value=", ".join(map(str, distinct)) or "no label at all", fix=fix)
    fractions = any(isinstance(label, float) for label in distinct)
    measured = numbers(seen).notna().all() and not any(isinstance(label, bool) for label in distinct)
    task: _Task = given or "multiclass"
    if not given and len(distinct) == 2:
        task = "binary"
    elif not given and measured and (fractions or len(distinct) > _MAX_INTEGER_CLASSES):
        task = "regression"
    rule, holds = {
        "binary": ("must hold exactly two classes", len(distinct) == 2),
        "multiclass": (f"must hold at most {MAX_LEVELS} classes", len(distinct) <= MAX_LEVELS),
        "regression": ("must hold finite numbers", measured),
    }[task]
    if task == "multiclass" and fractions:
        rule, holds = "must hold no fractions", False
    if not holds:
        found = f"{len(distinct)} distinct values such as {min(map(str, distinct))}"
        fix = "Set `task` to binary, multiclass or regression as fits, or choose another `target`."
        raise LabelError(name, rule=f"{rule} for the task {task}", value=found, fix=fix)
    return task, () if task == "regression" else tuple(sorted(distinct))
