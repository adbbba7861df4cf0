"""The index: its migrations lead where the tables say, and no look-up walks through a table."""

from __future__ import annotations

from modelhub_registry import index, migrations
from modelhub_registry.sqlite import memory
from modelhub_registry.tables import KEPT, TABLES


def test_migrations_lead_to_the_tables() -> None:
    with memory() as db:
        found = [name for (name,) in db.rows("SELECT name FROM sqlite_master WHERE type = 'table'")]
        assert sorted(found) == sorted([*TABLES, *KEPT, "migrations"])
        for name, columns in {**TABLES, **KEPT}.items():
            assert tuple(row[1] for row in db.rows(f"PRAGMA table_info({name})")) == columns
        assert migrations.done(db) == migrations.LATEST


def test_migrating_again_changes_nothing() -> None:
    with memory() as db:
        migrations.migrate(db)
        assert migrations.done(db) == migrations.LATEST


def test_look_ups_use_an_index() -> None:
    """So that they stay as fast with 100 000 versions as with 10."""
    values = {"name": "btag", "number": 1, "alias": "prod", "content": "c", "digest": "d", "low": "0", "high": "1"}
    statements = [
        index._HEAD, index._BY_NUMBER, index._BY_ALIAS, index._BY_DIGEST, index._NEWEST, index._NEWEST_PASSING,
        index._SAME, index._ALIAS_OF, index._HELD,
    ]  # fmt: skip
    with memory() as db:
        for statement in statements:
            plan = [row[3] for row in db.rows(f"EXPLAIN QUERY PLAN {statement}", values)]
            steps = [step for step in plan if not step.startswith(("SCAN CONSTANT ROW", "SCALAR SUBQUERY"))]
            assert steps
            assert all(step.startswith("SEARCH") for step in steps), plan
            if statement is index._SAME:
                assert "content=?" in plan[2], plan
