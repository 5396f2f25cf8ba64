"""Kernels: a forked one is like a fresh one, each is apart from the others, and all are gone with their runner."""

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
import zmq

from prodkit.runs.claims import scratch_folder
from prodkit.runs.kernels import Kernel, start_fork_server

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kernels are forked on Linux only")
both = pytest.mark.parametrize("forked", [False, True], ids=["fresh", "forked"])


@pytest.fixture(scope="module", autouse=True)
def fork_server():
    """The fork server of this process."""
    start_fork_server()


def alive(pid: int) -> bool:
    """Whether a process is there and more than a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def gone(*pids: int, within_seconds: float = 10) -> bool:
    """Wait for processes to end."""
    deadline = time.monotonic() + within_seconds
    while any(map(alive, pids)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@contextlib.asynccontextmanager
async def running(*, forked: bool = True, **settings):
    """A kernel and its client; at the end it is ended."""
    with scratch_folder() as folder:
        kernel = Kernel.on_sockets(folder, kernel_name="python3", forked=forked)
        await kernel.start_kernel(**settings)
        with zmq.asyncio.Context() as context:
            context.setsockopt(zmq.RCVHWM, 0)
            client = kernel.client(context=context)
            client.start_channels()
            try:
                await client.wait_for_ready(timeout=60)
                yield kernel, client
            finally:
                client.stop_channels()
                await kernel.end()


async def printed(client, code: str) -> str:
    """What a cell prints; raises if it fails."""
    texts = []

    def hear(message):
        if message["msg_type"] == "stream" and message["content"]["name"] == "stdout":
            texts.append(message["content"]["text"])
        assert message["msg_type"] != "error", "\n".join(message["content"]["traceback"])

    await client.execute_interactive(code, output_hook=hear, timeout=300)
    return "".join(texts)


def in_kernel(*cells: str, **settings) -> list[str]:
    """What cells print, in a kernel of their own."""

    async def go():
        async with running(**settings) as (_, client):
            return [await printed(client, cell) for cell in cells]

    return asyncio.run(go())


FORKED = "import os; print('forkserver' in open(f'/proc/{os.getppid()}/cmdline').read())"


def is_forked(**settings) -> bool:
    """Whether a kernel that asks for it comes from the fork server."""
    return in_kernel(FORKED, **settings)[0] == "True\n"


# A forked kernel is like a fresh one


PROBE = """
import atexit, contextlib, decimal, gc, json, locale, logging, multiprocessing, os, resource, signal, socket, sys
import tempfile, threading, time, warnings
import numpy as np, pandas as pd, matplotlib, matplotlib.pyplot as plt, sklearn, scipy, sqlalchemy, ipywidgets, joblib
import pyarrow, pydantic
from pandas._config import config as _options
_shell = get_ipython()
_fig = plt.figure(); plt.close(_fig)
print(json.dumps({
    "environment": {k: v for k, v in os.environ.items() if k not in ("JPY_PARENT_PID",)},
    "cwd": os.getcwd(), "umask": (lambda mask: (os.umask(mask), mask)[1])(os.umask(0o22)),
    "argv": [a for a in sys.argv + sys.orig_argv if "json" not in a],
    "path": sys.path, "warnoptions": sys.warnoptions, "xoptions": sys._xoptions,
    "flags": {f: getattr(sys.flags, f) for f in dir(sys.flags)
              if f != "safe_path" and isinstance(getattr(sys.flags, f), int)},
    "filters": sorted(map(repr, warnings.filters)),
    "rcParams": {k: repr(v) for k, v in sorted(matplotlib.rcParams.items())},
    "pandas": {k: repr(pd.get_option(k)) for k in sorted(_options._registered_options)},
    "numpy": [repr(np.geterr()), repr({k: v for k, v in np.get_printoptions().items()})],
    "sklearn": sklearn.get_config(), "decimal": repr(decimal.getcontext()),
    "signals": {str(s): str(signal.getsignal(s)) for s in signal.valid_signals()},
    "blocked": sorted(map(str, signal.pthread_sigmask(signal.SIG_BLOCK, []))),
    "limits": {n: resource.getrlimit(getattr(resource, n)) for n in dir(resource) if n.startswith("RLIMIT")},
    "locale": locale.getlocale(), "timezone": time.tzname, "tempdir": tempfile.gettempdir(),
    "gc": [gc.isenabled(), gc.get_threshold()], "switch": sys.getswitchinterval(), "depth": sys.getrecursionlimit(),
    "loggers": {n: [l.level, l.disabled, l.propagate, [type(h).__name__ for h in l.handlers]]
                for n, l in [("", logging.getLogger()), ("tornado", logging.getLogger("tornado"))]},
    "threads": sorted(t.name.split("-")[0] for t in threading.enumerate() if "Parent" not in type(t).__name__),
    "main": [threading.current_thread() is threading.main_thread(), multiprocessing.current_process().name],
    "streams": [sys.__stdin__.fileno(), sys.__stdout__.line_buffering, sys.__stdout__.encoding, sys.__stderr__.errors],
    "start": multiprocessing.get_start_method(allow_none=True), "backend": matplotlib.get_backend(),
    "figures": plt.get_fignums(), "interactive": matplotlib.is_interactive(),
    "events": {k: sorted(f.__qualname__ for f in v) for k, v in _shell.events.callbacks.items()},
    "targets": sorted(_shell.kernel.comm_manager.targets), "extensions": sorted(_shell.extension_manager.loaded),
    "magics": sorted(_shell.magics_manager.magics["line"]),
    "session": [os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid()],
    "descriptors": sorted(os.readlink(f"/proc/self/fd/{n}").split(":")[0] for n in "12"),
    "hooks": [repr(type(f)) for f in sys.meta_path if "six" not in repr(f)]
                + [f.__module__ for f in (sys.excepthook, sys.displayhook)
                                                     if hasattr(f, "__module__")],
    "class": type(_shell).__name__, "name": __name__, "namespace": sorted(n for n in globals() if n[0] != "_"),
    "default_rng": np.random.mtrand._rand is np.random.get_state.__self__, "cores": joblib.cpu_count(),
}, default=repr))
"""

VANDAL = """
import os, sys, random, warnings, builtins, json, signal, locale, decimal, time, tempfile, gc, logging
import numpy as np, pandas as pd, matplotlib, matplotlib.pyplot as plt, sklearn
os.environ["VANDAL"] = "1"; os.environ.pop("HOME"); os.environ["TZ"] = "Asia/Tokyo"; time.tzset()
matplotlib.rcParams["figure.dpi"] = 7; plt.style.use("ggplot"); plt.figure(); matplotlib.rcParams["font.size"] = 77
pd.set_option("display.max_rows", 3); pd.set_option("display.max_columns", 4)
np.random.seed(0); random.seed(0); np.seterr(all="raise"); np.set_printoptions(precision=1)
os.chdir("/"); os.umask(0o777); sys.path.insert(0, "/vandal"); sys.argv[:] = ["vandal"]
warnings.simplefilter("error"); pd.DataFrame.head = lambda *_: "vandal"
builtins.hex = lambda _: "vandal"; random.random = lambda: 4
sklearn.set_config(assume_finite=True); sys.setrecursionlimit(5000)
signal.signal(signal.SIGUSR1, signal.SIG_IGN); decimal.getcontext().prec = 3; tempfile.tempdir = "/vandal"
logging.getLogger().setLevel(1); gc.disable(); sys.modules["statistics"] = json
"""


def test_a_forked_kernel_looks_like_a_fresh_one(tmp_path):
    """Whatever a notebook can see of its process is the same in a forked kernel and in a fresh one."""
    (fresh,) = in_kernel(PROBE, forked=False, cwd=str(tmp_path))
    forked, asked = in_kernel(PROBE, FORKED, cwd=str(tmp_path))
    assert asked == "True\n"
    fresh, forked = (
        {
            f"{part} {name}": value
            for part, values in json.loads(each).items()
            for name, value in (values.items() if isinstance(values, dict) else [("", values)])
        }
        for each in (fresh, forked)
    )
    assert {
        name: (fresh.get(name), forked.get(name))
        for name in {*fresh, *forked}
        if fresh.get(name) != forked.get(name)
    } == {}


def test_a_kernel_finds_nothing_of_its_predecessor(tmp_path):
    """Environment, rcParams, options, working directory, patches, paths, filters and seeds end with their kernel."""
    (before,) = in_kernel(PROBE, cwd=str(tmp_path))
    in_kernel(VANDAL, cwd=str(tmp_path))
    cell = (
        "import random, statistics\n"
        "print(pd.DataFrame({'a': [1]}).head().shape, hex(1), random.random() < 1, statistics.__name__)"
    )
    after, patched = in_kernel(PROBE, cell, cwd=str(tmp_path))
    assert json.loads(after) == json.loads(before)
    assert patched == "(1, 1) 0x1 True statistics\n"


def test_each_kernel_draws_its_own_random_numbers():
    """Neither numpy's nor Python's generator starts where that of another kernel started."""
    cell = (
        "import numpy, random, uuid\n"
        "print(numpy.random.rand(), random.random(), numpy.random.default_rng().random(), uuid.uuid4())"
    )
    draws = [in_kernel(cell)[0].split() for _ in range(3)]
    assert all(len(set(column)) == 3 for column in zip(*draws, strict=True))


@both
def test_a_kernel_has_the_environment_folder_and_streams_of_its_run(tmp_path, forked):
    """It has the variables and the folder of the run, nothing to read, and writes where the run wants."""
    with (tmp_path / "stdout").open("w") as out:
        shown = in_kernel(
            "import os; print(os.environ['PRODKIT_ASKED'], os.getcwd(), repr(os.read(0, 9)))",
            "import sys; print('plainly', file=sys.__stdout__, flush=True)",
            forked=forked,
            env={**os.environ, "PRODKIT_ASKED": "1"},
            cwd=str(tmp_path),
            stdout=out,
        )
    assert shown[0] == f"1 {tmp_path} b''\n"
    assert (tmp_path / "stdout").read_text() == "plainly\n"


def test_variables_that_imports_read_are_those_of_the_run():
    """A run with other variables than the fork server had gets a fresh kernel."""
    assert is_forked(env={**os.environ, "PRODKIT_RUN": "mine"})
    assert not is_forked(env={**os.environ, "OMP_NUM_THREADS": "7"})


@pytest.mark.parametrize("name", ["joblib.py", "yaml/__init__.py", "matplotlibrc"])
def test_what_lies_beside_the_notebook_comes_first(tmp_path, name):
    """A module beside the notebook is imported in place of the one that the fork server has imported."""
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("figure.dpi: 7" if name == "matplotlibrc" else "MINE = 1")
    cell = (
        "import joblib, yaml, matplotlib\n"
        "print([hasattr(joblib, 'MINE'), hasattr(yaml, 'MINE'), matplotlib.rcParams['figure.dpi'] == 7])"
    )
    fresh, forked = (in_kernel(cell, forked=each, cwd=str(tmp_path)) for each in (False, True))
    assert fresh == forked
    assert forked[0].count("True") == 1


def test_a_module_that_was_changed_meanwhile_is_imported_anew(tmp_path):
    """After a module of the fork server has been edited, or installed anew, a kernel runs what is there now."""
    shutil.copytree(ROOT / "prodkit", tmp_path / "prodkit", ignore=shutil.ignore_patterns("__pycache__"))
    code = f"""
import sys
sys.path[:0] = [{str(ROOT / "tests")!r}]
from test_kernels import FORKED, in_kernel
from prodkit.runs.kernels import start_fork_server
start_fork_server()
cells = "import prodkit.evidence as e; print(getattr(e, 'EDITED', 0))", FORKED
print(*in_kernel(*cells), sep="")
with open({str(tmp_path / "prodkit" / "evidence.py")!r}, "a") as source:
    source.write("\\nEDITED = 1\\n")
print(*in_kernel(*cells), sep="")
"""
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout.split() == ["0", "True", "1", "True"], done.stderr


WORK = """
import io, numpy as np, pandas as pd, pyarrow.parquet as pq, pyarrow as pa, joblib, matplotlib.pyplot as plt
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
rng = np.random.default_rng(0); X = rng.normal(size=(3000, 8)); y = X[:, 0] + rng.normal(size=3000) > 0
a = HistGradientBoostingClassifier(max_iter=20).fit(X, y).score(X, y) > .7
b = RandomForestClassifier(10, n_jobs=2, random_state=0).fit(X, y).score(X, y) > .9
f = io.BytesIO(); pq.write_table(pa.table({"a": X[:, 0], "b": pa.array(["x"] * 3000).dictionary_encode()}), f)
c = len(pq.read_table(f).to_pandas()) == 3000
d = joblib.Parallel(2, backend="loky")(joblib.delayed(abs)(i) for i in (-1, -2)) == [1, 2]
e = joblib.Parallel(2, backend="threading")(joblib.delayed(np.linalg.norm)(X @ X.T) for _ in range(2))[0] > 0
p = io.BytesIO(); plt.plot(X[:, 0]); plt.savefig(p); g = p.getvalue()[1:4] == b"PNG"
print(a, b, c, d, bool(e), g)
"""


def test_forked_kernels_compute_with_all_libraries_at_once():
    """OpenMP, BLAS, pyarrow, joblib and matplotlib work in several forked kernels at the same time."""

    async def one():
        async with running() as (_, client):
            return await printed(client, WORK)

    async def go():
        return await asyncio.gather(*(one() for _ in range(2)))

    assert asyncio.run(go()) == ["True True True True True True\n"] * 2


def test_figures_and_tables_are_shown_as_ever():
    """The inline backend shows a figure at the end of a cell, and a table comes as HTML with the notebook's width."""

    async def shown(forked, code):
        kinds = []
        async with running(forked=forked) as (_, client):
            await client.execute_interactive(
                code, timeout=300, output_hook=lambda m: kinds.append(sorted(m["content"].get("data", {})))
            )
        return [kind for kind in kinds if kind]

    code = "import matplotlib.pyplot as plt, pandas as pd; plt.plot([1, 2]); pd.DataFrame({'a': [1]})"
    fresh, forked = (asyncio.run(shown(each, code)) for each in (False, True))
    assert fresh == forked
    assert ["image/png", "text/plain"] in forked


def test_nbval_forks_its_kernels(tmp_path):
    """With the plugin, nbval's kernels come from the fork server of its session."""
    cell = nbformat.v4.new_code_cell(FORKED, execution_count=1)
    cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text="True\n")]
    spec = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata=spec), tmp_path / "mine.ipynb")
    quiet = [
        "-q",
        "-c",
        os.devnull,
        *(f"-pno:{name}" for name in ("xdist", "cacheprovider", "hypothesispytest")),
    ]
    command = [sys.executable, "-m", "pytest", "-p", "prodkit.runs.kernels", *quiet, "--nbval", "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


# Output


@both
def test_output_waits_for_a_reader_who_is_slow(forked):
    """A kernel throws nothing away of what comes faster than it is read, however much that is."""

    async def go():
        async with running(forked=forked) as (kernel, client):
            with zmq.Context() as context, context.socket(zmq.SUB) as reader:
                reader.setsockopt(zmq.RCVHWM, 1)
                reader.setsockopt(zmq.SUBSCRIBE, b"")
                reader.connect(kernel._make_url("iopub"))
                while not reader.poll(100):  # until it is connected
                    await printed(client, "print()")
                await printed(client, "for number in range(10_000): print(f'<{number}>', flush=True)")
                numbers = set()
                while reader.poll(3000):
                    numbers |= set(re.findall(rb"<\d+>", b"".join(reader.recv_multipart())))
                return len(numbers)

    assert asyncio.run(go()) == 10_000


# Their end


RUNNER = """
import asyncio, sys
sys.path[:0] = [{tests!r}]
from test_kernels import printed, running
from prodkit.runs.kernels import start_fork_server
async def main():
    async with running(forked={forked}) as (_, client):
        cell = "import os, subprocess as s; print(os.getppid(), os.getpid(), s.Popen(['sleep', '300']).pid)"
        print(await printed(client, cell), flush=True)
        client.execute("import ctypes; ctypes.PyDLL(None).sleep(300)")
        await asyncio.sleep(300)
if {forked}:
    start_fork_server()
asyncio.run(main())
"""


@both
def test_a_killed_runner_takes_its_kernel_along(forked):
    """SIGKILL of a runner ends its kernel, even in a C call, what that has started, and the fork server."""
    code = RUNNER.format(tests=str(ROOT / "tests"), forked=forked)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as runner:
        server, kernel, child = map(int, runner.stdout.readline().split())
        assert (server == runner.pid) == (not forked)
        assert alive(kernel)
        assert alive(child)
        time.sleep(0.5)
        runner.kill()
        assert gone(kernel, child, server)


@both
@pytest.mark.parametrize(
    ("end", "death"),
    [
        ("os.kill(os.getpid(), 9)", r"was killed by signal 9 \(SIGKILL\)"),
        ("os._exit(0)", "ended by itself with status 0"),
        ("os._exit(7)", "ended by itself with status 7"),
    ],
)
def test_a_dead_kernel_is_seen_at_once_and_leaves_nothing(forked, end, death):
    """However a kernel ends, its runner learns how, and its children are killed."""

    async def go():
        async with running(forked=forked) as (kernel, client):
            cell = "import os, subprocess as s; print(s.Popen(['sleep', '300']).pid)"
            child = int(await printed(client, cell))
            assert kernel.death() == ""
            client.execute(end)
            while await kernel.is_alive():
                await asyncio.sleep(0.01)
            assert gone(child)
            assert re.match(death, kernel.death())

    asyncio.run(asyncio.wait_for(go(), 60))


@both
@pytest.mark.parametrize(
    "busy",
    [
        "import signal, time; signal.signal(2, signal.SIG_IGN); time.sleep(300)",
        "import signal, numpy; signal.pthread_sigmask(0, range(1, 65)); numpy.linalg.svd(numpy.ones((9000, 9000)))",
        "import os; os.kill(os.getpid(), 19)",
    ],
)
def test_a_kernel_that_does_not_listen_is_ended(forked, busy):
    """A kernel in a C call, deaf to signals or stopped, ends within the grace, and so do its children."""

    async def go():
        async with running(forked=forked) as (kernel, client):
            cell = "import os, subprocess as s; print(os.getpid(), s.Popen(['sleep', '300']).pid)"
            pids = map(int, (await printed(client, cell)).split())
            client.execute(busy)
            await asyncio.sleep(0.2)
            before = time.monotonic()
            await kernel.end(grace_seconds=0.4)
            assert time.monotonic() - before < 5
            assert gone(*pids, within_seconds=1)
            assert kernel.death().startswith("did not end when it was asked to")

    asyncio.run(go())


@both
def test_a_kernel_can_be_interrupted(forked):
    """SIGINT ends a cell by KeyboardInterrupt, and the kernel goes on."""

    async def go():
        async with running(forked=forked) as (kernel, client):
            request = client.execute("import time; time.sleep(300)")
            await asyncio.sleep(0.5)
            await kernel.interrupt_kernel()
            reply = await client._async_recv_reply(request, timeout=60)
            return reply["content"]["ename"], await printed(client, "print(1)")

    assert asyncio.run(go()) == ("KeyboardInterrupt", "1\n")


def test_a_kernel_outlives_no_fork_server():
    """Where the fork server is killed its kernel is ended by its runner, and the next kernel runs all the same."""

    async def go():
        async with running() as (kernel, client):
            cell = "import os; print(os.getppid(), os.getpid())"
            server, pid = map(int, (await printed(client, cell)).split())
            os.kill(server, signal.SIGKILL)
            while await kernel.is_alive():
                await asyncio.sleep(0.01)
            return pid

    assert gone(asyncio.run(asyncio.wait_for(go(), 60)))
    assert in_kernel("print(1)") == ["1\n"]


def test_a_forked_kernel_ends_as_an_interpreter_does(tmp_path):
    """Exit handlers run, threads are waited for, files that a cell or its module left open are flushed."""
    (tmp_path / "mine.py").write_text("kept = open('module', 'w')\nkept.write('module')\n")
    in_kernel(
        "import atexit, threading, time, pathlib, sys, mine\n"
        "left = open('left', 'w'); left.write('left')\n"
        "atexit.register(lambda: pathlib.Path('handler').write_text('handler'))\n"
        "threading.Thread(target=lambda: (time.sleep(.2), pathlib.Path('thread').write_text('thread'))).start()",
        cwd=str(tmp_path),
    )
    for name in ("left", "module", "handler", "thread"):
        assert (tmp_path / name).read_text() == name


def test_folders_of_a_killed_process_are_cleared_by_the_next():
    """A folder for sockets goes with its kernel; one whose owner was killed goes with the next that is asked for."""
    code = (
        "import os, time\nfrom prodkit.runs.claims import scratch_folder\n"
        "with scratch_folder() as folder: print(folder, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as owner:
        left = Path(owner.stdout.readline().strip())
        with scratch_folder() as mine:
            assert mine.stat().st_mode & 0o077 == 0
            assert left.is_dir()
        assert not mine.exists()
        owner.kill()
    with scratch_folder():
        assert not left.exists()
