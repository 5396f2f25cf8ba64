"""Two months of orders, some of which are sent back, and small stores of models that learned from them."""

from __future__ import annotations

import atexit
import os
import shutil
import sqlite3
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
import yaml
from benchmarks.versions import trained as version_made

from prodkit.cli import main
from prodkit.data.windows import read_window
from prodkit.params import NOTEBOOKS, TrainParams
from prodkit.settings import read_notebook
from prodkit.store.registry import Store

PROJECT = Path(__file__).parent.parent


@contextmanager
def own_schema() -> Iterator[tuple[sa.Engine, str, str]]:
    """A schema of a PostgreSQL database that is gone in the end: engine, its name, and the URL of the database."""
    url = os.environ.get("PRODKIT_TEST_POSTGRES")
    if not url:
        pytest.skip("PRODKIT_TEST_POSTGRES holds no URL of a PostgreSQL database to test on")
    schema, engine = f"test_{uuid.uuid4().hex}", sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as rows:
        rows.execute(sa.text(f"CREATE SCHEMA {schema}"))
    yield engine, schema, url
    with engine.begin() as rows:
        rows.execute(sa.text(f"DROP SCHEMA {schema} CASCADE"))


FEATURES = ["city", "price", "weight", "express"]
FACTS: dict[str, Any] = {
    "time_column": "ordered_at",
    "target": "returned",
    "features": FEATURES,
    "id_column": ["order"],
    "label_delay": "1d",
}
TRAINING: dict[str, Any] = {"model_args": {"max_iter": 20}, "folds": 2, "holdout": "4d"}
# What the two versions of `stocked` learned from; they leave these four days at the end to the judge.
WINDOWS = {1: "2024-01-01/2024-01-25", 2: "2024-01-01/2024-02-01"}
FEBRUARY = "2024-02-01/2024-02-15"


def orders(*, days: int = 60, rows: int = 60, seed: int = 0) -> pd.DataFrame:
    """Orders of so many days from 2024 on, so many a day: what sends one back is its price and its city."""
    random, n = np.random.default_rng(seed), days * rows
    day = np.repeat(np.arange(days), rows)
    frame = pd.DataFrame(
        {
            "order": np.arange(n),
            "ordered_at": pd.Timestamp("2024-01-01")
            + pd.to_timedelta(day, unit="D")
            + pd.to_timedelta(np.sort(random.integers(0, 86_400, (days, rows)), axis=1).ravel(), unit="s"),
            "city": random.choice(["Bergen", "Lisbon", "Oslo", "Rome"], n),
            "price": random.gamma(4.0, 10.0, n).round(2),
            "weight": np.where(random.random(n) < 0.03, np.nan, random.normal(5.0, 1.0, n).round(3)),
            "express": random.random(n) < 0.3,
        }
    )
    drive = frame["price"] / 20 - 2.5 + (frame["city"] == "Rome") * 1.5
    frame["returned"] = (random.random(n) < 1 / (1 + np.exp(-drive))).astype("float64")
    frame.loc[random.random(n) < 0.02, "returned"] = np.nan  # lost on the way: never known
    return frame


def written(frame: pd.DataFrame, folder: Path, name: str = "orders") -> str:
    """The path of a Parquet file with these rows."""
    path = folder / f"{name}.parquet"
    frame.to_parquet(path, index=False)
    return str(path)


def params_for(notebook: str, data: str, **given: Any) -> Any:
    """Checked parameters of a notebook over a table of orders."""
    policy = TRAINING if notebook == "train" else {}
    return NOTEBOOKS[notebook].check({**FACTS, **policy, "data": data, **given})


def trained(params: TrainParams) -> tuple[bytes, dict[str, Any]]:
    """Artifact and manifest of a version, made as the train notebook makes one."""
    return version_made(params, read_window(params))


@cache
def _orders_file() -> str:
    """The table, written once a process and removed at its end."""
    folder = tempfile.mkdtemp(prefix="prodkit-orders-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return written(orders(), Path(folder))


@cache
def version_of(number: int) -> tuple[bytes, dict[str, Any]]:
    """One of the two versions, trained once a process."""
    return trained(params_for("train", _orders_file(), window=WINDOWS[number]))


def stocked(folder: Path, *, promoted: Sequence[int] = (1, 2)) -> dict[str, str]:
    """A store with both versions, of which these were promoted in turn; its places, as parameters."""
    places = {"store": f"sqlite:///{folder}/store.db", "artifacts": str(folder / "artifacts")}
    with Store.open(**_addresses(places)) as store:
        for number in WINDOWS:
            store.register(*version_of(number), run_id=f"train-{number}")
        for generation, number in enumerate(promoted):
            store.promote(number, expected_generation=generation, reason="test")
    return places


def _addresses(places: Mapping[str, str]) -> dict[str, str]:
    return {"url": places["store"], "artifacts": places["artifacts"]}


def opened(places: Mapping[str, str]) -> Store:
    """The store at these places."""
    return Store.open(**_addresses(places))


def contents(places: Mapping[str, str]) -> Any:
    """All that a store holds, to be compared with what it holds later."""
    with opened(places) as store:
        artifacts = sorted(path.name for path in Path(places["artifacts"]).rglob("*") if path.is_file())
        metrics = store.metrics().to_dict("records")
        profile = store.latest_profile(pd.Timestamp("2099-01-01").to_pydatetime(), clean=False)
        return store.champion(), store.history(), artifacts, repr(metrics), profile, store.runs()


def run_cells(notebook: str, given: Mapping[str, Any], *, until: str = "") -> dict[str, Any]:
    """Run the code of a notebook of the kit here, without a kernel, and give the names it leaves.

    Args:
        notebook: its name.
        given: parameters, as papermill injects them.
        until: stop before the first cell that contains this text.
    """
    path = PROJECT / "notebooks" / f"{notebook}.ipynb"
    names = {**read_notebook(str(path)).defaults, **given}
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type != "code" or "parameters" in cell.metadata.get("tags", []):
            continue
        if until and until in cell.source:
            break
        exec(compile(cell.source, f"{notebook}.ipynb", "exec"), names)
    return names


def facts_file(folder: Path, data: str, **given: Any) -> str:
    """The path of a shared params file about a table of orders."""
    path = folder / "orders.yaml"
    path.write_text(yaml.safe_dump({**FACTS, "data": data, **given}))
    return str(path)


def own_notebook(folder: Path, *sources: str, name: str = "mine") -> Path:
    """A notebook whose first cell holds the parameters."""
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    cells[0].metadata["tags"] = ["parameters"]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    path = folder / f"{name}.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), path)
    return path


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def prodkit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command, called in this process: arguments in; exit status, stdout and stderr out."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["prodkit", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return call


@pytest.fixture
def orders_file() -> str:
    """The path of the orders."""
    return _orders_file()


@pytest.fixture
def places(tmp_path: Path) -> dict[str, str]:
    """A store of its own: version 2 is champion, 1 its predecessor."""
    return stocked(tmp_path)


@contextmanager
def locked(places: Mapping[str, str], *, reads_too: bool = False) -> Iterator[None]:
    """Somebody else writes to the store, and does not come to an end."""
    other = sqlite3.connect(places["store"].removeprefix("sqlite:///"), isolation_level=None)
    try:
        other.execute("BEGIN EXCLUSIVE" if reads_too else "BEGIN IMMEDIATE")
        yield
    finally:
        other.rollback()
        other.close()
