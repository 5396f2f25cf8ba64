"""The ``prodkit`` command."""

from __future__ import annotations

import errno
import json
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from prodkit.errors import ParameterError, ProdkitError
from prodkit.runs.stops import Limits, heeding_signals, leave, signal_received
from prodkit.settings.places import names_read, project_folder, resolve, using_outputs

if TYPE_CHECKING:
    from prodkit.store.registry import Champion, Store

# A command imports what it needs when it is called: help and a mistyped name are answered at once.

__all__ = ["main"]

Command = Callable[..., None]
DEFAULT_OUT = Path("outputs")
# What the machine, not the package, is at fault for: no room, no permission, no such place.
_MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR}


class _Listeners(Console):
    """Standard error, for whoever still reads it: a terminal that has gone changes no exit status."""

    def print(self, *said: Any, **settings: Any) -> None:
        """As rich does, but where nobody listens any more."""
        with suppress(OSError):
            super().print(*said, **settings)

    def on_broken_pipe(self) -> None:
        """Fall silent; rich would end the process."""
        self.quiet = True


_say = _Listeners(stderr=True, highlight=False)


def main() -> None:
    """Run the command; a wrong call ends with 2, a failure with 1, each with one clear sentence."""
    try:
        prodkit()
    except ProdkitError as error:
        _tell_failure(f"prodkit: {error}")
        if signal_received():
            leave(signal_received())
        sys.exit(2 if isinstance(error, ParameterError) else 1)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _MACHINE:
            place = f"{error.filename}: " if error.filename else ""
            fix = "Make room or give access there, or name another folder with --out."
            _tell_failure(f"prodkit: {place}{error.strerror}. {fix}")
        else:  # a fault of the package: the whole story, for whoever mends it
            _tell_failure("".join(traceback.format_exception(error)))
        sys.exit(1)


def _tell_failure(text: str) -> None:
    """Say what went wrong, without what was read from the environment."""
    from prodkit.redaction import Redaction

    hidden = Redaction.of(names_read()).text(text)
    _say.print(hidden, style="red", markup=False, soft_wrap=True)


def _with(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator, shown in this order."""

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


_out = click.option(
    "--out", type=Path, default=DEFAULT_OUT, show_default=True, help="Folder that all goes to."
)
_parameters = _with(
    click.option(
        "-f", "files", type=Path, multiple=True, metavar="FILE", help="Params file; later ones win."
    ),
    click.option(
        "-p", "pairs", nargs=2, multiple=True, metavar="NAME VALUE", help="Parameter; wins over files."
    ),
    _out,
    click.option("--force", is_flag=True, help="Do again what was done before."),
)
_limits = _with(
    click.option(
        *("--cell-timeout", "cell_seconds"),
        type=click.FloatRange(min=0, min_open=True),
        default=Limits.cell_seconds,
        show_default=True,
        help="Seconds that one cell may take.",
    ),
    click.option(
        *("--timeout", "notebook_seconds"),
        type=click.FloatRange(min=0, min_open=True),
        default=Limits.notebook_seconds,
        show_default=True,
        help="Seconds that a notebook may take.",
    ),
)
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout, and nothing else.")
_places = _with(
    _out,
    click.option("--store", default="sqlite:///outputs/store.db", show_default=True, help="SQLAlchemy URL."),
    click.option("--artifacts", default="outputs/artifacts", show_default=True, help="Folder or fsspec URL."),
)


def _spoken(_: click.Context, option: click.Parameter, text: str) -> str:
    """Text that says something."""
    if not text.strip():
        raise click.BadParameter("it must not be blank", param=option)
    return text.strip()


_signed = _with(
    click.option("--name", required=True, callback=_spoken, help="Who does this."),
    click.option("--reason", required=True, callback=_spoken, help="Why; it is kept in the history."),
)


class _Command(click.Group):
    """A command that Ctrl-C ends as it would end any other program, not as a failure."""

    def invoke(self, context: click.Context) -> Any:
        """Run it."""
        try:
            return super().invoke(context)
        except KeyboardInterrupt:
            leave(signal.SIGINT)


@click.group(cls=_Command, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="notebook-prodkit")
def prodkit() -> None:
    """Take a scikit-learn model from experiment to production without leaving notebooks."""


def _absolute(out: Path) -> Path:
    """``--out`` is relative to where the command was typed, its default to the project."""
    return project_folder() / out if out == DEFAULT_OUT else out.resolve()


def _default_files(notebook: str) -> list[Path]:
    """Without ``-f``, the project's own: ``params/flights.yaml`` and the notebook's policy."""
    folder = project_folder() / "params"
    return [path for path in (folder / "flights.yaml", folder / f"{notebook}.yaml") if path.is_file()]


def _given(notebook: str, files: Sequence[Path], pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """The parameters that the command names, in files or directly."""
    from prodkit.settings.arguments import read_files, typed_value

    given = read_files(notebook, files or _default_files(Path(notebook).stem))
    return given | {name: typed_value(notebook, name, text) for name, text in pairs}


@prodkit.command()
@click.argument("notebook")
@_parameters
@_limits
@click.option(
    "--exit-code", is_flag=True, help="End with 3 if action is needed, with 4 if it could not be told."
)
@_json
def run(
    notebook: str,
    files: Sequence[Path],
    pairs: Sequence[tuple[str, str]],
    out: Path,
    force: bool,
    cell_seconds: float,
    notebook_seconds: float,
    exit_code: bool,
    as_json: bool,
) -> None:
    """Run NOTEBOOK, a name in notebooks/ or any .ipynb with a parameters cell, and record what came of it.

    Without -f it reads params/flights.yaml and the notebook's own file in params/.
    """
    from prodkit.runs.runner import run_notebook

    with using_outputs(_absolute(out)), heeding_signals():
        limits = Limits(cell_seconds=cell_seconds, notebook_seconds=notebook_seconds)
        done = run_notebook(notebook, _given(notebook, files, pairs), force=force, limits=limits)
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
            _say.print(line, markup=False, soft_wrap=True)
    sys.exit(_status(done.document, exit_code=exit_code))


def _status(document: Mapping[str, Any], *, exit_code: bool) -> int:
    if document["status"] == "interrupted" and signal_received():
        return 128 + signal_received()
    if document["status"] != "succeeded" or document["outcome"] == "error":
        return 1
    if exit_code and (document["outcome"] == "fail" or document["action"] not in (None, "keep", "watch")):
        return 3
    return 4 if exit_code and document["outcome"] == "inconclusive" else 0


@prodkit.command()
@_parameters
@_limits
def lifecycle(
    files: Sequence[Path],
    pairs: Sequence[tuple[str, str]],
    out: Path,
    force: bool,
    cell_seconds: float,
    notebook_seconds: float,
) -> None:
    """The main job: the whole life of a model, on the bundled flights by default."""
    from prodkit.lifecycle import plan
    from prodkit.settings.params import NOTEBOOKS

    files = files or list(dict.fromkeys(path for name in NOTEBOOKS for path in _default_files(name)))
    with using_outputs(_absolute(out)), heeding_signals(), _progress() as bar:
        life = plan(files, pairs, force=force)
        life.limits = Limits(cell_seconds=cell_seconds, notebook_seconds=notebook_seconds)
        step = bar.add_task("", total=life.steps)
        life.tell = lambda name: bar.update(step, advance=1, description=name)
        page = life.live()
        bar.update(step, total=len(life.runs), completed=len(life.runs), description="done")
    _print_table(life.table())
    print(f"open {page}")


def _progress() -> Progress:
    """A bar on stderr, where somebody watches."""
    columns = (TextColumn("{task.description:32}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=_say, disable=not _say.is_terminal)


@prodkit.command()
@click.argument("notebook")
@click.option(
    "--windows", required=True, metavar="START/END/FREQ", help="For instance 2013-04-01/2014-01-01/MS."
)
@_parameters
@click.option(
    *("-j", "--jobs"),
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="How many windows at a time.",
)
@click.option("--dask", default="", metavar="ADDRESS", help="Scheduler whose workers run them instead.")
@_limits
def backfill(
    notebook: str,
    windows: str,
    files: Sequence[Path],
    pairs: Sequence[tuple[str, str]],
    out: Path,
    force: bool,
    jobs: int,
    dask: str,
    cell_seconds: float,
    notebook_seconds: float,
) -> None:
    """Run NOTEBOOK once for each window; what was done before is not done again.

    One that fails does not stop the others; those that failed are listed at the end, with exit status 1.
    """
    from prodkit.runs.backfill import Filled, backfilled, windows_between

    parts = windows_between(windows)
    limits = Limits(cell_seconds=cell_seconds, notebook_seconds=notebook_seconds)
    done: list[Filled] = []
    with using_outputs(_absolute(out)), heeding_signals(), _progress() as bar:
        given = _given(notebook, files, pairs)
        step = bar.add_task(f"backfill {Path(notebook).stem}", total=len(parts))
        for each in backfilled(notebook, given, parts, jobs=jobs, dask=dask, force=force, limits=limits):
            done.append(each)
            bar.update(step, advance=1)
            if not each.sound:
                _say.print(f"{each.window}: {each.status}: {each.reason}", markup=False, soft_wrap=True)
    done.sort(key=lambda each: each.window)
    names = ("window", "run_id", "status", "outcome", "action")
    _print_table([{name: getattr(each, name) for name in names} for each in done])
    bad = [each for each in done if not each.sound]
    if bad:
        _say.print(f"{len(bad)} of {len(done)} windows failed; the same command tries them again.")
    sys.exit(128 + signal_received() if signal_received() else 1 if bad else 0)


def _print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows for people; as wide as it needs to be where it is not read on a terminal."""
    table = Table(*(list(rows[0]) if rows else ["nothing yet"]))
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    Console(width=None if sys.stdout.isatty() else 160, highlight=False).print(table, markup=False)


@prodkit.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 for any free one."
)
@click.option("-f", "files", type=Path, multiple=True, metavar="FILE", help="Params file; later ones win.")
@click.option("-p", "pairs", nargs=2, multiple=True, metavar="NAME VALUE", help="Parameter; wins over files.")
@_out
def serve(host: str, port: int, files: Sequence[Path], pairs: Sequence[tuple[str, str]], out: Path) -> None:
    """Answer predictions over HTTP by whoever is champion; needs the extra [serve].

    Without -f it reads params/flights.yaml, and params/serve.yaml if it is there.
    """
    try:
        from prodkit.serving.app import serve as begin
    except ImportError as error:
        fix = 'Install it: pip install "notebook-prodkit[serve]".'
        raise ParameterError("serve", rule=f"needs another package ({error.name})", fix=fix) from error
    from prodkit.serving.service import ServeParams

    with using_outputs(_absolute(out)):
        params = ServeParams.read(files or _default_files("serve"), pairs)
        begin(
            params,
            host=host,
            port=port,
            tell=lambda address: _say.print(f"serving on {address}", markup=False),
        )


@prodkit.command()
@_places
@click.option("--open", "open_page", is_flag=True, help="Open it in the browser.")
@click.option("--compare", nargs=2, metavar="RUN RUN", help="Put two runs side by side instead.")
def report(out: Path, store: str, artifacts: str, open_page: bool, compare: tuple[str, str] | None) -> None:
    """Write outputs/index.html: what needs a person now, the life of the model, each version, all runs."""
    from prodkit.runs.pages import write_comparison, write_site

    def tell(sentence: str) -> None:
        _say.print(sentence, markup=False, soft_wrap=True)

    folder = _absolute(out)
    with using_outputs(folder):
        page = (
            write_comparison(folder, *compare) if compare else write_site(folder, store, artifacts, tell=tell)
        )
    print(page)
    if open_page:
        click.launch(page.as_uri())


@prodkit.command()
@click.argument("run_id", metavar="RUN")
@_out
@_json
def verify(run_id: str, out: Path, as_json: bool) -> None:
    """Execute a recorded RUN again in a cold kernel and compare; ends with 1 if it is not as recorded."""
    from prodkit.verification.verifier import verify_run

    with using_outputs(_absolute(out)):
        verdict = verify_run(run_id)
    print(json.dumps(verdict.to_dict(), indent=2) if as_json else "\n".join(verdict.lines()))
    sys.exit(0 if verdict.matches else 1)


@prodkit.command()
@click.argument("run_id", metavar="RUN")
@_out
@_json
def replay(run_id: str, out: Path, as_json: bool) -> None:
    """Make the decision of a recorded RUN again from its evidence; ends with 1 if it is not as recorded."""
    from prodkit.verification.replay import replay_run

    with using_outputs(_absolute(out)):
        verdict = replay_run(run_id)
    print(json.dumps(verdict.to_dict(), indent=2) if as_json else "\n".join(verdict.lines()))
    sys.exit(0 if verdict.matches else 1)


@prodkit.command()
@click.option(
    "-p", "pairs", nargs=2, multiple=True, required=True, metavar="NAME VALUE", help="What it would be."
)
@_places
@_json
def whatif(pairs: Sequence[tuple[str, str]], out: Path, store: str, artifacts: str, as_json: bool) -> None:
    """Which decisions of the past would have been different under other limits, margins or costs, and why.

    Only the numbers on record are used; what would take others needs a new run, and says so.
    """
    from prodkit.decisions.record import past_decisions
    from prodkit.decisions.whatif import notebook_of, what_if
    from prodkit.settings.arguments import typed_value

    changed = {name: typed_value(notebook_of(name), name, text) for name, text in pairs}
    with _store(out, store, artifacts) as kept:
        table = what_if(past_decisions(kept), changed).reset_index()
    rows: list[dict[str, Any]] = json.loads(table.to_json(orient="records"))
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    _print_table(rows)
    counts = {name: sum(row["verdict"] == name for row in rows) for name in ("different", "needs a new run")}
    print(
        f"{len(rows)} decisions, {counts['different']} different, {counts['needs a new run']} need a new run"
    )


@prodkit.group()
def models() -> None:
    """Look at versions, and move the champion by hand."""


def _store(out: Path, store: str, artifacts: str) -> Store:
    from prodkit.store.registry import Store

    with using_outputs(_absolute(out)):
        return Store.open(resolve(store), resolve(artifacts))


@models.command("list")
@_places
@_json
def list_models(out: Path, store: str, artifacts: str, as_json: bool) -> None:
    """All versions: what they learned from, and where they stand."""
    with _store(out, store, artifacts) as kept:
        champion, versions, proposals = kept.champion(), kept.versions(), kept.proposals()
    rows = [
        {
            "version": version.number,
            "standing": _standing(version.number, champion, quarantined=version.quarantined),
            "trained": version.manifest.get("trained", ""),
            "rows": version.manifest.get("rows", ""),
            "model": version.manifest.get("params", {}).get("model", ""),
            "digest": version.digest[:12],
        }
        for version in versions
    ]
    if as_json:
        waiting = [vars(event) for event in proposals]
        print(json.dumps({"champion": vars(champion), "versions": rows, "proposals": waiting}, indent=2))
        return
    _print_table(rows)
    _tell(champion)
    for event in proposals:
        late = (
            ""
            if event.generation == champion.generation
            else " (the champion changed since: it can only be rejected)"
        )
        print(f"proposed: {event.detail['action']}, by {event.run_id}: {event.reason}{late}")


def _standing(number: int, champion: Champion, *, quarantined: bool) -> str:
    if number == champion.version:
        return "champion"
    return "quarantined" if quarantined else "predecessor" if number == champion.predecessor else ""


@models.command()
@click.argument("version", type=int)
@_places
def show(version: int, out: Path, store: str, artifacts: str) -> None:
    """All that is known of one VERSION, as JSON."""
    with _store(out, store, artifacts) as kept:
        print(json.dumps(vars(kept.version(version)), indent=2))


@models.command()
@_places
@_json
def history(out: Path, store: str, artifacts: str, as_json: bool) -> None:
    """Everything that ever happened to the champion, oldest first."""
    with _store(out, store, artifacts) as kept:
        events = kept.history()
    if as_json:
        print(json.dumps([vars(event) for event in events], indent=2))
        return
    columns = ("number", "kind", "version", "generation", "actor", "run_id", "reason")
    _print_table([{name: getattr(event, name) for name in columns} for event in events])


@models.command()
@_places
def check(out: Path, store: str, artifacts: str) -> None:
    """Verify the chain of events, digests and signatures, and open each version; ends with 1 if something is wrong."""
    from prodkit.store.workspace import store_problems

    with _store(out, store, artifacts) as kept:
        problems, events = store_problems(kept), len(kept.history())
    for problem in problems:
        _say.print(problem, style="red", markup=False, soft_wrap=True)
    print(f"{events} events, {len(problems)} problems")
    sys.exit(1 if problems else 0)


@models.command()
@click.argument("version", type=int)
@_signed
@click.option("--force", is_flag=True, help="Overrule a quarantine or a freeze.")
@_places
def promote(version: int, name: str, reason: str, force: bool, out: Path, store: str, artifacts: str) -> None:
    """Make VERSION the champion."""
    with _store(out, store, artifacts) as kept:
        now = kept.champion().generation
        _tell(kept.promote(version, expected_generation=now, actor=name, reason=reason, force=force))


@models.command()
@click.argument("version", type=int)
@_signed
@click.option("--off", is_flag=True, help="Lift the quarantine.")
@_places
def quarantine(
    version: int, name: str, reason: str, off: bool, out: Path, store: str, artifacts: str
) -> None:
    """Let nobody promote VERSION, until the quarantine is lifted; a rollback sets one by itself."""
    with _store(out, store, artifacts) as kept:
        kept.quarantine(version, lift=off, reason=reason, actor=name)
        _tell(kept.champion())


@models.command()
@click.argument("version", type=int)
@_signed
@_places
def sign(version: int, name: str, reason: str, out: Path, store: str, artifacts: str) -> None:
    """Sign VERSION with PRODKIT_SIGNING_KEY, if you vouch for it: it was registered without, or with another."""
    with _store(out, store, artifacts) as kept:
        kept.sign(version, reason=reason, actor=name)
        _tell(kept.champion())


@models.command()
@_signed
@_places
def rollback(name: str, reason: str, out: Path, store: str, artifacts: str) -> None:
    """Give the predecessor its place back."""
    with _store(out, store, artifacts) as kept:
        _tell(kept.rollback(expected_generation=kept.champion().generation, actor=name, reason=reason))


@models.command()
@click.argument("run_id")
@_signed
@_places
def approve(run_id: str, name: str, reason: str, out: Path, store: str, artifacts: str) -> None:
    """Carry out what RUN_ID proposed, if the champion is still the one that was judged."""
    with _store(out, store, artifacts) as kept:
        _tell(kept.approve(run_id, actor=name, reason=reason))


@models.command()
@click.argument("run_id")
@_signed
@_places
def reject(run_id: str, name: str, reason: str, out: Path, store: str, artifacts: str) -> None:
    """Settle what RUN_ID proposed without carrying it out."""
    with _store(out, store, artifacts) as kept:
        kept.reject(run_id, actor=name, reason=reason)
        _tell(kept.champion())


@models.command()
@_signed
@click.option("--off", is_flag=True, help="End the freeze.")
@_places
def freeze(name: str, reason: str, off: bool, out: Path, store: str, artifacts: str) -> None:
    """Let nobody promote or roll back, until the freeze is ended."""
    with _store(out, store, artifacts) as kept:
        _tell((kept.thaw if off else kept.freeze)(reason=reason, actor=name))


def _tell(champion: Champion) -> None:
    state = f", on hold: {champion.hold}" if champion.hold else ""
    state += ", frozen" if champion.frozen else ""
    name = "none" if champion.version is None else f"v{champion.version}"
    print(f"champion: {name}, generation {champion.generation}{state}")
