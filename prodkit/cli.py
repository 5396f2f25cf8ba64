"""The ``prodkit`` command."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from prodkit.cli_store import backup, clean, models
from prodkit.console import (
    file_options,
    force_option,
    json_option,
    place_options,
    print_json,
    print_markdown,
    print_table,
    progress,
    say,
    tell,
    tell_failure,
    with_limits,
    with_notebook,
    with_outputs,
    with_store,
)
from prodkit.errors import ParameterError, ProdkitError
from prodkit.params import FLIGHTS, NOTEBOOKS
from prodkit.runs.stops import Limits, heeding_signals, leave, signal_received
from prodkit.settings import (
    default_files,
    given_values,
    outputs_folder,
    project_folder,
    project_on_path,
    resolve,
    typed_value,
)

if TYPE_CHECKING:
    from prodkit.runs.backfill import Filled
    from prodkit.runs.verify import Verdict
    from prodkit.store.registry import Store

# A command imports what it needs when it is called: help and a mistyped name are answered at once.

__all__ = ["main"]

# Errors of the machine, not of the package: no room, no permission, no such place.
_MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR}


def main() -> None:
    """Run the command; a wrong call ends with 2, a failure with 1, each with one clear sentence."""
    if (
        os.path.expanduser("~") == "~"
    ):  # a user without a name or a home, as in a container: libraries ask for one
        os.environ["HOME"] = tempfile.gettempdir()
    try:
        prodkit()
    except ProdkitError as error:
        tell_failure(f"prodkit: {error}")
        if signal_received():
            leave(signal_received())
        sys.exit(2 if isinstance(error, ParameterError) else 1)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _MACHINE:
            place = f"{error.filename}: " if error.filename else ""
            fix = "Make room or give access there, or name another folder with --out."
            tell_failure(f"prodkit: {place}{error.strerror}. {fix}")
        else:  # a fault of the package: the traceback helps whoever repairs it
            tell_failure("".join(traceback.format_exception(error)))
        sys.exit(1)


class _Group(click.Group):
    """A command that Ctrl-C ends as it would end any other program, not as a failure."""

    def invoke(self, context: click.Context) -> Any:
        """Run it, with the project's modules on the import path."""
        project_on_path()
        try:
            return super().invoke(context)
        except KeyboardInterrupt:
            leave(signal.SIGINT)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="notebook-prodkit")
def prodkit() -> None:
    """Take a scikit-learn model from experiment to production without leaving notebooks."""


# Running notebooks


@prodkit.command()
@with_notebook
@force_option
@with_limits
@click.option("--exit-code", is_flag=True, help="End with 3 if action is needed, with 4 if inconclusive.")
@json_option
def run(notebook: str, given: dict[str, Any], exit_code: bool, as_json: bool, **options: Any) -> None:
    """Run NOTEBOOK, a name in notebooks/ or any .ipynb file, and record its result.

    Without -f it reads params/flights.yaml and the notebook's own file in params/.
    """
    from prodkit.runs.runner import run_notebook

    with heeding_signals():
        done = run_notebook(notebook, _suited(notebook, given), **options)
    if as_json:
        print_json(done.document)
    else:
        again = " (done before; --force does it again)" if done.repeated else ""
        action = f", {done['action']}" if done["action"] else ""
        tell(f"{done['run_id']}: {done['status']}, {done['outcome']}{action}{again}")
        for line in [*done["reasons"][:3], done.folder / "report.html"]:
            tell(str(line))
    sys.exit(_status(done.document, exit_code=exit_code))


def _suited(notebook: str, given: dict[str, Any]) -> dict[str, Any]:
    """What a run is given, and what suits a table of one's own where nothing is said of it."""
    if notebook not in ("train", "validate", "rollback") or given.get("data", FLIGHTS) == FLIGHTS:
        return given
    from prodkit.planning import suited_to

    return {**suited_to(notebook, given), **given}


def _status(document: Mapping[str, Any], *, exit_code: bool) -> int:
    if document["status"] == "interrupted" and signal_received():
        return 128 + signal_received()
    if document["status"] != "succeeded" or document["outcome"] == "error":
        return 1
    if exit_code and (document["outcome"] == "fail" or document["action"] not in (None, "keep", "watch")):
        return 3
    return 4 if exit_code and document["outcome"] == "inconclusive" else 0


@prodkit.command()
@file_options
@click.option(
    "--until",
    type=click.DateTime(),
    metavar="DATE",
    help="Stand at this moment (in `timezone`, UTC unless set), not at now.",
)
@click.option("--plan", "plan_only", is_flag=True, help="Show what is due, and do nothing.")
@click.option("--replan", is_flag=True, help="Record a new plan from the next period on; needs --reason.")
@click.option("--reason", default="", help="Why there is a new plan.")
@json_option
@with_outputs
@with_limits
def lifecycle(
    files: Sequence[Path],
    pairs: Sequence[tuple[str, str]],
    until: datetime | None,
    plan_only: bool,
    replan: bool,
    reason: str,
    as_json: bool,
    limits: Limits,
) -> None:
    """Do what is due: the whole life of a model, period by period; on the bundled flights by default."""
    from prodkit.lifecycle import lifecycle as look

    if replan and not reason:
        raise ParameterError("--reason", rule="must be given with --replan", fix="Add --reason WHY.")
    life = look(files or default_files(*NOTEBOOKS), pairs, until=until, reason=reason if replan else "")
    life.limits = limits
    if plan_only:
        rows = [{**vars(entry), "window": str(entry.window)} for entry in life.agenda()]
        if as_json:
            print_json({"plan": life.plan.to_dict(), "periods": rows})
        else:
            print_table(
                [{**row, "steps": " ".join(row["steps"]), "rows": f"{row['rows']:,}"} for row in rows]
            )
        return
    with progress() as bar:
        step = bar.add_task("", total=None)
        life.tell = lambda name: bar.update(step, advance=1, description=name)
        page = life.live()
    if as_json:
        print_json({"periods": life.table(), "notes": life.notes, "page": str(page)})
        return
    print_table(life.table())
    for line in [*life.notes, f"open {page}"]:
        say(line)


@prodkit.command()
@file_options
@json_option
@with_outputs
def status(files: Sequence[Path], pairs: Sequence[tuple[str, str]], as_json: bool) -> None:
    """Where the model stands: who serves since when, what is due, what waits for a person, figures and alerts."""
    from prodkit.planning import Outlook, asked
    from prodkit.status import status as standing
    from prodkit.status import status_lines

    document = standing(Outlook(**asked(files or default_files(*NOTEBOOKS), pairs)))
    if as_json:
        print_json(document)
    else:
        say("\n".join(status_lines(document)))


@prodkit.command()
@with_notebook
@click.option("--windows", required=True, metavar="START/END/FREQ", help="Such as 2013-04-01/2014-01-01/MS.")
@click.option("-j", "--jobs", type=click.IntRange(1), default=1, show_default=True, help="Windows at a time.")
@click.option("--dask", default="", metavar="ADDRESS", help="Scheduler whose workers run them instead.")
@force_option
@with_limits
def backfill(notebook: str, given: dict[str, Any], windows: str, **options: Any) -> None:
    """Run NOTEBOOK once for each window; what was done before is not done again.

    One that fails does not stop the others; those that failed are listed at the end, with exit status 1.
    """
    from prodkit.runs.backfill import backfilled, windows_between

    parts = windows_between(windows)
    done: list[Filled] = []
    with progress() as bar:
        step = bar.add_task(f"backfill {Path(notebook).stem}", total=len(parts))
        for each in backfilled(notebook, given, parts, **options):
            done.append(each)
            bar.update(step, advance=1)
            if not each.sound:
                tell(f"{each.window}: {each.status}: {each.reason}")
    done.sort(key=lambda each: each.window)
    names = ("window", "run_id", "status", "outcome", "action")
    print_table([{name: getattr(each, name) for name in names} for each in done])
    failed = sum(not each.sound for each in done)
    if failed:
        tell(f"{failed} of {len(done)} windows failed; the same command tries them again.")
    sys.exit(128 + signal_received() if signal_received() else min(failed, 1))


@prodkit.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: any free.")
@click.option("--no-token", is_flag=True, help="Let other machines ask without a token.")
@file_options
@with_outputs
def serve(
    host: str, port: int, no_token: bool, files: Sequence[Path], pairs: Sequence[tuple[str, str]]
) -> None:
    """Answer predictions over HTTP by whoever is champion; needs the extra [serve].

    Without -f it reads params/flights.yaml, and params/serve.yaml if it is there.
    """
    try:
        from prodkit.serving.app import serve as begin
    except ImportError as error:
        fix = 'Install it: pip install "notebook-prodkit[serve]".'
        raise ParameterError("serve", rule=f"needs another package ({error.name})", fix=fix) from error
    from prodkit.serving.service import ServeParams

    params = ServeParams.read(files or default_files("serve"), pairs)
    begin(params, host=host, port=port, no_token=no_token, tell=lambda url: tell(f"serving on {url}"))


# A project of one's own


@prodkit.command()
@click.argument("folder", metavar="DIR", type=Path)
@click.option(
    "--data", help="Table: path, folder or glob of Parquet or CSV, URL, or database URL with #table."
)
@click.option("--target", metavar="COL", help="Column to predict.")
@click.option("--time", metavar="COL", help="Column that says when a row happened.")
@click.option("--every", metavar="PERIOD", help="Period of life: month, week, day or a duration; proposed.")
@click.option("--label-delay", metavar="TIME", help="How long until a label is known, such as 30d; proposed.")
@click.option(
    "-p", "pairs", nargs=2, multiple=True, metavar="NAME VALUE", help="Any other fact of the table."
)
@click.option(
    "--sample", is_flag=True, help="Let the tests read a sample of the rows, which is written to tests/."
)
@click.option("--outputs", is_flag=True, help="Keep the outputs of the notebooks; they show data.")
def init(
    folder: Path, pairs: Sequence[tuple[str, str]], sample: bool, outputs: bool, **given: str | None
) -> None:
    """Make a project in DIR, new or empty, from a table: facts, notebooks, tests, schedule; each notebook runs once."""
    from prodkit.params import TrainParams
    from prodkit.project import make_project

    asked = {name: given[name] or _asked(name) for name in ("data", "time", "target")}
    facts: dict[str, Any] = given_values(
        "train", {name: field.annotation for name, field in TrainParams.model_fields.items()}, pairs=pairs
    )
    facts |= {"data": asked["data"], "time_column": asked["time"], "target": asked["target"]}
    facts |= {name: given[name] for name in ("every", "label_delay") if given[name]}
    with progress() as bar:
        step = bar.add_task("", total=None)
        made = make_project(
            folder, facts, sample=sample, outputs=outputs,
            tell=lambda name: bar.update(step, advance=1, description=name),
        )  # fmt: skip
    for name, reason in made.reasons.items():
        say(f"{name} = {made.chosen[name]}: {reason}")
    for column, reason in made.left_out.items():
        say(f"{column} is left out: {reason}")
    say(f"made {folder}; next: cd {folder} && prodkit lifecycle && pytest")


def _asked(name: str) -> str:
    """What is missing of a call: asked for on a terminal, an error elsewhere."""
    if not sys.stdin.isatty():
        raise ParameterError(f"--{name}", rule="must be given", fix=f"Add --{name} {_MEANT[name]}.")
    return str(click.prompt(f"{name} ({_MEANT[name]})"))


_MEANT = {
    "data": "FILE, the table",
    "time": "COL, the column that says when a row happened; without one nothing can be judged over time:"
    " use the date of the file or of its arrival",
    "target": "COL, the column to predict",
}


@prodkit.command()
@with_outputs
@place_options
def update(store: str, artifacts: str) -> None:
    """Bring notebooks and store of this project to the installed version; your changes are kept.

    Ends with 1 if a notebook has conflicts, which are marked in it. What was before is kept beside it.
    """
    from prodkit.project import update_notebooks
    from prodkit.store.upgrade import upgrade_store

    own = (project_folder() / "notebooks" / ".base").is_dir()
    conflicts = update_notebooks(tell=say) if own else 0
    try:
        backup = upgrade_store(resolve(store), resolve(artifacts))
        say(f"the store was upgraded; as it was before: {backup}" if backup else "the store is up to date")
    except ParameterError as error:
        if not own or error.name == "PRODKIT_SIGNING_KEY":
            raise
        say("there is no store yet")
    sys.exit(min(conflicts, 1))


@prodkit.command("help")
@click.argument("topic", default="")
def show_help(topic: str) -> None:
    """The reference: decisions, data, serving, the parameters of a notebook, ...; without TOPIC, all topics."""
    from prodkit.reference import reference

    print_markdown(reference(topic))


# Looking at runs


@prodkit.command()
@with_outputs
@place_options
@click.option("--open", "open_page", is_flag=True, help="Open it in the browser.")
@click.option("--compare", nargs=2, metavar="RUN RUN", help="Put two runs side by side instead.")
def report(store: str, artifacts: str, open_page: bool, compare: tuple[str, str] | None) -> None:
    """Write outputs/index.html: what needs a person now, the life of the model, each version, all runs."""
    from prodkit.pages import write_comparison, write_site

    folder = outputs_folder()
    page = write_comparison(folder, *compare) if compare else write_site(folder, store, artifacts, tell=tell)
    say(str(page))
    if open_page:
        click.launch(page.as_uri())


@prodkit.command()
@click.argument("run_id", metavar="RUN")
@with_outputs
@json_option
def verify(run_id: str, as_json: bool) -> None:
    """Execute a recorded RUN again in a fresh kernel and compare; ends with 1 if it is not as recorded."""
    from prodkit.runs.verify import verify_run

    _end(verify_run(run_id), as_json=as_json)


@prodkit.command()
@click.argument("run_id", metavar="RUN")
@with_outputs
@place_options
@json_option
def replay(run_id: str, as_json: bool, **places: str) -> None:
    """Make the decision of a recorded RUN again from its evidence; ends with 1 if it is not as recorded."""
    from prodkit.runs.replay import replay_run

    _end(replay_run(run_id, **places), as_json=as_json)


def _end(verdict: Verdict, *, as_json: bool) -> None:
    if as_json:
        print_json(verdict.to_dict())
    else:
        say("\n".join(verdict.lines()))
    sys.exit(0 if verdict.matches else 1)


@prodkit.command()
@click.option("-p", "pairs", nargs=2, multiple=True, required=True, metavar="NAME VALUE", help="A change.")
@json_option
@with_store
def whatif(store: Store, pairs: Sequence[tuple[str, str]], as_json: bool) -> None:
    """Which decisions of the past would have been different under other limits, margins or costs, and why.

    Only the numbers on record are used; what would take others needs a new run, and says so.
    """
    from prodkit.decisions.record import past_decisions
    from prodkit.decisions.whatif import notebook_of, what_if

    changed = {name: typed_value(notebook_of(name), name, text) for name, text in pairs}
    table = what_if(past_decisions(store), changed).reset_index()
    rows: list[dict[str, Any]] = json.loads(table.to_json(orient="records"))
    if as_json:
        print_json(rows)
        return
    print_table(rows)
    counts = Counter(row["verdict"] for row in rows)
    unknown = counts["needs a new run"]
    say(f"{len(rows)} decisions, {counts['different']} different, {unknown} need a new run")


for command in (models, clean, backup):
    prodkit.add_command(command)
