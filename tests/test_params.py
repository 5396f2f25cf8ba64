"""Parameters: what is accepted, what is refused and how, where a location leads."""

import math
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import prodkit
from prodkit.errors import ParameterError
from prodkit.evidence import Window, parse_duration, write_duration
from prodkit.params import NOTEBOOKS, DriftParams, RollbackParams, TrainParams
from prodkit.settings import expand, names_read, outputs_folder, project_folder, resolve, using_outputs

moments = st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1)).map(lambda m: m.replace(microsecond=0))


@pytest.mark.parametrize("name", sorted(NOTEBOOKS))
def test_the_plain_form_of_parameters_says_the_same_again(name):
    """What a params file holds is read back to the same parameters."""
    params = NOTEBOOKS[name].check(
        {"window": "2020-01-01/2020-02-01", "label_delay": "36h", "as_of": "2020-02-03"}
    )
    assert NOTEBOOKS[name].check(params.plain()) == params


@given(moments, moments)
def test_a_window_is_read_as_it_is_written(a, b):
    """Every window survives its text, and an empty or reversed one is refused."""
    if a < b:
        assert Window.parse(str(Window(a, b))) == Window(a, b)
    else:
        with pytest.raises(ValueError, match="must start before it ends"):
            Window(a, b)


@given(st.integers(1, 10_000), st.sampled_from(["w", "d", "h", "min", "s"]))
def test_a_duration_is_read_as_it_is_written(number, unit):
    """Every length of time survives its text."""
    span = parse_duration(f"{number}{unit}")
    assert parse_duration(write_duration(span)) == span


@pytest.mark.parametrize("text", ["", "14", "14 days", "-1d", "d", "1mo", "nan d"])
def test_what_is_no_duration_is_refused(text):
    """A number without unit, a negative one, a word."""
    with pytest.raises(ValueError, match="a duration is a number and one of"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"windw": "x"}, r"windw is not a parameter \(in train.ipynb\). Did you mean window\?"),
        ({"window": "2013-01-01"}, "window is wrong: a window is written start/end"),
        ({"window": "2013-02-01/2013-01-01"}, "window is wrong: a window must start before it ends"),
        ({"seed": "7"}, "seed is wrong: .*valid integer; found '7'"),
        ({"seed": -1}, "seed is wrong: .*greater than or equal to 0; found -1"),
        ({"seed": True}, "seed is wrong: "),
        ({"folds": 1}, "folds is wrong: .*greater than or equal to 2; found 1"),
        ({"label_delay": "soon"}, "label_delay is wrong: a duration"),
        ({"features": "temp"}, "features is wrong: .*list; found 'temp'"),
        ({"task": "ranking"}, "task is wrong"),
        ({"csv": {"separator": ";"}}, "csv is wrong: separator is none of delimiter"),
        ({"csv": {"decimal": ", "}}, "csv is wrong: decimal must be one character"),
        ({"csv": {"encoding": "cp-1252x"}}, "csv is wrong: unknown encoding"),
        ({"time_format": "dd/mm/yyyy"}, "time_format is wrong: it must be a strptime format"),
        ({"retrain_cost": math.nan}, "retrain_cost is wrong: .*finite"),
        ({"target": ""}, "target is wrong: .*at least 1 character"),
        ({"approval": "maybe"}, "approval is wrong: .*'automatic' or 'required'; found 'maybe'"),
    ],
)
def test_a_wrong_parameter_is_refused_with_its_rule(given, message):
    """The error names the parameter, the rule, the value found, the place and the meaning."""
    with pytest.raises(ParameterError, match=message):
        TrainParams.check(given)


def test_ids_stay_text():
    """A target called 00123 or 123e4567 is not made a number of."""
    for name in ("00123", "123e4567", "1e5", "nan"):
        assert TrainParams.check({"target": name}).target == name


def test_a_run_stands_at_the_end_of_its_window_and_labels_end_earlier():
    """`as_of` defaults to the end of the window; labels are known up to `label_delay` before it."""
    params = DriftParams.check({"window": "2020-01-01/2020-02-01", "label_delay": "3d"})
    assert params.moment == datetime(2020, 2, 1)
    assert params.labels_until == datetime(2020, 1, 29)
    later = DriftParams.check({"window": "2020-01-01/2020-02-01", "label_delay": "3d", "as_of": "2020-03-01"})
    assert later.labels_until == datetime(2020, 2, 27)


def test_only_declared_names_are_taken_from_a_cell():
    """Imports and private names beside the parameters do not disturb."""
    params = RollbackParams.from_cell({"seed": 3, "os": object(), "_": 1, "window": "2020-01-01/2020-02-01"})
    assert params.seed == 3


def test_the_project_is_the_nearest_folder_that_holds_notebooks(tmp_path):
    """From anywhere below; from elsewhere it is the checkout that the package lies in."""
    deep = tmp_path / "a" / "notebooks" / "b"
    deep.mkdir(parents=True)
    assert project_folder(deep) == tmp_path / "a"
    assert project_folder(tmp_path) == Path(prodkit.__file__).parent.parent


def test_outputs_lie_where_out_says(tmp_path):
    """`outputs/...` in any location is the folder of `--out`; other relative paths belong to the project."""
    with using_outputs(tmp_path / "x"):
        assert outputs_folder() == tmp_path / "x"
        assert resolve("outputs/artifacts") == str(tmp_path / "x" / "artifacts")
        assert resolve("sqlite:///outputs/store.db") == f"sqlite:///{tmp_path}/x/store.db"
        assert resolve("data/a.csv") == str(project_folder() / "data/a.csv")
        assert resolve("s3://bucket/a") == "s3://bucket/a"
        assert resolve("/data/a.csv") == "/data/a.csv"
    assert outputs_folder() != tmp_path / "x"


def test_a_value_from_the_environment_is_read_when_it_is_used(monkeypatch):
    """`${NAME}` is replaced by `resolve`, never in the parameters themselves; one that is not set is an error."""
    monkeypatch.setenv("SHOP_PASSWORD", "canary")
    params = DriftParams.check({"store": "postgresql://me:${SHOP_PASSWORD}@host/db"})
    assert "canary" not in str(params.plain())
    assert resolve(params.store) == "postgresql://me:canary@host/db"
    monkeypatch.delenv("SHOP_PASSWORD")
    with pytest.raises(ParameterError, match=r"\$\{SHOP_PASSWORD\} must be set in the environment"):
        expand(params.store)


def test_durations_are_python_timedeltas():
    """A window's length is in days."""
    assert TrainParams.check({"holdout": "2w"}).holdout == timedelta(days=14)
    assert Window.parse("2020-01-01/2020-01-08").days == 7


def test_what_was_read_from_the_environment_is_known_by_name(monkeypatch):
    """Whoever shows an error can leave out what this process has read."""
    monkeypatch.setattr("prodkit.settings._READ", set())
    monkeypatch.setenv("SHOP_PASSWORD", "canary")
    assert expand("a ${SHOP_PASSWORD} b") == "a canary b"
    assert names_read() == {"SHOP_PASSWORD"}
