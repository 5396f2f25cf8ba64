"""The ``prodkit`` command."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from prodkit.errors import ParameterError, ProdkitError
from prodkit.params import NOTEBOOKS, project_folder, resolve
from prodkit.store import Store

__all__ = ["app", "main"]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Take a scikit-learn model from experiment to production without leaving notebooks.",
)
models = typer.Typer(no_args_is_help=True, help="Look at versions, and move the champion.")
app.add_typer(models, name="models")

Files = Annotated[list[Path], typer.Option("-f", "--file", help="Params file; later ones win.")]
Pairs = Annotated[list[tuple[str, str]], typer.Option("-p", "--param", help="NAME VALUE; wins over files.")]
Out = Annotated[Path, typer.Option("--out", help="Folder that everything goes to.")]
Force = Annotated[bool, typer.Option("--force", help="Do again what was done before.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, and nothing else.")]
Actor = Annotated[str, typer.Option("--name", help="Who does this.")]
Reason = Annotated[str, typer.Option("--reason", help="Why.")]
DEFAULT_OUT = Path("outputs")
STORE_HELP = "SQLAlchemy URL of the store; `outputs/` in it is the folder of --out."
StoreUrl = Annotated[str, typer.Option("--store", help=STORE_HELP)]
Artifacts = Annotated[str, typer.Option("--artifacts", help="Folder or fsspec URL of the artifacts.")]
DEFAULT_STORE, DEFAULT_ARTIFACTS = "sqlite:///outputs/store.db", "outputs/artifacts"

_say = Console(stderr=True, highlight=False)


def main() -> None:
    """Run the command; a wrong call ends with 2, a failure with 1, each with one clear sentence."""
    try:
        app()
    except ParameterError as error:
        _say.print(f"prodkit: {error}", style="red", markup=False, soft_wrap=True)
        sys.exit(2)
    except ProdkitError as error:
        _say.print(f"prodkit: {error}", style="red", markup=False, soft_wrap=True)
        sys.exit(1)


def _default_files(notebook: str) -> list[Path]:
    """Without ``-f``, the project's own: ``params/flights.yaml`` and the notebook's policy."""
    folder = project_folder() / "params"
    return [path for path in (folder / "flights.yaml", folder / f"{notebook}.yaml") if path.is_file()]


@app.command()
def run(
    notebook: Annotated[
        str, typer.Argument(help="A name in notebooks/, or any .ipynb with a parameters cell.")
    ],
    file: Files = [],  # noqa: B006  (typer copies it)
    param: Pairs = [],  # noqa: B006
    out: Out = DEFAULT_OUT,
    force: Force = False,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="End with 3 or 4 if action is needed.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run one notebook, and record what came of it."""
    from prodkit.runs import read_files, run_notebook, typed_value, using_outputs

    with using_outputs(_absolute(out)):
        given = read_files(notebook, file or _default_files(Path(notebook).stem))
        given |= {name: typed_value(notebook, name, text) for name, text in param}
        done = run_notebook(notebook, given, force=force)
    if as_json:
        print(json.dumps(done.document, indent=2))
    else:
        again = " (done before; --force does it again)" if done.repeated else ""
        said = f"{done['outcome']}" + (f", {done['action']}" if done["action"] else "")
        _say.print(f"{done['run_id']}: {done['status']}, {said}{again}", markup=False)
        for reason in done["reasons"][:3]:
            _say.print(f"  {reason}", markup=False, soft_wrap=True)
        _say.print(f"  {done.folder / 'report.html'}", markup=False, soft_wrap=True)
    sys.exit(_status(done.document, exit_code=exit_code))


def _status(document: dict[str, Any], *, exit_code: bool) -> int:
    if document["status"] != "succeeded" or document["outcome"] == "error":
        return 1
    if exit_code and (document["outcome"] == "fail" or document["action"] not in (None, "keep", "watch")):
        return 3
    if exit_code and document["outcome"] == "inconclusive":
        return 4
    return 0


def _absolute(out: Path) -> Path:
    """``--out`` is relative to where the command was typed, its default to the project."""
    return project_folder() / out if out == DEFAULT_OUT else out.resolve()


@app.command()
def lifecycle(
    file: Files = [],  # noqa: B006
    param: Pairs = [],  # noqa: B006
    out: Out = DEFAULT_OUT,
    force: Force = False,
) -> None:
    """The main job: the whole life of a model, on the bundled flights by default."""
    from prodkit.lifecycle import plan
    from prodkit.runs import using_outputs

    files = file or [path for name in NOTEBOOKS for path in _default_files(name)]
    with using_outputs(_absolute(out)), _progress() as bar:
        step = bar.add_task("reading the data", total=None)
        life = plan(files, param, force=force)
        bar.update(step, total=life.steps)
        life.tell = lambda name: bar.update(step, advance=1, description=name)
        page = life.live()
        bar.update(step, completed=life.steps, total=life.steps, description="done")
    print_story(life.story)
    print(f"open {page}")


def _progress() -> Progress:
    columns = (TextColumn("{task.description:32}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=_say, disable=not _say.is_terminal)


def print_story(story: Sequence[dict[str, str]]) -> None:
    """The closing table."""
    table = Table(*(list(story[0]) if story else ["nothing happened"]))
    for row in story:
        table.add_row(*row.values())
    Console(width=None if sys.stdout.isatty() else 140).print(table)


@app.command()
def report(
    out: Out = DEFAULT_OUT,
    open_page: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
) -> None:
    """Write outputs/index.html: all runs."""
    from prodkit.report import write_index
    from prodkit.runs import using_outputs

    with using_outputs(_absolute(out)) as folder:
        files = sorted(folder.glob("runs/*/result.json"), key=lambda path: path.stat().st_mtime_ns)
        page = write_index(folder, [json.loads(path.read_text()) for path in files], [])
    print(page)
    if open_page:
        typer.launch(page.as_uri())


def _store(out: Path, store: str, artifacts: str) -> Store:
    from prodkit.runs import using_outputs

    with using_outputs(_absolute(out)):
        return Store.open(resolve(store), resolve(artifacts))


@models.command("list")
def list_models(
    out: Out = DEFAULT_OUT,
    store: StoreUrl = DEFAULT_STORE,
    artifacts: Artifacts = DEFAULT_ARTIFACTS,
    as_json: AsJson = False,
) -> None:
    """All versions: what they learned from, and where they stand."""
    with _store(out, store, artifacts) as kept:
        champion, versions = kept.champion(), kept.versions()
    rows = [
        {
            "version": version.number,
            "standing": _standing(version.number, version.quarantined, champion),
            "trained": version.manifest.get("trained", ""),
            "rows": version.manifest.get("rows", ""),
            "model": version.manifest.get("params", {}).get("model", ""),
            "digest": version.digest[:12],
        }
        for version in versions
    ]
    if as_json:
        print(json.dumps({"champion": vars(champion), "versions": rows}, indent=2))
        return
    print_story([{key: str(value) for key, value in row.items()} for row in rows])
    if champion.hold:
        print(f"on hold: {champion.hold}")
    if champion.frozen:
        print("frozen: nothing is promoted or rolled back")


def _standing(number: int, quarantined: bool, champion: Any) -> str:
    if number == champion.version:
        return "champion"
    if quarantined:
        return "quarantined"
    return "predecessor" if number == champion.predecessor else ""


@models.command()
def show(
    version: int,
    out: Out = DEFAULT_OUT,
    store: StoreUrl = DEFAULT_STORE,
    artifacts: Artifacts = DEFAULT_ARTIFACTS,
) -> None:
    """All that is known of one version, as JSON."""
    with _store(out, store, artifacts) as kept:
        found = kept.version(version)
    print(json.dumps({**vars(found)}, indent=2))


@models.command()
def history(
    out: Out = DEFAULT_OUT,
    store: StoreUrl = DEFAULT_STORE,
    artifacts: Artifacts = DEFAULT_ARTIFACTS,
    as_json: AsJson = False,
) -> None:
    """Everything that ever happened to the champion, oldest first."""
    with _store(out, store, artifacts) as kept:
        events = kept.history()
    if as_json:
        print(json.dumps([vars(event) for event in events], indent=2))
        return
    columns = ("number", "kind", "version", "generation", "actor", "run_id", "reason")
    print_story([{name: str(getattr(event, name) or "") for name in columns} for event in events])


@models.command()
def check(
    out: Out = DEFAULT_OUT, store: StoreUrl = DEFAULT_STORE, artifacts: Artifacts = DEFAULT_ARTIFACTS
) -> None:
    """Verify the chain of events, the digests and the artifacts; ends with 1 if something is wrong."""
    with _store(out, store, artifacts) as kept:
        problems, events = kept.check(), len(kept.history())
    for problem in problems:
        _say.print(problem, style="red", markup=False, soft_wrap=True)
    print(f"{events} events, {len(problems)} problems")
    sys.exit(1 if problems else 0)


@models.command()
def promote(
    version: int,
    name: Actor,
    reason: Reason,
    force: Annotated[bool, typer.Option("--force", help="Overrule a quarantine or a freeze.")] = False,
    out: Out = DEFAULT_OUT,
    store: StoreUrl = DEFAULT_STORE,
    artifacts: Artifacts = DEFAULT_ARTIFACTS,
) -> None:
    """Make a version the champion, by hand."""
    with _store(out, store, artifacts) as kept:
        now = kept.champion().generation
        _tell(kept.promote(version, expected_generation=now, actor=name, reason=reason, force=force))


@models.command()
def rollback(
    name: Actor,
    reason: Reason,
    out: Out = DEFAULT_OUT,
    store: StoreUrl = DEFAULT_STORE,
    artifacts: Artifacts = DEFAULT_ARTIFACTS,
) -> None:
    """Give the predecessor its place back, by hand."""
    with _store(out, store, artifacts) as kept:
        _tell(kept.rollback(expected_generation=kept.champion().generation, actor=name, reason=reason))


@models.command()
def approve(
    run_id: str,
    name: Actor,
    reason: Reason = "",
    out: Out = DEFAULT_OUT,
    store: StoreUrl = DEFAULT_STORE,
    artifacts: Artifacts = DEFAULT_ARTIFACTS,
) -> None:
    """Carry out what a run proposed, if the champion is still the one that was judged."""
    with _store(out, store, artifacts) as kept:
        _tell(kept.approve(run_id, actor=name, reason=reason))


@models.command()
def reject(
    run_id: str,
    name: Actor,
    reason: Reason = "",
    out: Out = DEFAULT_OUT,
    store: StoreUrl = DEFAULT_STORE,
    artifacts: Artifacts = DEFAULT_ARTIFACTS,
) -> None:
    """Settle a proposal without carrying it out."""
    with _store(out, store, artifacts) as kept:
        kept.reject(run_id, actor=name, reason=reason)
    print(f"{run_id} rejected")


@models.command()
def freeze(
    name: Actor,
    reason: Reason,
    off: Annotated[bool, typer.Option("--off", help="End the freeze.")] = False,
    out: Out = DEFAULT_OUT,
    store: StoreUrl = DEFAULT_STORE,
    artifacts: Artifacts = DEFAULT_ARTIFACTS,
) -> None:
    """Let nobody promote or roll back, until it is ended."""
    with _store(out, store, artifacts) as kept:
        _tell((kept.thaw if off else kept.freeze)(reason=reason, actor=name))


def _tell(champion: Any) -> None:
    state = ", frozen" if champion.frozen else ""
    print(f"champion: v{champion.version}, generation {champion.generation}{state}")
