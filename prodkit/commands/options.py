"""Options that several commands share, and what they mean."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from prodkit.runs.stops import Limits
from prodkit.settings import project_folder, resolve, using_outputs

__all__ = [
    "default_files",
    "file_options",
    "given_values",
    "json_option",
    "limit_options",
    "out_option",
    "outputs_path",
    "parameter_options",
    "place_options",
    "signature_options",
    "with_store",
]

Command = Callable[..., None]
DEFAULT_OUT = Path("outputs")


def _with(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator, shown in this order."""

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


out_option = click.option(
    "--out", type=Path, default=DEFAULT_OUT, show_default=True, help="Folder that all goes to."
)
file_options = _with(
    click.option(
        "-f", "files", type=Path, multiple=True, metavar="FILE", help="Params file; later ones win."
    ),
    click.option(
        "-p", "pairs", nargs=2, multiple=True, metavar="NAME VALUE", help="Parameter; wins over files."
    ),
    out_option,
)
parameter_options = _with(
    file_options,
    click.option("--force", is_flag=True, help="Do again what was done before."),
)
_limit_options = _with(
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
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout, and nothing else.")
place_options = _with(
    out_option,
    click.option("--store", default="sqlite:///outputs/store.db", show_default=True, help="SQLAlchemy URL."),
    click.option("--artifacts", default="outputs/artifacts", show_default=True, help="Folder or fsspec URL."),
)


def _spoken(_: click.Context, option: click.Parameter, text: str) -> str:
    """Text that says something."""
    if not text.strip():
        raise click.BadParameter("it must not be blank", param=option)
    return text.strip()


signature_options = _with(
    click.option("--name", required=True, callback=_spoken, help="Who does this."),
    click.option("--reason", required=True, callback=_spoken, help="Why; it is kept in the history."),
)


def outputs_path(out: Path) -> Path:
    """``--out`` is relative to where the command was typed, its default to the project."""
    return project_folder() / out if out == DEFAULT_OUT else out.resolve()


def default_files(notebook: str) -> list[Path]:
    """Without ``-f``, the project's own: ``params/flights.yaml`` and the notebook's policy."""
    folder = project_folder() / "params"
    return [path for path in (folder / "flights.yaml", folder / f"{notebook}.yaml") if path.is_file()]


def given_values(notebook: str, files: Sequence[Path], pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """The parameters that the command names, in files or directly."""
    from prodkit.settings import read_files, typed_value

    given = read_files(notebook, files or default_files(Path(notebook).stem))
    return given | {name: typed_value(notebook, name, text) for name, text in pairs}


def limit_options(command: Callable[..., None]) -> Command:
    """Hand the limits of time that the options name to a command, as ``limits``."""

    @_limit_options
    @functools.wraps(command)
    def call(cell_seconds: float, notebook_seconds: float, **given: Any) -> None:
        command(limits=Limits(cell_seconds=cell_seconds, notebook_seconds=notebook_seconds), **given)

    return call


def with_store(command: Callable[..., None]) -> Command:
    """Open the store that the options name, and hand it to a command as its first argument."""

    @place_options
    @functools.wraps(command)
    def call(out: Path, store: str, artifacts: str, **given: Any) -> None:
        from prodkit.store.registry import Store

        with using_outputs(outputs_path(out)), Store.open(resolve(store), resolve(artifacts)) as kept:
            command(kept, **given)

    return call
