"""What the process of a run's kernel does: it keeps all output for its reader, and ends when its runner does.

A fresh kernel is ``python kernelapp.py ARGUMENTS``, by whatever interpreter a kernelspec names, so that nothing of
prodkit is imported here. A forked one calls `forked_kernel` in a process that the fork server has made (see
`prodkit.runs.kernels`).
"""

import sys

if __name__ == "__main__":
    del sys.path[0]  # this folder: a kernel must not import its neighbours by their short names

import ctypes
import fcntl
import gc
import importlib
import multiprocessing
import os
import select
import signal
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

import zmq
from ipykernel.kernelapp import IPKernelApp

__all__ = ["KernelApp", "end_with_runner", "find_project", "forked_kernel"]

# Variables of the fork server alone; the last two are what readline sets for whoever imports it.
_SERVERS_OWN = ("PYTHONSAFEPATH", "PYDEVD_DISABLE_FILE_VALIDATION", "COLUMNS", "LINES")


class KernelApp(IPKernelApp):
    """ipykernel's, but output waits for a reader who is slow; by default what exceeds 1,000 messages is dropped."""

    def init_iopub(self, context: Any) -> None:
        """Open the socket for output, without that limit."""
        context.setsockopt(zmq.SNDHWM, 0)
        super().init_iopub(context)  # type: ignore[no-untyped-call]

    def start(self) -> None:
        """Run to the end."""
        super().start()  # type: ignore[no-untyped-call]
        # Before exit handlers close its output: the thread would wait for them while they wait for the thread.
        self.control_thread.join(1.0)


def end_with_runner() -> None:
    """Have this process group killed when the pipe on standard input is closed, as it is when its writer dies.

    No thread has to watch for that, so a cell that never lets go of the interpreter is no hindrance.
    """
    pipe, null = os.dup(0), os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    if hasattr(fcntl, "F_SETSIG"):  # Linux; elsewhere ipykernel polls for its parent
        fcntl.fcntl(pipe, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(pipe, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)
        if select.select([pipe], [], [], 0)[0]:  # it was closed before anybody listened
            os.killpg(os.getpgrp(), signal.SIGKILL)


def forked_kernel(
    command: Sequence[str],
    environment: Mapping[str, str],
    folder: str,
    path: Sequence[str],
    began: int,
    streams: Sequence[Connection],
) -> None:
    """Make this forked process the kernel that a command would start.

    Where the modules that the fork server has imported are not the ones that a fresh kernel would find, this process
    is replaced by a fresh kernel.

    Args:
        command: of a fresh kernel: interpreter, this file, arguments.
        environment: its variables.
        folder: its working folder.
        path: where a fresh interpreter looks for modules.
        began: when the fork server began, in nanoseconds since the epoch.
        streams: its standard input, output and error, as connections.
    """
    os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream.fileno(), number)
    for name in _SERVERS_OWN:
        os.environ.pop(name, None)
    os.environ.update(environment)
    os.chdir(folder)
    if _differs(path, began):
        os.execve(command[0], list(command), dict(os.environ))
    sys.path[:] = path
    if "PYTHONSAFEPATH" not in environment:  # as the fork server was; IPython goes by that
        sys.path.insert(next((n for n, place in enumerate(path) if place.endswith("-packages")), 0), "")
    find_project()
    sys.argv = list(command[1:])
    sys.orig_argv[:] = command
    _settle()
    end_with_runner()
    app = KernelApp.instance(parent_handle=1)  # there is a parent, and no need to watch it
    app.initialize(sys.argv[1:])
    if "ipywidgets" in sys.modules:
        # done at its import only where there is a kernel by then
        sys.modules["ipywidgets"].register_comm_target()
    app.start()
    ctypes.pythonapi.Py_Exit(0)  # as an interpreter ends: exit handlers, threads, open files


def find_project() -> None:
    """Put the project's folder on the import path: after the standard library, before what is installed."""
    folder = os.environ.get("PRODKIT_PROJECT")
    if folder and folder not in sys.path and os.path.isdir(os.path.join(folder, "notebooks")):
        packages = (n for n, place in enumerate(sys.path) if place.endswith("-packages"))
        sys.path.insert(next(packages, len(sys.path)), folder)


def _settle() -> None:
    """Undo what the fork server, or a library on its import, has set for itself alone."""
    stdin = open(0, closefd=False)  # noqa: SIM115  # the fork server has closed its own
    sys.stdin = sys.__stdin__ = stdin  # type: ignore[misc]
    sys.stdout.reconfigure(line_buffering=os.isatty(1))  # type: ignore[union-attr]
    process = multiprocessing.current_process()
    process.daemon, process.name = False, "MainProcess"
    multiprocessing.set_start_method(None, force=True)
    importlib.invalidate_caches()
    gc.freeze()  # what was imported stays; not even the end of the process has to look for garbage there
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()  # `random` sees to itself after a fork
    if "pandas" in sys.modules:
        # its defaults within a notebook, which it asks about on its import
        sys.modules["pandas"].set_option("display.max_columns", 20, "display.encoding", "UTF-8")


def _differs(path: Sequence[str], began: int) -> bool:
    """Whether an import would give something else: a file has changed, or one of the notebook or project is first."""
    loaded = dict(sys.modules)
    for folder in {os.getcwd(), os.environ.get("PRODKIT_PROJECT") or os.getcwd()}:
        for entry in os.scandir(folder):
            is_module = entry.name.endswith((".py", ".so")) or os.path.isfile(
                os.path.join(entry.path, "__init__.py")
            )
            same = loaded.get(entry.name.partition(".")[0]) if is_module else None
            if same is not None and not str(getattr(same, "__file__", "")).startswith(
                os.path.join(folder, "")
            ):
                return True
    if os.path.exists("matplotlibrc"):
        return True
    files = [getattr(module, "__file__", None) for module in loaded.values()]
    files += [folder for folder in path if folder.endswith("-packages")]
    try:
        return any(os.stat(file).st_mtime_ns > began for file in files if file)
    except OSError:
        return True


if __name__ == "__main__":
    end_with_runner()
    find_project()
    KernelApp.launch_instance()
