"""Living is replaying: tables that grow, looked at by a scheduler that is killed, live as if they were there at once.

``python tests/benchmarks/living.py [KIND]...`` runs the command itself on each kind of table: as a whole; growing by a
period with a call after each; growing by random amounts, with calls that SIGKILL ends at a random moment. Windows,
decisions, figures and the digests of what each version learned must be the same. It ends with 1 where they are not.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from prodkit.store.registry import Store

COMMAND = [sys.executable, "-c", "from prodkit.cli import main; main()", "lifecycle"]
START = pd.Timestamp("2024-01-01")


def rows(days: int, each: int, *, seed: int = 0) -> pd.DataFrame:
    """Orders of so many days, each with an id, a day of birth, and a label that two columns explain."""
    random, n = np.random.default_rng(seed), days * each
    at = np.sort(random.integers(0, days * 86_400, n))
    frame = pd.DataFrame({"order": np.arange(n), "at": START + pd.to_timedelta(at, unit="s")})
    frame["price"] = random.gamma(4.0, 10.0, n).round(2)
    frame["city"] = random.choice(["Bergen", "Lisbon", "Oslo", "Rome"], n)
    drive = frame["price"] / 20 - 2.5 + (frame["city"] == "Rome") * 1.5
    frame["returned"] = (drive + random.logistic(size=n) > 0).astype(int)
    return frame


@dataclass(frozen=True)
class Kind:
    """A table, its facts, and when it is looked at."""

    frame: pd.DataFrame
    looks: list[datetime]
    facts: dict[str, Any] = field(default_factory=dict)
    arrives: pd.Series | None = None  # when each row comes; when it happened if None

    def there(self, moment: datetime) -> pd.DataFrame:
        """What the table holds at a moment."""
        come = self.frame["at"] if self.arrives is None else self.arrives
        return self.frame[come < moment]


def ends(first: datetime, length: timedelta, count: int) -> list[datetime]:
    """The ends of periods that follow one another."""
    return [first + length * place for place in range(1, count + 1)]


def weekly() -> Kind:
    """Thirty weeks, a row missing here and there, and a fortnight without any."""
    frame = rows(210, 12)
    frame = frame[np.random.default_rng(1).random(len(frame)) > 0.02]
    frame = frame[~frame["at"].between("2024-05-06", "2024-05-20", inclusive="left")]
    return Kind(frame, ends(datetime(2024, 1, 1), timedelta(days=7), 30), {"every": "week"})


def daily() -> Kind:
    """Twenty-eight days, looked at every day, with labels after six hours."""
    facts = {"every": "day", "label_delay": "6h"}
    return Kind(rows(28, 150), ends(datetime(2024, 1, 1), timedelta(days=1), 28), facts)


def deliveries() -> Kind:
    """A month that comes in three deliveries, the last two after it was scored."""
    frame = rows(120, 20)
    arrives, april = frame["at"].copy(), frame["at"].between("2024-04-01", "2024-05-01", inclusive="left")
    part = frame["order"] % 3
    arrives[april & (part == 1)] = pd.Timestamp("2024-05-02")
    arrives[april & (part == 2)] = pd.Timestamp("2024-05-09")
    looks = [datetime(2024, month, 1) for month in (2, 3, 4, 5)] + [
        datetime(2024, 5, 3),
        datetime(2024, 5, 10),
    ]
    return Kind(frame, looks, {"every": "month"}, arrives)


def zoned() -> Kind:
    """Days of a time zone, over the night on which its summer time begins."""
    facts = {"every": "day", "label_delay": "6h", "timezone": "Europe/Rome"}
    frame = rows(24, 150)
    frame["at"] += pd.Timedelta(days=80)
    return Kind(frame, ends(datetime(2024, 3, 21), timedelta(days=1), 24), facts)


KINDS: dict[str, Callable[[], Kind]] = {
    "weekly": weekly, "daily": daily, "deliveries": deliveries, "zoned": zoned,
}  # fmt: skip


class Life:
    """A folder in which a kind of table is lived through."""

    def __init__(self, folder: Path, kind: Kind) -> None:
        self.folder, self.kind = folder, kind
        folder.mkdir()
        facts = {"data": "orders.parquet", "time_column": "at", "target": "returned", "id_column": ["order"]}
        (folder / "my.yaml").write_text(yaml.safe_dump({**facts, **kind.facts}))

    def call(self, moment: datetime, *, killed_after: float = 0.0) -> dict[str, Any]:
        """One call at a moment, on what is there by then; a call that is killed gives nothing."""
        self.kind.there(moment).to_parquet(self.folder / "orders.parquet", index=False)
        words = [*COMMAND, "-f", str(self.folder / "my.yaml"), "--until", f"{moment:%Y-%m-%dT%H:%M:%S}"]
        words += ["--json", "--out", str(self.folder / "out")]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if killed_after:
            time.sleep(killed_after)
            process.kill()
        shown, problem = process.communicate()
        if process.returncode not in (0, -9) and "long enough to learn" not in problem:
            raise RuntimeError(problem)
        return json.loads(shown) if process.returncode == 0 else {}

    def digests(self) -> list[str]:
        """Of what each version learned."""
        with Store.open(
            f"sqlite:///{self.folder}/out/store.db", str(self.folder / "out" / "artifacts")
        ) as store:
            return [version.manifest["data_digest"] for version in store.versions()]


def lives(kind: Kind, folder: Path, random: np.random.Generator) -> Iterator[tuple[str, dict[str, Any]]]:
    """The three ways to live, each with what became of it."""
    once = Life(folder / "once", kind)
    on_time = [
        look for look in kind.looks if kind.arrives is None or len(kind.there(look)) == len(kind.frame)
    ]
    yield "as a whole", told(once, once.call((on_time or kind.looks)[-1]))
    grown = Life(folder / "grown", kind)
    for look in kind.looks:
        last = grown.call(look)
    yield "period by period", told(grown, last)
    killed = Life(folder / "killed", kind)
    span = kind.looks[-1] - kind.looks[0]
    for share in np.sort(random.random(6)):
        moment = (kind.looks[0] + span * float(share)).replace(microsecond=0)
        killed.call(moment, killed_after=float(random.uniform(2, 25)))
    yield "killed at random", told(killed, killed.call(kind.looks[-1]))


def told(life: Life, document: dict[str, Any]) -> dict[str, Any]:
    """What must not depend on how a table grew."""
    return {"periods": document["periods"], "digests": life.digests(), "notes": document["notes"]}


def main(names: list[str]) -> int:
    """Print for each kind and way whether it lived as the table at once; 1 if one did not."""
    wrong = 0
    for name in names or list(KINDS):
        with tempfile.TemporaryDirectory() as folder:
            first: dict[str, Any] = {}
            for way, outcome in lives(KINDS[name](), Path(folder), np.random.default_rng(len(name))):
                first = first or outcome
                same = [key for key in ("periods", "digests") if outcome[key] == first[key]]
                late = name == "deliveries"  # all but the late period, and what it says of itself
                wrong += len(same) < 2 and not late
                counts = f"{len(outcome['periods'])} periods, {len(outcome['digests'])} versions"
                print(f"{name}, {way}: {counts}, same: {', '.join(same) or 'nothing'}", flush=True)
                print("\n".join(f"  {note}" for note in outcome["notes"]), flush=True)
                if late or len(same) < 2:
                    print("\n".join(f"  {row}" for row in outcome["periods"][-4:]), flush=True)
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
