"""The store: versions, the champion among them, and the history of both.

Every write is one transaction that holds the champion's row, so that pointer, event and version change
together or not at all, and a process that is killed leaves the store as it was before or after the write.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import sqlalchemy as sa

from prodkit.errors import ArtifactError, ParameterError, StoreError, VersionError
from prodkit.settings import store_places
from prodkit.store.artifacts import Artifacts, signature
from prodkit.store.database import CHAMPION, EVENTS, VERSIONS, Database, champion_of, events_of
from prodkit.store.docket import Docket
from prodkit.store.history import (
    Champion,
    Event,
    chain_problems,
    differences,
    parsed_json,
    replay,
    strict_json,
)
from prodkit.store.layout import unguarded
from prodkit.store.moves import (
    mark,
    promote,
    quarantine,
    require_generation,
    require_reason,
    roll_back,
    version_row,
)

__all__ = ["Champion", "Event", "Store", "Version"]


@dataclass(frozen=True)
class Version:
    """A registered model: number, SHA-256 and size of its bytes, where they lie, and what was said of it."""

    number: int
    digest: str
    location: str
    size_bytes: int
    manifest: dict[str, Any] = field(hash=False)
    quarantined: bool


class Store(Docket):
    """Versions, champion and history behind one SQLAlchemy URL, artifacts behind one fsspec URL.

    All methods raise LockedError when somebody else writes for longer than the timeout, and StoreError when
    the database refuses.
    """

    def __init__(self, database: Database, artifacts: Artifacts) -> None:
        super().__init__(database)
        self._artifacts = artifacts

    @classmethod
    def open(cls, url: str, artifacts: str, *, timeout_seconds: float = 10.0) -> Self:
        """Open a store, and make it if it is not there.

        Args:
            url: SQLAlchemy URL of a SQLite or PostgreSQL database.
            artifacts: folder or fsspec URL of the artifacts.
            timeout_seconds: how long to wait for another writer.

        Raises:
            ParameterError: an address that leads nowhere.
        """
        url, artifacts = store_places(url, artifacts)  # elsewhere while a run is verified
        return cls(Database(url, timeout_seconds=timeout_seconds), Artifacts(artifacts))

    def close(self) -> None:
        """Let go of the database."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Versions

    def register(
        self, artifact: bytes, manifest: Mapping[str, Any], *, run_id: str = "", actor: str = "prodkit"
    ) -> Version:
        """Publish the bytes of a model, then give them a number: a version exists once its row does.

        The same bytes from the same run are the same version, however often they are registered.

        Raises:
            StoreError: the manifest is not plain JSON.
            ParameterError: ``PRODKIT_SIGNING_KEY`` is malformed.
        """
        signed = {"signature": signature(artifact), "run_id": run_id}
        digest = hashlib.sha256(artifact).hexdigest()
        said = strict_json(dict(manifest), name="manifest")
        location = self._artifacts.publish(artifact)
        with self._database.write() as write:
            known = write.rows.execute(
                sa.select(VERSIONS).where(VERSIONS.c.digest == digest, VERSIONS.c.run_id == run_id)
            ).first()
            if known is not None:
                return _version(known)
            if not self._artifacts.exists(location):  # a version with the same bytes was deleted meanwhile
                self._artifacts.publish(artifact)
            number = _next_number(write.rows)
            row: dict[str, Any] = {
                "number": number,
                "digest": digest,
                "location": location,
                "size_bytes": len(artifact),
                "manifest": said,
                "quarantined": False,
            }
            write.rows.execute(VERSIONS.insert().values(row | signed))
            detail = {"artifact": digest, "manifest": _sha256(said)}
            write.append("register", version=number, run_id=run_id, actor=actor, detail=detail)
            return Version(**row | {"manifest": json.loads(said)})

    def versions(self) -> list[Version]:
        """All versions, oldest first."""
        with self._database.read() as rows:
            return [_version(row) for row in rows.execute(sa.select(VERSIONS).order_by(VERSIONS.c.number))]

    def version(self, number: int) -> Version:
        """One version.

        Raises:
            VersionError: there is none of that number.
        """
        with self._database.read() as rows:
            return _version(version_row(rows, number))

    def artifact(self, number: int) -> bytes:
        """The bytes of a version, compared with what was registered before anybody may parse them.

        Raises:
            VersionError: there is no such version.
            ArtifactError: the file is missing, was changed, is not signed although ``PRODKIT_SIGNING_KEY``
                is set, or is signed and no key is set.
            ParameterError: the key is malformed.
        """
        with self._database.read() as rows:
            row = version_row(rows, number)
        return self._artifacts.verified(
            row.location, digest=row.digest, signed=row.signature, name=f"version {number}"
        )

    def sign(self, number: int, *, reason: str, actor: str = "prodkit") -> Version:
        """Sign a version with ``PRODKIT_SIGNING_KEY``: one from before there was a key, or from before another one.

        Raises:
            VersionError: there is no such version.
            ArtifactError: the file is missing or was changed.
            ParameterError: no key is set, it is malformed, or no reason is given.
        """
        require_reason("sign", reason)
        with self._database.write() as write:
            row = version_row(write.rows, number)
            place = {"digest": row.digest, "name": f"version {number}"}
            signed = signature(self._artifacts.verified(row.location, signed=None, **place))
            if not signed:
                fix = "export PRODKIT_SIGNING_KEY=..., a secret of your own."
                raise ParameterError("PRODKIT_SIGNING_KEY", rule="must be set to sign with", fix=fix)
            write.rows.execute(
                VERSIONS.update().where(VERSIONS.c.number == row.number).values(signature=signed)
            )
            write.append("sign", version=row.number, actor=actor, reason=reason)
            return _version(row)

    def delete(self, number: int, *, actor: str = "prodkit", reason: str = "") -> None:
        """Remove a version, then its artifact unless another version has the same bytes.

        Raises:
            VersionError: there is no such version, or it is the champion or its predecessor.
        """
        with self._database.write() as write:
            location = version_row(write.rows, number).location
            if number in (write.champion.version, write.champion.predecessor):
                raise VersionError(
                    f"version {number}",
                    rule="must not be deleted while it is the champion or its predecessor",
                    fix="Promote another version first.",
                )
            write.rows.execute(VERSIONS.delete().where(VERSIONS.c.number == number))
            write.append("delete", version=int(number), actor=actor, reason=reason)
        with self._database.write() as write:  # under the lock, lest somebody registers these bytes just now
            if write.rows.execute(sa.select(VERSIONS).where(VERSIONS.c.location == location)).first() is None:
                self._artifacts.remove(location)

    # Champion

    def champion(self) -> Champion:
        """Who answers now."""
        with self._database.read() as rows:
            return champion_of(rows.execute(sa.select(CHAMPION)).one())

    def promote(
        self,
        number: int,
        *,
        expected_generation: int,
        run_id: str = "",
        actor: str = "prodkit",
        reason: str = "",
        force: bool = False,
    ) -> Champion:
        """Make a version the champion, if the champion is still the one that was judged.

        ``force`` overrules a quarantine and a freeze, never the generation.

        Raises:
            ConflictError: the champion has changed since ``expected_generation``.
            VersionError: no such version, already the champion, or quarantined.
            StoreError: the champion is frozen.
        """
        with self._database.write() as write:
            require_generation(write.champion, expected_generation)
            promote(write, number, force=force, run_id=run_id, actor=actor, reason=reason)
            return write.champion

    def rollback(
        self, *, expected_generation: int, run_id: str = "", actor: str = "prodkit", reason: str = ""
    ) -> Champion:
        """Give the predecessor its place back, and put the version rolled back in quarantine.

        The new predecessor is whom the restored version had replaced when it was last promoted, unless that
        one is in quarantine or gone.

        Raises:
            ConflictError: the champion has changed since ``expected_generation``.
            VersionError: there is no predecessor.
            StoreError: the champion is frozen.
        """
        with self._database.write() as write:
            require_generation(write.champion, expected_generation)
            roll_back(write, run_id=run_id, actor=actor, reason=reason)
            return write.champion

    def hold(
        self, *, expected_generation: int, reason: str, run_id: str = "", actor: str = "prodkit"
    ) -> Champion:
        """Put the champion on hold: it stays, but scoring falls back until the hold is released.

        Raises:
            ConflictError: the champion has changed since ``expected_generation``.
            ParameterError: no reason is given.
        """
        return self._mark("hold", expected_generation, run_id=run_id, actor=actor, reason=reason)

    def release(
        self, *, expected_generation: int, reason: str, run_id: str = "", actor: str = "prodkit"
    ) -> Champion:
        """End a hold; the same errors as :meth:`hold`."""
        return self._mark("release", expected_generation, run_id=run_id, actor=actor, reason=reason)

    def freeze(self, *, reason: str, actor: str = "prodkit") -> Champion:
        """Let nobody promote or roll back until :meth:`thaw`, whatever the evidence."""
        return self._mark("freeze", None, actor=actor, reason=reason)

    def thaw(self, *, reason: str, actor: str = "prodkit") -> Champion:
        """End a freeze."""
        return self._mark("thaw", None, actor=actor, reason=reason)

    def quarantine(self, number: int, *, reason: str, lift: bool = False, actor: str = "prodkit") -> Version:
        """Let nobody promote a version, or with ``lift`` end that.

        Raises:
            VersionError: no such version, it stands so already, or it is the champion or its predecessor.
            ParameterError: no reason is given.
        """
        require_reason("quarantine", reason)
        with self._database.write() as write:
            quarantine(write, number, lift=lift, actor=actor, reason=reason)
            return _version(version_row(write.rows, number))

    def _mark(
        self, kind: str, expected_generation: int | None, *, actor: str, reason: str, run_id: str = ""
    ) -> Champion:
        require_reason(kind, reason)
        with self._database.write() as write:
            if expected_generation is not None:
                require_generation(write.champion, expected_generation)
            mark(write, kind, run_id=run_id, actor=actor, reason=reason)
            return write.champion

    # History

    def check(self) -> list[str]:
        """Everything that is wrong, in words; empty when the store is sound.

        Looked for are a broken chain, a changed event, a missing trigger, a champion or version that differs from
        what the events say, and an artifact that is missing or changed. Whether artifacts open is for
        :func:`prodkit.store.workspace.store_problems` to say.
        """
        try:
            with self._database.read() as rows:
                events, versions = events_of(rows), rows.execute(sa.select(VERSIONS)).all()
                pointer = rows.execute(sa.select(CHAMPION)).one()
                absent = unguarded(rows)
        except StoreError as error:
            return [str(error)]
        problems = chain_problems(events)
        problems += [f"the history can be changed: its trigger {name} is missing or off" for name in absent]
        if pointer.head != (events[-1].digest if events else ""):
            problems.append("the history does not end with the event that the champion's row names")
        found = {row.number: _facts(row) for row in versions}
        problems += differences(replay(events), champion_of(pointer), found)
        for row in versions:
            try:
                if len(self.artifact(row.number)) != row.size_bytes:
                    problems.append(f"version {row.number}: size is not that of its artifact")
            except ArtifactError as error:
                problems.append(str(error))
            except VersionError:  # deleted since the rows were read
                continue
        return problems


def _version(row: sa.Row[Any]) -> Version:
    manifest = parsed_json(row.manifest, name=f"manifest of version {row.number}")
    return Version(row.number, row.digest, row.location, row.size_bytes, manifest, row.quarantined)


def _next_number(rows: sa.Connection) -> int:
    """One more than was ever registered: the number of a deleted version is not given again."""
    newest = sa.select(sa.func.max(EVENTS.c.version)).where(EVENTS.c.kind == "register")
    return 1 + (rows.scalar(newest) or 0)


def _facts(row: sa.Row[Any]) -> dict[str, Any]:
    said = {"artifact": row.digest, "manifest": _sha256(row.manifest)}
    return said | {"quarantined": row.quarantined, "run": row.run_id}


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
