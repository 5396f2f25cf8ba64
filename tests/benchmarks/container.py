"""Does it work where little is allowed? ``python tests/benchmarks/container.py [UID]``, as root on Linux.

As in a container, the command runs under another user id that has no name (or as root without any privilege, where the
interpreter is not for others), without HOME and with a TMPDIR of its own.
Tried are the help of every command; a notebook on a demonstration store; outputs that cannot be written to; and a disk
that is full, a small file system in memory. What is refused must be one sentence with the place, the exit status 1 or 2
and no traceback, and may leave nothing half-there. Ends with 1 where something else happens.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import click

from prodkit.cli import prodkit

PROJECT = Path(__file__).parent.parent.parent
BEGIN = "from prodkit.cli import main; import sys; sys.argv[0] = 'prodkit'; main()"
PRIVILEGES = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs")
SMALL = ("-p", "window", "2013-04-01/2013-04-03")


def main() -> int:
    """Print a line for each trial."""
    user = int(sys.argv[1]) if len(sys.argv) > 1 else 54_321
    try:
        code = "import subprocess, sys; subprocess.run([sys.executable, '-c', ''], check=True)"
        as_user = [*PRIVILEGES, f"--reuid={user}", f"--regid={user}", "--clear-groups"]
        subprocess.run([*as_user, sys.executable, "-c", code], check=True, stderr=subprocess.DEVNULL)
    except subprocess.CalledProcessError:
        print(f"{sys.executable} is not for others: tried as root without any privilege, not as user {user}")
        user = 0
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        home.chmod(0o755)
        for folder in ("tmp", "out", "sealed", "full"):
            (home / folder).mkdir()
            os.chown(home / folder, user, user)
        failed = helps(user, home)
        ran = call(user, home, "run", "drift", *SMALL, "-p", "store", "demo", "--out", home / "out")
        failed += told("a notebook runs", ran, 0)
        (home / "sealed").chmod(0o555)
        for command in (("run", "drift", *SMALL), ("lifecycle",), ("report",), ("models", "list")):
            done = call(user, home, *command, "--out", home / "sealed" / "outputs")
            failed += told(f"{command[0]} where nothing can be written", done, 1, 2)
        done = call(user, home, "report", "--out", home / "sealed")
        failed += told("report where nothing can be written", done, 1, 2)
        failed += full_disk(user, home)
    return 1 if failed else 0


def call(user: int, home: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """The command under another user id, with an environment of its own."""
    environment = {"PATH": os.environ["PATH"], "TMPDIR": str(home / "tmp"), "OMP_NUM_THREADS": "1"}
    environment |= {name: os.environ[name] for name in ("JUPYTER_PATH", "PYTHONPATH") if name in os.environ}
    words = [*PRIVILEGES, f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    words += [sys.executable, "-c", BEGIN, *map(str, arguments)]
    return subprocess.run(
        words, env=environment, cwd=PROJECT,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600,
    )  # fmt: skip


def helps(user: int, home: Path) -> int:
    """The help of every command."""
    failed = 0
    for words in commands(prodkit):
        done = call(user, home, *words, "--help")
        if done.returncode or "Usage:" not in done.stdout or done.stderr:
            failed += told(f"{' '.join(words)} --help", done, 0)
    print(f"{len(commands(prodkit))} helps, {failed} failed", flush=True)
    return failed


def commands(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """All commands and groups, as words."""
    found = [path]
    for name, command in group.commands.items():
        inner = (*path, name)
        found += commands(command, inner) if isinstance(command, click.Group) else [inner]
    return found


def full_disk(user: int, home: Path) -> int:
    """A run and a backup on a file system of a megabyte, which is full, and what they leave there."""
    place = home / "full"
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size=1m,uid={user}", "tmpfs", place]).returncode:
        print("a full disk: not tried, since no file system can be mounted here")
        return 0
    try:
        done = call(user, home, "run", "drift", *SMALL, "-p", "store", "demo", "--out", place / "outputs")
        failed = told("a notebook on a full disk", done, 1)
        shutil.rmtree(place / "outputs", ignore_errors=True)
        with suppress(OSError), (place / "filler").open("wb", buffering=0) as filler:
            while filler.write(b"\0" * 4096):
                pass
        done = call(user, home, "backup", place / "copy", "--out", home / "out")
        failed += told("backup to a full disk", done, 1)
        if (place / "copy" / "store.db").exists():
            print("backup to a full disk: it looks whole")
            failed += 1
        return failed
    finally:
        subprocess.run(["umount", place], check=True)


def told(what: str, done: subprocess.CompletedProcess[str], *wanted: int) -> int:
    """Print how a trial went; 1 if it went wrong."""
    lines = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()
    wrong = done.returncode not in wanted or "Traceback" in done.stderr
    print(f"{'WRONG' if wrong else 'good'}: {what}: {done.returncode}, {lines[-1][:200]}", flush=True)
    if wrong:
        print("\n".join(lines[-25:]))
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
