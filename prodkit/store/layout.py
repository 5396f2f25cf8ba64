"""The layout of the store's database: its number, and the triggers that keep the history append-only."""

from __future__ import annotations

import sqlalchemy as sa

from prodkit.errors import StoreError

__all__ = ["LAYOUT", "guard_events", "layout_number", "require_layout", "stamp", "unguarded"]

LAYOUT = 1
"""Of the stores that this package reads and writes. It goes up whenever a table changes."""

_STAMP = sa.Table(  # outside of the other tables: a store of any layout must be able to say which it has
    "layout",
    sa.MetaData(),
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("number", sa.Integer, nullable=False),
)
_SAID = "the history is append-only"
# By name: when it fires, and on which condition it refuses. A replacement deletes without saying so, and is refused
# as an insertion: that must be the next event, and follow from the last one.
_GUARDS = {
    "events_insert": (
        "INSERT",
        "NEW.number <> 1 + (SELECT COALESCE(MAX(number), 0) FROM events)"
        " OR NEW.previous <> COALESCE((SELECT digest FROM events ORDER BY number DESC LIMIT 1), '')",
    ),
    "events_update": ("UPDATE", "TRUE"),
    "events_delete": ("DELETE", "TRUE"),
}


def stamp(rows: sa.Connection) -> None:
    """Write the number down, once."""
    _STAMP.create(rows, checkfirst=True)
    if rows.execute(sa.select(_STAMP)).first() is None:
        rows.execute(_STAMP.insert().values(id=1, number=LAYOUT))


def layout_number(rows: sa.Connection) -> int | None:
    """The number of the layout that the database has; None if it says none."""
    if not sa.inspect(rows).has_table(_STAMP.name):
        return None
    found = rows.scalar(sa.select(_STAMP.c.number))
    return -1 if found is None else int(found)


def require_layout(number: int, *, place: str) -> None:
    """StoreError when a store was made by an older or a newer prodkit, before anything in it is read or written."""
    if number != LAYOUT:
        made = "a newer" if number > LAYOUT else "an older"
        fix = f"It was made by {made} prodkit: use that one, or name another store."
        raise StoreError("store", rule=f"must have layout {LAYOUT}", value=number, place=place, fix=fix)


def guard_events(rows: sa.Connection) -> None:
    """Create the triggers that are not there: events are appended, each after the last, and nothing else."""
    absent = unguarded(rows)
    if rows.dialect.name == "sqlite":
        for name in absent:
            verb, refused = _GUARDS[name]
            then = f"BEGIN SELECT RAISE(ABORT, '{_SAID}'); END"
            rows.exec_driver_sql(f"CREATE TRIGGER {name} BEFORE {verb} ON events WHEN {refused} {then}")
        return
    for name in absent:
        verb, refused = _GUARDS.get(name, ("TRUNCATE", "TRUE"))
        each = "STATEMENT" if verb == "TRUNCATE" else "ROW"
        result = "NEW" if verb == "INSERT" else "NULL"
        rows.exec_driver_sql(
            f"CREATE OR REPLACE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            f" IF {refused} THEN RAISE EXCEPTION '{_SAID}'; END IF; RETURN {result}; END $$"
        )
        rows.exec_driver_sql(
            f"CREATE TRIGGER {name} BEFORE {verb} ON events FOR EACH {each} EXECUTE FUNCTION {name}()"
        )


def unguarded(rows: sa.Connection) -> list[str]:
    """The names of the triggers that should be there and are not, or are switched off."""
    if rows.dialect.name == "sqlite":
        query = "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'events'"
        wanted = [*_GUARDS]
    else:
        query = "SELECT tgname FROM pg_trigger WHERE tgrelid = 'events'::regclass AND tgenabled <> 'D'"
        wanted = [*_GUARDS, "events_truncate"]
    found = set(rows.exec_driver_sql(query).scalars())
    return [name for name in wanted if name not in found]
