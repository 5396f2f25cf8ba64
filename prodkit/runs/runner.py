"""Run a notebook once for each piece of work, and leave a record of it whatever happens."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

from prodkit.errors import StoreError
from prodkit.files import write_text
from prodkit.markup import prepare
from prodkit.notebook import Notebook
from prodkit.params import ProjectParams
from prodkit.redaction import SHORTEST, Redaction, references
from prodkit.report import report
from prodkit.runs.claims import Claim, abandoned, at_work, claim, clear
from prodkit.runs.draft import close_notebook, notebook_text, read_executed
from prodkit.runs.engine import Order, StoppedError, execute
from prodkit.runs.record import basis, finished_record, new_record, read_record, write_record
from prodkit.runs.stops import Limits, Stop, heeding_signals
from prodkit.settings import (
    REAL_STORE,
    check,
    names_read,
    outputs_folder,
    project_folder,
    read_notebook,
    resolve,
)
from prodkit.store.approvals import store_options
from prodkit.store.registry import Store

__all__ = ["Run", "run_notebook"]

_ARTIFACTS = "outputs/artifacts"


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, and the document that stands in ``result.json``."""

    folder: Path
    document: dict[str, Any]
    repeated: bool = False

    def __getitem__(self, name: str) -> Any:
        return self.document[name]


def _warn(sentence: str) -> None:
    if sys.stderr is not None:  # as it is where it was closed; print would take stdout instead
        with suppress(OSError):  # nobody listens any more
            print(f"prodkit: {Redaction.of(names_read()).text(sentence)}", file=sys.stderr)


def run_notebook(
    notebook: str,
    given: Mapping[str, Any],
    *,
    force: bool = False,
    parent: str = "",
    limits: Limits | None = None,
    tell: Callable[[str], None] = _warn,
) -> Run:
    """Check the parameters, run the notebook once for this work, and record what came of it.

    Work that was done before, with the same notebook, parameters, data, code and champion, is not done again; if
    another process is at it just now, its result is waited for. Runs whose runner was killed are marked first.

    Args:
        notebook: a name in ``notebooks/``, or a path.
        given: parameters that differ from the notebook's defaults.
        force: do it again all the same; earlier attempts are kept.
        parent: the run that asked for this one.
        limits: how long it may take.
        tell: takes sentences for whoever watches.

    Raises:
        ParameterError: before any kernel starts.
        StoreError: the same.
    """
    work = _Work(read_notebook(notebook), given)
    runs = outputs_folder() / "runs"
    with heeding_signals(), work.records as records:
        _settle(runs, records, tell)
        for name in work.secrets.too_short:
            rule = f"has fewer than {SHORTEST} characters: too short to be kept out of what is written"
            tell(f"${{{name}}} {rule}")
        while True:
            ground = work.basis()
            stem, removed = work.stem(ground), records.removed_runs()
            taken = claim(stem, runs, force=force, removed=removed, waits=tell)
            if isinstance(taken, Claim):
                break
            if taken and (record := read_record(taken)):  # else it failed, or was removed, just now
                return Run(taken, record, repeated=True)
        record = new_record(taken.folder.name, work.source.name, work.values, parent=parent, basis=ground)
        with at_work(outputs_folder()):
            return _Attempt(work, taken, record, limits or Limits(), tell).make()


@dataclass
class _Work:
    """What is to be done: a notebook, its checked parameters, and the stores that it reads and is recorded in."""

    source: Notebook
    given: Mapping[str, Any]
    values: dict[str, Any] = field(init=False)
    params: ProjectParams | None = field(init=False)

    def __post_init__(self) -> None:
        asked = check(self.source, self.given)
        self.values, self.params = asked.values, asked.params

    @cached_property
    def secrets(self) -> Redaction:
        """What must be written nowhere: the variables that parameters refer to."""
        return Redaction.of(references([self.values, self.source.defaults]))

    @property
    def reads_store(self) -> bool:
        """Whether the notebook works in a store that is there before and after it."""
        return self.params is not None and self.params.store != "demo"

    @cached_property
    def records(self) -> Store:
        """Where the run is recorded: the store that it works in, else the project's."""
        places = (self.params.store, self.params.artifacts) if self.params and self.reads_store else None
        store, artifacts = places or (REAL_STORE, _ARTIFACTS)
        outputs_folder().mkdir(parents=True, exist_ok=True)
        return Store.open(resolve(store), resolve(artifacts))

    def basis(self) -> dict[str, Any]:
        """What the run stands on but its parameters."""
        store = self.records if self.reads_store else None
        values = {**self.source.defaults, **self.values}
        return basis(self.source.path, values, params=self.params, store=store)

    def _champion(self) -> list[Any]:
        """What the notebook will find on the throne; training asks nobody."""
        if not self.reads_store or self.source.name == "train":
            return []
        champion = self.records.champion()
        newest = [0]
        if getattr(self.params, "challenger", None) == 0:
            versions = self.records.versions()  # without those that a judgement made, not a training
            newest = [max((each.number for each in versions if "judged" not in each.manifest), default=0)]
        return [champion.generation, champion.version, champion.hold, *newest]

    def stem(self, ground: Mapping[str, Any]) -> str:
        """The name of this work: the same for the same work."""
        identity = {name: ground[name] for name in ("notebook", "code", "modules", "data", "folder")}
        identity["champion"] = self._champion()
        identity["parameters"] = {**self.values, **(self.params.plain() if self.params else {})}
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()[:10]
        span = f"-{self.params.window.start:%Y%m%d}" if self.params else ""
        return f"{self.source.name}{span}-{digest}"


@dataclass
class _Attempt:
    """One attempt at some work, in the folder that was claimed for it."""

    work: _Work
    taken: Claim
    record: dict[str, Any]
    limits: Limits
    tell: Callable[[str], None]

    def make(self) -> Run:
        """Execute, and record before and after."""
        folder, clock = self.taken.folder, time.perf_counter()
        try:
            write_record(self.record, folder)
            _store_record(self.work.records, self.record)
        except BaseException:
            self.taken.release()
            raise
        stop = self._execute()
        seconds = time.perf_counter() - clock
        record = finished_record(self.record, folder / "notebook.ipynb", stop, seconds=seconds)
        record["reasons"] += _acts(self.work, record)
        record = self.work.secrets.document(record)
        write_record(
            record, folder
        )  # where the disk is too full for it, the next start takes the run for abandoned
        _write_page(folder, record, self.work.records, hide=self.work.secrets.text)
        _try_to_store(self.tell, self.work.records, record)
        self.taken.release()
        return Run(folder, record)

    def _execute(self) -> Stop | None:
        source, run_id = self.work.source.path, self.taken.folder.name
        order = Order(
            self.taken.folder / "notebook.ipynb",
            folder=source.parent.resolve(),
            environment={
                "PRODKIT_RUN": run_id,
                "PRODKIT_OUT": str(outputs_folder()),
                "PRODKIT_PROJECT": str(project_folder()),
            },
            limits=self.limits,
            hide=self.work.secrets.text if self.work.secrets else str,
            forked=self.work.params is not None,  # what a notebook of one's own imports is not known
            meanwhile=prepare,
        )
        try:
            execute(source, self.work.values, order)
        except StoppedError as error:
            return error.stop
        except Exception as error:  # before the engine: papermill cannot read it, or write a parameter down
            return Stop("failed", "failed", self.work.secrets.text(f"{type(error).__name__}: {error}"))
        return None


def _acts(work: _Work, record: Mapping[str, Any]) -> list[str]:
    """What a run that ended early had changed by then."""
    if record["status"] == "succeeded" or not work.reads_store:
        return []
    try:
        events = [event for event in work.records.history() if event.run_id == record["run_id"]]
    except StoreError as error:
        return [f"what it did before that is not known: {error}"]
    return [
        f"before that it did: {event.kind} of version {event.version} (event {event.number})"
        for event in events
    ]


_COPIED = ("run_id", "notebook", "status", "outcome", "action", "approval", "started", "seconds")


def _store_record(store: Store, record: Mapping[str, Any]) -> None:
    store.record_run({name: record[name] for name in _COPIED} | {"document": dict(record)})


def _try_to_store(tell: Callable[[str], None], store: Store, record: Mapping[str, Any]) -> None:
    """Record a run that has ended; where the store refuses, the next start does it."""
    try:
        _store_record(store, record)
    except StoreError as error:
        tell(f"{record['run_id']} could not be recorded in the store, which the next run will do: {error}")


def _write_page(
    folder: Path, record: Mapping[str, Any], records: Store, *, hide: Callable[[str], str] = str
) -> None:
    """Write the report; a notebook that cannot be shown costs the page, never the record.

    The page joins what the notebook holds in pieces, so a secret that came in pieces is hidden once more.
    """
    executed = folder / "notebook.ipynb"
    if not executed.exists():
        return
    try:
        notebook, defaults = read_executed(executed), read_notebook(str(executed)).defaults
        previous = (records.previous_run(record["run_id"]) or {}).get("document")
        places = {name: record["params"][name] for name in ("store", "artifacts") if name in record["params"]}
        options = store_options(outputs_folder(), **places)
        page = report(notebook, record, defaults=defaults, previous=previous, options=options)
    except Exception as error:
        title = "<!DOCTYPE html><title>no report</title><h1>No report could be made</h1>"
        page = f"{title}<pre>{escape(str(error))}</pre>"
    write_text(folder / "report.html", hide(page))


def _settle(runs: Path, records: Store, tell: Callable[[str], None]) -> None:
    """Mark the runs whose runner has died, and record what could not be recorded when it ended."""
    clear(runs, ".*")  # folders that were never a run's
    for each in abandoned(runs.glob("*")):
        record = read_record(each.folder)
        if record.get("status") == "running":
            _interrupt(each.folder, record, records)
            tell(f"{each.folder.name} was interrupted: its runner was killed")
        for litter in each.folder.glob(".*"):
            if litter.name != ".running":
                litter.unlink(missing_ok=True)
        each.release()
    for row in records.runs(status="running"):
        record = read_record(runs / row["run_id"])
        if record.get("status", "running") != "running":
            _try_to_store(tell, records, record)


def _interrupt(folder: Path, record: Mapping[str, Any], records: Store) -> None:
    """Mark a run, and its notebook as far as it was saved, as what it is."""
    executed = folder / "notebook.ipynb"
    stop = Stop("interrupted", "interrupted", "The runner was killed, or the machine went down.")
    with suppress(OSError, ValueError, AttributeError, KeyError, TypeError):  # what is damaged stays as it is
        notebook = read_executed(executed)
        close_notebook(notebook, stop)
        write_text(executed, notebook_text(notebook))
    record = finished_record(record, executed, stop, seconds=None)
    write_record(record, folder)
    _write_page(folder, record, records)
