"""Balances by day: for each account and day the balance that was last stated. They are kept as long as the account."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from worker.migrations.views import create_view, drop_view

revision = "0033"
down_revision = "0032"
branch_labels = None
depends_on = None

_FIGURES = ("current", "available", "credit_limit", "cash", "market_value")
_COLUMNS = (
    ("account_id", "d.account_id", "Account that it is about."),
    ("user_id", "p.user_id", "User that the account belongs to."),
    ("day", "d.day", "The day, in UTC. A day on which nothing was stated has no row."),
    ("currency", "d.currency", "Currency of the figures."),
    ("current", "d.current", "Balance as it was last stated for this day; a debt is negative."),
    ("available", "d.available", "What could be spent."),
    ("credit_limit", "d.credit_limit", "Limit of credit."),
    ("cash", "d.cash", "Cash part of an investment account."),
    ("market_value", "d.market_value", "Value of the positions of an investment account."),
)


def upgrade() -> None:
    op.create_table(
        "balance_days",
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        *(sa.Column(name, sa.Numeric(), nullable=True) for name in _FIGURES),
        sa.Column("currency", sa.String(), nullable=False),
        *(
            sa.CheckConstraint(f"{name} > '-Infinity' AND {name} < 'Infinity'", name=f"ck_balance_days_{name}_finite")
            for name in _FIGURES
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name="fk_balance_days_account_id_accounts", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("account_id", "day", name="pk_balance_days"),
    )
    figures = ", ".join((*_FIGURES, "currency"))
    op.execute(
        f"""
        INSERT INTO balance_days (account_id, day, {figures})
        SELECT DISTINCT ON (account_id, day) account_id, day, {figures}
        FROM balances CROSS JOIN LATERAL (
            SELECT CAST(least(coalesce(as_of, taken_at), taken_at) AT TIME ZONE 'UTC' AS date) AS day
        ) AS of
        ORDER BY account_id, day, taken_at DESC
        """  # noqa: S608 - made of the constants above
    )
    create_view(
        "balance_days",
        "Balances by day: for each account and day the balance that the institution last stated.",
        "FROM balance_days AS d JOIN accounts AS a ON a.id = d.account_id JOIN providers AS p ON p.id = a.provider_id",
        _COLUMNS,
    )


def downgrade() -> None:
    drop_view("balance_days")
    op.drop_table("balance_days")
