"""The store that a notebook works in: the real one, or a small one made for a single execution."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import TYPE_CHECKING

from prodkit.errors import ArtifactError, ModelError, VersionError
from prodkit.models.bundle import Bundle, unpack
from prodkit.settings import resolve
from prodkit.store.registry import Store

if TYPE_CHECKING:
    from prodkit.params import ProjectParams

__all__ = ["champion_of", "load_version", "open_store", "store_problems"]


def open_store(params: ProjectParams, *, timeout_seconds: float = 10.0) -> Store:
    """Open the store that the parameters name.

    ``demo`` makes a seeded store in memory, from rows older than the window: version 1, trained on
    the older half of them, and version 2 on all. Version 2 is champion and 1 its predecessor; for ``validate`` 1 is
    champion and 2 the challenger; for ``train`` there is none. It is gone when the process ends.

    Args:
        params: that name it.
        timeout_seconds: how long to wait for another writer.
    """
    if params.store != "demo":
        return Store.open(resolve(params.store), resolve(params.artifacts), timeout_seconds=timeout_seconds)
    store = Store.open("sqlite://", f"memory://{uuid.uuid4().hex}")  # in memory: nothing is left behind
    if params.notebook != "train":
        from prodkit.store.demonstration import furnish  # here, since who opens a real store trains nothing

        furnish(store, params)
    return store


def load_version(store: Store, number: int) -> Bundle:
    """Read a version back: digest verified first, golden rows predicted after."""
    bundle = unpack(store.artifact(number), name=f"version {number}")
    return replace(bundle, digest=store.version(number).digest)


def store_problems(store: Store) -> list[str]:
    """Everything that is wrong with a store, in words: as :meth:`Store.check`, and whether each version opens."""
    problems = store.check()
    for version in store.versions():
        try:
            load_version(store, version.number)
        except ModelError as error:
            problems.append(str(error))
        except (ArtifactError, VersionError):  # the check has said so, or it was deleted meanwhile
            continue
    return problems


def champion_of(store: Store) -> tuple[int, Bundle]:
    """The champion's number and bundle.

    Raises:
        VersionError: there is none yet.
    """
    number = store.champion().version
    if number is None:
        fix = "Run train and validate first: prodkit run train, then prodkit run validate."
        raise VersionError("champion", rule="must exist before it can be asked", value="none", fix=fix)
    return number, load_version(store, number)
