"""How long a notebook waits for its first result: plain kernels, and kernels forked from a process that has imported.

Starts a kernel, runs one cell that imports pandas, scikit-learn and matplotlib, and ends the kernel; plain and warm in
turn. "jupyter" is jupyter_client's own manager and client, "prodkit" ours. Prints medians in seconds and
ratios, and what a zygote holds in memory. On a quiet machine: python tests/benchmarks/kernel_start.py [--rounds 5]
"""

import argparse
import asyncio
import os
import signal
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path

from jupyter_client.manager import AsyncKernelManager
from prodkit.kernels.provisioner import Kernel

CELL = "import os, pandas, sklearn.ensemble, matplotlib.pyplot; kept = os.getppid()"
STEPS = ("start", "ready", "imports", "end", "total")


async def timed(manager) -> list[float]:
    """Seconds of each step of one kernel's life, and their sum."""
    marks = [time.perf_counter()]

    def mark() -> None:
        marks.append(time.perf_counter())

    await manager.start_kernel()
    mark()
    client = manager.client()
    client.start_channels()
    await client.wait_for_ready(timeout=60)
    mark()
    reply = await client.execute(CELL, reply=True, timeout=60)
    assert reply["content"]["status"] == "ok", reply
    mark()
    client.stop_channels()
    await (manager.end() if isinstance(manager, Kernel) else manager.shutdown_kernel())
    mark()
    return [after - before for before, after in pairwise(marks)] + [marks[-1] - marks[0]]


def memory(pid: int) -> str:
    """Resident and proportional size of a process, in MB."""
    lines = dict(line.split(":") for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    return ", ".join(
        f"{name} {int(lines[name].split()[0]) / 1024:.0f} MB" for name in ("Rss", "Pss", "Private_Dirty")
    )


async def main(rounds: int) -> None:
    """Run the kinds in turn, so that all meet the same machine."""
    kinds = {
        "jupyter, plain": lambda: AsyncKernelManager(kernel_name="python3"),
        "prodkit, plain": lambda: Kernel(kernel_name="python3", warm=False),
        "prodkit, warm": lambda: Kernel(kernel_name="python3", warm=True),
    }
    first = await timed(kinds["prodkit, warm"]())
    times: dict[str, list[list[float]]] = {name: [] for name in kinds}
    for _ in range(rounds):
        for name, kind in kinds.items():
            times[name].append(await timed(kind()))
    medians = {
        name: [statistics.median(column) for column in zip(*rows, strict=True)]
        for name, rows in times.items()
    }
    print(f"{'medians of ' + str(rounds):16}", *(f"{step:>8}" for step in STEPS))
    for name, row in medians.items():
        print(f"{name:16}", *(f"{value:8.3f}" for value in row))
    print(f"{'the first, warm':16}", *(f"{value:8.3f}" for value in first), " (the zygote imports)")
    warm = medians["prodkit, warm"]
    print(f"warm: start, ready and end {warm[0] + warm[1] + warm[3]:.3f} s")
    for name in ("jupyter, plain", "prodkit, plain"):
        print(f"warm over {name}: {warm[-1] / medians[name][-1]:.3f}")
    kernel = kinds["prodkit, warm"]()
    await kernel.start_kernel()
    pid = kernel.provisioner.pid
    zygote = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    await asyncio.sleep(0.5)
    print(f"a zygote with one kernel: {memory(zygote)}; the kernel: {memory(pid)}")
    await kernel.end()
    os.kill(zygote, signal.SIGTERM)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_RUNTIME_DIR"] = folder
        asyncio.run(main(parser.parse_args().rounds))
