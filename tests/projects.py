"""Four small tables that are not flights, each written in another way: what `prodkit init` makes projects of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

__all__ = ["TABLES"]


def _rows(days: int, a_day: int, seed: int) -> tuple[pd.DataFrame, np.random.Generator]:
    random, n = np.random.default_rng(seed), days * a_day
    seconds = np.sort(random.integers(0, days * 86_400, n))
    return pd.DataFrame({"at": pd.Timestamp("2023-01-01") + pd.to_timedelta(seconds, unit="s")}), random


def loans(folder: Path) -> list[str]:
    """Binary, Parquet: five columns, an id, and one that is known only afterwards."""
    frame, random = _rows(240, 25, 1)
    n = len(frame)
    frame.insert(0, "loan_id", np.arange(n))
    frame["income"] = random.gamma(4.0, 800.0, n).round()
    frame["purpose"] = random.choice(["car", "home", "trip"], n)
    drive = 1.5 - frame["income"] / 2000 + (frame["purpose"] == "trip")
    frame["default"] = np.where(random.random(n) < 1 / (1 + np.exp(-drive)), "yes", "no")
    frame["recovered"] = np.where(frame["default"] == "yes", random.gamma(2.0, 100.0, n), 0.0)
    frame.to_parquet(folder / "loans.parquet", index=False)
    return ["--data", str(folder / "loans.parquet"), "--target", "default", "--time", "at"]


def tickets(folder: Path) -> list[str]:
    """Multiclass, CSV with epoch seconds."""
    frame, random = _rows(120, 40, 2)
    n = len(frame)
    frame["channel"], frame["words"] = random.choice(["mail", "phone", "web"], n), random.poisson(60, n)
    scores = np.stack([frame["words"] / 30, (frame["channel"] == "web") * 2.0, np.ones(n)], axis=1)
    frame["team"] = np.array(["billing", "login", "sales"])[
        (scores + random.gumbel(size=(n, 3))).argmax(axis=1)
    ]
    frame["at"] = frame["at"].astype("datetime64[s]").astype("int64")
    frame.to_csv(folder / "tickets.csv", index=False)
    return ["--data", str(folder / "tickets.csv"), "--target", "team", "--time", "at"]


def meters(folder: Path) -> list[str]:
    """Regression, Parquet, times as texts with the day first."""
    frame, random = _rows(60, 48, 3)
    hour = frame["at"].dt.hour
    frame["temperature"] = (10 + 8 * np.sin(hour / 4) + random.normal(size=len(frame))).round(1)
    frame["load"] = 50 - 2 * frame["temperature"] + 5 * (hour > 17) + random.normal(size=len(frame))
    frame["at"] = frame["at"].dt.strftime("%d/%m/%Y %H:%M")
    frame.to_parquet(folder / "meters.parquet", index=False)
    return [
        "--data",
        str(folder / "meters.parquet"),
        "--target",
        "load",
        "--time",
        "at",
        "--label-delay",
        "2h",
    ]


def bestellungen(folder: Path) -> list[str]:
    """Binary, CSV as a German spreadsheet writes it: semicolons, decimal commas, points in thousands, cp1252."""
    frame, random = _rows(100, 40, 4)
    n = len(frame)
    price = random.gamma(3.0, 300.0, n)
    back = random.random(n) < 1 / (1 + np.exp(2 - price / 500))
    german = [f"{each:,.2f}".translate(str.maketrans(",.", ".,")) for each in price]
    frame = frame.assign(
        Preis=german, Größe=random.choice(["klein", "groß"], n), zurück=np.where(back, "ja", "nein")
    )
    frame["at"] = frame["at"].dt.strftime("%d.%m.%Y %H:%M")
    frame.to_csv(folder / "bestellungen.csv", sep=";", index=False, encoding="cp1252")
    return ["--data", str(folder / "bestellungen.csv"), "--target", "zurück", "--time", "at"]


TABLES: dict[str, Callable[[Path], list[str]]] = {
    each.__name__: each for each in (loans, tickets, meters, bestellungen)
}
