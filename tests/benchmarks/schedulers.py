"""The schedulers of `prodkit help scheduling`, for real: ``python tests/benchmarks/schedulers.py SCHEDULER PYTHON``.

PYTHON is that of an environment with ``pip install -e ".[demo]"`` and, for airflow, ``apache-airflow`` and
``apache-airflow-providers-papermill``; for jupyter, ``jupyterlab`` and ``jupyter-scheduler``. Airflow is given the very
lines of the help, in a database of its own; jupyter-scheduler a job through the REST API of a real server. Both
run `drift` over May; what they leave behind is read.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import nbformat

ROOT = Path(__file__).parent.parent.parent
WINDOW = "2013-05-01/2013-06-01"
TRY = """
if __name__ == "__main__":
    print("dag run:", dag.test(logical_date=pendulum.datetime(2013, 6, 1)).state)
"""


def airflow(python: str, scratch: Path) -> Path:
    """Run the dag of the help as of 1 June; gives the notebook that it wrote."""
    (lines,) = re.findall(
        r"(?m)^    import pendulum\n(?:(?:    .*)?\n)+?(?=\S)",
        (ROOT / "prodkit" / "help" / "scheduling.md").read_text(),
    )
    file = scratch / "dags" / "model.py"
    file.parent.mkdir()
    file.write_text(textwrap.dedent(lines) + TRY)
    environment = {**os.environ, "AIRFLOW_HOME": str(scratch), "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
                   "PATH": f"{Path(python).parent}:{os.environ['PATH']}"}  # fmt: skip
    for command in ([python, "-m", "airflow", "db", "migrate"], [python, str(file)]):
        done = subprocess.run(
            command, env=environment, cwd=scratch, capture_output=True, text=True, timeout=300
        )
        if done.returncode:
            raise SystemExit((done.stdout + done.stderr)[-2000:])
    print(done.stdout.splitlines()[-1])
    return scratch / "outputs" / "drift-2013-06-01.ipynb"


@contextmanager
def server(python: str, scratch: Path):
    """A Jupyter server over the project; gives what asks it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    places = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    settings = {"ip": "127.0.0.1", "port": address.rpartition(":")[2], "root_dir": scratch}
    command = [
        python,
        "-m",
        "jupyter_server",
        "--allow-root",
        "--no-browser",
        "--IdentityProvider.token=token",
    ]
    command += [f"--ServerApp.{name}={value}" for name, value in settings.items()]
    environment = {**os.environ, **{name: str(scratch / name.lower()) for name in places}}

    def ask(path: str, body: dict | None = None) -> dict | list:
        data = None if body is None else json.dumps(body).encode()
        asked = urllib.request.Request(f"{address}/{path}", data, {"Authorization": "token token"})
        return json.load(urllib.request.urlopen(asked, timeout=30))

    with (scratch / "server.log").open("w") as log:
        started = subprocess.Popen(command, env=environment, cwd=scratch, stdout=log, stderr=log)
    try:
        for _ in range(300):
            try:
                ask("api")
                break
            except OSError:
                time.sleep(0.2)
        yield ask
    finally:
        started.terminate()
        started.wait(timeout=30)


def jupyter(python: str, scratch: Path) -> Path:
    """Post a job, as the form in JupyterLab does, and wait for its end; gives the notebook that it wrote."""
    job = {"name": "drift", "input_uri": "notebooks/drift.ipynb", "output_formats": ["ipynb", "html"]}
    with server(python, scratch) as ask:
        job["runtime_environment_name"] = ask("scheduler/runtime_environments")[0]["name"]
        number = ask("scheduler/jobs", {**job, "parameters": {"window": f"'{WINDOW}'"}})["job_id"]
        until = time.monotonic() + 300
        while (now := ask(f"scheduler/jobs/{number}"))["status"] not in ("COMPLETED", "FAILED"):
            if time.monotonic() > until:
                raise TimeoutError(f"the job is {now['status']} after 300 seconds")
            time.sleep(1)
    print("job:", now["status"], now["status_message"] or "")
    (found,) = scratch.glob(f"jupyter_data_dir/scheduler_staging_area/{number}/drift-*.ipynb")
    return found


def main(scheduler: str, python: str) -> int:
    """Run the trial; gives whether anything is not as it should be."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        for part in ("notebooks", "params"):
            shutil.copytree(ROOT / part, scratch / part)
        (scratch / "outputs").mkdir()
        written = {"airflow": airflow, "jupyter": jupyter}[scheduler](python, scratch)
        cells = nbformat.read(written, as_version=4).cells
    asked = [cell.source for cell in cells if "injected-parameters" in cell.metadata.get("tags", [])]
    failed = [o.evalue for cell in cells for o in cell.get("outputs", []) if o.output_type == "error"]
    ran = [cell for cell in cells if cell.cell_type == "code" and cell.execution_count]
    print(
        f"{len(ran)} cells ran, {len(failed)} failed; parameters: {' '.join(asked).split('# Parameters')[-1].strip()}"
    )
    return int(bool(failed) or not any(WINDOW in each for each in asked))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
