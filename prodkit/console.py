"""The console: what commands print, results on stdout and the rest on stderr, and the options that they share."""

from __future__ import annotations

import functools
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from prodkit.redaction import Redaction
from prodkit.runs.stops import Limits, heeding_signals
from prodkit.settings import (
    default_files,
    given_values,
    names_read,
    project_folder,
    read_notebook,
    resolve,
    using_outputs,
)

if TYPE_CHECKING:
    from prodkit.store.registry import Champion

__all__ = [
    "file_options",
    "force_option",
    "json_option",
    "place_options",
    "print_json",
    "print_markdown",
    "print_table",
    "progress",
    "say",
    "say_champion",
    "tell",
    "tell_failure",
    "with_limits",
    "with_notebook",
    "with_outputs",
    "with_signature",
    "with_store",
]

# What moves the cursor of a terminal, colours its text or turns the direction of it; and halves of characters.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_OUT = Path("outputs")

Command = Callable[..., None]


class _Listeners(Console):
    """Standard error, for whoever still reads it: a terminal that is gone changes no exit status."""

    def print(self, *texts: Any, **settings: Any) -> None:
        """As rich does, except where nobody listens any more."""
        with suppress(OSError):
            super().print(*texts, **settings)

    def on_broken_pipe(self) -> None:
        """Fall silent; rich would end the process."""
        self.quiet = True


_stderr = _Listeners(stderr=True, highlight=False)


def _shown(text: str) -> str:
    return _CONTROLS.sub(lambda match: ascii(match[0])[1:-1], text)


def say(text: str) -> None:
    """Print a result on standard output, control characters as their escapes."""
    print(_shown(text))


def say_champion(champion: Champion) -> None:
    """Print who serves, since which generation, and in which state."""
    state = f", on hold: {champion.hold}" if champion.hold else ""
    state += ", frozen" if champion.frozen else ""
    name = "none" if champion.version is None else f"v{champion.version}"
    say(f"champion: {name}, generation {champion.generation}{state}")


def tell(text: str, **style: Any) -> None:
    """Print a sentence on standard error, control characters as their escapes."""
    _stderr.print(_shown(text), markup=False, soft_wrap=True, **style)


def tell_failure(text: str) -> None:
    """Say what went wrong, without the values that were read from the environment."""
    tell(Redaction.of(names_read()).text(text), style="red")


def print_json(document: Any) -> None:
    """Print one JSON document on standard output."""
    print(json.dumps(document, indent=2))


def print_markdown(text: str) -> None:
    """Markdown, laid out where it is read on a terminal, and as it is elsewhere."""
    if sys.stdout.isatty():
        from rich.markdown import Markdown

        Console().print(Markdown(text))
    else:
        say(text.rstrip("\n"))


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows for people; as wide as it needs to be where it is not read on a terminal."""
    table = Table(*(list(rows[0]) if rows else ["nothing yet"]))
    for row in rows:
        table.add_row(*("" if value is None else _shown(str(value)) for value in row.values()))
    Console(width=None if sys.stdout.isatty() else 160, highlight=False).print(table, markup=False)


@contextmanager
def progress() -> Iterator[Progress]:
    """A bar on stderr, where somebody watches; meanwhile signals wait until what runs has been saved."""
    columns = (TextColumn("{task.description:32}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    bar = Progress(*columns, console=_stderr, disable=not _stderr.is_terminal)
    with heeding_signals(), bar:
        yield bar


def _all_of(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator, shown in this order."""
    return lambda command: functools.reduce(lambda made, option: option(made), reversed(options), command)


_seconds = functools.partial(click.option, type=click.FloatRange(min=0, min_open=True), show_default=True)
_out_option = click.option("--out", type=Path, default=_OUT, show_default=True, help="Folder of all results.")
force_option = click.option("--force", is_flag=True, help="Do again what was done before.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout, and nothing else.")
place_options = _all_of(
    click.option("--store", default="sqlite:///outputs/store.db", show_default=True, help="SQLAlchemy URL."),
    click.option("--artifacts", default="outputs/artifacts", show_default=True, help="Folder or fsspec URL."),
)
file_options = _all_of(
    click.option(
        "-f", "files", type=Path, multiple=True, metavar="FILE", help="Params file; later ones win."
    ),
    click.option(
        "-p", "pairs", nargs=2, multiple=True, metavar="NAME VALUE", help="Parameter; wins over -f."
    ),
)


def with_outputs(command: Command) -> Command:
    """Add ``--out``: relative to where the command was typed, by default in the project."""

    @_out_option
    @functools.wraps(command)
    def call(out: Path, **given: Any) -> None:
        with using_outputs(project_folder() / out if out == _OUT else out.resolve()):
            command(**given)

    return call


def with_notebook(command: Command) -> Command:
    """Add a notebook, ``-f`` and ``-p``, and hand its name and what it is given to a command."""

    @click.argument("notebook")
    @file_options
    @with_outputs
    @functools.wraps(command)
    def call(notebook: str, files: Sequence[Path], pairs: Sequence[tuple[str, str]], **options: Any) -> None:
        source = read_notebook(notebook)
        files = files or default_files(source.name, shared=source.is_of_the_kit)
        given = given_values(source.name, source.kinds, files=files, pairs=pairs)
        command(notebook, given, **options)

    return call


def with_limits(command: Command) -> Command:
    """Add the limits of time, and hand them to a command."""

    @_seconds("--cell-timeout", "cell", default=Limits.cell_seconds, help="Seconds that one cell may take.")
    @_seconds("--timeout", "whole", default=Limits.notebook_seconds, help="Seconds that a notebook may take.")
    @functools.wraps(command)
    def call(*given: Any, cell: float, whole: float, **options: Any) -> None:
        command(*given, limits=Limits(cell_seconds=cell, notebook_seconds=whole), **options)

    return call


def with_store(command: Command) -> Command:
    """Open the store that the options name, which must be there, and hand it to a command as its first argument."""

    @with_outputs
    @place_options
    @functools.wraps(command)
    def call(store: str, artifacts: str, **given: Any) -> None:
        from prodkit.store.registry import Store

        with Store.open(resolve(store), resolve(artifacts), create=False) as opened:
            command(opened, **given)

    return call


def _plain(_: click.Context, option: click.Parameter, text: str) -> str:
    """Text that says something, and that every file and terminal can hold."""
    if not text.strip():
        raise click.BadParameter("it must not be blank", param=option)
    if "\n" in text or _CONTROLS.search(text):
        raise click.BadParameter(f"it must be plain text; found {text!a}", param=option)
    return text.strip()


def with_signature(command: Command) -> Command:
    """Add a store and who changes it why, and print the champion afterwards."""

    @click.option("--name", required=True, callback=_plain, help="Who does this.")
    @click.option("--reason", required=True, callback=_plain, help="Why; it is kept in the history.")
    @with_store
    @functools.wraps(command)
    def call(store: Any, name: str, reason: str, **given: Any) -> None:
        command(store, actor=name, reason=reason, **given)
        say_champion(store.champion())

    return call
