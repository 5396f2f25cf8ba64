"""A forked process, from its fork to its end as a kernel."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import os
import signal
import sys
import sysconfig
import tempfile
import threading
import time
from importlib.util import find_spec
from types import ModuleType
from typing import Any, NoReturn

__all__ = ["become_kernel", "die_with"]

_PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """Have the kernel of the machine end this process when its parent ends, however that comes."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def become_kernel(request: dict[str, Any]) -> None:
    """Make this forked process what a fresh ``python -m ipykernel_launcher`` would be, and run it to its end."""
    os.setsid()
    for number, descriptor in enumerate(request["descriptors"]):
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdout.reconfigure(line_buffering=os.isatty(1))  # type: ignore[union-attr]
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    os.umask(request["umask"])
    time.tzset()
    _forget()
    preloaded = set(sys.modules)
    launcher = find_spec("ipykernel_launcher")
    sys.argv = [str(launcher.origin if launcher else ""), *request["argv"]]
    sys.orig_argv[:] = [sys.executable, "-m", "ipykernel_launcher", *request["argv"]]
    gc.enable()
    from ipykernel.kernelapp import IPKernelApp

    # 1: there is a parent, whose end is seen to, so no thread has to watch for it
    app = IPKernelApp.instance(parent_handle=1)
    _keep_output(app)
    app.initialize(request["argv"])
    if "ipywidgets" in sys.modules:
        sys.modules["ipywidgets"].register_comm_target()  # it does so at import, if there is a kernel by then
    app.start()
    # Before exit handlers close its output: the thread would wait for it while they wait for the thread.
    app.control_thread.join(1.0)
    _exit(keeping=preloaded)


def _keep_output(app: Any) -> None:
    """Let output wait for whoever reads it: by default, what comes while 1,000 messages wait is thrown away."""
    from zmq import SNDHWM

    bind = app._bind_socket

    def keeping(socket: Any, port: int) -> Any:
        socket.setsockopt(SNDHWM, 0)  # before it is bound: those who connect later get what was set then
        return bind(socket, port)

    app._bind_socket = keeping


def _forget() -> None:
    """Drop what modules drew or looked up for this process alone when they were imported."""
    import multiprocessing

    multiprocessing.current_process().authkey = os.urandom(32)
    tempfile.tempdir = None
    importlib.invalidate_caches()  # of folders, which may have got new modules since
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()  # `random` sees to itself after a fork


def _exit(*, keeping: set[str]) -> NoReturn:
    """End as an interpreter does, but leave the preloaded modules to the machine: to free them takes .3 s.

    Threads are waited for, exit handlers run, and what the cells and the user's own modules still hold is let go of, so
    that files are flushed and connections closed.
    """
    threading._shutdown()  # type: ignore[attr-defined]  # as multiprocessing does at the end of a fork
    atexit._run_exitfuncs()
    threading.excepthook = lambda _: None  # a daemon thread that misses its module now has nothing to report
    for name in ("last_type", "last_value", "last_traceback", "last_exc"):
        vars(sys).pop(name, None)
    for module in _own_modules(keeping):
        vars(module).clear()
    gc.collect()
    for stream in (sys.__stdout__, sys.__stderr__):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()  # type: ignore[union-attr]
    ctypes.CDLL(None).fflush(None)
    os._exit(0)


def _own_modules(keeping: set[str]) -> list[ModuleType]:
    """The cells' namespace, and what they have imported from outside the library, newest first."""
    library = tuple(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib"))
    found = [module for name, module in sys.modules.items() if name == "__main__" or name not in keeping]
    files = {id(module): getattr(module, "__file__", None) or "" for module in found}
    return [
        module
        for module in reversed(found)
        if module.__name__ == "__main__" or (files[id(module)] and not files[id(module)].startswith(library))
    ]
