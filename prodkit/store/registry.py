"""The store: versions, the champion among them, what is proposed to a person, and the history of all of it.

Every write is one transaction that holds the champion's row, so that pointer, event and version change
together or not at all, and a process that is killed leaves the store as it was before or after the write.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self, TypedDict, Unpack

import sqlalchemy as sa

from prodkit.errors import ArtifactError, ParameterError, StoreError, VersionError
from prodkit.settings import store_places
from prodkit.store.approvals import (
    BY_HAND,
    Approvals,
    deleted_versions,
    promote,
    require_generation,
    require_reason,
    roll_back,
    version_row,
)
from prodkit.store.artifacts import Artifacts, content_name, signature
from prodkit.store.database import (
    CHAMPION,
    EVENTS,
    PROBES,
    VERSIONS,
    Database,
    champion_of,
    events_of,
    trigger_problems,
)
from prodkit.store.history import (
    Champion,
    Event,
    chain_problems,
    differences,
    open_proposals,
    parsed_json,
    replay,
    strict_json,
)
from prodkit.store.plans import PROBE_MODEL

__all__ = ["Champion", "Event", "Store", "Version", "Who", "vouched_row"]


class Who(TypedDict, total=False):
    """Who moves the champion: a run, if one asked for it, and an actor."""

    run_id: str
    actor: str


@dataclass(frozen=True)
class Version:
    """A registered model: number, SHA-256 and size of its bytes, where they lie, and what was said of it.

    ``removed`` says when its artifact was removed; it is empty where it is there.
    """

    number: int
    digest: str
    location: str
    size_bytes: int
    manifest: dict[str, Any] = field(hash=False)
    quarantined: bool
    removed: str = ""


class Store(Approvals):
    """Versions, champion and history behind one SQLAlchemy URL, artifacts behind one fsspec URL.

    All methods raise LockedError when somebody else writes for longer than the timeout, and StoreError when
    the database refuses. Those that move the champion raise ConflictError when it is not the one of
    ``expected_generation``, which was judged; ``actor`` is who acts, ``run_id`` the run that asked for it.
    """

    def __init__(self, database: Database, artifacts: Artifacts) -> None:
        super().__init__(database)
        self._artifacts = artifacts

    @classmethod
    def open(cls, url: str, artifacts: str, *, create: bool = True, timeout_seconds: float = 10.0) -> Self:
        """Open a store.

        Args:
            url: SQLAlchemy URL of a SQLite or PostgreSQL database.
            artifacts: folder or fsspec URL of the artifacts.
            create: whether to make it if it is not there; else nothing is created.
            timeout_seconds: how long to wait for another writer.

        Raises:
            ParameterError: an address that leads nowhere, or to no store where none is to be made.
        """
        url, artifacts = store_places(url, artifacts)  # elsewhere while a run is verified
        database = Database(url, timeout_seconds=timeout_seconds, create=create)
        return cls(database, Artifacts(artifacts, create=create))

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
        signature(b"")  # a malformed key is an error before anything is written
        digest = hashlib.sha256(artifact).hexdigest()
        text = strict_json(dict(manifest), name="manifest")
        location = self._artifacts.publish(artifact)
        with self._database.write(run_id=run_id, actor=actor) as write:
            known = write.rows.execute(
                sa.select(VERSIONS).where(VERSIONS.c.digest == digest, VERSIONS.c.run_id == run_id)
            ).first()
            if known is not None and known.number not in deleted_versions(write.rows):
                return _version(known)
            if not self._artifacts.exists(digest):  # a version with the same bytes was deleted meanwhile
                self._artifacts.publish(artifact)
            detail = {"artifact": digest, "manifest": _sha256(text)}
            # One more than was ever registered: the number of a deleted version is not given again.
            newest = sa.select(sa.func.max(EVENTS.c.version)).where(EVENTS.c.kind == "register")
            row: dict[str, Any] = {  # one that was deleted comes back under its number
                "number": known.number if known else 1 + (write.rows.scalar(newest) or 0),
                "digest": digest,
                "location": location,
                "size_bytes": len(artifact),
                "manifest": text,
                "quarantined": bool(known and known.quarantined),
            }
            signed = signature(_vouched(row["number"], _sha256(text), digest, location))
            change = (
                VERSIONS.update().where(VERSIONS.c.number == known.number) if known else VERSIONS.insert()
            )
            write.rows.execute(change.values(row | {"signature": signed, "run_id": run_id}))
            write.append("register", version=row["number"], detail=detail)
            return Version(**row | {"manifest": json.loads(text)})

    def versions(self, *, removed: bool = False) -> list[Version]:
        """All versions that can be opened, oldest first; with ``removed`` also those that no longer can."""
        with self._database.read() as rows:
            if not removed:
                return [_version(row) for row in _present(rows)]
            deleted = deleted_versions(rows)
            ordered = rows.execute(sa.select(VERSIONS).order_by(VERSIONS.c.number))
            return [replace(_version(row), removed=deleted.get(row.number, "")) for row in ordered]

    def version(self, number: int) -> Version:
        """One version; VersionError when there is none of that number."""
        with self._database.read() as rows:
            return _version(version_row(rows, number))

    def artifact(self, number: int) -> bytes:
        """The bytes of a version, compared with what was registered before anybody may parse them.

        Raises:
            VersionError: there is no such version.
            ArtifactError: its row is not what the history says, or the file is missing, was changed, is not signed
                although ``PRODKIT_SIGNING_KEY`` is set, or is signed and no key is set.
            ParameterError: the key is malformed.
        """
        with self._database.read() as rows:
            row = _registered_row(rows, number)
        return self._bytes(row, signed=row.signature)

    def _bytes(self, row: sa.Row[Any], *, signed: str | None) -> bytes:
        name, content = f"version {row.number}", vouched_row(row)
        return self._artifacts.verified(row.digest, signed=signed, vouched=content, name=name)

    def sign(self, number: int, *, reason: str, actor: str = "prodkit") -> Version:
        """Sign a version with ``PRODKIT_SIGNING_KEY``: one from before there was a key, or from before another one.

        Raises:
            VersionError: there is no such version.
            ArtifactError: its row, or its file, is not what was registered.
            ParameterError: no key is set, it is malformed, or no reason is given.
        """
        require_reason("sign", reason)
        with self._database.write(actor=actor, reason=reason) as write:
            row = _registered_row(write.rows, number)
            self._bytes(row, signed=None)
            signed = signature(vouched_row(row))
            if not signed:
                fix = "export PRODKIT_SIGNING_KEY=..., a secret of your own."
                raise ParameterError("PRODKIT_SIGNING_KEY", rule="must be set to sign with", fix=fix)
            write.rows.execute(
                VERSIONS.update().where(VERSIONS.c.number == row.number).values(signature=signed)
            )
            write.append("sign", version=row.number)
            return _version(row)

    def delete(self, number: int, *, actor: str = "prodkit", reason: str = "") -> None:
        """Take a version out of use, then remove its artifact unless another version has the same bytes.

        Its row stays, and so does its number; it can neither be opened nor promoted any more.

        Raises:
            VersionError: there is no such version, it is the champion or its predecessor, or a proposal is about it.
            ArtifactError: its row is not what the history says.
        """
        with self._database.write(actor=actor, reason=reason) as write:
            _registered_row(write.rows, number)
            proposed = {event.version for event in open_proposals(events_of(write.rows)).values()}
            if number in {write.champion.version, write.champion.predecessor, *proposed}:
                rule = "must not be deleted while it is the champion or its predecessor, or is proposed"
                raise VersionError(f"version {number}", rule=rule, fix="Promote another version first.")
            write.append("delete", version=int(number))
        self.remove_deleted()

    def remove_deleted(self) -> None:
        """Remove the artifacts of versions that were deleted, also where whoever deleted them was killed."""
        with self._database.write() as write:  # under the lock, lest somebody registers these bytes just now
            numbers = VERSIONS.c.number.in_(deleted_versions(write.rows))
            deleted = set(write.rows.scalars(sa.select(VERSIONS.c.digest).where(numbers)))
            for digest in deleted - {row.digest for row in _present(write.rows)}:
                self._artifacts.remove(digest)

    # Probes

    def keep_probe(self, fitted_at: str, artifact: bytes, *, since: str) -> None:
        """Keep a model that was fitted to see how models age, and remove those fitted before another moment."""
        digest = hashlib.sha256(artifact).hexdigest()
        row = {"recipe": PROBE_MODEL, "fitted_at": fitted_at, "step_start": fitted_at, "step_end": fitted_at}
        row |= {"digest": digest, "signature": signature(_probe_name(fitted_at, digest))}
        self._artifacts.publish(artifact, kind="probes")
        models = sa.select(PROBES.c.digest).where(PROBES.c.recipe == PROBE_MODEL)
        with self._database.write() as write:
            past = (PROBES.c.fitted_at < since) | (PROBES.c.fitted_at == fitted_at)
            old = set(write.rows.scalars(models.where(past)))
            write.rows.execute(PROBES.delete().where(PROBES.c.recipe == PROBE_MODEL, past))
            write.rows.execute(PROBES.insert().values(row))
            for gone in old - set(write.rows.scalars(models)):
                self._artifacts.remove(gone, kind="probes")

    def probe(self, fitted_at: str) -> bytes | None:
        """The bytes of a probe, compared with what was kept before anybody may parse them; None if it is not there."""
        query = sa.select(PROBES).where(PROBES.c.recipe == PROBE_MODEL, PROBES.c.fitted_at == fitted_at)
        with self._database.read() as rows:
            row = rows.execute(query).first()
        if row is None:
            return None
        vouched, name = _probe_name(fitted_at, row.digest), f"probe {fitted_at}"
        try:
            return self._artifacts.verified(
                row.digest, signed=row.signature, vouched=vouched, name=name, kind="probes"
            )
        except ArtifactError:  # it can be fitted again
            return None

    # Champion

    def champion(self) -> Champion:
        """The version that answers now."""
        with self._database.read() as rows:
            return champion_of(rows.execute(sa.select(CHAMPION)).one())

    def promote(
        self,
        number: int,
        *,
        expected_generation: int,
        force: bool = False,
        reason: str = "",
        **who: Unpack[Who],
    ) -> Champion:
        """Make a version the champion; ``force`` overrules a quarantine and a freeze, never the generation.

        Raises:
            VersionError: no such version, already the champion, or quarantined.
            StoreError: the champion is frozen.
        """
        with self._database.write(reason=reason, **who) as write:
            require_generation(write.champion, expected_generation)
            promote(write, number, force=force)
            return write.champion

    def rollback(self, *, expected_generation: int, reason: str = "", **who: Unpack[Who]) -> Champion:
        """Give the predecessor its place back, and put the version rolled back in quarantine.

        The new predecessor is whom the restored version had replaced when it was last promoted, unless that
        one is in quarantine or gone.

        Raises:
            VersionError: there is no predecessor.
            StoreError: the champion is frozen.
        """
        with self._database.write(reason=reason, **who) as write:
            require_generation(write.champion, expected_generation)
            roll_back(write)
            return write.champion

    def hold(
        self,
        *,
        expected_generation: int,
        reason: str,
        detail: Mapping[str, Any] | None = None,
        **who: Unpack[Who],
    ) -> Champion:
        """Put the champion on hold, for a reason: it stays, but nobody learns until the hold is over.

        ``detail`` says what is broken, as :meth:`prodkit.decisions.holds.Broken.to_dict` does, in which ``window``, and
        ``since`` when; without it the simple rule answers.
        """
        return self._mark("hold", expected_generation, reason, detail, **who)

    def release(self, *, expected_generation: int, reason: str, **who: Unpack[Who]) -> Champion:
        """End a hold."""
        return self._mark("release", expected_generation, reason, **who)

    def freeze(self, *, reason: str, **who: Unpack[Who]) -> Champion:
        """Let nobody promote or roll back until :meth:`thaw`, whatever the evidence."""
        return self._mark("freeze", None, reason, **who)

    def thaw(self, *, reason: str, **who: Unpack[Who]) -> Champion:
        """End a freeze."""
        return self._mark("thaw", None, reason, **who)

    def _mark(
        self,
        kind: str,
        expected_generation: int | None,
        reason: str,
        detail: Mapping[str, Any] | None = None,
        **who: Unpack[Who],
    ) -> Champion:
        """An event that leaves the champion where it is; ParameterError without a reason."""
        require_reason(kind, reason)
        with self._database.write(reason=reason, **who) as write:
            if expected_generation is not None:
                require_generation(write.champion, expected_generation)
            write.append(kind, version=write.champion.version, detail=detail)
            return write.champion

    def quarantine(self, number: int, *, reason: str, lift: bool = False, actor: str = "prodkit") -> Version:
        """Let nobody promote a version, or with ``lift`` end that.

        Raises:
            VersionError: no such version, it stands so already, or it is the champion or its predecessor.
            ParameterError: no reason is given.
        """
        require_reason("quarantine", reason)
        with self._database.write(actor=actor, reason=reason) as write:
            row, name = version_row(write.rows, number), f"version {number}"
            if row.quarantined is not lift:
                rule = f"must {'' if lift else 'not '}be in quarantine"
                raise VersionError(name, rule=rule, fix="There is nothing to do.")
            if not lift and row.number in (write.champion.version, write.champion.predecessor):
                rule = "must not be quarantined while it is the champion or its predecessor"
                raise VersionError(name, rule=rule, fix="Roll back, or promote another version first.")
            write.append("readmit" if lift else "quarantine", version=row.number)
            write.rows.execute(
                VERSIONS.update().where(VERSIONS.c.number == number).values(quarantined=not lift)
            )
            return _version(version_row(write.rows, number))

    # History

    def check(self) -> list[str]:
        """Everything that is wrong, in words; empty when the store is sound.

        Looked for are a broken chain, a changed event, a missing or changed trigger, a champion or version that
        differs from what the events say, and an artifact that is missing or changed. Whether artifacts open is for
        :func:`prodkit.store.workspace.store_problems` to say.
        """
        try:
            with self._database.read() as rows:
                events, versions = events_of(rows), _present(rows)
                pointer, problems = rows.execute(sa.select(CHAMPION)).one(), trigger_problems(rows)
        except StoreError as error:
            return [str(error)]
        problems = chain_problems(events) + problems
        if pointer.head != (events[-1].digest if events else ""):
            problems.append("the history does not end with the event that the champion's row names")
        facts = {row.number: _facts(row) for row in versions}
        problems += differences(replay(events), champion_of(pointer), facts)
        for row in versions:
            try:
                if len(self.artifact(row.number)) != row.size_bytes:
                    problems.append(f"version {row.number}: size is not that of its artifact")
            except ArtifactError as error:
                problems.append(str(error))
            except VersionError:  # deleted since the rows were read
                continue
        return problems


def _present(rows: sa.Connection) -> list[sa.Row[Any]]:
    """The rows of the versions that were not deleted, in the order of their numbers."""
    deleted = deleted_versions(rows)
    ordered = rows.execute(sa.select(VERSIONS).order_by(VERSIONS.c.number))
    return [row for row in ordered if row.number not in deleted]


def _registered_row(rows: sa.Connection, number: int) -> sa.Row[Any]:
    """The row of a version; ArtifactError when it is not as it was registered."""
    row = version_row(rows, number)
    registered = events_of(rows, EVENTS.c.kind == "register", EVENTS.c.version == row.number)
    expected = replay(registered).versions.get(row.number, {})
    for part, value in _facts(row).items():
        if part != "quarantined" and value != expected.get(part):
            rule = f"must have the {part} that it was registered with"
            raise ArtifactError(f"version {number}", rule=rule, value="another", fix=BY_HAND)
    if row.location != content_name(row.digest):  # it might lead out of the folder
        rule = "must lie under its content name"
        raise ArtifactError(f"version {number}", rule=rule, value=row.location, fix=BY_HAND)
    return row


def _version(row: sa.Row[Any]) -> Version:
    manifest = parsed_json(row.manifest, name=f"manifest of version {row.number}")
    return Version(row.number, row.digest, row.location, row.size_bytes, manifest, row.quarantined)


def _facts(row: sa.Row[Any]) -> dict[str, Any]:
    """What the history says of a version, as its row has it."""
    facts = {"artifact": row.digest, "manifest": _sha256(row.manifest), "run": row.run_id}
    return facts | {"quarantined": row.quarantined}


def vouched_row(row: sa.Row[Any]) -> bytes:
    """What a signature is of: number, manifest, digest and location; so no row can stand for another."""
    return _vouched(row.number, _sha256(row.manifest), row.digest, row.location)


def _vouched(number: int, manifest: str, digest: str, location: str) -> bytes:
    """The same from its parts; ``manifest`` is the SHA-256 of its text."""
    return f"{number}\n{manifest}\n{digest}\n{location}".encode()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _probe_name(fitted_at: str, digest: str) -> bytes:
    """What the signature of a probe is of."""
    return f"probe {fitted_at} {digest}".encode()
