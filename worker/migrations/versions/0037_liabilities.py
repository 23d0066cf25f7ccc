"""Liabilities: the terms of cards and loans, in the change feed and in a view."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from worker.migrations.views import create_view, drop_view

revision = "0037"
down_revision = "0036"
branch_labels = None
depends_on = None

# The columns that the view and the change feed show after id and account: name, type, comment.
_SHOWN: tuple[tuple[str, Any, str], ...] = (
    ("kind", sa.String(), "credit, line_of_credit, loan, mortgage or student."),
    ("status", sa.String(), "State of a student loan, for example repayment or in_school."),
    ("currency", sa.String(), "Currency of the amounts."),
    ("interest_rate", sa.Numeric(), "Annual rate in percent; of a card, that for purchases."),
    ("interest_type", sa.String(), "fixed or variable, if the institution says so."),
    ("is_overdue", sa.Boolean(), "Whether a payment is overdue."),
    ("past_due_amount", sa.Numeric(), "What should have been paid by now."),
    ("last_statement_date", sa.Date(), "Day of the last statement."),
    ("last_statement_balance", sa.Numeric(), "What was owed at the last statement; positive."),
    ("last_payment_date", sa.Date(), "Day of the last payment."),
    ("last_payment_amount", sa.Numeric(), "Amount of the last payment; positive."),
    ("next_payment_date", sa.Date(), "Day on which the next payment is due."),
    ("next_payment_amount", sa.Numeric(), "What is due on that day; of a card, its minimum payment."),
    ("minimum_payment", sa.Numeric(), "The least that must be paid."),
    ("principal", sa.Numeric(), "What is still owed of the loan itself, if stated apart from the balance."),
    ("original_principal", sa.Numeric(), "What was borrowed."),
    ("originated_on", sa.Date(), "Day on which the loan began."),
    ("ends_on", sa.Date(), "Day by which the loan will have been paid back."),
    ("ytd_interest_paid", sa.Numeric(), "Interest that was paid since the beginning of the year."),
    ("ytd_principal_paid", sa.Numeric(), "Principal that was paid since the beginning of the year."),
    ("details", postgresql.JSONB(), "What only some kinds have; amounts are decimal texts."),
    ("closed_at", sa.DateTime(timezone=True), "When it was no longer listed; null while it is open."),
)
_REQUIRED = ("kind", "currency", "details")


def upgrade() -> None:
    op.create_table(
        "liabilities",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("liability_key", sa.String(), nullable=False),
        *(sa.Column(name, kind, nullable=name not in _REQUIRED) for name, kind, _ in _SHOWN),
        sa.Column("content_hash", sa.LargeBinary(), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=True),
        *(
            sa.CheckConstraint(f"{name} > '-Infinity' AND {name} < 'Infinity'", name=f"ck_liabilities_{name}_finite")
            for name, kind, _ in _SHOWN
            if isinstance(kind, sa.Numeric)
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name="fk_liabilities_account_id_accounts", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_liabilities"),
        sa.UniqueConstraint("account_id", "liability_key", name="uq_liabilities_account_id_liability_key"),
    )
    op.execute(_LOG)
    for event, tables in (
        ("INSERT", "NEW TABLE AS new_rows"),
        ("UPDATE", "OLD TABLE AS old_rows NEW TABLE AS new_rows"),
        ("DELETE", "OLD TABLE AS old_rows"),
    ):
        op.execute(
            f"CREATE TRIGGER change_log_{event.lower()} AFTER {event} ON liabilities REFERENCING {tables}"
            " FOR EACH STATEMENT EXECUTE FUNCTION change_log_liabilities()"
        )
    op.execute(
        "CREATE TRIGGER change_log_truncate AFTER TRUNCATE ON liabilities"
        " FOR EACH STATEMENT EXECUTE FUNCTION change_log_begin_anew()"
    )
    op.execute(_CASCADE)
    op.execute(
        "CREATE TRIGGER change_log_cascade_liabilities BEFORE DELETE ON accounts"
        " FOR EACH ROW EXECUTE FUNCTION change_log_cascade_liabilities()"
    )
    create_view(
        "liabilities",
        "Terms of cards and loans, open and closed. Amounts that are owed or paid are positive, rates are in percent.",
        "FROM liabilities AS l JOIN accounts AS a ON a.id = l.account_id JOIN providers AS p ON p.id = a.provider_id",
        (
            ("liability_id", "l.id", "Id of the liability."),
            ("account_id", "l.account_id", "Account that it is about."),
            ("user_id", "p.user_id", "User that the account belongs to."),
            *((name, f"l.{name}", comment) for name, _, comment in _SHOWN),
        ),
    )


def downgrade() -> None:
    drop_view("liabilities")
    op.execute("DROP TRIGGER change_log_cascade_liabilities ON accounts")
    op.execute("DROP FUNCTION change_log_cascade_liabilities()")
    op.drop_table("liabilities")
    op.execute("DROP FUNCTION change_log_liabilities()")
    op.execute("DELETE FROM change_log WHERE noun = 'liabilities'")


_SEARCHED = "SET search_path = pg_catalog, public, pg_temp"
_NEW, _OLD = (", ".join(f"{side}.{name}" for name in ("account_id", *(shown[0] for shown in _SHOWN))) for side in "no")


def _write(change: str, rows: str, side: str) -> str:
    return f"""
        INSERT INTO change_log (xid, user_id, noun, change, ids)
        SELECT pg_current_xact_id()::text::bigint, p.user_id, 'liabilities', '{change}', array_agg(r.id)
        FROM (SELECT {side}.id, {side}.account_id, row_number() OVER () / 1000 AS part FROM {rows}) AS r
        JOIN accounts a ON a.id = r.account_id JOIN providers p ON p.id = a.provider_id
        GROUP BY p.user_id, r.part;
    """  # noqa: S608 - made of constants


_BOTH = "new_rows n JOIN old_rows o ON o.id = n.id"
# A row that moves to another account may have had another owner, who must hear of it, too.
_LOG = f"""
    CREATE FUNCTION change_log_liabilities() RETURNS trigger LANGUAGE plpgsql {_SEARCHED} AS $$
    BEGIN
        IF TG_OP = 'INSERT' THEN
            {_write("added", "new_rows n", "n")}
        ELSIF TG_OP = 'UPDATE' THEN
            {_write("modified", f"{_BOTH} WHERE ({_NEW}) IS DISTINCT FROM ({_OLD})", "n")}
            {_write("removed", f"{_BOTH} WHERE n.account_id <> o.account_id", "o")}
        ELSE
            {_write("removed", "old_rows o", "o")}
        END IF;
        RETURN NULL;
    END $$
"""
# A cascade deletes the account first. Then nobody could say whose the rows were, so they are deleted before it.
_CASCADE = f"""
    CREATE FUNCTION change_log_cascade_liabilities() RETURNS trigger LANGUAGE plpgsql {_SEARCHED} AS $$
    BEGIN
        DELETE FROM liabilities WHERE account_id = OLD.id;
        RETURN OLD;
    END $$
"""  # noqa: S608 - a constant
