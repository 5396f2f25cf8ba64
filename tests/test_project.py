"""A project of one's own: what the wheel carries, what `init` makes of a table, what `update` and `models add` keep."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import joblib
import pandas as pd
import pytest
import yaml
from projects import TABLES
from sklearn.ensemble import HistGradientBoostingClassifier
from tables import PROJECT, Command, prodkit

__all__ = ["prodkit"]  # a fixture

COMMAND = "from prodkit.cli import main; main()"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    build = ["pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder), str(PROJECT)]
    subprocess.run([sys.executable, "-m", *build], check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site-packages")
    return folder / "site-packages"


def called(installed: Path, folder: Path, *words: object) -> str:
    """What the command of the wheel prints in a folder."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PRODKIT_")}
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *map(str, words)],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def shop(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project for the German spreadsheet, made by the wheel, whose notebooks have run once."""
    folder = tmp_path_factory.mktemp("projects")
    called(installed, folder, "init", folder / "shop", *TABLES["bestellungen"](folder), "--sample")
    return folder / "shop"


def test_init_proposes_how_a_table_is_written_and_what_to_learn_from(shop: Path) -> None:
    """Signs, encoding and form of times are found out; notebooks read the sample, and hold no outputs."""
    text = (shop / "params" / "project.yaml").read_text()
    facts = yaml.safe_load(text)
    assert facts["csv"] == {"delimiter": ";", "decimal": ",", "thousands": ".", "encoding": "cp1252"}
    assert facts["time_format"] == "%d.%m.%Y %H:%M"
    assert (facts["task"], facts["features"]) == ("binary", ["Preis", "Größe"])
    assert "# here: zurück holds 2 classes" in text
    train = json.loads((shop / "notebooks" / "train.ipynb").read_text())
    assert 'data = "tests/sample.parquet"' in "".join(train["cells"][1]["source"])
    assert not any(cell.get("outputs") for cell in train["cells"])
    assert train["metadata"]["prodkit"]["version"] in (shop / "requirements.txt").read_text()
    assert "a runner forgets its disk" in (shop / ".github" / "workflows" / "notebooks.yml").read_text()


def test_update_replaces_what_nobody_changed_and_merges_the_rest(installed: Path, shop: Path) -> None:
    """A cell of one's own stays, a new text of the kit arrives, and what was there before is kept."""
    for name, place in (("drift", ""), ("drift", ".base/"), ("score", ""), ("score", ".base/")):
        path = shop / "notebooks" / f"{place}{name}.ipynb"
        notebook = json.loads(path.read_text().replace("## Bottom line", "## Upshot"))
        if (name, place) == ("drift", ""):
            notebook["cells"].append({**notebook["cells"][0], "id": "own", "source": ["Of my own"]})
        path.write_text(json.dumps(notebook))
    said = called(installed, shop, "update")
    assert "score: replaced; nobody had changed it" in said
    assert "drift: merged with your changes, no conflict" in said
    assert "train: up to date" in said
    merged = (shop / "notebooks" / "drift.ipynb").read_text()
    assert "Of my own" in merged
    assert "## Bottom line" in merged
    assert "## Upshot" in (shop / "notebooks" / ".before" / "drift.ipynb").read_text()


def test_a_model_from_elsewhere_becomes_a_version(installed: Path, shop: Path) -> None:
    """It is asked, not fitted; the version knows where it came from, and can be promoted."""
    rows = pd.read_parquet(shop / "tests" / "sample.parquet")
    model = HistGradientBoostingClassifier(max_iter=5).fit(rows[["Preis"]], rows["zurück"])
    joblib.dump(model, shop / "model.joblib")
    said = called(installed, shop, "models", "add", "model.joblib", "--trained", "2023-01-01/2023-03-01")
    number = said.split("version ")[1].split(":")[0]
    manifest = json.loads(called(installed, shop, "models", "show", number))["manifest"]
    assert manifest["added"]["source"] == "model.joblib"
    assert manifest["trained"] == "2023-01-01/2023-03-01"
    signed = ("--name", "Ada", "--reason", "it is known")
    assert f"champion: v{number}" in called(installed, shop, "models", "promote", number, *signed)


def test_a_folder_that_is_not_empty_is_refused(prodkit: Command, tmp_path: Path) -> None:
    """`init` writes over nothing, and without a terminal it names the option that is missing."""
    (tmp_path / "kept.txt").write_text("mine")
    call = ("--data", "flights", "--target", "late", "--time", "time")
    status, _, told = prodkit("init", tmp_path, *call)
    assert (status, "DIR must be new or empty" in told) == (2, True)
    status, _, told = prodkit("init", tmp_path / "new", *call[:4])
    assert (status, "--time must be given" in told) == (2, True)
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]


def test_a_name_that_another_version_had_is_one_clear_line() -> None:
    """A notebook of another version is told to be updated."""
    with pytest.raises(ImportError, match=r"prodkit has no draw_nothing: .*run `prodkit update`"):
        exec("from prodkit import draw_nothing")
