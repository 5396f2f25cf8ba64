"""What a command says: results on standard output, all else on standard error, for whoever still reads it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from prodkit.settings import names_read

__all__ = ["print_table", "progress", "tell", "tell_failure"]


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


def tell(text: str, **style: Any) -> None:
    """Say a sentence on standard error, as it is."""
    _say.print(text, markup=False, soft_wrap=True, **style)


def tell_failure(text: str) -> None:
    """Say what went wrong, without what was read from the environment."""
    from prodkit.redaction import Redaction

    tell(Redaction.of(names_read()).text(text), style="red")


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows for people; as wide as it needs to be where it is not read on a terminal."""
    table = Table(*(list(rows[0]) if rows else ["nothing yet"]))
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    Console(width=None if sys.stdout.isatty() else 160, highlight=False).print(table, markup=False)


def progress() -> Progress:
    """A bar on stderr, where somebody watches."""
    columns = (TextColumn("{task.description:32}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=_say, disable=not _say.is_terminal)
