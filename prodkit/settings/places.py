"""Where things lie: the project, its outputs, and what a location in the parameters leads to."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from pathlib import Path

from prodkit.errors import ParameterError

__all__ = [
    "beside",
    "destination",
    "environment_set",
    "expand",
    "names_read",
    "outputs_folder",
    "outputs_in",
    "project_folder",
    "resolve",
    "store_places",
    "using_outputs",
]


def project_folder(start: Path | None = None) -> Path:
    """The nearest folder upwards that holds ``notebooks/``, else the checkout that prodkit itself lies in.

    In an installation without notebooks it is the current folder.
    """
    here = (start or Path.cwd()).resolve()
    lived_in = Path(__file__).resolve().parents[2]
    folders = (here, *here.parents, lived_in)
    return next((folder for folder in folders if (folder / "notebooks").is_dir()), here)


_outputs: ContextVar[str] = ContextVar("outputs", default="")


def outputs_folder() -> Path:
    """Where results go: ``PRODKIT_OUT`` (set by ``--out``), else ``outputs/`` of the project."""
    named = _outputs.get() or os.environ.get("PRODKIT_OUT")
    return Path(named) if named else project_folder() / "outputs"


def using_outputs(folder: Path) -> AbstractContextManager[None]:
    """Let all that lies under ``outputs/`` lie in this folder, here and in kernels that are started meanwhile."""
    return environment_set(PRODKIT_OUT=str(folder.resolve()))


@contextmanager
def outputs_in(folder: Path) -> Iterator[None]:
    """The same for this thread alone; kernels have to be told."""
    before = _outputs.set(str(folder.resolve()))
    try:
        yield
    finally:
        _outputs.reset(before)


@contextmanager
def environment_set(**values: str) -> Iterator[None]:
    """Set environment variables for a while; kernels that are started meanwhile inherit them."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.update({name: value for name, value in before.items() if value is not None})
        for name in [name for name, value in before.items() if value is None]:
            os.environ.pop(name, None)


_READ: set[str] = set()


def names_read() -> frozenset[str]:
    """The variables whose values :func:`expand` has put in since this process began: what must not be shown."""
    return frozenset(_READ)


def expand(text: str) -> str:
    """Replace each ``${NAME}`` by the environment's value, at the moment of use and never before.

    Raises:
        ParameterError: the variable is not set.
    """

    def look_up(match: re.Match[str]) -> str:
        if match[1] not in os.environ:
            raise ParameterError(
                match[0], rule="must be set in the environment", fix=f"export {match[1]}=..."
            )
        _READ.add(match[1])
        return os.environ[match[1]]

    return re.sub(r"\$\{(\w+)\}", look_up, text)


def resolve(location: str) -> str:
    """Make a location absolute: ``outputs/...`` lies in :func:`outputs_folder`, the rest in the project.

    URLs pass unchanged, but for the path of a SQLite one.
    """
    location = expand(location)
    prefix, path = ("", location)
    if location.startswith("sqlite:///"):
        prefix, path = "sqlite:///", location.removeprefix("sqlite:///")
        if path in ("", ":memory:"):
            return location
    elif "://" in location:
        return location
    folder = Path(path).expanduser()
    if folder.parts[:1] == ("outputs",):
        return prefix + str(outputs_folder().joinpath(*folder.parts[1:]))
    return prefix + str(project_folder() / folder)


def beside(location: str, folder: Path) -> str:
    """A path that leads nowhere in the project but somewhere from this folder, made absolute; others unchanged."""
    if "://" in location or "${" in location:
        return location
    near = (folder.resolve() / Path(location).expanduser()).resolve()
    return location if glob.glob(resolve(location)) or not glob.glob(str(near)) else str(near)


def destination(location: str) -> Path:
    """The folder that results are written to: as :func:`resolve` says, but never outside a sandbox.

    While a recorded run is verified, ``PRODKIT_SANDBOX`` names a folder that stands in for everything the run may
    write to, so that what it did is not done again. A folder outside of the outputs is found there under
    ``elsewhere/``.
    """
    place, sandbox = Path(resolve(location)), os.environ.get("PRODKIT_SANDBOX")
    if not sandbox or place.is_relative_to(sandbox):
        return place
    return Path(sandbox, "elsewhere", *place.parts[1:])


def store_places(url: str, artifacts: str) -> tuple[str, str]:
    """Where a store is opened: in ``PRODKIT_SANDBOX`` while a run is verified, unless it lies in memory."""
    sandbox = os.environ.get("PRODKIT_SANDBOX")
    if not sandbox or url in ("sqlite://", "sqlite:///:memory:"):
        return url, artifacts
    return f"sqlite:///{sandbox}/store.db", f"{sandbox}/artifacts"
