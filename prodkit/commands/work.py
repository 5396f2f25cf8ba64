"""Notebooks put to work: one, the whole chain of them, or one for each of many windows."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from prodkit.commands.console import print_table, progress, tell
from prodkit.commands.options import (
    default_files,
    given_values,
    json_option,
    limit_options,
    outputs_path,
    parameter_options,
)
from prodkit.runs.stops import Limits, heeding_signals, signal_received
from prodkit.settings import using_outputs

__all__ = ["backfill", "lifecycle", "run"]


@click.command()
@click.argument("notebook")
@parameter_options
@limit_options
@click.option(
    "--exit-code", is_flag=True, help="End with 3 if action is needed, with 4 if it could not be told."
)
@json_option
def run(
    notebook: str,
    files: Sequence[Path],
    pairs: Sequence[tuple[str, str]],
    out: Path,
    force: bool,
    limits: Limits,
    exit_code: bool,
    as_json: bool,
) -> None:
    """Run NOTEBOOK, a name in notebooks/ or any .ipynb with a parameters cell, and record what came of it.

    Without -f it reads params/flights.yaml and the notebook's own file in params/.
    """
    from prodkit.runs.runner import run_notebook

    with using_outputs(outputs_path(out)), heeding_signals():
        done = run_notebook(notebook, given_values(notebook, files, pairs), force=force, limits=limits)
    if as_json:
        print(json.dumps(done.document, indent=2))
    else:
        again = " (done before; --force does it again)" if done.repeated else ""
        action = f", {done['action']}" if done["action"] else ""
        lines = [
            f"{done['run_id']}: {done['status']}, {done['outcome']}{action}{again}",
            *done["reasons"][:3],
        ]
        for line in [*lines, str(done.folder / "report.html")]:
            tell(line)
    sys.exit(_status(done.document, exit_code=exit_code))


def _status(document: Mapping[str, Any], *, exit_code: bool) -> int:
    if document["status"] == "interrupted" and signal_received():
        return 128 + signal_received()
    if document["status"] != "succeeded" or document["outcome"] == "error":
        return 1
    if exit_code and (document["outcome"] == "fail" or document["action"] not in (None, "keep", "watch")):
        return 3
    return 4 if exit_code and document["outcome"] == "inconclusive" else 0


@click.command()
@parameter_options
@limit_options
def lifecycle(
    files: Sequence[Path],
    pairs: Sequence[tuple[str, str]],
    out: Path,
    force: bool,
    limits: Limits,
) -> None:
    """The main job: the whole life of a model, on the bundled flights by default."""
    from prodkit.lifecycle import plan
    from prodkit.params import NOTEBOOKS

    files = files or list(dict.fromkeys(path for name in NOTEBOOKS for path in default_files(name)))
    with using_outputs(outputs_path(out)), heeding_signals(), progress() as bar:
        life = plan(files, pairs, force=force)
        life.limits = limits
        step = bar.add_task("", total=life.steps)
        life.tell = lambda name: bar.update(step, advance=1, description=name)
        page = life.live()
        bar.update(step, total=len(life.runs), completed=len(life.runs), description="done")
    print_table(life.table())
    print(f"open {page}")


@click.command()
@click.argument("notebook")
@click.option(
    "--windows", required=True, metavar="START/END/FREQ", help="For instance 2013-04-01/2014-01-01/MS."
)
@parameter_options
@click.option(
    *("-j", "--jobs"),
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="How many windows at a time.",
)
@click.option("--dask", default="", metavar="ADDRESS", help="Scheduler whose workers run them instead.")
@limit_options
def backfill(
    notebook: str,
    windows: str,
    files: Sequence[Path],
    pairs: Sequence[tuple[str, str]],
    out: Path,
    force: bool,
    jobs: int,
    dask: str,
    limits: Limits,
) -> None:
    """Run NOTEBOOK once for each window; what was done before is not done again.

    One that fails does not stop the others; those that failed are listed at the end, with exit status 1.
    """
    from prodkit.runs.backfill import Filled, backfilled, windows_between

    parts = windows_between(windows)
    done: list[Filled] = []
    with using_outputs(outputs_path(out)), heeding_signals(), progress() as bar:
        given = given_values(notebook, files, pairs)
        step = bar.add_task(f"backfill {Path(notebook).stem}", total=len(parts))
        for each in backfilled(notebook, given, parts, jobs=jobs, dask=dask, force=force, limits=limits):
            done.append(each)
            bar.update(step, advance=1)
            if not each.sound:
                tell(f"{each.window}: {each.status}: {each.reason}")
    done.sort(key=lambda each: each.window)
    names = ("window", "run_id", "status", "outcome", "action")
    print_table([{name: getattr(each, name) for name in names} for each in done])
    bad = [each for each in done if not each.sound]
    if bad:
        tell(f"{len(bad)} of {len(done)} windows failed; the same command tries them again.")
    sys.exit(128 + signal_received() if signal_received() else 1 if bad else 0)
