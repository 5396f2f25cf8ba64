"""What a table is, proposed from a look at it: each fact with its reason, for a person to correct."""

from __future__ import annotations

import codecs
import csv
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Any

import numpy as np
import pandas as pd

from prodkit.data.arrays import time_formats, times
from prodkit.data.database import Database
from prodkit.data.schema import Schema
from prodkit.data.sources import open_table
from prodkit.data.tables import Files
from prodkit.data.windows import feature_columns, read_window
from prodkit.errors import LabelError, ParameterError, SchemaError, WindowError, missing_column
from prodkit.evidence import Window, write_duration
from prodkit.params import ProjectParams, TrainParams
from prodkit.schedule import Calendar, first_training, require_decidable, suited

__all__ = ["Proposal", "csv_dialect", "proposal"]

_SURELY_UNIQUE = 200  # rows; fewer may differ by chance
_MOST_ROWS = 300_000  # that are looked at, the newest
_SAMPLE_ROWS = 20_000  # that a column is suspected by
_MOST_PERIODS = 20_000
_SURE = 0.995  # share of rows whose label a single column tells
_EVERY = ("month", "week", "day", "12h", "6h", "1h")
_NAMES = re.compile(r"(^|_)(id|key|uuid|nr|no|number)$|Id$|ID$", re.I)


@dataclass
class Proposal:
    """What is known of a table.

    Attributes:
        chosen: the project facts, plain, by name.
        reasons: why, for those that were found out.
        left_out: columns that are no features, and why.
        defaults: for each notebook, its window and what else suits the table.
        rows: those that were looked at.
    """

    chosen: dict[str, Any]
    reasons: dict[str, str]
    left_out: dict[str, str] = field(default_factory=dict)
    defaults: dict[str, dict[str, Any]] = field(default_factory=dict)
    rows: pd.DataFrame = field(default_factory=pd.DataFrame)


def proposal(given: Mapping[str, Any]) -> Proposal:
    """Look at a table and propose the facts that are not given.

    Args:
        given: facts; ``data``, ``time_column`` and ``target`` among them.

    Raises:
        ParameterError: how times are written can be read in two ways.
        SchemaError: a column is missing, or the times cannot be read.
        LabelError: the target cannot be learned.
        WindowError: the table is too short to learn from and to judge by.
    """
    facts = Proposal(dict(given), {})
    neutral: dict[str, Any] = {"features": [], "id_column": [], "window": "1970-01-01/2100-01-01"}
    known = neutral | facts.chosen
    _dialect(facts, known)
    table = _table(facts, known)
    moments = _moments(table, known)
    _read_rows(facts, known, table, moments)
    _learnable(facts)
    _periods(facts, moments)
    return facts


def _set(facts: Proposal, name: str, value: Any, reason: str) -> None:
    """A fact that was found out, unless it was given."""
    if name in facts.chosen:
        facts.reasons.setdefault(name, "as you said")
    else:
        facts.chosen[name], facts.reasons[name] = value, reason


# How it is written


def _dialect(facts: Proposal, known: dict[str, Any]) -> None:
    table = open_table(ProjectParams.check(known))
    if isinstance(table, Files) and not table.is_parquet and "csv" not in facts.chosen:
        dialect = csv_dialect(table.beginning())
        if dialect:
            _set(facts, "csv", dialect, "so it is written, by its first lines")
            known["csv"] = dialect


def csv_dialect(beginning: bytes) -> dict[str, str]:
    r"""How a CSV file is written, by its first bytes, where that is not ``,`` ``.`` and UTF-8.

    >>> csv_dialect(b"id;price\n1;1.234,50\n2;0,5\n")
    {'delimiter': ';', 'decimal': ',', 'thousands': '.'}
    """
    dialect: dict[str, str] = {}
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(beginning)
    except UnicodeDecodeError:
        text, dialect["encoding"] = beginning.decode("cp1252", "replace"), "cp1252"
    lines = text.splitlines()[:200]
    lines = lines[:-1] if len(lines) > 2 else lines  # the last may be cut off

    def rows(sign: str) -> list[list[str]]:
        return [row for row in csv.reader(lines, delimiter=sign) if row]

    def order(sign: str) -> tuple[bool, int]:
        lengths = [len(row) for row in rows(sign)]
        return len(set(lengths)) == 1, max(lengths, default=0)

    sign = max(",;\t|", key=order)
    if sign != "," and order(sign)[1] > 1:
        dialect = {"delimiter": sign} | dialect
    cells = [cell.strip() for row in rows(sign)[1:] for cell in row]
    for point, group in ((",", "."), (".", ",")):
        whole = rf"[+-]?\d{{1,3}}(\{group}\d{{3}})+"
        grouped = any(re.fullmatch(rf"{whole}\{point}\d+", cell) for cell in cells)
        broken = grouped or any(re.fullmatch(rf"[+-]?\d+\{point}\d+", cell) for cell in cells)
        if broken and (point == "," or grouped):
            dialect |= {"decimal": point} if point == "," else {}
            dialect |= {"thousands": group} if grouped else {}
            break
    return dialect


def _table(facts: Proposal, known: dict[str, Any]) -> Files | Database:
    """The table, once it is known how its times are written."""
    params = ProjectParams.check(known)
    table, time = open_table(params), params.time_column
    for name in (time, params.target):
        if name not in table.columns:
            option = "--time" if name == time else "--target"
            raise missing_column(name, table.columns, place=params.data, fix=f"Set `{option}`.")
    if params.time_format:
        return table
    try:
        table.span(time)
    except SchemaError as error:
        forms = time_formats(_cells(table, time))
        if not forms:
            raise
        days = {form.split(" ")[0] for form in forms}
        if {"%d/%m/%Y", "%m/%d/%Y"} <= days:
            rule, fix = (
                "can be read day first or month first",
                f"Add -p time_format '{forms[0]}' or '{forms[1]}'.",
            )
            raise ParameterError("time_format", rule=rule, place=f"{params.data}, {time}", fix=fix) from error
        _set(facts, "time_format", forms[0], "the first of the usual forms that reads every time")
        known["time_format"] = forms[0]
        return open_table(ProjectParams.check(known))
    return table


def _cells(table: Files | Database, time: str) -> Any:
    """Times as they stand, of the first part."""
    if isinstance(table, Files):
        batch = next(columns[time] for part in table.parts() for columns in table.batches(part, [time]))
        return batch
    return next(iter(table.cells([time])))[time]


# Its rows


def _moments(table: Files | Database, known: Mapping[str, Any]) -> np.ndarray:
    """The time of each row, sorted."""
    time, widest = str(known["time_column"]), (datetime(1, 1, 2), datetime(9999, 12, 30))
    parts = table.window([], time=time, start=widest[0], end=widest[1])
    moments = [times(batch.column(time), time) for batch in parts]
    total = np.sort(np.concatenate([np.empty(0, "datetime64[us]"), *moments]))
    if not len(total):
        raise WindowError("data", rule="must hold rows with a time", value="none", place=str(known["data"]))
    return total


def _read_rows(facts: Proposal, known: dict[str, Any], table: Any, moments: np.ndarray) -> None:
    """The newest rows, with all columns."""
    first = moments[-min(len(moments), _MOST_ROWS)].astype(datetime)
    window = Window(first, moments[-1].astype(datetime) + timedelta(microseconds=1))
    if isinstance(table, Database) and not known["id_column"]:
        names = [name for name in table.columns if _NAMES.search(name)]
        known["id_column"] = names[:1] or [next(n for n in table.columns if n != known["time_column"])]
    far = {"label_delay": "0s", "as_of": "2262-01-01", "window": str(window)}
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        facts.rows = read_window(ProjectParams.check({**known, **far}), unique=False)
    facts.left_out |= dict.fromkeys(getattr(table, "keys", ()), "it comes from the names of folders")
    facts.left_out |= dict.fromkeys(table.nested, "its cells hold several values")
    rows, taken = facts.rows, {known["time_column"], known["target"]}
    unique = [
        name for name in table.columns
        if name not in taken and name in rows and not pd.api.types.is_float_dtype(rows[name])
        and (_NAMES.search(name) or len(rows) >= _SURELY_UNIQUE)
        and rows[name].notna().all() and rows[name].is_unique
    ]  # fmt: skip
    unique.sort(key=lambda name: not _NAMES.search(name))
    reason = "its values never repeat" if unique else "no column names a row; its file and position do"
    _set(
        facts, "id_column", unique[:1] or (known["id_column"] if isinstance(table, Database) else []), reason
    )


def _learnable(facts: Proposal) -> None:
    """Task, and features with what is left out."""
    given = facts.chosen.get("features") or []
    params = ProjectParams.check({"window": "1970-01-01/2100-01-01", **facts.chosen, "features": given})
    rows = facts.rows[facts.rows[params.target].notna()]
    if rows.empty:
        raise LabelError(params.target, rule="must hold labels", value="none", fix="Choose another --target.")
    names = feature_columns(facts.rows, params)
    for name in facts.rows.columns:
        apart = (params.time_column, params.target, *params.id_column, "_row")
        if not given and name not in names and name not in apart:
            facts.left_out[str(name)] = "it only names rows"
    schema = Schema.infer(
        rows, features=names, target=params.target, task=params.task, missing=params.missing
    )
    classes = f"{len(schema.classes)} classes" if schema.classes else "numbers"
    _set(facts, "task", schema.task, f"{params.target} holds {classes}")
    if not given:
        sample = rows.iloc[:: max(1, len(rows) // _SAMPLE_ROWS)]
        columns, truth = schema.coerce(sample), pd.Series(schema.encode(sample[params.target]))
        for name in list(names):
            if reason := _suspicion(columns[name].reset_index(drop=True), truth, schema):
                facts.left_out[name] = reason
        names = [name for name in names if name not in facts.left_out]
        if not names:
            rule = "must leave a column to learn from"
            value = "; ".join(f"{name}: {reason}" for name, reason in facts.left_out.items())
            raise ParameterError(
                "features", rule=rule, value=value, fix="Name some with -p features '[...]'."
            )
    _set(facts, "features", names, f"{len(names)} columns, with the kinds that their values have")


def _suspicion(values: pd.Series, truth: pd.Series, schema: Schema) -> str:
    """Why a column should not be learned from; empty if nothing speaks against it."""
    if values.nunique() < 2:
        return "it holds one value only" if values.notna().any() else "it is empty"
    if schema.task == "regression":
        if pd.api.types.is_numeric_dtype(values) and abs(values.corr(truth, method="spearman")) > 0.9995:
            return "it tells the target by itself: is it known only afterwards?"
        return ""
    levels = values
    if pd.api.types.is_numeric_dtype(values) and values.nunique() > 20:
        levels = pd.qcut(values, 20, labels=False, duplicates="drop")
    if levels.nunique() > len(truth) / 10:
        return ""
    table = pd.crosstab(levels.astype(object).where(levels.notna(), "?"), truth)
    usual = truth.value_counts(normalize=True).max()
    told = table.max(axis=1).sum() / table.to_numpy().sum()
    sure = told >= _SURE and usual < 2 * _SURE - 1
    return "it tells the target by itself: is it known only afterwards?" if sure else ""


# Its life


def _periods(facts: Proposal, moments: np.ndarray) -> None:
    """Label delay, period of life, and the windows of the notebooks."""
    time, target = facts.chosen["time_column"], facts.chosen["target"]
    labelled = facts.rows[facts.rows[target].notna()][time]
    behind = (facts.rows[time].max() - labelled.max()).to_pytimedelta()
    delay, reason = (
        "1d",
        "the newest row has a label, so the table does not show it: how long do you wait for one?",
    )
    if behind >= timedelta(hours=1):
        delay = f"{ceil(behind / timedelta(days=1))}d"
        reason = (
            f"the newest rows have no label yet; the last one with a label is {write_duration(behind)} older"
        )
    _set(facts, "label_delay", delay, reason)
    first, last = (moment.astype(datetime) for moment in moments[[0, -1]])
    share = len(labelled) / len(facts.rows)
    wait = ProjectParams.check(
        {"window": "1970-01-01/2100-01-01", "label_delay": facts.chosen["label_delay"]}
    ).label_delay
    rows_a_day = share * len(moments) / max((last - first) / timedelta(days=1), 1.0)
    chosen, error = None, None
    for every in [facts.chosen["every"]] if "every" in facts.chosen else _EVERY:
        periods = _ended(every, first, last)
        try:
            training = first_training(periods, first, label_delay=wait, rows_a_day=rows_a_day)
            require_decidable(periods[0], every=every, label_delay=wait, rows_a_day=rows_a_day)
        except (WindowError, ParameterError) as short:
            error = error or short
            continue
        lived = [period for period in periods if period.start >= training.end]
        if len(lived) >= 2 or (lived and "every" in facts.chosen):
            chosen = every, training, lived
            break
    if chosen is None:
        raise error or WindowError("data", rule="must be longer", value=f"{first} to {last}")
    every, training, lived = chosen
    reason = f"{len(moments):,} rows from {first:%Y-%m-%d} to {last:%Y-%m-%d}: {len(lived)} periods to serve"
    _set(facts, "every", every, reason)
    facts.defaults = _windows(training, lived, first, last, wait, rows_a_day)


def _ended(every: str, first: datetime, last: datetime) -> list[Window]:
    """The periods from the first row to the last that are over."""
    now, periods = datetime.now(UTC).replace(tzinfo=None), [Calendar(every).period(first)]
    while periods[-1].end <= last and len(periods) < _MOST_PERIODS:
        periods.append(Calendar(every).period(periods[-1].end))
    return [each for each in periods if each.end <= now]


def _windows(
    training: Window,
    lived: Sequence[Window],
    first: datetime,
    last: datetime,
    wait: timedelta,
    rows_a_day: float,
) -> dict[str, dict[str, Any]]:
    """For each notebook a window with enough rows before it, and the policy that suits it."""
    full = [each for each in lived if each.end <= last] or list(lived)
    known = [each for each in full if each.end + wait <= last] or full
    period = known[-1]
    policies = suited(training, period.days, label_delay=wait, rows_a_day=rows_a_day)
    holdout = TrainParams.check({"holdout": policies["train"]["holdout"]}).holdout
    start = training.start.replace(hour=0, minute=0, second=0, microsecond=0)
    judged = Window(max(period.end - holdout, start + (period.end - start) / 2), period.end)
    late = {"as_of": (period.end + wait).isoformat()} if wait > (period.end - period.start) / 4 else {}
    length = max(timedelta(days=1), timedelta(days=int(period.days / 4)))
    length = min(length, period.end - period.start)
    looked = Window(period.end - length, period.end)
    enough = max(50, min(500, int(0.7 * rows_a_day * looked.days)))
    here: dict[str, Any] = {"window": str(period)}
    return {
        "train": {**policies["train"], "window": str(Window(start, training.end))},
        "validate": {**policies["validate"], "window": str(judged), "slices": [], **late},
        "score": here,
        "drift": here,
        "rollback": {**policies["rollback"], **here, **late},
        "monitor": {"window": str(looked), "windows": 3, "min_rows": enough, **late},
        "stress": here,
    }
