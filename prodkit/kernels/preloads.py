"""What a kernel finds imported when it is forked, and whether that is still what lies on the disk."""

from __future__ import annotations

import builtins
import contextlib
import gc
import io
import os
import site
import sys
import warnings
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

__all__ = ["PRELOADED", "preload", "settle", "state", "watched"]

# What the notebooks of the kit import, and what a kernel imports while it starts.
# fmt: off
PRELOADED = (
    "ipykernel.kernelapp", "ipykernel.ipkernel", "ipykernel.zmqshell", "ipykernel.debugger",
    "IPython.core.completerlib", "sqlite3", "IPython.core.oinspect", "IPython.core.debugger",
    "IPython.extensions.storemagic", "IPython.utils.wildcard", "tornado.platform.asyncio", "numpy", "pandas",
    "pyarrow.parquet", "pyarrow.dataset", "pyarrow.compute", "pyarrow.csv", "scipy.stats", "scipy.sparse",
    "scipy.special", "scipy.optimize", "sklearn.calibration", "sklearn.compose", "sklearn.dummy",
    "sklearn.ensemble", "sklearn.impute", "sklearn.inspection", "sklearn.isotonic", "sklearn.linear_model",
    "sklearn.metrics", "sklearn.model_selection", "sklearn.pipeline", "sklearn.preprocessing", "sklearn.tree",
    "matplotlib.pyplot", "matplotlib.backends.backend_agg", "matplotlib.dates", "joblib", "pydantic", "sqlalchemy",
    "sqlalchemy.dialects.sqlite", "ipywidgets", "yaml", "prodkit",
)
# fmt: on
# jemalloc, which comes with pyarrow, stops its thread before a fork and starts another after it.
_FORK_SAFE_THREADS = {"jemalloc_bg_thd"}


def preload() -> dict[str, str]:
    """Import all that a notebook may want; what cannot be imported is left to the notebook that misses it.

    Gives the environment variables that the imports have set: a kernel that is forked later needs them, too.
    """
    before = set(os.environ)
    quiet = io.TextIOWrapper(io.BytesIO(), encoding="UTF-8")  # as the output of a notebook is
    # pandas asks once, at import, whether it runs in a notebook and what can be printed there; its options depend on it
    builtins.get_ipython = lambda: SimpleNamespace(kernel=None)  # type: ignore[attr-defined]
    try:
        with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
            for name in PRELOADED:
                with contextlib.suppress(Exception):
                    import_module(name)
            prodkit = import_module("prodkit")
            for name in prodkit.__all__:
                with contextlib.suppress(Exception):
                    getattr(prodkit, name)
    finally:
        del builtins.get_ipython  # type: ignore[attr-defined]
    return {name: value for name, value in os.environ.items() if name not in before}


def settle() -> None:
    """Make sure that a fork is safe, and cheap; exit with a message if something has started threads."""
    with warnings.catch_warnings(action="ignore"):
        if (child := os.fork()) == 0:
            os._exit(0)  # OpenBLAS ends its threads before a fork, and starts them again when they are wanted
    os.waitpid(child, 0)
    tasks = Path("/proc/self/task").iterdir()
    names = [(task / "comm").read_text().strip() for task in tasks if task.name != str(os.getpid())]
    if unsafe := set(names) - _FORK_SAFE_THREADS:
        sys.exit(f"No kernel can be forked: an import has started threads ({', '.join(sorted(unsafe))}).")
    gc.collect()
    gc.freeze()


def watched() -> dict[str, tuple[int, int, int] | None]:
    """The state of every file that was imported or read on the way, and of the folders of packages."""
    files = {module.__file__ for module in list(sys.modules.values()) if getattr(module, "__file__", None)}
    folders = {*site.getsitepackages(), site.getusersitepackages()}
    files |= folders | {str(path) for folder in folders for path in Path(folder).glob("*.pth")}
    files |= {sys.executable, f"{sys.prefix}/pyvenv.cfg"}
    with contextlib.suppress(ImportError, AttributeError):
        import matplotlib as mpl

        files |= {
            mpl.matplotlib_fname(),
            f"{mpl.get_configdir()}/matplotlibrc",
            f"{mpl.get_configdir()}/stylelib",
        }
    with contextlib.suppress(ImportError):
        from fsspec.config import conf_dir

        files |= {conf_dir, *map(str, Path(conf_dir).glob("*"))}
    return {file: state(file) for file in files if file}


def state(file: str) -> tuple[int, int, int] | None:
    """What changes when a file or folder is changed or replaced; None if it is not there."""
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
