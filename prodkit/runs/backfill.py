"""One notebook over many windows: each a run of its own, several at a time, none of them stopping the others."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from prodkit.errors import ParameterError, ProdkitError
from prodkit.evidence import Window, iso
from prodkit.params import params_model
from prodkit.redaction import Redaction
from prodkit.runs.kernels import start_fork_server
from prodkit.runs.runner import run_notebook
from prodkit.runs.stops import Limits, signal_received
from prodkit.settings import names_read, outputs_folder, outputs_in, read_notebook

__all__ = ["Filled", "backfilled", "windows_between"]

_MOST = 10_000
_ANSWER_SECONDS = 10
_EXAMPLES = "Use a pandas offset: D, 7D, W-MON, MS (months), QS (quarters)."


@dataclass(frozen=True)
class Filled:
    """What came of one window.

    Attributes:
        window: start/end.
        status: of its run; ``failed`` where there is no run, ``not run`` where it was not begun.
        run_id: its run; empty if there is none.
        outcome: of its run.
        action: of its run.
        reason: the first one.
        repeated: it had been done before.
    """

    window: str
    status: str
    run_id: str = ""
    outcome: str = ""
    action: str = ""
    reason: str = ""
    repeated: bool = False

    @property
    def sound(self) -> bool:
        """Whether the notebook ran and could say something."""
        return self.status == "succeeded" and self.outcome != "error"


def windows_between(text: str) -> list[Window]:
    """The windows of START/END/FREQ, which they fill without a gap.

    Raises:
        ParameterError: it is not of this form, or FREQ does not divide it into whole windows.

    >>> [str(window) for window in windows_between("2013-04-01/2013-06-01/MS")]
    ['2013-04-01/2013-05-01', '2013-05-01/2013-06-01']
    """
    import pandas as pd  # some tenths of a second that no other command pays

    start, end, frequency = _three(text)
    try:
        cuts = [cut.to_pydatetime() for cut in pd.date_range(start, end, freq=frequency)[: _MOST + 2]]
    except (ValueError, TypeError) as error:
        raise ParameterError("--windows", rule="must end in a length", value=text, fix=_EXAMPLES) from error
    if not 2 <= len(cuts) <= _MOST + 1:
        rule = f"must hold 1 to {_MOST:,} windows of {frequency}"
        raise ParameterError("--windows", rule=rule, value=text, fix=_EXAMPLES)
    for name, moment, near in (("START", start, cuts[0]), ("END", end, cuts[-1])):
        if moment != near:
            rule, fix = f"must have {name} where a window of {frequency} begins", f"One is {iso(near)}."
            raise ParameterError("--windows", rule=rule, value=text, fix=fix)
    return [Window(*pair) for pair in pairwise(cuts)]


def _three(text: str) -> tuple[datetime, datetime, str]:
    fix = "For instance 2013-04-01/2014-01-01/MS."
    parts = text.split("/")
    if len(parts) != 3 or not all(parts):
        raise ParameterError("--windows", rule="must be START/END/FREQ", value=text, fix=fix)
    try:
        start, end = (datetime.fromisoformat(part) for part in parts[:2])
        if start.tzinfo or end.tzinfo:
            raise ValueError("a time zone")
    except ValueError as error:
        rule = f"must have ISO dates without a time zone: {error}"
        raise ParameterError("--windows", rule=rule, value=text, fix=fix) from error
    if start >= end:
        raise ParameterError("--windows", rule="must have START before END", value=text, fix=fix)
    return start, end, parts[2]


@dataclass(frozen=True)
class _Job:
    """What a worker needs to know, wherever it is."""

    notebook: str
    given: Mapping[str, Any]
    outputs: Path
    folder: Path
    force: bool
    limits: Limits

    def fill(self, window: str, *, elsewhere: bool) -> Filled:
        """Run the notebook on one window; whatever goes wrong is what came of it."""
        if signal_received():
            return Filled(window, "not run", reason="the backfill was interrupted")
        try:
            with self._place() if elsewhere else nullcontext():
                run = run_notebook(
                    self.notebook, {**self.given, "window": window}, force=self.force, limits=self.limits
                )
        except ProdkitError as error:
            return Filled(window, "failed", reason=_shown(str(error)))
        except Exception as error:  # one bad window never stops the others
            return Filled(window, "failed", reason=_shown(f"{type(error).__name__}: {error}"))
        outcome = {name: run[name] or "" for name in ("status", "run_id", "outcome", "action")}
        return Filled(window, **outcome, reason=next(iter(run["reasons"]), ""), repeated=run.repeated)

    def _place(self) -> AbstractContextManager[None]:
        """In another process, be where the command was typed and write where it said, whatever its other threads do."""
        if self.folder.is_dir():
            os.chdir(self.folder)
        return outputs_in(self.outputs)


def _shown(text: str) -> str:
    """The text without what was read from the environment; known to the process alone that has read it."""
    return Redaction.of(names_read()).text(text)


def backfilled(
    notebook: str,
    given: Mapping[str, Any],
    windows: Sequence[Window],
    *,
    jobs: int = 1,
    dask: str = "",
    force: bool = False,
    limits: Limits | None = None,
) -> Iterator[Filled]:
    """Run a notebook on each window; gives what came of each as it ends.

    A window that was done before is not done again, so that a backfill that was interrupted goes on where it stopped.

    Args:
        notebook: a name in ``notebooks/``, or a path.
        given: parameters; ``window`` is set for each run.
        windows: which.
        jobs: how many at a time. Threads of this process: the work is done in the kernels, which are processes.
        dask: address of a Dask scheduler whose workers run them instead; they must see the same outputs and store.
        force: do again what was done before.
        limits: how long each may take.

    Raises:
        ParameterError: the notebook takes no window, or it moves the champion and several are to run at a time.
    """
    source = read_notebook(notebook)
    if "window" not in source.parameters:
        raise ParameterError("NOTEBOOK", rule="must have a parameter `window`", value=source.name)
    kind = params_model(source.name, source.parameters)
    if kind is not None and kind.moves_champion and (jobs != 1 or dask):
        fix = "Leave --jobs and --dask out."
        rule = "moves the champion, so that each window must find what the one before has left"
        raise ParameterError(source.name, rule=rule, fix=fix)
    if kind is not None and not dask:
        start_fork_server()
    job = _Job(
        str(source.path.absolute()), given, outputs_folder().resolve(), Path.cwd(), force, limits or Limits()
    )
    return _spread(job, [str(window) for window in windows], jobs=jobs, dask=dask)


def _spread(job: _Job, windows: Sequence[str], *, jobs: int, dask: str) -> Iterator[Filled]:
    from joblib import Parallel, delayed, parallel_config

    with _cluster(dask), parallel_config(backend="dask" if dask else "threading"):
        every = Parallel(n_jobs=-1 if dask else jobs, return_as="generator_unordered")
        yield from every(delayed(job.fill)(window, elsewhere=bool(dask)) for window in windows)


def _cluster(address: str) -> AbstractContextManager[Any]:
    """The Dask cluster at an address; nothing where there is none."""
    if not address:
        return nullcontext()
    try:
        from distributed import Client
    except ImportError as error:
        fix = 'Install it: python -m pip install "notebook-prodkit[dask]".'
        raise ParameterError("--dask", rule="needs the package distributed", fix=fix) from error
    try:
        client: AbstractContextManager[Any] = Client(  # type: ignore[no-untyped-call]
            address, timeout=_ANSWER_SECONDS
        )
    except (OSError, ValueError) as error:
        fix = "Start one: dask scheduler, and dask worker for each machine."
        raise ParameterError(
            "--dask", rule="must be a scheduler that answers", value=address, fix=fix
        ) from error
    return client
