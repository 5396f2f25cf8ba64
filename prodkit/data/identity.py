"""What names a row: its ids, which of them are those of another row, too, and the error for it."""

from __future__ import annotations

import numpy as np
import pandas as pd

from prodkit.data.cells import texts
from prodkit.errors import IdentityError
from prodkit.params import ProjectParams

__all__ = ["identity_error", "require_unique_rows", "row_ids", "shared_names"]


def row_ids(frame: pd.DataFrame, facts: ProjectParams) -> pd.DataFrame:
    """What names each row (n, id columns), so that it can be compared."""
    mixed = {name: frame[name].dtype == object for name in facts.id_column}
    return pd.DataFrame(
        {name: texts(frame[name]) if odd else frame[name] for name, odd in mixed.items()}, index=frame.index
    )


def require_unique_rows(frame: pd.DataFrame, facts: ProjectParams, *, place: str) -> None:
    """Raise IdentityError unless each row has an id of its own; nothing is asked where no column names a row."""
    ids = row_ids(frame, facts)
    if facts.id_column and (again := ids.duplicated()).any():
        raise identity_error(ids[again], "must name one row each", place=place)


def shared_names(frame: pd.DataFrame, facts: ProjectParams) -> np.ndarray:
    """Which rows (n,) bear an id that another row bears, too."""
    ids = row_ids(frame, facts)
    return ids.duplicated(keep=False).to_numpy() if facts.id_column else np.zeros(len(frame), dtype=bool)


def identity_error(ids: pd.DataFrame, rule: str, *, place: str) -> IdentityError:
    """The error for rows whose ids (n, id columns) break a rule."""
    found = f"{len(ids)} rows such as {', '.join(map(str, ids.iloc[0]))}"
    fix = "Remove these rows, or set `id_column` to columns that together are unique."
    return IdentityError(", ".join(ids.columns), rule=rule, value=found, place=place, fix=fix)
