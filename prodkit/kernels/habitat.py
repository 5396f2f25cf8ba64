"""Where and how a process runs, as far as a kernel that it starts would take after it.

A forked kernel must not differ from a fresh one. So there is a zygote (see `prodkit.kernels.zygote`) for each
habitat: for each combination of interpreter, variables that libraries read when they are loaded, limits, priority,
privileges, control groups, namespaces and ignored signals. A kernel never runs in somebody else's control group. Its
environment, working directory, umask and standard streams are its own in any case. What no habitat can provide for is
what `coldness` finds.

``PRODKIT_WARM`` in the kernel's environment says how many seconds a zygote waits for its next kernel before it ends;
the default is 600, and 0 turns warm kernels off.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from prodkit.errors import ParameterError
from prodkit.kernels.preloads import PRELOADED

__all__ = ["IDLE_SECONDS", "coldness", "habitat", "keyed_variables", "warm_seconds"]

IDLE_SECONDS = 600.0

_PROTOCOL = 1  # of the messages between zygote and client

# Variables that are read when the interpreter starts, a library is loaded or a module is imported, by their beginnings.
# fmt: off
_READ_EARLY = (
    "PYTHON", "_PYTHON", "LD_", "GLIBC_", "MALLOC_", "LC_", "LANG", "TZ", "HOME", "TMPDIR", "TEMP", "TMP",
    "VIRTUAL_ENV", "CONDA_PREFIX", "COVERAGE_", "PRODKIT_WARM", "OMP_", "GOMP_", "KMP_", "OPENBLAS_", "GOTO_",
    "NVPL_", "BLIS_", "MKL_", "NUMEXPR_", "NPY_", "NUMPY_", "PANDAS_", "ARROW_", "SCIPY_", "SKLEARN_", "JOBLIB_",
    "LOKY_", "MPL", "MATPLOTLIB", "PILLOW_", "PYPARSING", "PYDANTIC_", "FSSPEC_", "PSUTIL_", "IPYTHON", "PYZMQ_",
    "ZMQ_", "TORNADO_", "TRAITLETS_", "PYDEV", "PYCHARM_", "DEBUG_PYDEVD_", "PATHS_FROM_ECLIPSE", "DEBUGPY_",
    "JUPYTER_ALLOW", "JUPYTER_PLATFORM", "JUPYTER_USE_PROGRAMDATA", "JUPYTER_WIDGETS", "SSL_CERT_",
    "SOURCE_DATE_EPOCH", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "GEVENT_", "DISPLAY", "MSGPACK_",
)
# fmt: on
# Lines of /proc/self/status: owner, signals blocked and ignored, capabilities, sandbox, processors and memory allowed.
_STATUS = (
    "Uid",
    "Gid",
    "Groups",
    "SigBlk",
    "SigIgn",
    "Cap",
    "NoNewPrivs",
    "Seccomp",
    "Cpus_allowed",
    "Mems_allowed",
)
_OPTIONS = {
    "-Xfrozen_modules=off"
}  # what ipykernel's debugger asks for, and a kernel without it does not mind


def warm_seconds(env: Mapping[str, str]) -> float:
    """How long a zygote may idle, by ``PRODKIT_WARM``; 0 for never.

    >>> warm_seconds({}), warm_seconds({"PRODKIT_WARM": "0"})
    (600.0, 0.0)

    Raises:
        ParameterError: it is not a number of seconds.
    """
    text = env.get("PRODKIT_WARM", str(IDLE_SECONDS))
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not 0 <= seconds < float("inf"):
        raise ParameterError(
            "PRODKIT_WARM",
            rule="must be a number of seconds, or 0 for no warm kernels",
            value=repr(text),
            place="environment",
        )
    return seconds


def coldness(command: Sequence[str], env: Mapping[str, str], cwd: str) -> str:
    """Why a forked kernel might differ from the one that this command starts; empty if it would not."""
    if sys.platform != "linux":
        return "a kernel is forked on Linux only"
    if not warm_seconds(env):
        return "PRODKIT_WARM is 0"
    if not _is_this_interpreter(command[0]):
        return f"{command[0]} is not the interpreter that runs here"
    options = [word for word in command[1:] if word not in _OPTIONS]
    if options[:2] != ["-m", "ipykernel_launcher"]:
        return "the command is not `python -m ipykernel_launcher`"
    if any(not os.path.isabs(entry) for entry in env.get("PYTHONPATH", "/").split(os.pathsep)):
        return "PYTHONPATH depends on the working directory"
    if measured := [name for name in env if name.startswith("COVERAGE_PROCESS")]:
        return f"{measured[0]} asks for something at the start of every interpreter"
    if os.path.exists(os.path.join(cwd, "matplotlibrc")):
        return "matplotlib would read the matplotlibrc of the working directory"
    return ""


def _is_this_interpreter(path: str) -> bool:
    """The same file under the same folder: environments share the file, never the folder."""
    path = os.path.abspath(path)
    return os.path.dirname(path) == os.path.dirname(sys.executable) and (
        path == sys.executable or (os.path.exists(path) and os.path.samefile(path, sys.executable))
    )


def habitat(env: Mapping[str, str]) -> str:
    """The name of the habitat of this process, for a kernel with this environment.

    Raises:
        OSError: /proc does not say.
    """
    facts = [
        _PROTOCOL,
        *(sys.executable, sys.prefix, platform.python_version(), str(Path(__file__).parents[1]), PRELOADED),
        keyed_variables(env),
        [line for line in _proc("status").splitlines() if line.startswith(_STATUS)],
        *(_proc("limits"), _proc("cgroup"), _proc("oom_score_adj")),
        *(os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0), os.readlink("/proc/self/root")),
        sorted(os.readlink(space) for space in Path("/proc/self/ns").iterdir()),
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:20]


def keyed_variables(env: Mapping[str, str]) -> dict[str, str]:
    """The part of an environment that is read before a forked kernel gets its own."""
    return {name: env[name] for name in sorted(env) if name.startswith(_READ_EARLY)}


def _proc(name: str) -> str:
    return Path("/proc/thread-self", name).read_text(errors="replace")
