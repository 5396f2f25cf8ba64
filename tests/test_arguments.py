"""What a notebook is given: params files and `-p` are read strictly, and another table brings its own facts."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prodkit.arguments import neutral_facts, read_files, typed_value
from prodkit.errors import ParameterError
from prodkit.params import TrainParams


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
    [("- a\n- b\n", "must be a mapping of names to values; found list"), ("a: [1\n", "must be YAML")],
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
