"""What a notebook is given: params files and `-p` are read strictly, and another table brings its own facts."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import nbformat
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from papermill.parameterize import parameterize_notebook
from tables import own_notebook, prodkit

from prodkit.errors import ParameterError
from prodkit.params import ProjectParams, TrainParams
from prodkit.settings import REAL_STORE, check, neutral_facts, read_files, read_notebook, typed_value

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


@given(st.text(max_size=30))
def test_any_text_stays_as_it_was_typed(text):
    """A text parameter takes whatever was typed, character for character."""
    assert typed_value("train", "target", text) == text


def test_other_values_are_read_as_yaml():
    """Numbers, booleans, lists and mappings have their own types, and dates in them stay text."""
    assert typed_value("train", "folds", "3") == 3
    assert typed_value("rollback", "retrain_now", "true") is True
    assert typed_value("train", "features", "[city, price]") == ["city", "price"]
    assert typed_value("train", "model_args", "{max_iter: 5}") == {"max_iter": 5}
    assert typed_value("train", "folds", "2024-02-01") == "2024-02-01"  # refused later, by its bounds


def test_a_value_that_is_no_yaml_is_refused():
    """A bracket left open is a wrong call that names the parameter, not a crash."""
    with pytest.raises(ParameterError, match=r"features must be YAML"):
        typed_value("train", "features", "[city")


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


def test_the_kit_declares_literals_only(tmp_path):
    """A notebook that is checked by a model of the kit must say all of its defaults."""
    facts = [f"{name} = ''" for name in ProjectParams.model_fields if name != "seed"]
    path = str(own_notebook(tmp_path, "\n".join([*facts, "seed = int('1')"]), name="train"))
    with pytest.raises(ParameterError, match=r"seed must be a literal \(in train\.ipynb\)"):
        check(read_notebook(path), {})


def test_the_names_of_the_kit_mean_nothing_special_to_others(tmp_path):
    """`store` and `data` of a notebook of one's own are its own business; a copy of the kit's gets the kit's."""
    path = str(own_notebook(tmp_path, "store = 3\ndata: str = 'a.csv'\ntime_column = ''\ntarget = ''"))
    assert check(read_notebook(path), {"data": "b.csv"}).values == {"data": "b.csv"}
    copied = str(
        own_notebook(tmp_path, "store = 'demo'\ndata = 'flights'\nfeatures = ['temp']", name="copied")
    )
    found = check(read_notebook(copied), {"data": "b.csv"}).values
    assert found == {"data": "b.csv", "features": [], "store": REAL_STORE}


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


# Secrets


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("store", "postgresql://me:s3cret@db/x", "postgresql://me:***@db/x"),
        ("data", "mysql+pymysql://:s3cret@db/x#t", r"mysql\+pymysql://:***@db/x#t"),
        ("artifacts", "ftp://me:s3cret${X}@host/a", "ftp://me:***@host/a"),
        ("notify", ["ntfy://a", "mailtos://me:s3cret@mail"], "mailtos://me:***@mail"),
    ],
)
def test_an_address_with_a_password_is_refused(name, value, shown):
    """The error does not repeat the password, and says how to keep it in the environment."""
    message = rf"{name} must not hold a password, .*; found {shown.replace('***', '[*]{3}')}\. export "
    with pytest.raises(ParameterError, match=message):
        typed_value("score", name, json.dumps(value) if name == "notify" else value)
    with pytest.raises(ParameterError, match=message) as refused:
        check(read_notebook("score"), {name: value})
    assert "s3cret" not in str(refused.value)
    assert f"me:${{{name.upper()}_PASSWORD}}@" in str(refused.value) or ":${DATA_PASSWORD}@" in str(
        refused.value
    )


@pytest.mark.parametrize(
    "value",
    [
        "postgresql://me:${PW}@db/x",
        "postgresql://me@db/x",
        "s3://bucket/a@b:c",
        "sqlite:///a:b@c.db",
        "s3://b/x:y@z",
    ],
)
def test_an_address_without_a_password_is_taken(value):
    """A reference to the environment, no password at all, or signs that only look like one."""
    assert check(read_notebook("score"), {"store": value}).values["store"] == value
