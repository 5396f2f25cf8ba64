"""The one door to parallel work: tasks given by joblib to threads, processes or a Dask cluster."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, TextIO, TypeVar

from joblib import Parallel, delayed, parallel_config
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from prodkit.errors import ParameterError
from prodkit.settings import project_folder, project_on_path

__all__ = ["shared_out"]

T = TypeVar("T")
R = TypeVar("R")


def shared_out(
    work: Callable[[T], R], tasks: Sequence[T], *, backend: str, label: str, sizes: Sequence[int]
) -> Iterator[R]:
    """The result of each task, in their order; one task alone is done in this process.

    Args:
        work: can be sent to another process, as its tasks and results can, unless ``backend`` is ``threading``.
        tasks: to do.
        backend: of joblib. ``dask`` uses the cluster that this process is connected to, or that Dask's setting
            ``scheduler-address`` names, else one of its own on this machine.
        label: of the bar.
        sizes: of the tasks, such as rows.

    Raises:
        ParameterError: ``dask`` is not installed, or its scheduler does not answer.
    """
    several = len(tasks) > 1
    with (
        _bar(label, sum(sizes)) as advance,
        _cluster(backend) if several else nullcontext(),
        parallel_config(backend=backend) if several else nullcontext(),
    ):
        results: Iterable[R] = map(work, tasks)
        if several:
            results = Parallel(n_jobs=-1, return_as="generator")(
                delayed(_alone)(work, task) for task in tasks
            )
        for result, size in zip(results, sizes, strict=True):
            advance(size)
            yield result


def _alone(work: Callable[[T], R], task: T) -> R:
    """One task, in which joblib shares out nothing further: on Dask it would wait for the worker that it runs on."""
    with parallel_config(backend="sequential"):
        return work(task)


def _cluster(backend: str) -> AbstractContextManager[Any]:
    """A Dask client for this process, unless it has one or needs none."""
    if backend != "dask":
        return nullcontext()
    try:
        from distributed import Client, get_client
    except ImportError as error:
        fix = 'Install it: python -m pip install "notebook-prodkit[dask]".'
        raise ParameterError("backend", rule="dask needs the package distributed", fix=fix) from error
    try:
        get_client()
        return nullcontext()
    except ValueError:  # there is none yet
        pass
    try:
        client: Any = Client(dashboard_address=None)  # type: ignore[no-untyped-call]
        client.register_worker_callbacks(partial(project_on_path, str(project_folder())))
    except (OSError, ValueError) as error:
        fix = "Start one: dask scheduler, and dask worker for each machine; or unset DASK_SCHEDULER_ADDRESS."
        raise ParameterError("backend", rule="dask needs a scheduler that answers", fix=fix) from error
    return client  # type: ignore[no-any-return]


@contextmanager
def _bar(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """A function that advances a bar, which shows on stderr if that is a terminal."""
    terminal = _terminal()
    if terminal is None:
        yield lambda rows: None
        return
    columns = (TextColumn("{task.description:32}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns, console=Console(file=terminal, force_terminal=True), transient=True) as bar:
            task = bar.add_task(label, total=total)
            yield lambda rows: bar.advance(task, rows)
    finally:
        if terminal is not sys.stderr:
            terminal.close()


def _terminal() -> TextIO | None:
    """Stderr if it is a terminal; in a kernel that a runner has started on one, that of the runner."""
    if sys.stderr is not None and sys.stderr.isatty():
        return sys.stderr
    # ipykernel turns file 2 into outputs of the notebook; where it keeps the old one has no public name
    original = getattr(sys.stderr, "_original_stdstream_copy", None)
    if original is None or "PRODKIT_RUN" not in os.environ or not os.isatty(original):
        return None
    return os.fdopen(os.dup(original), "w")
