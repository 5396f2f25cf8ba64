"""The commands about the store: its versions and who moves the champion by hand, what is old, and a copy to keep."""

from __future__ import annotations

import getpass
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from prodkit.console import (
    file_options,
    json_option,
    place_options,
    print_json,
    print_table,
    say,
    say_champion,
    tell,
    with_outputs,
    with_signature,
    with_store,
)
from prodkit.errors import ParameterError
from prodkit.params import NOTEBOOKS, TrainParams
from prodkit.settings import default_files, neutral_facts, read_files, resolve, typed_value

if TYPE_CHECKING:
    from prodkit.store.registry import Champion, Store, Version

__all__ = ["backup", "clean", "models"]


@click.group()
def models() -> None:
    """Look at versions, and move the champion by hand."""


@models.command("list")
@json_option
@with_store
def list_models(store: Store, as_json: bool) -> None:
    """All versions: what they learned from, and where they stand."""
    champion, proposals = store.champion(), store.proposals()
    rows = [
        {
            "version": version.number,
            "standing": _standing(version, champion),
            "trained": version.manifest.get("trained", ""),
            "rows": version.manifest.get("rows", ""),
            "model": version.manifest.get("params", {}).get("model", ""),
            "digest": version.digest[:12],
        }
        for version in store.versions(removed=True)
    ]
    if as_json:
        waiting = [vars(event) for event in proposals]
        print_json({"champion": vars(champion), "versions": rows, "proposals": waiting})
        return
    print_table(rows)
    say_champion(champion)
    for event in proposals:
        is_late = event.generation != champion.generation
        late = " (the champion changed since: it can only be rejected)" if is_late else ""
        say(f"proposed: {event.detail['action']}, by {event.run_id}: {event.reason}{late}")


def _standing(version: Version, champion: Champion) -> str:
    if version.removed:
        return f"removed {version.removed[:10]}"
    if version.number == champion.version:
        return "champion"
    if version.quarantined:
        return "quarantined"
    return "predecessor" if version.number == champion.predecessor else ""


@models.command()
@click.argument("source", metavar="FILE")
@click.option(
    "--trained", required=True, metavar="START/END", help="The rows it was trained on; they never judge it."
)
@file_options
@with_outputs
@place_options
@click.option("--name", default="", help="Who does this; by default the account's name.")
def add(
    source: str, trained: str, files: Sequence[Path], pairs: Sequence[tuple[str, str]],
    store: str, artifacts: str, name: str,
) -> None:  # fmt: skip
    """Make a fitted model from elsewhere a version: a file of joblib, pickle or skops, or an MLflow model.

    To read such a FILE runs the code in it: add only what you trust. It is never fitted again. An MLflow model is the
    folder of one, or such as mlflow:models:/name/3; it needs the package mlflow.
    """
    from prodkit.models.added import added_version
    from prodkit.models.bundle import pack
    from prodkit.store.registry import Store

    files = files or default_files("train")
    facts = read_files("train", files) | {key: typed_value("train", key, text) for key, text in pairs}
    facts |= neutral_facts(facts, known=TrainParams.model_fields) | {"window": trained}
    params = TrainParams.check(facts)
    bundle, about = added_version(source, params.window, params)
    with Store.open(resolve(store), resolve(artifacts)) as opened:
        version = opened.register(pack(bundle), about, actor=name or getpass.getuser())
    after = f"prodkit run validate -p challenger {version.number} -p window START/END"
    say(f"version {version.number}: {about['added']['kind']}, {about['rows']:,} rows; next: {after}")


@models.command()
@click.argument("version", type=int)
@with_store
def show(store: Store, version: int) -> None:
    """All that is known of one VERSION, as JSON."""
    print_json(vars(store.version(version)))


@models.command()
@json_option
@with_store
def history(store: Store, as_json: bool) -> None:
    """Everything that ever happened to the champion, oldest first."""
    events = store.history()
    if as_json:
        print_json([vars(event) for event in events])
        return
    columns = ("number", "kind", "version", "generation", "actor", "run_id", "reason")
    print_table([{name: getattr(event, name) for name in columns} for event in events])


@models.command()
@click.option("--data", "with_table", is_flag=True, help="Read the table: is each period as the loop saw it?")
@file_options
@with_store
def check(store: Store, with_table: bool, files: Sequence[Path], pairs: Sequence[tuple[str, str]]) -> None:
    """Verify the chain of events, digests and signatures, and open each version; ends with 1 if something is wrong."""
    from prodkit.planning import Outlook, asked
    from prodkit.store.workspace import store_problems

    problems = store_problems(store)
    if with_table:
        outlook = Outlook(**asked(files or default_files(*NOTEBOOKS), pairs))
        problems += [line for each in outlook.changes(thorough=True).values() for line in each]
    for problem in problems:
        tell(problem, style="red")
    say(f"{len(store.history())} events, {len(problems)} problems")
    sys.exit(1 if problems else 0)


@models.command()
@click.argument("version", type=int)
@click.option("--force", is_flag=True, help="Overrule a quarantine or a freeze.")
@with_signature
def promote(store: Store, version: int, force: bool, **signature: str) -> None:
    """Make VERSION the champion."""
    store.promote(version, expected_generation=store.champion().generation, force=force, **signature)


@models.command()
@click.argument("version", type=int)
@click.option("--off", is_flag=True, help="Lift the quarantine.")
@with_signature
def quarantine(store: Store, version: int, off: bool, **signature: str) -> None:
    """Let nobody promote VERSION, until the quarantine is lifted; a rollback sets one by itself."""
    store.quarantine(version, lift=off, **signature)


@models.command()
@click.argument("version", type=int)
@with_signature
def sign(store: Store, version: int, **signature: str) -> None:
    """Sign VERSION with PRODKIT_SIGNING_KEY, if you vouch for it: it was registered without, or with another."""
    store.sign(version, **signature)


@models.command()
@with_signature
def rollback(store: Store, **signature: str) -> None:
    """Give the predecessor its place back."""
    store.rollback(expected_generation=store.champion().generation, **signature)


@models.command()
@click.argument("run_id")
@with_signature
def approve(store: Store, run_id: str, **signature: str) -> None:
    """Carry out what RUN_ID proposed, if the champion is still the one that was judged."""
    store.approve(run_id, **signature)


@models.command()
@click.argument("run_id")
@with_signature
def reject(store: Store, run_id: str, **signature: str) -> None:
    """Settle what RUN_ID proposed without carrying it out."""
    store.reject(run_id, **signature)


@models.command()
@click.argument("run_id", metavar="RUN")
@click.option("--column", "columns", multiple=True, metavar="NAME", help="Only this column, or `labels`.")
@with_signature
def accept(store: Store, run_id: str, columns: tuple[str, ...], **signature: str) -> None:
    """Say that what RUN has held is normal: the hold ends, and its rows are learned from."""
    store.accept(run_id, columns=columns, **signature)


@models.command()
@click.option("--off", is_flag=True, help="End the freeze.")
@with_signature
def freeze(store: Store, off: bool, **signature: str) -> None:
    """Let nobody promote or roll back, until the freeze is ended."""
    (store.thaw if off else store.freeze)(**signature)


@click.command()
@click.option("--older", required=True, metavar="AGE", help="Such as 90d: what is younger stays.")
@click.option("--dry-run", is_flag=True, help="Show what would go, and remove nothing.")
@with_store
def clean(store: Store, older: str, dry_run: bool) -> None:
    """Remove runs, request logs and artifacts that are older than AGE, where nothing refers to them any more.

    What champion, predecessor, proposals, a hold or the last periods of the plan need stays, and so do all rows of the
    store: decisions can still be replayed. The history and the page of all runs say what was removed.
    """
    from prodkit.evidence import parse_duration
    from prodkit.runs.clean import clean as remove
    from prodkit.runs.clean import old_work

    try:
        age = parse_duration(older)
    except ValueError as error:
        raise ParameterError("--older", rule=str(error)) from error
    work = old_work(store, older=age)
    print_table(work.table())
    for note in work.notes if dry_run else remove(store, work):
        say(note)
    say("nothing was removed (--dry-run)" if dry_run else "removed")


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@with_outputs
@place_options
def backup(folder: Path, store: str, artifacts: str) -> None:
    """Copy the store and its artifacts to DIR, an empty folder or a new one, while others work with it.

    The copy opens with --out DIR, here or on another machine. Ends with 1 if an artifact was missing or damaged.
    """
    from prodkit.store.snapshot import back_up

    problems = back_up(resolve(store), resolve(artifacts), folder=folder.absolute())
    for problem in problems:
        tell(problem, style="red")
    say(f"{folder}: open it with --out {shlex.quote(str(folder))}, such as prodkit models check")
    sys.exit(1 if problems else 0)
