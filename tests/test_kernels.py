"""Warm kernels: like fresh ones, apart from one another, and gone with whoever asked for them."""

import asyncio
import contextlib
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import zmq
from jupyter_client.manager import KernelManager
from jupyter_client.provisioning.factory import KernelProvisionerFactory
from traitlets.config import Config

from prodkit.errors import KernelError, ParameterError
from prodkit.kernels.door import ZygoteError, door
from prodkit.kernels.habitat import coldness, habitat, keyed_variables, warm_seconds
from prodkit.kernels.imports import lean_imports
from prodkit.kernels.leash import Leash
from prodkit.kernels.prompt import PromptKernel
from prodkit.kernels.provisioner import Kernel

with lean_imports():
    import nbformat

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kernels are forked on Linux only")


def zygotes(folder: Path | str) -> list[int]:
    """The processes whose socket lies, or lay, in this folder."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            session = int((entry / "stat").read_text().rpartition(")")[2].split()[3])
            # a kernel has its zygote's command line, but leads a session of its own
            if f"{folder}/prodkit/" in (entry / "cmdline").read_text() and session != int(entry.name):
                found.append(int(entry.name))
    return found


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


@pytest.fixture(scope="module", autouse=True)
def runtime():
    """A folder for sockets of this module's own; its zygotes end with it."""
    with tempfile.TemporaryDirectory(prefix="prodkit-test-") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", folder)
        patch.setenv("PRODKIT_WARM", "120")
        yield Path(folder)
        for pid in zygotes(folder):
            os.kill(pid, signal.SIGTERM)
            assert gone(pid)


@contextlib.asynccontextmanager
async def running(*, warm: bool = True, forked: bool | None = None, config: Config | None = None, **settings):
    """A kernel and its client; at the end it is ended. It must be forked if it may, unless said otherwise."""
    kernel = Kernel(kernel_name="python3", warm=warm, config=config)
    await kernel.start_kernel(**settings)
    client = kernel.client()
    client.start_channels()
    try:
        assert isinstance(kernel.provisioner.process, Leash) == (warm if forked is None else forked)
        await client.wait_for_ready()
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


def test_output_waits_for_a_reader_who_is_slow():
    """A kernel throws nothing away of what comes faster than it is read, however much that is."""

    async def go():
        async with running() as (kernel, client):
            with zmq.Context() as context, context.socket(zmq.SUB) as reader:
                reader.setsockopt(zmq.RCVHWM, 1)
                reader.setsockopt(zmq.SUBSCRIBE, b"")
                reader.connect(kernel._make_url("iopub"))
                while not reader.poll(100):  # until it is connected
                    await printed(client, "print()")
                await printed(client, "for number in range(10_000): print(f'<{number}>', flush=True)")
                found = set()
                while reader.poll(3000):
                    found |= set(re.findall(rb"<\d+>", b"".join(reader.recv_multipart())))
                return len(found)

    assert asyncio.run(go()) == 10_000


def in_kernel(*cells: str, **settings) -> list[str]:
    """What cells print, in a kernel of their own."""

    async def go():
        async with running(**settings) as (_, client):
            return [await printed(client, cell) for cell in cells]

    return asyncio.run(go())


def parent(**settings) -> int:
    """The process that a kernel was started by."""
    return int(in_kernel("import os; print(os.getppid())", **settings)[0])


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
    "path": sys.path, "flags": repr(sys.flags), "warnoptions": sys.warnoptions, "xoptions": sys._xoptions,
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
    "hooks": [repr(type(f)) for f in sys.meta_path] + [f.__module__ for f in (sys.excepthook, sys.displayhook)
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
    """Whatever a notebook can see of its process is the same in a warm kernel and in a plain one."""
    (fresh,) = in_kernel(PROBE, warm=False, cwd=str(tmp_path))
    (forked,) = in_kernel(PROBE, cwd=str(tmp_path))
    fresh, forked = json.loads(fresh), json.loads(forked)
    assert {name: forked[name] for name in fresh if forked[name] != fresh[name]} == {
        name: fresh[name] for name in fresh if forked[name] != fresh[name]
    }


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


def test_a_request_brings_environment_folder_and_streams(tmp_path):
    """A warm kernel has the caller's environment and folder, and writes where the caller wants."""
    with (tmp_path / "stdout").open("w") as out:
        env = {**os.environ, "ASKED": "1"}
        said = in_kernel(
            "import os; print(os.environ['ASKED'], os.getcwd())",
            "import sys; print('plainly', file=sys.__stdout__, flush=True)",
            env=env,
            cwd=str(tmp_path),
            stdout=out,
        )
    assert said[0] == f"1 {tmp_path}\n"
    assert (tmp_path / "stdout").read_text() == "plainly\n"


def test_what_the_imports_read_of_the_environment_is_part_of_the_habitat():
    """Every variable that the preloaded modules look up has its own zygote, or says nothing to a kernel."""
    code = """
import os, sys
class Watched(dict):
    read = set()
    def __getitem__(self, name):
        if "_items" not in sys._getframe(2).f_code.co_name and sys._getframe(3).f_code.co_name != "__iter__":
            self.read.add(name.decode())
        return dict.__getitem__(self, name)
os.environ._data = Watched(os.environ._data)
from prodkit.kernels.preloads import preload
preload()
print(*Watched.read)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PATH": "/bin"}, capture_output=True, text=True, check=True
    )
    # the terminal's title, the user's name in a prompt, the parent to watch: each kernel reads or is told them anew
    harmless = {
        "TERM",
        "USER",
        "PATH",
        "JPY_PARENT_PID",
        "JPY_INTERRUPT_EVENT",
        "IN_SPHINX_RUN",
        "ANDROID_DATA",
    }
    assert set(done.stdout.split()) > {"MPLBACKEND", "HOME"}
    assert {name for name in done.stdout.split() if not keyed_variables({name: ""})} <= harmless


@pytest.mark.parametrize(
    "change",
    [
        "os.environ['OMP_NUM_THREADS'] = '7'",
        "os.environ['PANDAS_COPY_ON_WRITE'] = 'warn'",
        "os.environ['PYTHONHASHSEED'] = '5'",
        "os.nice(1)",
        "resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))",
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})",
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)",
        "sys.executable += '3'",
    ],
)
def test_another_habitat_is_another_zygote(change):
    """What a kernel inherits from its parent, and no request can bring, is part of the habitat."""
    code = (
        "import os, resource, signal, sys; from prodkit.kernels.habitat import habitat; env = dict(os.environ)\n"
        f"print(habitat(os.environ), habitat(os.environ)); {change}; print(habitat(os.environ))"
    )
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    first, again, changed = done.stdout.split()
    assert first == again != changed


def test_what_a_run_is_called_is_not_part_of_the_habitat():
    """Variables of one run, its secrets among them, neither start a zygote nor reach one."""
    assert habitat({"PRODKIT_RUN": "a", "SECRET": "x"}) == habitat({"PRODKIT_RUN": "b"})
    pid = parent(env={**os.environ, "SECRET_CANARY": "tweet"})
    assert b"tweet" not in Path(f"/proc/{pid}/environ").read_bytes()


CLIENT = """
import asyncio, json, sys
from prodkit.kernels.provisioner import Kernel
async def main():
    kernel = Kernel(kernel_name="python3", warm=True)
    await kernel.start_kernel()
    client = kernel.client(); client.start_channels(); await client.wait_for_ready()
    def hear(message):
        if message["msg_type"] == "stream": print(message["content"]["text"], end="", flush=True)
    cell = "import os, subprocess as s; print(os.getppid(), os.getpid(), s.Popen(['sleep', '300']).pid)"
    await client.execute_interactive(cell, output_hook=hear)
    if "hold" in sys.argv: await asyncio.sleep(300)
    client.stop_channels(); await kernel.end()
asyncio.run(main())
"""


@pytest.fixture
def clients():
    """Start a process that holds a warm kernel with a child; gives the pids of zygote, kernel and child."""
    started = []

    def start(*words, **env):
        process = subprocess.Popen(
            [sys.executable, "-c", CLIENT, *words],
            env={**os.environ, **env},
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_killed_client_takes_its_kernel_along(clients):
    """SIGKILL of whoever asked for a kernel ends the kernel and what it has started; the zygote stays."""
    client = clients("hold")
    zygote, kernel, child = map(int, client.stdout.readline().split())
    assert alive(kernel)
    assert alive(child)
    client.kill()
    assert gone(kernel, child)
    assert parent() == zygote


def test_a_killed_zygote_takes_its_kernels_along():
    """SIGKILL of the zygote ends its kernels and their children, is seen at once, and there is another for the next."""

    async def go():
        async with running() as (kernel, client):
            cell = (
                "import os, subprocess as s; print(os.getppid(), os.getpid(), s.Popen(['sleep', '300']).pid)"
            )
            pids = list(map(int, (await printed(client, cell)).split()))
            os.kill(pids[0], signal.SIGKILL)
            assert gone(pids[1])
            while await kernel.is_alive():
                await asyncio.sleep(0.01)
            assert gone(pids[2])
            assert "SIGKILL" in kernel.death()
            return pids[0]

    old = asyncio.run(go())
    assert parent() not in (old, os.getpid())


def test_a_stopped_zygote_hides_no_death():
    """A kernel's end is seen, and its children are killed, even if the zygote does not stir."""

    async def go():
        async with running() as (kernel, client):
            cell = (
                "import os, subprocess as s; print(os.getppid(), os.getpid(), s.Popen(['sleep', '300']).pid)"
            )
            zygote, pid, child = map(int, (await printed(client, cell)).split())
            os.kill(zygote, signal.SIGSTOP)
            try:
                os.kill(pid, signal.SIGKILL)
                while await kernel.is_alive():
                    await asyncio.sleep(0.01)
                assert gone(child)
            finally:
                os.kill(zygote, signal.SIGCONT)
        return zygote

    assert parent() == asyncio.run(asyncio.wait_for(go(), 30))


@pytest.mark.parametrize("warm", [True, False])
@pytest.mark.parametrize(
    ("end", "death"),
    [
        ("os.kill(os.getpid(), 9)", r"was killed by signal 9 \(SIGKILL\)"),
        ("os._exit(0)", "ended by itself with status 0"),
        ("os._exit(7)", "ended by itself with status 7"),
    ],
)
def test_a_dead_kernel_is_seen_at_once_and_leaves_nothing(warm, end, death):
    """However a kernel ends, it is told how, and its children are killed."""

    async def go():
        async with running(warm=warm) as (kernel, client):
            child = int(
                await printed(client, "import os, subprocess as s; print(s.Popen(['sleep', '300']).pid)")
            )
            assert kernel.death() == ""
            client.execute(end)
            while await kernel.is_alive():
                await asyncio.sleep(0.01)
            assert gone(child)
            assert re.match(death, kernel.death())

    asyncio.run(asyncio.wait_for(go(), 60))


@pytest.mark.parametrize("warm", [True, False])
@pytest.mark.parametrize(
    "busy",
    [
        "import signal, time; signal.signal(2, signal.SIG_IGN); time.sleep(300)",
        "import signal, numpy; signal.pthread_sigmask(0, range(1, 65)); numpy.linalg.svd(numpy.ones((9000, 9000)))",
        "import os; os.kill(os.getpid(), 19)",
    ],
)
def test_a_kernel_that_does_not_listen_is_ended(warm, busy):
    """A kernel in a C call, deaf to signals or stopped, ends within the grace, and so do its children."""

    async def go():
        async with running(warm=warm) as (kernel, client):
            cell = "import os, subprocess as s; print(os.getpid(), s.Popen(['sleep', '300']).pid)"
            pids = map(int, (await printed(client, cell)).split())
            client.execute(busy)
            await asyncio.sleep(0.2)
            before = time.monotonic()
            await kernel.end(grace_seconds=0.4)
            assert time.monotonic() - before < 5
            assert gone(*pids, within_seconds=0)
            assert kernel.death().startswith("did not end when it was asked to")

    asyncio.run(go())


def test_a_kernel_that_cannot_start_is_seen_at_once():
    """A kernel that dies while it starts is an error that says how it died, long before any timeout."""

    async def go():
        async with running(extra_arguments=["--IPKernelApp.transport=pigeon"]):
            pass

    with pytest.raises(KernelError, match="the kernel ended by itself with status 1"):
        asyncio.run(asyncio.wait_for(go(), 30))


def test_a_kernel_that_does_not_answer_is_given_up():
    """The start is bounded; the error is a RuntimeError, as jupyter_client's callers expect."""

    async def go():
        async with running() as (kernel, client):
            await kernel.signal_kernel(signal.SIGSTOP)
            await client.wait_for_ready(timeout=0.1)

    with pytest.raises(RuntimeError, match="did not answer in time"):
        asyncio.run(go())


def test_a_ready_kernel_is_quiet():
    """After the wait for readiness no message of it is left over on any channel."""

    async def go():
        async with running() as (_, client):
            await asyncio.sleep(0.3)
            return [await channel.msg_ready() for channel in (client.iopub_channel, client.shell_channel)]

    assert asyncio.run(go()) == [False, False]


def test_no_output_is_lost_while_nobody_listens():
    """What a cell puts out faster than it is taken in waits, however much it is."""

    async def go():
        async with running() as (_, client):
            client.execute("for number in range(5000): print(number, flush=True)")
            await client.get_shell_msg(timeout=300)
            heard = {"content": {}}
            texts = []
            while heard["content"].get("execution_state") != "idle":
                heard = await client.get_iopub_msg(timeout=300)
                texts.append(heard["content"].get("text", ""))
            return "".join(texts).split()

    assert asyncio.run(go()) == [str(number) for number in range(5000)]


def test_a_kernel_ends_as_an_interpreter_does(tmp_path):
    """Exit handlers run, threads are waited for, files that a cell or its module left open are flushed."""
    (tmp_path / "mine.py").write_text("kept = open('module', 'w')\nkept.write('module')\n")
    in_kernel(
        "import atexit, threading, time, pathlib, sys, mine\nsys.path[:0] = ['']\n"
        "left = open('left', 'w'); left.write('left')\n"
        "atexit.register(lambda: pathlib.Path('handler').write_text('handler'))\n"
        "threading.Thread(target=lambda: (time.sleep(.2), pathlib.Path('thread').write_text('thread'))).start()",
        cwd=str(tmp_path),
    )
    for name in ("left", "module", "handler", "thread"):
        assert (tmp_path / name).read_text() == name


def test_an_edited_source_is_never_served_stale(tmp_path):
    """After an edit of an imported module, the next kernel comes from a new zygote, and runs the new code."""
    shutil.copytree(ROOT / "prodkit", tmp_path / "prodkit", ignore=shutil.ignore_patterns("__pycache__"))
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    cell = "import os, prodkit.evidence; print(os.getppid(), getattr(prodkit.evidence, 'EDITED', 0))"
    first, second = (in_kernel(cell, env=env)[0].split() for _ in range(2))
    assert first == second
    with (tmp_path / "prodkit" / "evidence.py").open("a") as source:
        source.write("\nEDITED = 1\n")
    edited = in_kernel(cell, env=env)[0].split()
    assert edited[1] == "1"
    assert edited[0] != first[0]
    assert int(edited[0]) != os.getpid()
    assert gone(int(first[0]))


def test_configuration_that_is_read_at_import_is_watched_like_a_source(tmp_path):
    """An edit of a module, or of the configuration of matplotlib or fsspec, is seen in what is watched."""
    code = f"""
import os, pathlib, sys
import matplotlib, fsspec, prodkit.evidence
from prodkit.kernels.preloads import watched
before = watched()
rc, conf = pathlib.Path({str(tmp_path)!r}, "matplotlibrc"), pathlib.Path({str(tmp_path)!r}, "fsspec.json")
for file, text in ((rc, "figure.dpi: 7"), (conf, "{{}}")):
    file.write_text(text)
after = watched()
print(before[str(rc)] != after[str(rc)], before[{str(tmp_path)!r}] != after[{str(tmp_path)!r}])
conf.write_text("{{ }}")
print(after[str(conf)] != watched()[str(conf)], prodkit.evidence.__file__ in after)
"""
    env = {**os.environ, "MPLCONFIGDIR": str(tmp_path), "FSSPEC_CONFIG_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout == "True True\nTrue True\n", done.stderr


def test_a_zygote_ends_when_nobody_needs_it(runtime):
    """After its idle time a zygote is gone, and so is its socket; not while it has a kernel."""

    async def go():
        async with running(env={**os.environ, "PRODKIT_WARM": "0.4"}) as (_, client):
            zygote = int(await printed(client, "import os; print(os.getppid())"))
            await asyncio.sleep(1)
            assert alive(zygote)
            return zygote

    sockets = set((runtime / "prodkit").glob("*"))
    assert gone(asyncio.run(go()))
    assert set((runtime / "prodkit").glob("*")) <= sockets


def test_a_zygote_whose_socket_is_gone_ends(runtime):
    """A zygote that nobody can find any more does not wait for its idle time."""
    env = {**os.environ, "PRODKIT_WARM": "8"}
    zygote = parent(env=env)
    (runtime / "prodkit" / f"{habitat(env)}.sock").unlink()
    assert gone(zygote, within_seconds=6)


def test_clients_that_start_at_once_share_one_zygote(clients):
    """However many ask at the same time, one zygote is started, and it serves them all."""
    asked = [clients(PRODKIT_WARM="121") for _ in range(3)]
    assert len({client.stdout.readline().split()[0] for client in asked}) == 1
    assert [client.wait() for client in asked] == [0, 0, 0]


def test_warm_kernels_can_be_turned_off():
    """With PRODKIT_WARM=0 a kernel is the child of who asked for it."""
    assert parent(forked=False, env={**os.environ, "PRODKIT_WARM": "0"}) == os.getpid()


def test_a_wrong_idle_time_is_refused():
    """What is no number of seconds is an error that names the variable."""
    for wrong in ("soon", "-1", "nan", "inf", ""):
        with pytest.raises(ParameterError, match="PRODKIT_WARM must be a number of seconds"):
            warm_seconds({"PRODKIT_WARM": wrong})


@pytest.mark.parametrize(
    ("module", "text", "reason"),
    [
        ("prodkit", "raise ImportError('this one is broken')", "this one is broken"),
        ("joblib", "import os; os._exit(3)", "has hung up"),
        (
            "joblib",
            "import threading, time; threading.Thread(target=time.sleep, args=[9], daemon=True).start()",
            "has started threads",
        ),
        (
            "joblib",
            "import time, sys; 'ipykernel' in sys.modules and time.sleep(60)",
            "did not answer within 2 s",
        ),
    ],
)
def test_without_a_zygote_a_plain_kernel_runs(tmp_path, caplog, module, text, reason):
    """A zygote that crashes, hangs or cannot fork safely costs a warning, and the run gets a plain kernel."""
    (tmp_path / f"{module}.py").write_text(text)
    config = Config({"WarmProvisioner": {"patience_seconds": 2 if "within" in reason else 30}})
    with caplog.at_level(logging.WARNING, "prodkit"):
        assert (
            parent(forked=False, env={**os.environ, "PYTHONPATH": str(tmp_path)}, config=config)
            == os.getpid()
        )
    assert reason in caplog.text


def test_a_folder_that_others_can_enter_is_refused(tmp_path, monkeypatch, caplog):
    """Nobody else may stand in for a zygote: sockets lie in a folder that only the user can enter."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "prodkit").mkdir(mode=0o755)
    with pytest.raises(ZygoteError, match="must be a folder that only this user can enter"), door(os.environ):
        pass
    assert parent(forked=False) == os.getpid()


def test_the_runtime_folder_of_another_user_is_left_alone(monkeypatch):
    """Where the environment still names the folder of whoever called sudo, nothing is put there."""
    monkeypatch.setattr("os.getuid", lambda: 54321)
    with pytest.raises(ZygoteError, match=r"prodkit-54321 must be a folder"), door({}):
        pass
    Path(tempfile.gettempdir(), "prodkit-54321").rmdir()


def test_odd_commands_and_folders_get_a_plain_kernel(tmp_path):
    """Where a fork might differ from a fresh start, it is said why, and there is no fork."""
    plain = [sys.executable, "-m", "ipykernel_launcher", "-f", "x"]
    env = {"PYTHONPATH": str(tmp_path)}
    assert coldness(plain, env, str(tmp_path)) == ""
    assert coldness([plain[0], "-Xfrozen_modules=off", *plain[1:]], env, str(tmp_path)) == ""
    assert "not the interpreter" in coldness(["/usr/bin/false", *plain[1:]], env, str(tmp_path))
    assert "not `python -m ipykernel_launcher`" in coldness([plain[0], "-O", *plain[1:]], env, str(tmp_path))
    assert "working directory" in coldness(plain, {"PYTHONPATH": f"{tmp_path}:"}, str(tmp_path))
    assert "COVERAGE_PROCESS" in coldness(plain, {"COVERAGE_PROCESS_START": "x"}, str(tmp_path))
    (tmp_path / "matplotlibrc").write_text("figure.dpi: 7\n")
    assert "matplotlibrc" in coldness(plain, env, str(tmp_path))


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


def test_warm_kernels_compute_with_all_libraries_at_once():
    """OpenMP, BLAS, pyarrow, joblib and matplotlib work in several forked kernels at the same time."""

    async def one():
        async with running(env={**os.environ, "OMP_NUM_THREADS": "2"}) as (_, client):
            return await printed(client, WORK)

    async def go():
        return await asyncio.gather(*(one() for _ in range(2)))

    assert asyncio.run(go()) == ["True True True True True True\n"] * 2


def test_figures_and_tables_are_shown_as_ever():
    """The inline backend shows a figure at the end of a cell, and a table comes as HTML with the notebook's width."""

    async def shown(warm, code):
        kinds = []
        async with running(warm=warm) as (_, client):
            await client.execute_interactive(
                code, timeout=300, output_hook=lambda m: kinds.append(sorted(m["content"].get("data", {})))
            )
        return [kind for kind in kinds if kind]

    code = "import matplotlib.pyplot as plt, pandas as pd; plt.plot([1, 2]); pd.DataFrame({'a': [1]})"
    plain, forked = (asyncio.run(shown(warm, code)) for warm in (False, True))
    assert plain == forked
    assert ["image/png", "text/plain"] in forked


@pytest.fixture
def warm_by_default(monkeypatch):
    """As with JUPYTER_DEFAULT_PROVISIONER_NAME=prodkit-warm in the environment of a new process."""
    monkeypatch.setenv("JUPYTER_DEFAULT_PROVISIONER_NAME", "prodkit-warm")
    KernelProvisionerFactory.clear_instance()
    yield
    KernelProvisionerFactory.clear_instance()


def test_an_ordinary_manager_restarts_and_interrupts_warm_kernels(warm_by_default):
    """Jupyter's own manager starts, interrupts, restarts and shuts down a warm kernel as any other."""
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel()
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=300)
        texts = []
        hear = lambda message: texts.append(message["content"].get("text") or message["content"].get("ename"))  # noqa: E731
        cell = "import os; print(os.getpid(), os.getppid()); kept = globals().get('kept', 0) + 1; print(kept)"
        client.execute_interactive(cell, output_hook=hear, timeout=300)
        pid, zygote = map(int, next(text for text in texts if text).splitlines()[0].split())
        assert zygote != os.getpid()
        assert manager.provisioner.process.pid == pid
        request = client.execute("import time; time.sleep(300)")
        time.sleep(0.3)
        manager.interrupt_kernel()
        reply = client._recv_reply(request, timeout=300)
        assert reply["content"]["ename"] == "KeyboardInterrupt"
        manager.restart_kernel(now=True)
        client.wait_for_ready(timeout=300)
        texts.clear()
        client.execute_interactive(cell, output_hook=hear, timeout=300)
        first, second = "".join(text for text in texts if text).splitlines()
        assert second == "1"
        assert int(first.split()[0]) != pid
        assert gone(pid, within_seconds=0)
        manager.restart_kernel()
        client.wait_for_ready(timeout=300)
        assert manager.is_alive()
    finally:
        client.stop_channels()
        manager.shutdown_kernel()
    assert not manager.is_alive()
    manager.context.term()


@pytest.fixture
def is_warm(tmp_path):
    """A notebook whose recorded output is that its kernel is warm."""
    cell = nbformat.v4.new_code_cell(
        "import os; print('zygote' in open(f'/proc/{os.getppid()}/cmdline').read())"
    )
    cell.execution_count = 1
    cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text="True\n")]
    spec = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata=spec), tmp_path / "is_warm.ipynb")
    return tmp_path / "is_warm.ipynb"


def nbval(folder: Path, *plugins: str) -> subprocess.CompletedProcess:
    """A folder's notebooks, compared by plain nbval."""
    quiet = [
        "-q",
        "-c",
        os.devnull,
        *(f"-pno:{name}" for name in ("xdist", "cacheprovider", "hypothesispytest")),
    ]
    command = [sys.executable, "-m", "pytest", *plugins, *quiet, "--nbval", "."]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_nbval_runs_warm(is_warm, monkeypatch):
    """With one variable in the environment, plain nbval runs its kernels warm."""
    monkeypatch.setenv("JUPYTER_DEFAULT_PROVISIONER_NAME", "prodkit-warm")
    done = nbval(is_warm.parent)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_plugin_waits_for_no_zygote(is_warm, monkeypatch):
    """With the plugin, nbval's first kernel is plain if no zygote is there yet; the next ones are warm."""
    monkeypatch.delenv("JUPYTER_DEFAULT_PROVISIONER_NAME", raising=False)
    monkeypatch.setenv("PRODKIT_WARM", "122")  # a habitat of its own
    first = is_warm.with_name("a_first.ipynb")
    first.write_text(is_warm.read_text().replace("True", "False"))
    done = nbval(is_warm.parent, "-p", "prodkit.kernels.warm")
    assert done.returncode == 0, done.stdout + done.stderr


def test_whoever_waits_hears_at_once_that_a_kernel_has_died():
    """A blocking client does not wait for a kernel that died at its start."""
    kernel = PromptKernel()
    kernel.kernel_spec.argv[:] = [sys.executable, "-c", "raise SystemExit(3)"]
    kernel.start_kernel()
    client = kernel.client()
    client.start_channels()
    try:
        with pytest.raises(KernelError, match="the kernel died"):
            client.wait_for_ready(timeout=300)
    finally:
        client.stop_channels()
        kernel.shutdown_kernel(now=True)


def test_papermill_runs_warm(is_warm, warm_by_default, tmp_path):
    """With the same variable, plain papermill runs its kernels warm."""
    with lean_imports():
        import papermill
    papermill.execute_notebook(is_warm, tmp_path / "out.ipynb", progress_bar=False)
    assert nbformat.read(tmp_path / "out.ipynb", as_version=4).cells[0].outputs[0].text == "True\n"


def test_a_forked_process_of_the_client_holds_no_leash():
    """A child that the client forks, and that outlives it, does not keep the kernel alive."""
    code = """
import asyncio, os, time
from prodkit.kernels.provisioner import Kernel
async def main():
    kernel = Kernel(kernel_name="python3"); await kernel.start_kernel()
    if os.fork() == 0:
        os.close(1); time.sleep(20); os._exit(0)
    print(kernel.provisioner.process.pid, flush=True)
    os.kill(os.getpid(), 9)
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], stdout=subprocess.PIPE, text=True)
    assert gone(int(done.stdout), within_seconds=5)


def test_a_kernel_leaves_no_folder():
    """The folder of a kernel's sockets goes with it."""

    async def go():
        async with running() as (kernel, _):
            folder = Path(kernel.connection_file).parent
            assert folder.stat().st_mode & 0o077 == 0
        return folder

    assert not asyncio.run(go()).exists()


def test_long_temporary_folders_make_no_difference(tmp_path, monkeypatch):
    """Names of sockets are limited to 107 bytes; folders are not."""
    deep = tmp_path / ("deep" * 40)
    deep.mkdir(mode=0o700)
    monkeypatch.setenv("TMPDIR", str(deep))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    monkeypatch.setattr(tempfile, "tempdir", None)
    zygote = parent()
    assert zygote != os.getpid()
    os.kill(zygote, signal.SIGTERM)
    assert gone(zygote)


def test_notebooks_are_read_without_grammars():
    """The format library loads without building grammars, still checks notebooks, and nothing stays blocked."""
    code = """
import sys
from threading import Thread
from prodkit.kernels.imports import lean_imports
def elsewhere():
    import webcolors
with lean_imports():
    import nbformat
    import papermill
    assert not {"rfc3987_syntax", "lark", "webcolors", "pyarrow", "urllib3"} & set(sys.modules)
    thread = Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert "webcolors" in sys.modules
try: nbformat.validate({"cells": [], "metadata": 1, "nbformat": 4, "nbformat_minor": 5})
except nbformat.ValidationError: print("checked")
import rfc3987_syntax
with lean_imports():
    import rfc3987_syntax
assert papermill.iorw.requests.get.__module__ == "requests.api"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "checked\n", done.stderr
