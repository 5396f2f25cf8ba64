"""JupyterLab as users have it: a notebook opens in a real one, all its cells run, and a moved slider draws anew."""

import pytest

pytest.importorskip("playwright", reason="needs the extra [test]")

from laboratory import CHROMIUM, chromium, errors, executed, jupyterlab, moved, run_all, sliders

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium on this machine: apt-get install chromium"
)


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """`drift`, all of whose cells were run by the menu: the page, and its cells as they were saved."""
    folder = tmp_path_factory.mktemp("lab")
    with jupyterlab(folder) as address, chromium() as page:
        run_all(page, address, "drift")
        yield page, executed(folder, "drift")


def test_run_all_works(opened):
    """Every cell has run, in the kernel named in the notebook, and none has failed."""
    _, cells = opened
    assert errors(cells) == []
    assert all(cell.execution_count for cell in cells)


def test_a_moved_control_draws_another_figure(opened):
    """Another column, and then other days, are another picture with its own alternative text."""
    page, _ = opened
    column, first_day, *_ = sliders(page)
    seen = [page.locator(".prodkit-explorer svg").first.get_attribute("aria-label")]
    seen += [moved(page, control, forth=True)[1] for control in (column, first_day)]
    assert len(set(seen)) == 3
