"""What runs have left behind: pages over all of them, and whether one of them can be believed."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from prodkit.commands.console import print_table, tell
from prodkit.commands.options import json_option, out_option, outputs_path, place_options, with_store
from prodkit.settings import using_outputs

if TYPE_CHECKING:
    from prodkit.store.registry import Store
    from prodkit.verification.verdict import Verdict

__all__ = ["replay", "report", "verify", "whatif"]


@click.command()
@place_options
@click.option("--open", "open_page", is_flag=True, help="Open it in the browser.")
@click.option("--compare", nargs=2, metavar="RUN RUN", help="Put two runs side by side instead.")
def report(out: Path, store: str, artifacts: str, open_page: bool, compare: tuple[str, str] | None) -> None:
    """Write outputs/index.html: what needs a person now, the life of the model, each version, all runs."""
    from prodkit.runs.pages import write_comparison, write_site

    folder = outputs_path(out)
    with using_outputs(folder):
        page = (
            write_comparison(folder, *compare) if compare else write_site(folder, store, artifacts, tell=tell)
        )
    print(page)
    if open_page:
        click.launch(page.as_uri())


@click.command()
@click.argument("run_id", metavar="RUN")
@out_option
@json_option
def verify(run_id: str, out: Path, as_json: bool) -> None:
    """Execute a recorded RUN again in a cold kernel and compare; ends with 1 if it is not as recorded."""
    from prodkit.verification.verifier import verify_run

    with using_outputs(outputs_path(out)):
        verdict = verify_run(run_id)
    _end(verdict, as_json=as_json)


@click.command()
@click.argument("run_id", metavar="RUN")
@out_option
@json_option
def replay(run_id: str, out: Path, as_json: bool) -> None:
    """Make the decision of a recorded RUN again from its evidence; ends with 1 if it is not as recorded."""
    from prodkit.verification.replay import replay_run

    with using_outputs(outputs_path(out)):
        verdict = replay_run(run_id)
    _end(verdict, as_json=as_json)


def _end(verdict: Verdict, *, as_json: bool) -> None:
    print(json.dumps(verdict.to_dict(), indent=2) if as_json else "\n".join(verdict.lines()))
    sys.exit(0 if verdict.matches else 1)


@click.command()
@click.option(
    "-p", "pairs", nargs=2, multiple=True, required=True, metavar="NAME VALUE", help="What it would be."
)
@json_option
@with_store
def whatif(kept: Store, pairs: Sequence[tuple[str, str]], as_json: bool) -> None:
    """Which decisions of the past would have been different under other limits, margins or costs, and why.

    Only the numbers on record are used; what would take others needs a new run, and says so.
    """
    from prodkit.decisions.record import past_decisions
    from prodkit.decisions.whatif import notebook_of, what_if
    from prodkit.settings import typed_value

    changed = {name: typed_value(notebook_of(name), name, text) for name, text in pairs}
    table = what_if(past_decisions(kept), changed).reset_index()
    rows: list[dict[str, Any]] = json.loads(table.to_json(orient="records"))
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    print_table(rows)
    counts = {name: sum(row["verdict"] == name for row in rows) for name in ("different", "needs a new run")}
    print(
        f"{len(rows)} decisions, {counts['different']} different, {counts['needs a new run']} need a new run"
    )
