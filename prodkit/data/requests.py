"""The request log of ``prodkit serve`` as a table like any other."""

from __future__ import annotations

from pathlib import Path

from prodkit.data.dataset import open_table
from prodkit.data.windows import window_limits
from prodkit.errors import ProdkitError
from prodkit.evidence import Window, earlier_windows
from prodkit.params import MonitorParams, ProjectParams
from prodkit.settings import resolve

__all__ = ["request_log", "requests_digest"]


def request_log(params: MonitorParams, window: Window) -> ProjectParams | None:
    """What the service has written, as far as a window goes; None where it has written nothing.

    A demonstration has no service.
    """
    folder = Path(resolve(params.requests))
    if not params.requests or params.store == "demo" or next(folder.glob("*.parquet"), None) is None:
        return None
    named = {"data": str(folder), "time_column": params.time_column, "features": [], "id_column": []}
    return ProjectParams.check({**named, "window": str(window), "as_of": params.moment.isoformat()})


def requests_digest(params: MonitorParams) -> str:
    """Which parts of the log there are for the windows of the page; what is written later is not of them."""
    from prodkit.data.flatfiles import Files  # imports pyarrow

    first = earlier_windows(params.window, params.windows)[0]
    log = request_log(params, Window(first.start, params.window.end))
    if log is None:
        return ""
    try:
        table = open_table(log)
        assert isinstance(table, Files)
        start, end = window_limits(log)
        groups = table.groups(time=log.time_column, start=start, end=end)
    except ProdkitError as error:  # the page will say so
        return str(error)
    return repr([(group.name, group.number, group.rows) for group in groups])
