"""What a notebook is given: models, files, `-p` and secrets, each read strictly; and where things lie."""

from __future__ import annotations

import json
import math
import re
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import nbformat
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from papermill.parameterize import parameterize_notebook
from tables import own_notebook, prodkit

import prodkit as package
from prodkit.errors import ParameterError
from prodkit.evidence import Window, parse_duration, write_duration
from prodkit.params import NOTEBOOKS, DriftParams, RollbackParams, TrainParams
from prodkit.settings import (
    REAL_STORE,
    check,
    default_files,
    expand,
    names_read,
    neutral_facts,
    outputs_folder,
    project_folder,
    read_files,
    read_notebook,
    resolve,
    typed_value,
    using_outputs,
)

__all__ = ["prodkit"]  # a fixture


@pytest.fixture(autouse=True)
def _at_home(monkeypatch):
    """The command is typed in the project's folder."""
    monkeypatch.chdir(Path(__file__).parent.parent)


def write(folder: Path, name: str, text: str) -> Path:
    """A params file."""
    path = folder / name
    path.write_text(text)
    return path


# Params files


def test_a_shared_file_may_speak_to_other_notebooks(tmp_path):
    """What a shared file says to another notebook is passed over without a word."""
    shared = write(tmp_path, "shop.yaml", "target: returned\nholdout: 7d\nbatch_rows: 5\n")
    assert read_files("train", [shared]) == {"target": "returned", "holdout": "7d"}
    assert read_files("score", [shared]) == {"target": "returned", "batch_rows": 5}


def test_a_name_that_nobody_knows_is_refused_with_the_nearest(tmp_path):
    """A misspelt name in a shared file is an error that names file and nearest name."""
    shared = write(tmp_path, "shop.yaml", "targt: returned\n")
    with pytest.raises(
        ParameterError, match=r"targt is not a parameter \(in shop.yaml\)\. Did you mean target"
    ):
        read_files("train", [shared])


def test_a_policy_file_speaks_to_its_notebook_only(tmp_path):
    """A file named after a notebook is read by that one, strictly, and by no other at all."""
    policy = write(tmp_path, "train.yaml", "holdout: 7d\n")
    assert read_files("train", [policy]) == {"holdout": "7d"}
    assert read_files("score", [policy]) == {}
    wrong = write(tmp_path, "score.yaml", "holdout: 7d\n")
    assert read_files("train", [wrong]) == {}
    with pytest.raises(ParameterError, match=r"holdout is not a parameter \(in score.yaml\)"):
        read_files("score", [wrong])


def test_later_files_win(tmp_path):
    """Of two files that name the same parameter the later one counts."""
    first, second = (write(tmp_path, f"{name}.yaml", f"seed: {n}\n") for name, n in (("a", 1), ("b", 2)))
    assert read_files("train", [first, second])["seed"] == 2
    assert read_files("train", [second, first])["seed"] == 1


def test_an_empty_file_says_nothing_and_dates_stay_text(tmp_path):
    """An empty file is fine, and what YAML takes for a date arrives as the text that was written."""
    empty, dated = write(tmp_path, "a.yaml", ""), write(tmp_path, "b.yaml", "as_of: 2024-02-01\n")
    assert read_files("train", [empty, dated]) == {"as_of": "2024-02-01"}


@pytest.mark.parametrize(
    ("text", "message"),
    [("- a\n- b\n", "must be a mapping of names to values; found a list"), ("a: [1\n", "must be YAML")],
)
def test_a_file_of_another_form_is_refused(tmp_path, text, message):
    """A params file is a YAML mapping, or an error that names it."""
    with pytest.raises(ParameterError, match=rf"-f {message}(.|\n)*in shop.yaml"):
        read_files("train", [write(tmp_path, "shop.yaml", text)])


def test_a_file_that_is_not_there_names_those_that_are(tmp_path):
    """A wrong path is answered with the params files beside it."""
    write(tmp_path, "shop.yaml", "seed: 1\n")
    with pytest.raises(ParameterError, match=r"-f must name a file that can be read.*There are: shop\.yaml"):
        read_files("train", [tmp_path / "shp.yaml"])


# -p NAME VALUE


@pytest.mark.parametrize("text", ["00123", "123e4567", "1_000", "true", "null", "2024-02-01", "[a]", "", "~"])
def test_text_stays_text_where_text_is_declared(text):
    """No value of a text parameter is taken for a number, a date, a boolean or nothing."""
    assert typed_value("train", "target", text) == text


def test_an_unknown_name_is_refused_with_the_nearest():
    """A name that the notebook does not declare is an error that proposes one that it does."""
    with pytest.raises(ParameterError, match=r"fold is not a parameter .*Did you mean folds\?"):
        typed_value("train", "fold", "3")


# The table's own facts


def test_neutral_facts_stand_in_for_those_of_the_flights():
    """Another table has no columns of the flights, unless it says so; the flights keep their own."""
    known = TrainParams.model_fields
    own = {"data": "orders.parquet", "time_column": "at", "target": "y"}
    assert neutral_facts({}, known=known) == {}
    assert neutral_facts({"data": "flights"}, known=known) == {}
    assert neutral_facts(own, known=known) == {"features": [], "id_column": []}
    assert neutral_facts({**own, "id_column": ["order"]}, known=known) == {"features": []}
    assert neutral_facts(own, known={"slices", "target"}) == {"slices": []}


@pytest.mark.parametrize("left_out", ["time_column", "target"])
def test_another_table_must_name_its_time_and_target(left_out):
    """The error names what is not given, the table, and how to give it."""
    own = {"data": "orders.parquet", "time_column": "at", "target": "y"}
    del own[left_out]
    with pytest.raises(
        ParameterError, match=rf"(?s){left_out} must be given.*orders.parquet.*-p {left_out} NAME"
    ):
        neutral_facts(own, known=TrainParams.model_fields)


# A notebook of one's own

CELL = """
from datetime import date
zip_code: str = "00123"  # where it goes
note: str | None = None
mode: Literal["a", "b"] = "a"
ids: list[str] | None = None
limits: dict[str, float] = {}
day: date = date(2024, 1, 1)
limit: float = 1  # euros
count = 3
folder = Path("x")
anything = None
"""
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A notebook that declares what it takes."""
    return str(own_notebook(tmp_path_factory.mktemp("own"), CELL))


def injected(notebook, values):
    """What the notebook finds in its variables, by the cell that papermill writes."""
    document = nbformat.read(notebook, as_version=4)
    document.metadata["papermill"] = {}
    document = parameterize_notebook(document, check(read_notebook(notebook), values).values)
    (cell,) = [cell for cell in document.cells if "injected-parameters" in cell.metadata.get("tags", [])]
    json.dumps(document.metadata["papermill"]["parameters"], allow_nan=False)  # where papermill keeps them
    found = {}
    exec(cell.source, found)
    return {name: found[name] for name in values}


def from_file(notebook, folder, text):
    """What a params file gives the notebook."""
    return read_files(notebook, [write(folder, "given.yaml", text)])


@given(st.text())
@example("00123")
@example("${SHOP_PASSWORD}")
@example("'\"\\\n\x00\u2028{x}%s")
def test_any_text_reaches_the_notebook_unchanged(own, tmp_path_factory, text):
    """From the command and from a file, alone and in lists and mappings, the variable holds the very text."""
    values = {name: typed_value(own, name, text) for name in ("zip_code", "note")}
    assert injected(own, values) == {"zip_code": text, "note": text}
    names = {"zip_code": text, "note": text, "ids": [text], "anything": {text or "k": ["x" + text]}}
    file = json.dumps(names) if not text.isprintable() else yaml.safe_dump(names, default_style='"')
    assert injected(own, from_file(own, tmp_path_factory.getbasetemp(), file)) == names


@given(json_values)
def test_anything_plain_reaches_the_notebook_unchanged(own, value):
    """Numbers, truths, None and what is nested arrive with value and type."""
    values = {"anything": typed_value(own, "anything", json.dumps(value) if value != "" else '""')}
    assert repr(injected(own, values)["anything"]) == repr(value)


def test_what_a_file_says_is_read_as_it_is_declared(own, tmp_path):
    """The traps of YAML are none where the notebook says what it takes."""
    text = "zip_code: 00123\nnote: no\nids: [00123, 1e3, on]\nlimits: {a: 1e-3}\nday: 2024-02-01\nlimit: 2\ncount: 0o17"
    assert injected(own, from_file(own, tmp_path, text)) == {
        **{"zip_code": "00123", "note": "no", "ids": ["00123", "1e3", "on"], "limits": {"a": 0.001}},
        **{"day": "2024-02-01", "limit": 2.0, "count": 15},
    }


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("mode", "c", r"mode must be Literal\['a', 'b'\]: it is none of these; found 'c'"),
        ("ids", "[a, [b]]", r"ids must be list\[str\] \| None: .*valid string; found \['b'\]"),
        ("limits", "{a: x}", r"limits must be dict\[str, float\]: .*valid number; found 'x'"),
        (
            "day",
            "2024-02-30",
            "day must be date: it must be an ISO date, such as 2024-02-01; found '2024-02-30'",
        ),
        (
            "limit",
            "yes",
            r"limit must be float: .*found 'yes' \(in the parameters of mine\.ipynb\)\. It means: euros\.",
        ),
        ("limit", "1e999", "limit must be float: .*found '1e999'"),
        (
            "count",
            "2.5",
            r"count must be int, as its default is: .*'2\.5'.*annotate it there, such as count: float",
        ),
        ("count", "00123", "count must be int, as its default is: .*found '00123'"),
        ("anything", ".nan", r"anything must be plain; found \.nan: write a finite decimal.* \(in -p\)"),
        ("anything", "[", r"(?s)anything must be YAML: .*\(in -p\)"),
        ("limt", "1", r"limt is not a parameter \(in -p, for .*mine\.ipynb\)\. Did you mean limit\?"),
    ],
)
def test_a_wrong_value_is_refused_before_anything_runs(own, name, text, message):
    """The error names the parameter, the rule, what was found, the notebook and what the parameter means."""
    with pytest.raises(ParameterError, match=message):
        check(read_notebook(own), {name: typed_value(own, name, text)})


@pytest.mark.parametrize(
    ("name", "value"), [("limit", "yes"), ("ids", "7"), ("nots", "x"), ("anything", "1_000")]
)
def test_the_command_refuses_with_2_and_leaves_nothing(prodkit, own, tmp_path, name, value):
    """A wrong value is one sentence on stderr, before there is a run."""
    status, printed, told = prodkit("run", own, "-p", name, value, "--out", tmp_path / "out")
    assert (status, printed) == (2, "")
    assert told.startswith(f"prodkit: {name} ")
    assert not (tmp_path / "out").exists()


@given(
    given=st.dictionaries(
        st.sampled_from(["zip_code", "note", "mode", "ids", "limits", "limit", "count"]), json_values
    )
)
def test_nothing_is_made_to_fit(own, given):
    """Whatever is passed from Python arrives as it is, a whole number as the float that is declared, or is refused."""
    found = {}
    with suppress(ParameterError):
        found = check(read_notebook(own), given).values
    if found:
        assert found == given
        assert all(type(found[name]) is type(given[name]) for name in set(given) - {"limit"})


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), (1,), {1}, b"x", {1: 2}, Path("x"), [float("nan")]]
)
def test_only_what_is_plain_is_passed(own, value):
    """A value that strict JSON and a parameters cell cannot both hold is an error, for the kit's notebooks too."""
    for notebook, name in ((own, "anything"), ("train", "model_args")):
        with pytest.raises(ParameterError, match=rf"{name} must be plain: .*found .*\(in the parameters of "):
            check(read_notebook(notebook), {name: value if name == "anything" else {"a": value}})


def test_a_parameter_without_default_has_to_be_given(tmp_path):
    """A name that is only annotated is asked for, with what it means."""
    path = str(own_notebook(tmp_path, "day: date  # the day to look at"))
    with pytest.raises(
        ParameterError, match=r"day must be given: it has no default.*-p day VALUE\. It means: the day"
    ):
        check(read_notebook(path), {})
    assert check(read_notebook(path), {"day": "2024-02-01"}).values == {"day": "2024-02-01"}


def test_a_model_of_the_kit_says_how_its_values_are_read(tmp_path):
    """Windows, lengths of time and names stay text, the cost matrix is a mapping, and costs are numbers."""
    text = "target: 00123\nvalue: {yes: {no: 1e3}}\nlabel_delay: 14d\nfeatures: [on, 007]\n"
    text += "model_args: {a: 1e-3}\nas_of:"
    found = read_files("train", [write(tmp_path, "shop.yaml", text)])
    assert found == {
        **{"target": "00123", "value": {"yes": {"no": 1000.0}}, "label_delay": "14d"},
        **{"features": ["on", "007"], "model_args": {"a": 0.001}, "as_of": None},
    }
    params = check(read_notebook("train"), {**found, "window": "2024-01-01/2024-03-01"}).params
    assert params is not None
    assert params.value == {"yes": {"no": 1000.0}}
    assert typed_value("train", "value", "{a: {b: 2}}") == {"a": {"b": 2.0}}
    assert typed_value("train", "value", "price") == "price"


def test_a_notebook_of_ones_own_keeps_its_own_values(tmp_path):
    """The names of the kit mean nothing special to it: neither a store nor the facts of the flights are put into it."""
    path = str(
        own_notebook(tmp_path, "store = 'demo'\ndata: str = 'flights'\ntime_column = ''\ntarget = 'y'")
    )
    assert check(read_notebook(path), {}).values == {}
    assert check(read_notebook(path), {"data": "b.csv"}).values == {"data": "b.csv"}
    assert not read_notebook(path).is_of_the_kit


def test_the_flights_speak_to_the_notebooks_of_the_kit_only(prodkit, tmp_path):
    """Without -f a notebook of one's own is not given the target of the bundled flights."""
    shows = "from prodkit.store.workspace import open_store\nprint('target is', target)"
    path = own_notebook(tmp_path, "target = 'y'", shows)
    status, printed, _ = prodkit("run", path, "--out", tmp_path / "out", "--json")
    assert (status, json.loads(printed)["params"]) == (0, {})
    assert "flights" in {file.stem for file in default_files("train")}


def test_a_copy_of_a_notebook_of_the_kit_is_of_the_kit(tmp_path):
    """Whatever its name: what declares all project facts gets the project's store, and another table its own facts."""
    cell = "\n".join(f"{name} = {value!r}" for name, value in TrainParams.check({}).plain().items())
    source = read_notebook(str(own_notebook(tmp_path, cell, name="copied")))
    own = {"data": "b.csv", "time_column": "at", "target": "y"}
    assert check(source, own).values == {**own, "features": [], "id_column": [], "store": REAL_STORE}


# A parameter that was added to a notebook of the kit


@pytest.fixture
def extended(tmp_path):
    """A project whose `train` declares two more parameters."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    notebook = nbformat.read(Path(package.__file__).parent.parent / "notebooks" / "train.ipynb", as_version=4)
    (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    cell.source += "\nregion: Literal['north', 'south'] = 'north'  # where it is used\nlimits = [1.5]"
    nbformat.write(notebook, folder / "train.ipynb")
    return tmp_path


def test_a_parameter_that_was_added_to_a_notebook_of_the_kit_is_declared(extended, tmp_path, monkeypatch):
    """It is accepted by files and `-p`, typed as it is declared, and stands beside those of the model."""
    monkeypatch.chdir(extended)
    file = write(tmp_path, "shop.yaml", "region: south\nfolds: 3\nlimits: [1e3]\n")
    values = read_files("train", [file]) | {"limits": typed_value("train", "limits", "[2.5]")}
    arguments = check(read_notebook("train"), values)
    assert arguments.values["region"] == "south"
    assert (arguments.values["limits"], arguments.params.folds) == ([2.5], 3)
    with pytest.raises(ParameterError, match=r"region must be Literal\[.*found 'east'.*where it is used"):
        check(read_notebook("train"), {"region": "east"})
    with pytest.raises(ParameterError, match=r"regio is not a parameter .*Did you mean region\?"):
        typed_value("train", "regio", "south")


def test_another_notebook_passes_over_what_was_added_to_one(extended, tmp_path, monkeypatch):
    """A shared file may speak to the parameter, and is still refused for a name that nobody declares."""
    (extended / "notebooks" / "score.ipynb").write_text(
        (Path(package.__file__).parent.parent / "notebooks" / "score.ipynb").read_text()
    )
    monkeypatch.chdir(extended)
    assert read_files("score", [write(tmp_path, "shop.yaml", "region: south\nbatch_rows: 5\n")]) == {
        "batch_rows": 5
    }
    with pytest.raises(ParameterError, match=r"regoin is not a parameter \(in shop.yaml\)"):
        read_files("score", [write(tmp_path, "shop.yaml", "regoin: south\n")])


# Secrets


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("postgresql://me:s3cret@db/x", "postgresql://me:***@db/x"),
        ("mysql+pymysql://:s3cret@db/x#t", "mysql+pymysql://:***@db/x#t"),
        ("ftp://me:s3cret${X}@host/a", "ftp://me:***@host/a"),
        ("postgresql://db/x?user=me&password=s3cret&a=1", "postgresql://db/x?user=me&password=***&a=1"),
        ("https://host/x?a=1&access_token=s3cret", "https://host/x?a=1&access_token=***"),
        ("HTTPS://host/?API-KEY=s3cret", "HTTPS://host/?API-KEY=***"),
    ],
)
def test_an_address_with_a_password_is_refused_in_every_notebook(own, value, shown):
    """Before the @ or in the query, in any parameter: the error does not repeat it, and says how to keep it."""
    for notebook, name, values in (
        ("score", "store", value),
        ("score", "notify", [value]),
        (own, "anything", {"a": [value]}),
    ):
        variable = f"{name.upper()}_PASSWORD"
        message = rf"{name} must not hold a password, .*; found {re.escape(shown)}\. export {variable}=\.\.\."
        with pytest.raises(ParameterError, match=message):
            typed_value(notebook, name, values if name == "store" else json.dumps(values))
        with pytest.raises(ParameterError, match=message) as refused:
            check(read_notebook(notebook), {name: values})
        assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    "value",
    [
        *("postgresql://me:${PW}@db/x", "postgresql://me@db/x", "s3://bucket/a@b:c", "sqlite:///a:b@c.db"),
        *("s3://b/x:y@z", "postgresql://db/x?password=${PW}", "https://host/x?page=2", "what about ?token=1"),
    ],
)
def test_an_address_without_a_password_is_taken(value):
    """A reference to the environment, no password at all, or signs that only look like one."""
    assert check(read_notebook("score"), {"store": value}).values["store"] == value


@pytest.mark.parametrize(
    "word",
    ["outputs", "metadata", "completed", "Metadata", "text/html", "zip_code", "postgresql://me:outputs@db"],
)
def test_a_secret_that_is_a_word_of_the_format_is_refused(own, monkeypatch, word):
    """To take it out of what is written would destroy the record; the error names the variable, not the value."""
    monkeypatch.setenv("SHOP_WORD", word)
    message = r"\$\{SHOP_WORD\} must not be a word that records are written in"
    with pytest.raises(ParameterError, match=message) as refused:
        check(read_notebook(own), {"note": "x${SHOP_WORD}"})
    assert word not in str(refused.value)
    if word != "zip_code":  # a name of this notebook alone
        with pytest.raises(ParameterError, match=message):
            expand("${SHOP_WORD}")


# The models of the kit, and places

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
        ({"retrain_cost": math.nan}, "retrain_cost is wrong: .*finite"),
        ({"target": ""}, "target is wrong: .*at least 1 character"),
        ({"csv": {"separator": ";"}}, "csv is wrong: separator is none of delimiter"),
        ({"csv": {"decimal": ", "}}, "csv is wrong: decimal must be one character"),
        ({"csv": {"encoding": "cp-1252x"}}, "csv is wrong: unknown encoding"),
        ({"time_format": "dd/mm/yyyy"}, "time_format is wrong: it must be a strptime format"),
        ({"approval": "maybe"}, "approval is wrong: .*'automatic' or 'required'; found 'maybe'"),
    ],
)
def test_a_wrong_parameter_is_refused_with_its_rule(given, message):
    """The error names the parameter, the rule, the value found, the place and the meaning."""
    with pytest.raises(ParameterError, match=message):
        TrainParams.check(given)


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
    """From anywhere below; elsewhere it is the folder itself, and never the checkout that the package lies in."""
    deep = tmp_path / "a" / "notebooks" / "b"
    deep.mkdir(parents=True)
    assert project_folder(deep) == tmp_path / "a"
    assert project_folder(tmp_path) == tmp_path


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


def test_what_was_read_from_the_environment_is_known_by_name(monkeypatch):
    """Whoever shows an error can leave out what this process has read."""
    monkeypatch.setattr("prodkit.settings._READ", set())
    monkeypatch.setenv("SHOP_PASSWORD", "canary")
    assert expand("a ${SHOP_PASSWORD} b") == "a canary b"
    assert names_read() == {"SHOP_PASSWORD"}
