"""What all tests share: one thread for small models, and outputs that stay out of the project."""

import os
import signal
import tempfile
from pathlib import Path

import hypothesis
import pytest

# The same examples in every run: a change is judged by what it changed. `pytest --hypothesis-profile=search` draws new
# ones, and more of them; a busy machine's time proves nothing in either.
hypothesis.settings.register_profile("same", derandomize=True, deadline=None)
hypothesis.settings.register_profile("search", max_examples=1000, deadline=None)
hypothesis.settings.load_profile("same")

# A shell that starts the tests in the background has them ignore these, and so would every process that is to be ended.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, handler)

# Two workers on two cores: threads that wait for one another would take fifty times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# One folder for the session, and for the notebooks that nbval runs: the flights are built there once.
os.environ.setdefault("PRODKIT_OUT", str(Path(tempfile.gettempdir()) / f"prodkit-tests-{os.getuid()}"))


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An outputs folder of the test's own."""
    folder = tmp_path / "outputs"
    folder.mkdir()
    monkeypatch.setenv("PRODKIT_OUT", str(folder))
    return folder


# The longest files, which one worker begins with while the other takes the rest: the last to end is a short one.
LONGEST = (
    "story",
    "lifecycle",
    "kills",
    "notebooks",
    "verification",
    "engine",
    "kernels",
    "scoring",
    "serve",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; `--no-loadscope-reorder` keeps that order."""
    places = {f"test_{name}": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))
