"""What each notebook may be told: names, types, units and bounds of its parameters cell."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
)

from prodkit.errors import ParameterError

__all__ = [
    "NOTEBOOKS",
    "DriftParams",
    "Duration",
    "Facts",
    "RollbackParams",
    "ScoreParams",
    "Task",
    "TrainParams",
    "ValidateParams",
    "Window",
    "environment_set",
    "expand",
    "outputs_folder",
    "parse_duration",
    "project_folder",
    "resolve",
    "using_outputs",
]

Task = Literal["binary", "multiclass", "regression"]

_UNITS = {"w": "weeks", "d": "days", "h": "hours", "min": "minutes", "s": "seconds"}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(w|d|h|min|s)")


@dataclass(frozen=True, order=True)
class Window:
    """A half-open span of time, ``start <= t < end``.

    >>> Window.parse("2013-04-01/2013-05-01").days
    30.0
    """

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        if not self.start < self.end:
            raise ValueError(f"a window must start before it ends, found {self}")

    def __str__(self) -> str:
        return f"{_iso(self.start)}/{_iso(self.end)}"

    def __contains__(self, moment: datetime) -> bool:
        return self.start <= moment < self.end

    @property
    def days(self) -> float:
        """Length in days."""
        return (self.end - self.start) / timedelta(days=1)

    @classmethod
    def parse(cls, text: str) -> Window:
        """Read ``start/end`` in ISO dates; raises ValueError when it is anything else."""
        match text.split("/"):
            case [start, end]:
                return cls(datetime.fromisoformat(start.strip()), datetime.fromisoformat(end.strip()))
        raise ValueError(f"a window is written start/end, such as 2013-04-01/2013-05-01, found {text!r}")


def _iso(moment: datetime) -> str:
    return moment.date().isoformat() if moment == datetime(*moment.timetuple()[:3]) else moment.isoformat()


def parse_duration(text: str) -> timedelta:
    """Read a length of time such as ``14d``, ``36h`` or ``90min``; raises ValueError otherwise.

    >>> parse_duration("1.5d")
    datetime.timedelta(days=1, seconds=43200)
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(
            f"a duration is a number and one of {', '.join(_UNITS)}, such as 14d, found {text!r}"
        )
    return timedelta(**{_UNITS[match[2]]: float(match[1])})


def _write_duration(span: timedelta) -> str:
    seconds = span.total_seconds()
    return f"{seconds / 86400:g}d" if seconds % 3600 == 0 else f"{seconds:g}s"


def _from_text(parse: Any) -> BeforeValidator:
    """Let a field be given as text, with the empty text meaning "not given"."""
    return BeforeValidator(
        lambda given: (parse(given) if given else None) if isinstance(given, str) else given
    )


def _fraction(share: float) -> float:
    if not 0 <= share <= 1:
        raise ValueError(f"a share lies between 0 and 1, found {share}")
    return share


OptionalWindow = Annotated[
    Window | None,
    _from_text(Window.parse),
    PlainSerializer(lambda window: "" if window is None else str(window)),
]
GivenWindow = Annotated[Window, _from_text(Window.parse), PlainSerializer(str)]
Moment = Annotated[
    datetime | None,
    _from_text(datetime.fromisoformat),
    PlainSerializer(lambda moment: "" if moment is None else _iso(moment)),
]
Duration = Annotated[timedelta, _from_text(parse_duration), PlainSerializer(_write_duration)]
Share = Annotated[float, AfterValidator(_fraction)]
OptionalTask = Annotated[
    Task | None, BeforeValidator(lambda given: given or None), PlainSerializer(lambda t: t or "")
]

# The fields `flights` is described by; params/flights.yaml says the same to the other notebooks.
_FLIGHTS_FEATURES = [
    *("origin", "carrier", "dest", "weekday", "distance", "departure_minute", "arrival_minute"),
    *("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"),
]


class Facts(BaseModel):
    """The project facts: what the data is. Every notebook declares all of them, with these defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
    notebook: ClassVar[str] = ""

    data: str = Field("flights", min_length=1, description="table to read: path, folder, URL or `flights`")
    time_column: str = Field("time", min_length=1, description="column that says when a row happened")
    target: str = Field("late", min_length=1, description="column to predict")
    task: OptionalTask = Field(None, description="binary, multiclass or regression; inferred if empty")
    features: list[str] = Field(_FLIGHTS_FEATURES, description="columns to learn from; all others if empty")
    id_column: list[str] = Field(
        ["time", "carrier", "flight", "origin"], description="columns that name a row; may be empty"
    )
    label_delay: Duration = Field(timedelta(days=1), description="how long until a label is known")
    as_of: Moment = Field(None, description="moment at which the run stands; end of its window if empty")
    value: str | dict[str, dict[str, float]] = Field(
        "", description="cost matrix or column of the business outcome"
    )
    window: GivenWindow = Field(description="rows that the run is about, start/end")
    reference: OptionalWindow = Field(
        None, description="rows to compare with; the champion's training if empty"
    )
    seed: int = Field(0, ge=0, lt=2**32, description="random seed")
    slo: dict[str, float] = Field(
        {"latency_p99_ms": 250.0, "error_share": 0.01, "degraded_share": 0.05}, description="service limits"
    )
    approval: Literal["automatic", "required"] = Field("automatic", description="who lets an action happen")
    retrain_cost: float = Field(
        0.005, ge=0, description="gain, in the loss, below which retraining does not pay"
    )
    backend: Literal["loky", "threading", "dask"] = Field("loky", description="joblib backend")
    notify: list[str] = Field([], description="addresses that are told of alerts")
    store: str = Field(
        "demo", min_length=1, description="SQLAlchemy URL, or `demo` for one made for this run"
    )
    artifacts: str = Field(
        "outputs/artifacts", min_length=1, description="folder or fsspec URL of the artifacts"
    )
    drill: dict[str, str] = Field({}, description="rehearsal: a fault to put into each column named")

    @property
    def moment(self) -> datetime:
        """The moment at which the run stands: nothing later is read."""
        return self.as_of or self.window.end

    @property
    def labels_until(self) -> datetime:
        """Rows at or after this moment have no label yet."""
        return self.moment - self.label_delay

    @classmethod
    def from_cell(cls, names: Mapping[str, Any]) -> Self:
        """Check the variables of a parameters cell (pass ``globals()``).

        Raises:
            ParameterError: naming each wrong value with its rule.
        """
        return cls.check({name: names[name] for name in cls.model_fields if name in names})

    @classmethod
    def check(cls, given: Mapping[str, Any]) -> Self:
        """Build from plain values, as a params file holds them.

        Raises:
            ParameterError: an unknown name (with the nearest known one), a wrong type, a value out of bounds.
        """
        for name in given:
            if name not in cls.model_fields:
                raise unknown_parameter(name, known=cls.model_fields, place=f"{cls.notebook}.ipynb")
        try:
            return cls.model_validate(dict(given))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            name = str(first["loc"][0])
            field = cls.model_fields.get(name)
            raise ParameterError(
                ".".join(str(part) for part in first["loc"]),
                rule=f"is wrong: {first['msg'].removeprefix('Value error, ')}",
                value=repr(first["input"]) if first["type"] != "missing" else None,
                place=f"the parameters of {cls.notebook}.ipynb",
                fix=f"It means: {field.description}." if field else "",
            ) from error

    def plain(self) -> dict[str, Any]:
        """The values as a params file holds them: text, numbers, lists and mappings."""
        return self.model_dump(mode="json")


class TrainParams(Facts):
    """Policy of ``train.ipynb``."""

    notebook: ClassVar[str] = "train"

    window: GivenWindow = Field(
        Window.parse("2013-01-01/2013-04-01"), description="rows to learn from, start/end"
    )
    model: str = Field(
        "auto", min_length=1, description="import path of an estimator or `package.module:factory`"
    )
    model_args: dict[str, Any] = Field({}, description="keyword arguments of the model")
    holdout: Duration = Field(timedelta(days=14), description="newest part of the window, kept for validate")
    folds: int = Field(4, ge=2, le=20, description="time-ordered folds")
    search: Literal["", "random", "halving"] = Field(
        "", description="search for hyperparameters; none if empty"
    )
    search_space: dict[str, list[Any]] = Field({}, description="values to try for each keyword argument")
    search_candidates: int = Field(8, ge=2, le=1000, description="combinations tried by a random search")
    diagnostic_rows: int = Field(
        20_000, ge=100, description="rows that the diagnostics are computed on, at most"
    )


class ValidateParams(Facts):
    """Policy of ``validate.ipynb``."""

    notebook: ClassVar[str] = "validate"

    window: GivenWindow = Field(
        Window.parse("2013-03-18/2013-04-01"), description="newest labelled rows, unseen by either model"
    )
    challenger: int = Field(0, ge=0, description="version to judge; the newest if 0")
    margin: float = Field(0.0, description="gain, in the loss, that the interval must exceed")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="of the intervals")
    min_rows: int = Field(500, ge=1, description="fewer labelled rows are inconclusive")
    min_blocks: int = Field(7, ge=2, description="fewer days of labelled rows are inconclusive")
    slices: list[str] = Field(
        ["origin", "carrier"], description="columns judged level by level; those with few levels if empty"
    )
    slice_min_rows: int = Field(200, ge=1, description="smaller slices are not judged")
    slice_margin: float = Field(0.02, ge=0, description="loss by which no slice may credibly get worse")
    calibration_limit: float = Field(
        0.05, gt=0, description="calibration error above which it must beat the champion's"
    )
    size_limit_mb: float = Field(100.0, gt=0, description="largest artifact, megabytes")
    latency_limit_ms: float = Field(100.0, gt=0, description="slowest median of one row, milliseconds")


class ScoreParams(Facts):
    """Policy of ``score.ipynb``."""

    notebook: ClassVar[str] = "score"

    window: GivenWindow = Field(Window.parse("2013-04-01/2013-05-01"), description="rows to score, start/end")
    batch_rows: int = Field(10_000, ge=1, description="rows a batch")
    predictions: str = Field(
        "outputs/predictions", min_length=1, description="folder that receives the Parquet files"
    )


class DriftParams(Facts):
    """Policy of ``drift.ipynb``."""

    notebook: ClassVar[str] = "drift"

    window: GivenWindow = Field(
        Window.parse("2013-04-01/2013-05-01"), description="rows to compare, start/end"
    )
    alpha: float = Field(0.05, gt=0, lt=1, description="false discovery rate over the columns")
    min_effect: float = Field(0.1, gt=0, description="Jensen-Shannon distance below which a shift is ignored")
    top: int = Field(6, ge=1, le=50, description="columns that are drawn")


class RollbackParams(Facts):
    """Policy of ``rollback.ipynb``."""

    notebook: ClassVar[str] = "rollback"

    window: GivenWindow = Field(
        Window.parse("2013-04-01/2013-05-01"), description="rows that judge, start/end"
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="of the always-valid intervals")
    rollback_margin: float = Field(
        0.005, ge=0, description="gain, in the loss, that the predecessor must show"
    )
    ranking_margin: float = Field(
        0.01, ge=0, description="gain, in AUC within a day, that it must show otherwise"
    )
    challenger_share: Share = Field(
        0.5, description="newest share of the window that judges a fresh challenger"
    )
    min_rows: int = Field(500, ge=1, description="fewer labelled rows are inconclusive")
    min_blocks: int = Field(7, ge=2, description="fewer days of labelled rows are inconclusive")
    min_effect: float = Field(0.1, gt=0, description="Jensen-Shannon distance that counts as drift")
    alpha: float = Field(0.05, gt=0, lt=1, description="false discovery rate over the columns")
    retrain_now: bool = Field(
        False, description="ask for a retraining whatever the evidence, for a major update"
    )


NOTEBOOKS: dict[str, type[Facts]] = {
    kind.notebook: kind for kind in (TrainParams, ValidateParams, ScoreParams, DriftParams, RollbackParams)
}


def unknown_parameter(name: str, *, known: Any, place: str) -> ParameterError:
    """The error for a name that nobody declares, with the nearest one that somebody does."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    fix = f"Did you mean {near[0]}?" if near else f"Known are: {', '.join(sorted(known))}."
    return ParameterError(name, rule="is not a parameter", place=place, fix=fix)


def project_folder(start: Path | None = None) -> Path:
    """The nearest folder upwards that holds ``notebooks/``; the current one if there is none."""
    here = (start or Path.cwd()).resolve()
    return next((folder for folder in (here, *here.parents) if (folder / "notebooks").is_dir()), here)


def outputs_folder() -> Path:
    """Where results go: ``PRODKIT_OUT`` (set by ``--out``), else ``outputs/`` of the project."""
    named = os.environ.get("PRODKIT_OUT")
    return Path(named) if named else project_folder() / "outputs"


def using_outputs(folder: Path) -> AbstractContextManager[None]:
    """Let all that lies under ``outputs/`` lie in this folder, here and in kernels that are started meanwhile."""
    return environment_set(PRODKIT_OUT=str(folder.resolve()))


@contextmanager
def environment_set(**values: str) -> Iterator[None]:
    """Set environment variables for a while; kernels that are started meanwhile inherit them."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.update({name: value for name, value in before.items() if value is not None})
        for name in [name for name, value in before.items() if value is None]:
            os.environ.pop(name, None)


def expand(text: str) -> str:
    """Replace each ``${NAME}`` by the environment's value, at the moment of use and never before.

    Raises:
        ParameterError: the variable is not set.
    """

    def look_up(match: re.Match[str]) -> str:
        if match[1] not in os.environ:
            raise ParameterError(
                match[0], rule="must be set in the environment", fix=f"export {match[1]}=..."
            )
        return os.environ[match[1]]

    return re.sub(r"\$\{(\w+)\}", look_up, text)


def resolve(location: str) -> str:
    """Make a location absolute: ``outputs/...`` lies in :func:`outputs_folder`, the rest in the project.

    URLs pass unchanged, but for the path of a SQLite one.
    """
    location = expand(location)
    prefix, path = ("", location)
    if location.startswith("sqlite:///"):
        prefix, path = "sqlite:///", location.removeprefix("sqlite:///")
        if path in ("", ":memory:"):
            return location
    elif "://" in location:
        return location
    folder = Path(path).expanduser()
    if folder.parts[:1] == ("outputs",):
        return prefix + str(outputs_folder().joinpath(*folder.parts[1:]))
    return prefix + str(project_folder() / folder)
