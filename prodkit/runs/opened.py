"""A recorded run, opened to go on with: its rows, model, evidence and figures in a notebook or a terminal."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pandas as pd
from IPython.display import Image

from prodkit.data.windows import read_window
from prodkit.decisions.result import evidence_table
from prodkit.errors import RunError
from prodkit.evidence import Evidence
from prodkit.pages import figures_of
from prodkit.params import ProjectParams
from prodkit.report import deed, rendered
from prodkit.runs.audit import RunRecord
from prodkit.store.registry import Store
from prodkit.store.workspace import load_version

if TYPE_CHECKING:
    from prodkit.models.bundle import Bundle

__all__ = ["OpenedRun", "open_run"]


@dataclass(frozen=True)
class OpenedRun:
    """A run of the kit's notebooks, as it was recorded. Made by :func:`open_run`; nothing here changes anything.

    Attributes:
        record: result and notebook.
    """

    record: RunRecord

    @property
    def document(self) -> Mapping[str, Any]:
        """Its ``result.json``."""
        return self.record.document

    @cached_property
    def params(self) -> ProjectParams:
        """The parameters that it ran with, checked.

        Raises:
            RunError: it is no notebook of the kit, whose parameters say which rows it read.
        """
        model = self.record.model
        if model is None:
            rule, fix = "must be a notebook of the kit", "Its document and figures are there all the same."
            raise RunError(self.document["run_id"], rule=rule, value=self.document["notebook"], fix=fix)
        return model.from_cell(self.record.values)

    @cached_property
    def rows(self) -> pd.DataFrame:
        """The rows of its window (n, columns), with the labels that were known at its moment."""
        return read_window(self.params, unique=False)

    @cached_property
    def evidence(self) -> pd.DataFrame:
        """Its findings, a row each."""
        return evidence_table(Evidence.from_dict(dict(item)) for item in self.document["evidence"])

    @cached_property
    def model(self) -> Bundle:
        """The version that it judged or asked: the challenger of ``validate``, else the champion of then.

        Raises:
            RunError: it names no version, or worked in a demonstration store, which is gone.
        """
        outputs = self.document["outputs"]
        number = next(
            (outputs[name] for name in ("challenger", "champion", "version") if name in outputs), None
        )
        if number is None or self.record.basis["store"] is None:
            value = "none" if number is None else "one of a demonstration store, which is gone"
            raise RunError(self.document["run_id"], rule="must name a version of the store", value=value)
        with Store.open(*self.record.places, create=False) as store:
            return load_version(store, number)

    @cached_property
    def figures(self) -> dict[str, Image]:
        """Its figures by the heading that each stands under."""
        drawn = figures_of(self.record.notebook.cells)
        return {name: Image(base64.b64decode(picture), alt=text) for name, (picture, text) in drawn.items()}

    def __repr__(self) -> str:
        what = deed(self.document) or f"Outcome: {self.document['outcome']}."
        return f"{self.document['run_id']}: {what}"

    def _repr_html_(self) -> str:
        return rendered("opened", run=self.document, text=repr(self))


def open_run(run: str) -> OpenedRun:
    """Open a recorded run.

    Args:
        run: its id, as in ``outputs/runs`` and on its page, or the path of its folder.

    Raises:
        ParameterError: there is no such run; the nearest names are given.
        RunError: its record cannot be read, or it did not succeed.
    """
    return OpenedRun(RunRecord.read(run))
