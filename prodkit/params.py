"""What each notebook may be given: names, types, units and bounds of its parameters."""

from __future__ import annotations

import codecs
import difflib
import re
import zoneinfo
from collections.abc import Callable, Container, Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

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
from prodkit.evidence import Window, iso, parse_duration, utc, write_duration

__all__ = [
    "FLIGHTS",
    "LEAD",
    "NOTEBOOKS",
    "PRIMARY",
    "RECIPES",
    "Addresses",
    "DriftParams",
    "Duration",
    "GivenWindow",
    "Moment",
    "MonitorParams",
    "OptionalTask",
    "ProjectParams",
    "Recipe",
    "Reference",
    "RollbackParams",
    "ScoreParams",
    "SecretName",
    "Share",
    "StressParams",
    "Task",
    "TrainParams",
    "ValidateParams",
    "rising",
]

Task = Literal["binary", "multiclass", "regression"]
Recipe = Literal["all", "recent", "mean"]
RECIPES: tuple[Recipe, ...] = ("all", "recent", "mean")
Like = Literal["weekday", "month"]


def _from_text(parse: Any) -> BeforeValidator:
    """Let a field be given as text, with the empty text meaning "not given"."""
    return BeforeValidator(
        lambda given: (parse(given) if given else None) if isinstance(given, str) else given
    )


def _fraction(share: float) -> float:
    if not 0 <= share <= 1:
        raise ValueError(f"a share lies between 0 and 1, found {share}")
    return share


def _by_reference(addresses: list[str]) -> list[str]:
    for address in addresses:
        if not _REFERENCE.search(address):
            # the address itself is a secret, so it is not repeated
            raise ValueError("an address is read from the environment: write ${NAME}, and export NAME=...")
    return addresses


_REFERENCE = re.compile(r"\$\{\w+\}")


def _reference(text: str) -> str:
    if text and not re.fullmatch(r"\$\{\w+\}", text):
        raise ValueError("a secret is written as ${NAME} and read from the environment")
    return text


def rising(numbers: list[Any]) -> list[Any]:
    """The numbers, if each is above the one before, and all above 0; ValueError otherwise."""
    if not numbers or min(numbers) <= 0 or sorted(set(numbers)) != numbers:
        raise ValueError("it must hold numbers above 0, each above the one before")
    return numbers


def _csv_format(given: dict[str, str]) -> dict[str, str]:
    """The dialect, if its names are known and its signs are one character each."""
    if unknown := set(given) - {"delimiter", "decimal", "thousands", "encoding"}:
        raise ValueError(f"{unknown.pop()} is none of delimiter, decimal, thousands, encoding")
    if wrong := [name for name, sign in given.items() if name != "encoding" and len(sign) != 1]:
        raise ValueError(f"{wrong[0]} must be one character")
    try:
        codecs.lookup(given.get("encoding", "utf-8"))
    except LookupError as error:
        raise ValueError(str(error)) from error
    return given


def _time_format(given: str) -> str:
    if given and given not in ("epoch_s", "epoch_ms", "date_int") and "%" not in given:
        raise ValueError("it must be a strptime format such as %d/%m/%Y, or epoch_s, epoch_ms or date_int")
    return given


def _zone(name: str) -> str:
    try:
        zoneinfo.ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError("it must be a time zone such as Europe/Berlin or UTC") from error
    return name


Reference = Annotated[
    Window | Like | None,
    _from_text(lambda text: text if text in get_args(Like) else Window.parse(text)),
    PlainSerializer(lambda given: "" if given is None else str(given)),
]
GivenWindow = Annotated[Window, _from_text(Window.parse), PlainSerializer(str)]
Moment = Annotated[
    datetime | None,
    _from_text(datetime.fromisoformat),
    PlainSerializer(lambda moment: "" if moment is None else iso(moment)),
]
Duration = Annotated[timedelta, _from_text(parse_duration), PlainSerializer(write_duration)]
Share = Annotated[float, AfterValidator(_fraction)]
Addresses = Annotated[list[str], AfterValidator(_by_reference)]
SecretName = Annotated[str, AfterValidator(_reference)]
OptionalTask = Annotated[
    Task | None, BeforeValidator(lambda given: given or None), PlainSerializer(lambda t: t or "")
]


CsvFormat = Annotated[dict[str, str], AfterValidator(_csv_format)]
TimeFormat = Annotated[str, AfterValidator(_time_format)]
Zone = Annotated[str, AfterValidator(_zone)]

FLIGHTS = "flights"  # names the bundled table

PRIMARY: dict[Task, str] = {"binary": "log_loss", "multiclass": "log_loss", "regression": "mae"}
"""The loss that decides: the mean of :func:`prodkit.models.metrics.row_losses`."""

LEAD: dict[Task, str] = {"binary": "roc_auc", "multiclass": "roc_auc", "regression": "mae"}
"""The score that a reader looks at first."""


# The fields `flights` is described by; params/flights.yaml says the same to the other notebooks.
_FLIGHTS_FEATURES = [
    *("origin", "carrier", "dest", "weekday", "distance", "departure_minute", "arrival_minute"),
    *("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"),
]

# As `prodkit.data.cells` has them for whoever names none.
_MISSING = ["", "NA", "N/A", "n/a", "#N/A", "<NA>", "NULL", "null", "NaN", "nan", "None"]


class ProjectParams(BaseModel):
    """The project facts: what the data is. Every notebook declares all of them, with these defaults."""

    # built when it is first used: a run needs one of these models, or none
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,  # an address may be a secret
        defer_build=True,
    )
    notebook: ClassVar[str] = ""
    moves_champion: ClassVar[bool] = False  # whether its runs depend on the order in which they are made

    data: str = Field(FLIGHTS, min_length=1, description="table to read: path, folder, URL or `flights`")
    csv: CsvFormat = Field(
        {}, description="how CSV is written, where not `,` `.` UTF-8: delimiter, decimal, thousands, encoding"
    )
    missing: list[str] = Field(_MISSING, description="texts that mean a missing value")
    time_column: str = Field("time", min_length=1, description="column that says when a row happened")
    time_format: TimeFormat = Field(
        "", description="how times are written, where not ISO: strptime format, epoch_s, epoch_ms, date_int"
    )
    target: str = Field("late", min_length=1, description="column to predict")
    task: OptionalTask = Field(None, description="binary, multiclass or regression; inferred if empty")
    features: list[str] = Field(_FLIGHTS_FEATURES, description="columns to learn from; all others if empty")
    id_column: list[str] = Field(
        ["time", "carrier", "flight", "origin"], description="columns that name a row; may be empty"
    )
    labels: str = Field("", description="table that labels come from, joined on `id_column`; `data` if empty")
    label_time: str = Field("", description="column of `labels` that says when each label became known")
    label_delay: Duration = Field(timedelta(days=1), description="how long until a label is known")
    as_of: Moment = Field(None, description="moment at which the run stands; end of its window if empty")
    every: str = Field("month", min_length=1, description="period of life: month, week, day or a duration")
    grace: Duration = Field(
        timedelta(0), description="how long after the end of a period its rows are complete"
    )
    timezone: Zone = Field("UTC", description="in which times without a zone are meant and periods are cut")
    value: str | dict[str, dict[str, float]] = Field(
        "", description="cost matrix or column of the business outcome"
    )
    weight: str = Field("", description="column of sample weights, for fitting and for every score")
    metrics: list[str] = Field(
        [], description="scores of your own, `package.module:function` of truth, prediction, weight"
    )
    contract: dict[str, Literal["ignore"] | dict[str, float]] = Field(
        {}, description="limits by column, where the derived ones do not suit; `ignore` for none"
    )
    window: GivenWindow = Field(description="rows that the run is about, start/end")
    reference: Reference = Field(None, description="rows to compare with; the champion's training if empty")
    seed: int = Field(0, ge=0, lt=2**32, description="random seed")
    slo: dict[str, float] = Field(
        {"latency_p99_ms": 250.0, "error_share": 0.01, "degraded_share": 0.05}, description="service limits"
    )
    approval: Literal["automatic", "required"] = Field("automatic", description="who lets an action happen")
    retrain_cost: float = Field(0.02, ge=0, description="price of a training, in skill of 28 days of rows")
    backend: Literal["loky", "threading", "dask"] = Field("loky", description="joblib backend")
    notify: Addresses = Field([], description="addresses that are told of alerts")
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
        """Check the variables of a parameters cell (pass ``globals()``); other names are passed over.

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
            checked: Self = _in_utc(cls.model_validate(dict(given)))
            return checked
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            name = str(first["loc"][0])
            field = cls.model_fields.get(name)
            raise ParameterError(
                ".".join(str(part) for part in first["loc"]),
                rule=f"is wrong: {first['msg'].removeprefix('Value error, ')}",
                value=None if first["type"] == "missing" or name == "notify" else repr(first["input"]),
                place=f"the parameters of {cls.notebook}.ipynb",
                fix=f"It means: {field.description}." if field else "",
            ) from error

    def plain(self) -> dict[str, Any]:
        """The values as a params file holds them: text, numbers, lists and mappings; moments with their offset."""
        values: dict[str, Any] = _with_offsets(self).model_dump(mode="json")
        return values


class TrainParams(ProjectParams):
    """Policy of ``train.ipynb``."""

    notebook: ClassVar[str] = "train"

    window: GivenWindow = Field(
        Window.parse("2013-01-01/2013-04-01"), description="rows to learn from, start/end"
    )
    model: str = Field(
        "auto", min_length=1, description="import path of an estimator or `package.module:factory`"
    )
    model_args: dict[str, Any] = Field({}, description="keyword arguments of the model")
    recipe: Recipe = Field(
        "all", description="learn from all rows, the recent ones, or average both: all, recent, mean"
    )
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


class ValidateParams(ProjectParams):
    """Policy of ``validate.ipynb``."""

    notebook: ClassVar[str] = "validate"
    moves_champion: ClassVar[bool] = True

    window: GivenWindow = Field(
        Window.parse("2013-03-18/2013-04-01"), description="newest labelled rows, unseen by either model"
    )
    challenger: int = Field(0, ge=0, description="version to judge; the newest if 0")
    margin: float = Field(
        0.0, description="gain over the simple rule, in skill, that a first champion's interval must exceed"
    )
    tolerated_loss: float = Field(
        0.05, ge=0, description="loss of skill against the champion that is as probable as not: refused"
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="of the intervals")
    min_rows: int = Field(500, ge=1, description="fewer labelled rows are inconclusive")
    min_blocks: int = Field(7, ge=2, description="fewer days of labelled rows are inconclusive")
    cool_down: Duration = Field(
        timedelta(days=7), description="after a rollback, nothing new is trained or promoted for so long"
    )
    slices: list[str] = Field(
        ["origin", "carrier"], description="columns judged level by level; those with few levels if empty"
    )
    slice_min_rows: int = Field(200, ge=1, description="smaller slices are not judged")
    slice_sure_rows: int = Field(
        0, ge=0, description="slices with so many rows must be shown not to get worse; none if 0"
    )
    slice_margin: float = Field(
        0.04, ge=0, description="loss of skill by which no slice may credibly get worse"
    )
    calibration_limit: float = Field(
        0.05, gt=0, description="calibration error above which it must beat the champion's"
    )
    size_limit_mb: float = Field(100.0, gt=0, description="largest artifact, megabytes")
    memory_limit_mb: float = Field(1000.0, gt=0, description="most memory to load it, megabytes")
    latency_limit_ms: float = Field(100.0, gt=0, description="most processor time for one row, milliseconds")
    promised_rate: float = Field(
        0.0, ge=0, le=100_000, description="requests a second at which it must keep `slo`; not loaded if 0"
    )
    step_seconds: float = Field(2.0, gt=0, le=3600, description="how long that rate is kept up")


class ScoreParams(ProjectParams):
    """Policy of ``score.ipynb``."""

    notebook: ClassVar[str] = "score"

    window: GivenWindow = Field(Window.parse("2013-04-01/2013-05-01"), description="rows to score, start/end")
    batch_rows: int = Field(10_000, ge=1, description="rows a batch")
    predictions: str = Field(
        "outputs/predictions", min_length=1, description="folder that receives the Parquet files"
    )
    scored_before: list[str] = Field(
        [], description="folders of predictions whose rows are not scored again; all rows are if empty"
    )


class DriftParams(ProjectParams):
    """Policy of ``drift.ipynb``."""

    notebook: ClassVar[str] = "drift"

    window: GivenWindow = Field(
        Window.parse("2013-04-01/2013-05-01"), description="rows to compare, start/end"
    )
    alpha: float = Field(0.05, gt=0, lt=1, description="false discovery rate over the columns")
    min_effect: float = Field(0.1, gt=0, description="Jensen-Shannon distance below which a shift is ignored")
    top: int = Field(6, ge=1, le=50, description="columns that are drawn")


class RollbackParams(ProjectParams):
    """Policy of ``rollback.ipynb``."""

    notebook: ClassVar[str] = "rollback"
    moves_champion: ClassVar[bool] = True

    window: GivenWindow = Field(
        Window.parse("2013-04-01/2013-05-01"), description="rows that judge, start/end"
    )
    policy: Literal["economy", "proof", "schedule"] = Field(
        "economy", description="asks to train when it pays, is proven to be better, or by the calendar"
    )
    recipes: list[Recipe] = Field(
        list(RECIPES), min_length=1, description="what a training may learn from: all, recent, mean of both"
    )
    cycle: int = Field(1, ge=1, description="windows from one training to the next, by `schedule`")
    rollback_certainty: float = Field(
        0.9, gt=0.5, lt=1, description="probability that the predecessor is better from which it comes back"
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="of the always-valid intervals")
    rollback_margin: float = Field(0.01, ge=0, description="gain, in skill, that the predecessor must show")
    ranking_margin: float = Field(
        0.01, ge=0, description="gain, in AUC within a day, that it must show otherwise"
    )
    challenger_share: Share = Field(
        0.5, gt=0, description="share of the window that is judged by models fitted when it began"
    )
    min_rows: int = Field(500, ge=1, description="fewer labelled rows are inconclusive")
    min_blocks: int = Field(7, ge=2, description="fewer days of labelled rows are inconclusive")
    cool_down: Duration = Field(
        timedelta(days=7), description="after a rollback, nothing new is trained or promoted for so long"
    )
    min_effect: float = Field(0.1, gt=0, description="Jensen-Shannon distance that counts as drift")
    alpha: float = Field(0.05, gt=0, lt=1, description="false discovery rate over the columns")
    requests: str = Field(
        "outputs/requests", description="folder of the request log of `prodkit serve`; not read if empty"
    )
    retrain_now: bool = Field(
        False, description="ask for a retraining whatever the evidence, for a major update"
    )


class MonitorParams(ProjectParams):
    """Policy of ``monitor.ipynb``."""

    notebook: ClassVar[str] = "monitor"

    window: GivenWindow = Field(
        Window.parse("2013-04-22/2013-04-29"), description="newest window of the page, start/end"
    )
    windows: int = Field(
        6, ge=1, le=60, description="windows on the page; each as long, whole months where this is one"
    )
    mature_share: Share = Field(
        0.9, description="share of a window's rows old enough for a label, below which it is immature"
    )
    loss_margin: float = Field(
        0.04, ge=0, description="rise of the loss, as a share of its reference, that is tolerated"
    )
    score_margin: float = Field(
        0.05, ge=0, description="fall of the AUC below its reference that is tolerated"
    )
    calibration_limit: float = Field(
        0.1, gt=0, description="calibration error that the interval must not lie above"
    )
    value_min: float | None = Field(
        None, description="mean business value of a row that the interval must not lie below"
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="of the intervals")
    min_rows: int = Field(500, ge=1, description="fewer labelled rows are inconclusive")
    min_effect: float = Field(0.1, gt=0, description="Jensen-Shannon distance that counts as drift")
    alpha: float = Field(0.05, gt=0, lt=1, description="false discovery rate over the columns")
    requests: str = Field(
        "outputs/requests", description="folder of the request log of `prodkit serve`; not read if empty"
    )


class StressParams(ProjectParams):
    """Policy of ``stress.ipynb``."""

    notebook: ClassVar[str] = "stress"

    window: GivenWindow = Field(
        Window.parse("2013-04-01/2013-05-01"), description="rows that requests are drawn from, start/end"
    )
    challenger: int = Field(
        0, ge=0, description="version to load beside the champion; the newest if 0, if it is newer"
    )
    url: str = Field("", description="service to load; one of its own is started, loaded and broken if empty")
    token: SecretName = Field(
        "", description="${NAME} of the bearer token that `url` asks for; none if empty"
    )
    remote: bool = Field(False, description="whether `url` may lead to another machine")
    promised_rate: float = Field(
        250.0, gt=0, le=100_000, description="requests a second at which the service limits must hold"
    )
    rates: Annotated[list[float], AfterValidator(rising)] = Field(
        [125.0, 250.0], description="requests a second, rising"
    )
    step_seconds: float = Field(2.0, gt=0, le=3600, description="how long each rate is kept up")
    arrivals: Literal["poisson", "even"] = Field(
        "poisson", description="gaps between requests: those of many strangers, or all equal"
    )
    most_waiting: int = Field(256, ge=1, le=2000, description="requests on their way at once, at most")
    deadline_ms: float = Field(250.0, gt=0, description="after which the next rung answers, milliseconds")
    volume_rows: int = Field(100, ge=1, description="rows of the smallest volume")
    multiples: Annotated[list[int], AfterValidator(rising)] = Field(
        [1, 3, 10, 30, 100, 300, 1000], description="volumes, as multiples of the smallest, rising"
    )
    mix_rows: int = Field(500, ge=20, description="rows of each mix")
    memory_limit_mb: float = Field(900.0, gt=0, description="most memory of a process, megabytes")


_MOMENTS = ("window", "reference", "as_of")  # that may be given without an offset


def _in_utc(params: Any) -> Any:
    """The same with moments in naive UTC: those without an offset are meant in ``timezone``."""
    return _moved(params, lambda moment: utc(moment, params.timezone))


def _with_offsets(params: Any) -> Any:
    """The same with moments that say that they are in UTC, where that is not the time zone of the project."""
    if params.timezone == "UTC":
        return params
    return _moved(params, lambda moment: moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment)


def _moved(params: Any, move: Callable[[datetime], datetime]) -> Any:
    moved: dict[str, Any] = {}
    for name in _MOMENTS:
        match getattr(params, name):
            case Window(start, end):
                moved[name] = Window(move(start), move(end))
            case datetime() as moment:
                moved[name] = move(moment)
    return params.model_copy(update=moved)


NOTEBOOKS: dict[str, type[ProjectParams]] = {
    kind.notebook: kind
    for kind in (
        TrainParams,
        ValidateParams,
        ScoreParams,
        MonitorParams,
        DriftParams,
        StressParams,
        RollbackParams,
    )
}


def params_model(name: str, declared: Container[str]) -> type[ProjectParams] | None:
    """The model of a notebook's parameters, if it is one of the kit: a name alone does not make it one.

    Args:
        name: of the notebook.
        declared: the parameters that it has; one of the kit has all project facts.
    """
    kind = NOTEBOOKS.get(name)
    return kind if kind and all(fact in declared for fact in ProjectParams.model_fields) else None


def unknown_parameter(name: str, *, known: Any, place: str) -> ParameterError:
    """The error for a name that nobody declares, with the nearest one that somebody does."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    fix = f"Did you mean {near[0]}?" if near else f"Known are: {', '.join(sorted(known))}."
    if not known:
        fix = "It declares none: tag the code cell that declares them `parameters`; it must be Python."
    return ParameterError(name, rule="is not a parameter", place=place, fix=fix)
