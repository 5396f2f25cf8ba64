"""Simulated stories of production on real tables, each with the action that is right, known by construction.

``python tests/benchmarks/stories.py [--tables 3] [--seeds 5] [--first 0] [--kinds NAME ...]``: what prodkit decides,
beside "an alarm means retrain" as Evidently and NannyML define an alarm, "retrain always" and "never".

Each story is told to the functions that `train`, `score` and `rollback` call, on a store of its own in memory: two
versions are trained and promoted, a window passes without incident, three more follow; each is scored and judged.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import uuid
import warnings
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from story_kinds import BREAK, KINDS, LENGTH, TRAINED, Story
from story_rivals import RIVALS
from story_tables import DAYS, START, TABLES, Table
from versions import trained

from prodkit.data.windows import read_window
from prodkit.decisions.actions import carry_out
from prodkit.decisions.counterfactual import counterfactuals
from prodkit.decisions.decide import Decision, judgement, sentence
from prodkit.decisions.gains import remember_trial
from prodkit.decisions.ladder import ladder_evidence
from prodkit.decisions.result import metric
from prodkit.decisions.survey import drift_evidence, drift_report, inspect_window
from prodkit.evidence import Evidence
from prodkit.params import RollbackParams, ScoreParams, TrainParams
from prodkit.scoring.batch import Scored, open_window, remember_scoring, score_window
from prodkit.scoring.inspection import inspect_chunks
from prodkit.store.registry import Store
from prodkit.store.workspace import champion_of

TRAINING = {"model_args": {"max_iter": 40}, "folds": 2, "holdout": "8d"}
WINDOWS = [
    (start, start + LENGTH) for start in range(BREAK - LENGTH, DAYS, LENGTH)
]  # the first is as it should be


@dataclass(frozen=True)
class Told:
    """How a story ended.

    Attributes:
        action: the first one of all windows; ``watch`` or ``keep`` if there was none.
        reasons: of the last decision.
        evidence: of the last decision.
        seconds: that it took.
        about: the column that a fault was put into.
    """

    action: str
    reasons: tuple[str, ...]
    evidence: tuple[Evidence, ...]
    seconds: float
    about: str = ""


def span(first: int, last: int) -> str:
    """Days of a story as a window."""
    return "/".join((START + pd.Timedelta(days=day)).date().isoformat() for day in (first, last))


def dated(story: Story) -> pd.DataFrame:
    """The rows with a time of their day."""
    rows = story.rows.reset_index(drop=True)
    within = rows.groupby("day").cumcount() / rows.groupby("day")["day"].transform("size")
    time = START + pd.to_timedelta(rows["day"] + within * 0.99, unit="D").dt.round("s")
    return rows.drop(columns="day").assign(time=time)


def poisoned(rows: pd.DataFrame, story: Story) -> pd.DataFrame:
    """The rows that version 2 learns from: labels mixed up among half of them."""
    if not story.poisoned:
        return rows
    target = story.table.target
    known = np.flatnonzero(rows[target].notna())
    some = story.random.permutation(known)[: len(known) // 2]
    values = rows[target].array.copy()
    values[np.sort(some)] = values[some]
    return rows.assign(**{target: values})


def furnished(store: Store, story: Story, facts: dict[str, Any], versions: dict[Any, Any]) -> None:
    """Train both versions and promote them in turn; those that stories share are trained once."""
    for number, (first, last) in TRAINED.items():
        given: dict[str, Any] = {**facts, **TRAINING, "label_delay": "1d"}
        if number == 2 and story.model != "auto":
            kind = "Regressor" if story.table.target == "arr_delay" else "Classifier"
            given["model"] = f"story_models.{story.model}{kind}"
        params = TrainParams.check({**given, "window": span(first, last)})
        rows = read_window(params)
        spoilt = number == 2 and (story.poisoned or story.model != "auto")
        key = (number, params.value, pd.util.hash_pandas_object(rows[params.features]).sum())
        if spoilt or key not in versions:
            made = trained(params, poisoned(rows, story) if number == 2 else rows)
            if not spoilt:
                versions[key] = made
        artifact, said = made if spoilt else versions[key]
        store.register(artifact, said, run_id=f"train-{number}")
        store.promote(number, expected_generation=number - 1, reason="story")


def scored(store: Store, params: ScoreParams) -> tuple[int, Scored]:
    """What `score` does with a window: the version that answered, and its answers."""
    version, bundle = champion_of(store)
    rows = open_window(params, bundle=bundle)
    inspection = inspect_chunks(store, params, rows, version=version, bundle=bundle)
    done = score_window(params, rows, inspection, version=version, bundle=bundle)
    remember_scoring(store, params, done, inspection, version=version)
    return version, done


def slowed(store: Store, params: ScoreParams, version: int, done: Scored) -> None:
    """Record a slow model as slow, as a service would."""
    about: dict[str, Any] = {"window": params.window, "version": version, "n": done.rows}
    names = ("latency_p50_ms", "latency_p99_ms")
    store.record_metrics([metric(params, name, 300.0, **about) for name in names])


def judged(store: Store, params: RollbackParams, *, drift: bool = True) -> Decision:
    """What `rollback` decides about a window, and does; it acts the same without a look at drift, which takes long."""
    rows = read_window(params)
    version, champion = champion_of(store)
    inspection = inspect_window(store, params, rows, version=version, bundle=champion)
    trials = counterfactuals(store, params, rows, champion=champion, sound=inspection.sound)
    shifts = drift_evidence(drift_report(params, rows, bundle=champion)) if drift else []
    evidence = ladder_evidence(
        store, params, trials, champion=(version, champion), inspection=inspection, shifts=shifts
    )
    decision = judgement(
        evidence,
        champion=store.champion(),
        retrain_now=params.retrain_now,
        policy=params.policy,
        economics=trials.economics,
    )
    carry_out(store, params, decision)
    remember_trial(store, params, trials, version=version)
    return decision


def written(kind: str, table: Table, seed: int, folder: Path) -> tuple[Story, dict[str, Any]]:
    """A story, and the parameters that tell prodkit about it."""
    random = np.random.default_rng([seed, sorted(KINDS).index(kind)])
    story = Story(table, table.days(np.random.default_rng(seed)), random)
    KINDS[kind].tell(story)
    path = folder / f"{uuid.uuid4().hex}.parquet"
    dated(story).to_parquet(path, index=False)
    return story, {"data": str(path), **table.facts(), **story.facts}


def told(kind: str, table: Table, seed: int, *, folder: Path, versions: dict[Any, Any]) -> Told:
    """Let a story happen to prodkit."""
    began = time.perf_counter()
    story, facts = written(kind, table, seed, folder)
    with Store.open("sqlite://", f"memory://{uuid.uuid4().hex}") as store:
        furnished(store, story, facts, versions)
        actions = []
        for first, last in WINDOWS:
            given = {**facts, "window": span(first, last)}
            params = ScoreParams.check({**given, "predictions": str(folder)})
            done = scored(store, params)
            if story.model == "Slow":
                slowed(store, params, *done)
            decision = judged(store, RollbackParams.check(given))
            if decision.action == "retrain" and last <= BREAK:
                continue  # it may pay before anything has happened, and is no answer to what follows
            actions.append(decision.action)
            if decision.action not in ("keep", "watch"):
                break
    Path(facts["data"]).unlink()
    acted = [action for action in actions if action not in ("keep", "watch")]
    action = acted[0] if acted else "watch" if "watch" in actions else "keep"
    return Told(action, decision.reasons, decision.evidence, time.perf_counter() - began, story.column)


def chapter(name: str, seed: int, kinds: Sequence[str]) -> dict[str, tuple[Told, dict[str, str]]]:
    """All kinds of story on one table with one seed: what prodkit did, and the action of each policy."""
    warnings.simplefilter("ignore")
    table, found, versions = TABLES[name](), {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in kinds:
            done = told(kind, table, seed, folder=Path(folder), versions=versions)
            story, _ = written(kind, table, seed, Path(folder))
            others = {rival: decide(story, WINDOWS) for rival, decide in RIVALS.items()}
            found[kind] = done, {"prodkit": done.action, **others}
    return found


def main() -> None:
    """Print how often each was right, by kind, and what went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=int, default=len(TABLES))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="seed to begin with")
    parser.add_argument("--kinds", nargs="*", default=list(KINDS))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--verbose", action="store_true", help="show the evidence of what went wrong")
    asked = parser.parse_args()
    began = time.perf_counter()
    chapters = [
        (name, seed)
        for name in list(TABLES)[: asked.tables]
        for seed in range(asked.first, asked.first + asked.seeds)
    ]
    right: dict[str, Counter[str]] = defaultdict(Counter)
    harm: Counter[str] = Counter()
    results = Parallel(n_jobs=asked.jobs, return_as="generator")(
        delayed(chapter)(*each, asked.kinds) for each in chapters
    )
    for (name, seed), found in zip(chapters, results, strict=True):
        for kind, (done, actions) in found.items():
            rule = KINDS[kind]
            for who, action in actions.items():
                right[who][kind] += action in rule.right
                harm[who] += action in rule.harmful
            if done.action not in rule.right:
                print(f"  {name} {seed} {kind} ({done.about}): {done.action}, {done.reasons[:3]}", flush=True)
                for item in done.evidence if asked.verbose else ():
                    print(f"      {item.name} {item.outcome}: {sentence(item)}")
    total = len(chapters) * len(asked.kinds)
    names = ["prodkit", *RIVALS]
    print(f"\nright, of {len(chapters)} each" + "".join(f"{who:>20}" for who in names))
    for kind in asked.kinds:
        print(f"{kind:27}" + "".join(f"{right[who][kind]:20}" for who in names))
    print(f"{'all':27}" + "".join(f"{sum(right[who].values()) / total:20.1%}" for who in names))
    print(f"{'harmful':27}" + "".join(f"{harm[who] / total:20.1%}" for who in names))
    print(f"\n{total} stories, {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
