"""``prodkit models``: versions looked at, and the champion moved by hand."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from prodkit.commands.console import print_table, tell
from prodkit.commands.options import json_option, signature_options, with_store

if TYPE_CHECKING:
    from prodkit.store.registry import Champion, Store

__all__ = ["models"]


@click.group()
def models() -> None:
    """Look at versions, and move the champion by hand."""


@models.command("list")
@json_option
@with_store
def list_models(kept: Store, as_json: bool) -> None:
    """All versions: what they learned from, and where they stand."""
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
    print_table(rows)
    _tell_standing(champion)
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
@with_store
def show(kept: Store, version: int) -> None:
    """All that is known of one VERSION, as JSON."""
    print(json.dumps(vars(kept.version(version)), indent=2))


@models.command()
@json_option
@with_store
def history(kept: Store, as_json: bool) -> None:
    """Everything that ever happened to the champion, oldest first."""
    events = kept.history()
    if as_json:
        print(json.dumps([vars(event) for event in events], indent=2))
        return
    columns = ("number", "kind", "version", "generation", "actor", "run_id", "reason")
    print_table([{name: getattr(event, name) for name in columns} for event in events])


@models.command()
@with_store
def check(kept: Store) -> None:
    """Verify the chain of events, digests and signatures, and open each version; ends with 1 if something is wrong."""
    from prodkit.store.workspace import store_problems

    problems, events = store_problems(kept), len(kept.history())
    for problem in problems:
        tell(problem, style="red")
    print(f"{events} events, {len(problems)} problems")
    sys.exit(1 if problems else 0)


@models.command()
@click.argument("version", type=int)
@signature_options
@click.option("--force", is_flag=True, help="Overrule a quarantine or a freeze.")
@with_store
def promote(kept: Store, version: int, name: str, reason: str, force: bool) -> None:
    """Make VERSION the champion."""
    now = kept.champion().generation
    _tell_standing(kept.promote(version, expected_generation=now, actor=name, reason=reason, force=force))


@models.command()
@click.argument("version", type=int)
@signature_options
@click.option("--off", is_flag=True, help="Lift the quarantine.")
@with_store
def quarantine(kept: Store, version: int, name: str, reason: str, off: bool) -> None:
    """Let nobody promote VERSION, until the quarantine is lifted; a rollback sets one by itself."""
    kept.quarantine(version, lift=off, reason=reason, actor=name)
    _tell_standing(kept.champion())


@models.command()
@click.argument("version", type=int)
@signature_options
@with_store
def sign(kept: Store, version: int, name: str, reason: str) -> None:
    """Sign VERSION with PRODKIT_SIGNING_KEY, if you vouch for it: it was registered without, or with another."""
    kept.sign(version, reason=reason, actor=name)
    _tell_standing(kept.champion())


@models.command()
@signature_options
@with_store
def rollback(kept: Store, name: str, reason: str) -> None:
    """Give the predecessor its place back."""
    _tell_standing(kept.rollback(expected_generation=kept.champion().generation, actor=name, reason=reason))


@models.command()
@click.argument("run_id")
@signature_options
@with_store
def approve(kept: Store, run_id: str, name: str, reason: str) -> None:
    """Carry out what RUN_ID proposed, if the champion is still the one that was judged."""
    _tell_standing(kept.approve(run_id, actor=name, reason=reason))


@models.command()
@click.argument("run_id")
@signature_options
@with_store
def reject(kept: Store, run_id: str, name: str, reason: str) -> None:
    """Settle what RUN_ID proposed without carrying it out."""
    kept.reject(run_id, actor=name, reason=reason)
    _tell_standing(kept.champion())


@models.command()
@signature_options
@click.option("--off", is_flag=True, help="End the freeze.")
@with_store
def freeze(kept: Store, name: str, reason: str, off: bool) -> None:
    """Let nobody promote or roll back, until the freeze is ended."""
    _tell_standing((kept.thaw if off else kept.freeze)(reason=reason, actor=name))


def _tell_standing(champion: Champion) -> None:
    state = f", on hold: {champion.hold}" if champion.hold else ""
    state += ", frozen" if champion.frozen else ""
    name = "none" if champion.version is None else f"v{champion.version}"
    print(f"champion: {name}, generation {champion.generation}{state}")
