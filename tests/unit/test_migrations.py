"""What a migration may do while workers of the release before go on."""

from __future__ import annotations

import importlib.util
import io
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory

from tests.support.environment import ROOT
from worker.crud import schema

VERSIONS = ROOT / "worker" / "migrations" / "versions"
INDEX = "index of an existing table must be built CONCURRENTLY"
NOT_VALID = "constraint must be added NOT VALID"
LONG_LOCK = "rows must be updated in another transaction than a table is altered in"
SET_NOT_NULL = "column may not become NOT NULL"

_EARLY = "from before the rule, when the tables were small and nothing was released"
EXCEPTIONS: dict[tuple[str, str], str] = {
    ("0003", INDEX): _EARLY,
    ("0003", NOT_VALID): _EARLY,
    ("0004", INDEX): _EARLY,
    ("0004", NOT_VALID): _EARLY,
    ("0005", INDEX): _EARLY,
    ("0006", INDEX): _EARLY,
    ("0008", NOT_VALID): _EARLY,
    ("0009", NOT_VALID): _EARLY,
    ("0009", LONG_LOCK): _EARLY,
    ("0009", SET_NOT_NULL): "from before the rule; older workers failed by it, so that 0012 takes it back",
    ("0010", NOT_VALID): _EARLY,
    ("0039", INDEX): "no row has a value in the new column yet, so that the index is empty",
}
"""What a migration may do all the same, and why. None may be added for a migration from 0011 on without a reason."""

_TABLE = r'(?:public\.)?"?(\w+)"?'
_NEW_TABLE = re.compile(rf"CREATE (?:UNLOGGED )?TABLE (?:IF NOT EXISTS )?{_TABLE}", re.IGNORECASE)
_INDEX = re.compile(
    rf"CREATE (?:UNIQUE )?INDEX (?P<concurrently>CONCURRENTLY )?(?:IF NOT EXISTS )?\S+ ON {_TABLE}", re.IGNORECASE
)
_ALTER = re.compile(rf"ALTER TABLE (?:ONLY )?{_TABLE} (?P<change>.*)", re.IGNORECASE | re.DOTALL)


def _sql(path: Path) -> str:
    """What the upgrade of one migration would send, without a database."""
    out = io.StringIO()
    context = MigrationContext.configure(dialect_name="postgresql", opts={"as_sql": True, "output_buffer": out})
    with context.begin_transaction(), Operations.context(context):
        _module(path).upgrade()
    return out.getvalue()


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"migration_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def broken_rules(sql: str) -> list[str]:
    """Rules that a migration's statements break. A table that the migration makes itself is nobody's yet."""
    sql = re.sub(r"--[^\n]*", "", sql)
    new = {match[1].lower() for match in _NEW_TABLE.finditer(sql)}
    broken: list[str] = []
    altered = False
    unvalidated: dict[str, bool] = {}  # by constraint: whether its transaction has ended
    for statement in (" ".join(part.split()) for part in sql.split(";")):
        if statement.upper().startswith("COMMIT"):
            unvalidated, altered = dict.fromkeys(unvalidated, True), False
        if altered and statement.upper().startswith("UPDATE "):
            broken.append(LONG_LOCK)
        if (index := _INDEX.search(statement)) and index[2].lower() not in new and not index["concurrently"]:
            broken.append(INDEX)
        alter = _ALTER.search(statement)
        if alter is None or alter[1].lower() in new:
            if statement.upper().startswith("DROP TABLE"):
                broken.append("table may only go a release after its last use")
            continue
        altered = True
        broken += [rule for rule, is_broken in _OF_CHANGES.items() if is_broken(alter["change"].upper())]
        if added := re.search(r"ADD CONSTRAINT (\S+).*NOT VALID", alter["change"], re.IGNORECASE):
            unvalidated[added[1]] = False
        validated = re.search(r"VALIDATE CONSTRAINT (\S+)", alter["change"], re.IGNORECASE)
        if validated and not unvalidated.pop(validated[1], True):
            broken.append("constraint must be validated in another transaction than it is added in")
    return broken + ["constraint must be validated"] * bool(unvalidated)


_OF_CHANGES: dict[str, Callable[[str], bool]] = {
    "new column must be nullable or have a default": lambda change: (
        "ADD COLUMN" in change and "NOT NULL" in change and "DEFAULT" not in change
    ),
    "new column may not bring a constraint": lambda change: (
        "ADD COLUMN" in change and bool(re.search(r"\b(REFERENCES|CHECK|UNIQUE)\b", change))
    ),
    SET_NOT_NULL: lambda change: "SET NOT NULL" in change,
    NOT_VALID: lambda change: (
        bool(re.search(r"ADD (CONSTRAINT \S+ )?(CHECK|FOREIGN KEY)", change)) and "NOT VALID" not in change
    ),
    "constraint must use an index that was built CONCURRENTLY": lambda change: (
        bool(re.search(r"ADD (CONSTRAINT \S+ )?(UNIQUE|PRIMARY KEY|EXCLUDE)", change)) and "USING INDEX" not in change
    ),
    "column may only go or change its type or name a release after its last use": lambda change: bool(
        re.search(r"DROP COLUMN|ALTER COLUMN \S+ TYPE|RENAME", change)
    ),
}


@pytest.mark.deep
@pytest.mark.parametrize("path", sorted(VERSIONS.glob("*.py")), ids=lambda path: path.stem)
def test_migration_leaves_workers_of_the_release_before_alone(path: Path) -> None:
    allowed = {rule for number, rule in EXCEPTIONS if number == path.stem[:4]}

    assert set(broken_rules(_sql(path))) == allowed


@pytest.mark.deep
@pytest.mark.parametrize(
    ("sql", "rule"),
    [
        ("ALTER TABLE runs ADD COLUMN pages INTEGER NOT NULL;", "nullable or have a default"),
        ("ALTER TABLE runs ADD COLUMN owner UUID REFERENCES owners (id);", "may not bring a constraint"),
        ("ALTER TABLE runs ALTER COLUMN pages SET NOT NULL;", SET_NOT_NULL),
        ("CREATE INDEX ix_runs ON runs (pages);", INDEX),
        ("ALTER TABLE runs ADD CONSTRAINT ck_runs CHECK (pages > 0);", NOT_VALID),
        ("ALTER TABLE runs ADD CONSTRAINT ck_runs CHECK (pages > 0) NOT VALID;", "must be validated"),
        (
            "ALTER TABLE runs ADD CONSTRAINT ck CHECK (a > 0) NOT VALID; ALTER TABLE runs VALIDATE CONSTRAINT ck;",
            "another transaction",
        ),
        ("ALTER TABLE runs ADD CONSTRAINT uq_runs UNIQUE (pages);", "use an index"),
        ("ALTER TABLE runs DROP COLUMN pages;", "after its last use"),
        ("ALTER TABLE runs RENAME pages TO leaves;", "after its last use"),
        ("DROP TABLE runs;", "after its last use"),
        ("ALTER TABLE runs ADD COLUMN pages INTEGER; UPDATE runs SET pages = 0;", LONG_LOCK),
    ],
)
def test_each_rule_can_be_broken(sql: str, rule: str) -> None:
    (broken,) = broken_rules(sql)

    assert rule in broken


@pytest.mark.parametrize(
    "sql",
    [
        "ALTER TABLE runs ADD COLUMN pages INTEGER DEFAULT 0 NOT NULL;",
        "ALTER TABLE runs ADD COLUMN pages INTEGER; COMMIT; BEGIN; UPDATE runs SET pages = 0;",
        "CREATE INDEX CONCURRENTLY ix_runs ON runs (pages);",
        "CREATE TABLE runs (id UUID NOT NULL); CREATE INDEX ix_runs ON runs (id);",
        "CREATE UNLOGGED TABLE runs (id UUID NOT NULL); CREATE INDEX ix_runs ON runs (id);",
        "ALTER TABLE runs ADD CONSTRAINT ck CHECK (a > 0) NOT VALID; COMMIT; BEGIN;"
        " ALTER TABLE runs VALIDATE CONSTRAINT ck;",
    ],
)
def test_what_disturbs_nobody_is_allowed(sql: str) -> None:
    assert broken_rules(sql) == []


def test_the_version_that_the_code_wants_is_alembics_head() -> None:
    assert schema.wanted() == ScriptDirectory.from_config(schema._config()).get_current_head()
