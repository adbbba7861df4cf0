"""The index: its migrations lead where the tables say, and no look-up walks through a table."""

from __future__ import annotations

from sqlalchemy import inspect

from modelhub_registry import index, migrations
from modelhub_registry.sqlite import memory
from modelhub_registry.tables import KEPT, METADATA


def test_migrations_lead_to_the_tables() -> None:
    with memory().connect() as db:
        found = inspect(db)
        tables = {**METADATA.tables, **KEPT.tables}
        assert set(found.get_table_names()) == {*tables, "migrations"}
        for name, table in tables.items():
            columns = {
                c["name"]: (str(c["type"]).replace("REAL", "DOUBLE"), c["nullable"]) for c in found.get_columns(name)
            }
            assert columns == {c.name: (str(c.type), bool(c.nullable)) for c in table.columns}
            assert found.get_pk_constraint(name)["constrained_columns"] == [c.name for c in table.primary_key]
        assert migrations.done(db) == migrations.LATEST


def test_migrating_again_changes_nothing() -> None:
    with memory().begin() as db:
        migrations.migrate(db)
        assert migrations.done(db) == migrations.LATEST


def test_look_ups_use_an_index() -> None:
    """So that they stay as fast with 100 000 versions as with 10."""
    values = {"name_": "btag", "number_": 1, "alias_": "prod", "content_": "c", "digest_": "d", "low": "0", "high": "1"}
    statements = [
        index._HEAD, index._BY_NUMBER, index._BY_ALIAS, index._BY_DIGEST, index._NEWEST, index._SAME,
        index._ALIAS_OF, index._HELD,
    ]  # fmt: skip
    with memory().connect() as db:
        for statement in statements:
            text = statement.params(values).compile(db, compile_kwargs={"literal_binds": True}).string
            plan = [row[3] for row in db.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}")]
            steps = [step for step in plan if not step.startswith(("SCAN CONSTANT ROW", "SCALAR SUBQUERY"))]
            assert steps
            assert all(step.startswith("SEARCH") for step in steps), plan
            if statement is index._SAME:
                assert "content=?" in plan[2], plan
