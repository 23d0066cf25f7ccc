"""Views for reports and other programs, in a schema of their own. Tables may change; these views stay as they are.

A later version of the views gets a schema of its own, `dashtam_v2`, beside this one.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from worker.errors import Refused

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

# View, comment, rows, columns: name, expression, comment.
VIEWS = (
    (
        "logins",
        "Linked logins: one person's access to one institution.",
        """
FROM providers AS p
        """,
        (
            ("login_id", "p.id", "Id of the login."),
            ("user_id", "p.user_id", "Id of its user."),
            ("institution", "p.provider_key", "Key of the integration."),
            ("alias", "p.alias", "What its user calls it."),
            ("status", "p.status", "pending, active, needs_reauth, paused or unlinked."),
            ("connected_at", "p.connected_at", "When its user last linked it."),
            ("grant_expires_at", "p.grant_expires_at", "When its user's consent ends; null if no end is known."),
            ("synced_at", "p.synced_at", "When a sync last completed."),
            ("created_at", "p.created_at", "When it was created."),
        ),
    ),
    (
        "accounts",
        "Accounts, each with its newest stated balance. Debts are negative.",
        """
FROM accounts AS a JOIN providers AS p ON p.id = a.provider_id
LEFT JOIN LATERAL (
    SELECT * FROM balances WHERE account_id = a.id ORDER BY taken_at DESC LIMIT 1
) AS b ON true
        """,
        (
            ("account_id", "a.id", "Id of the account."),
            ("login_id", "a.provider_id", "Login that it belongs to."),
            ("user_id", "p.user_id", "User that it belongs to."),
            ("institution", "p.provider_key", "Key of the integration."),
            ("name", "a.name", "Its name."),
            ("official_name", "a.official_name", "The institution's own name for it."),
            ("mask", "a.mask", "Last digits of its number."),
            ("type", "a.type", "depository, credit, loan, investment, crypto, insurance or other."),
            ("subtype", "a.subtype", "More about the type, for example checking; new values can appear."),
            ("status", "a.status", "active, closed, or inaccessible: missing from the latest complete list."),
            ("currency", "a.currency", "Currency of its figures, for example USD."),
            ("current", "b.current", "Balance as the institution last stated it; a debt is negative."),
            ("available", "b.available", "What can be spent, as the institution last stated it."),
            ("credit_limit", "b.credit_limit", "Limit of credit."),
            ("cash", "b.cash", "Cash part of an investment account."),
            ("market_value", "b.market_value", "Value of the positions of an investment account."),
            ("balance_as_of", "b.as_of", "Time that the institution gives for these figures; null when it gives none."),
            ("balance_taken_at", "b.taken_at", "When these figures were read."),
        ),
    ),
    (
        "balances",
        "Balances as institutions stated them: one for each change, and one for each day on which it was read.",
        """
FROM balances AS b JOIN accounts AS a ON a.id = b.account_id JOIN providers AS p ON p.id = a.provider_id
        """,
        (
            ("balance_id", "b.id", "Id of the statement."),
            ("account_id", "b.account_id", "Account that it is about."),
            ("user_id", "p.user_id", "User that the account belongs to."),
            ("currency", "b.currency", "Currency of the figures."),
            ("current", "b.current", "Balance; a debt is negative."),
            ("available", "b.available", "What can be spent."),
            ("credit_limit", "b.credit_limit", "Limit of credit."),
            ("cash", "b.cash", "Cash part of an investment account."),
            ("market_value", "b.market_value", "Value of the positions of an investment account."),
            ("as_of", "b.as_of", "Time that the institution gives for these figures; null when it gives none."),
            ("taken_at", "b.taken_at", "When the figures were read. They hold until the account's next row."),
        ),
    ),
    (
        "securities",
        "Securities. One row serves all accounts.",
        """
FROM securities AS s
        """,
        (
            ("security_id", "s.id", "Id of the security."),
            (
                "type",
                "s.type",
                "Its type, for example equity, etf, mutual_fund, option, fixed_income or crypto.",
            ),
            ("symbol", "s.symbol", "Ticker symbol."),
            ("name", "s.name", "Its name."),
            ("cusip", "s.cusip", "CUSIP."),
            ("isin", "s.isin", "ISIN."),
            ("currency", "s.currency", "Currency in which it is priced."),
            ("multiplier", "s.multiplier", "Units of the underlying in one contract; 1 for shares."),
        ),
    ),
    (
        "holdings",
        "Positions, open and closed.",
        """
FROM holdings AS h JOIN securities AS s ON s.id = h.security_id
JOIN accounts AS a ON a.id = h.account_id JOIN providers AS p ON p.id = a.provider_id
        """,
        (
            ("holding_id", "h.id", "Id of the position."),
            ("account_id", "h.account_id", "Account that it is in."),
            ("user_id", "p.user_id", "User that the account belongs to."),
            ("security_id", "h.security_id", "Security that is held."),
            ("symbol", "s.symbol", "Ticker symbol of the security."),
            ("security_name", "s.name", "Name of the security."),
            ("security_type", "s.type", "Type of the security, as in the view securities."),
            ("quantity", "h.quantity", "Units; negative when sold short, 0 when closed."),
            ("price", "h.price", "Price of one unit, as the institution last stated it."),
            ("market_value", "h.market_value", "Value of the position."),
            ("average_price", "h.average_price", "Average price at which the units were bought."),
            ("cost_basis", "h.cost_basis", "What the units cost."),
            ("currency", "h.currency", "Currency of the figures."),
            ("as_of", "h.as_of", "Day of the price, if the institution states it."),
            ("closed_at", "h.closed_at", "When it was no longer listed; null while it is open."),
        ),
    ),
    (
        "holding_days",
        "Positions as they were at the end of each day on which they were synced.",
        """
FROM holding_days AS d JOIN holdings AS h ON h.id = d.holding_id
JOIN accounts AS a ON a.id = h.account_id JOIN providers AS p ON p.id = a.provider_id
        """,
        (
            ("holding_id", "d.holding_id", "Position that it is about."),
            ("account_id", "h.account_id", "Account that the position is in."),
            ("user_id", "p.user_id", "User that the account belongs to."),
            ("security_id", "h.security_id", "Security that is held."),
            ("day", "d.day", "The day."),
            ("quantity", "d.quantity", "Units at the end of the day."),
            ("price", "d.price", "Price of one unit."),
            ("market_value", "d.market_value", "Value of the position."),
            ("currency", "h.currency", "Currency of the figures."),
        ),
    ),
    (
        "transactions",
        "Transactions, without those that the institution has withdrawn.",
        """
FROM transactions AS t JOIN accounts AS a ON a.id = t.account_id JOIN providers AS p ON p.id = a.provider_id
LEFT JOIN securities AS s ON s.id = t.security_id
WHERE t.status <> 'removed'
        """,
        (
            ("transaction_id", "t.id", "Id of the transaction. It stays when the institution changes the row."),
            ("account_id", "t.account_id", "Account that it is in."),
            ("user_id", "p.user_id", "User that the account belongs to."),
            (
                "posted_date",
                "t.posted_date",
                "Day on which it was booked; of a pending one, the stated day.",
            ),
            ("occurred_at", "t.occurred_at", "Moment at which it took place, if the institution gives one."),
            ("settlement_date", "t.settlement_date", "Day on which a trade settles."),
            ("status", "t.status", "pending, posted, failed or canceled."),
            (
                "type",
                "t.type",
                "Its type, for example trade, income, transfer, payment, fee, tax or other.",
            ),
            ("subtype", "t.subtype", "More about the type; new values can appear."),
            ("description", "t.description", "The institution's text."),
            ("counterparty", "t.counterparty", "Who paid or was paid."),
            ("category", "t.category", "The institution's category, for example FOOD_AND_DRINK_GROCERIES."),
            ("amount", "t.amount", "Amount; + is money into the account."),
            ("currency", "t.currency", "Currency of the amount, the price and the fees."),
            ("security_id", "t.security_id", "Security that was traded."),
            ("symbol", "s.symbol", "Ticker symbol of the security."),
            ("security_type", "s.type", "Type of the security, as in the view securities."),
            ("quantity", "t.quantity", "Units; + is units into the account."),
            ("price", "t.price", "Price of one unit."),
            ("fees", "t.fees", "Fees, contained in the amount."),
        ),
    ),
    (
        "sync_runs",
        "Syncs and what they changed.",
        """
FROM sync_runs AS r JOIN providers AS p ON p.id = r.provider_id
        """,
        (
            ("run_id", "r.id", "Id of the run."),
            ("login_id", "r.provider_id", "Login that was synced."),
            ("user_id", "p.user_id", "User that the login belongs to."),
            ("status", "r.status", "running, completed, partial, failed or cancelled."),
            ("trigger", "r.trigger", "Who asked for it: schedule, manual or link."),
            ("started_at", "r.started_at", "When it began."),
            ("finished_at", "r.finished_at", "When it ended; null while it is running."),
            ("added", "r.added", "Rows added."),
            ("changed", "r.changed", "Rows changed."),
            ("unchanged", "r.unchanged", "Rows read that were the same as before."),
            ("removed", "r.removed", "Rows withdrawn."),
            ("quarantined", "r.quarantined", "Records that could not be trusted."),
        ),
    ),
)


def upgrade() -> None:
    if not _may_create_schemas():
        raise Refused(
            "this role may not create the schema dashtam_v1; nothing was changed. As the database's owner, run "
            "`dashtam database roles`, then `dashtam migrate` again"
        )
    op.execute("CREATE SCHEMA dashtam_v1")
    op.execute("COMMENT ON SCHEMA dashtam_v1 IS 'Views for reports and other programs; see docs/data.md'")
    for view, comment, rows, columns in VIEWS:
        listed = ", ".join(f"{expression} AS {name}" for name, expression, _ in columns)
        op.execute(f"CREATE VIEW dashtam_v1.{view} AS SELECT {listed} {rows}")
        op.execute(sa.text(f"COMMENT ON VIEW dashtam_v1.{view} IS '{_quoted(comment)}'"))
        for name, _, told in columns:
            op.execute(sa.text(f"COMMENT ON COLUMN dashtam_v1.{view}.{name} IS '{_quoted(told)}'"))


def _may_create_schemas() -> bool:
    if op.get_context().as_sql:  # there is no database to ask
        return True
    asked = sa.text("SELECT has_database_privilege(current_database(), 'CREATE')")
    return bool(op.get_bind().execute(asked).scalar_one())


def _quoted(comment: str) -> str:
    return comment.replace("'", "''").replace(":", "\\:")


def downgrade() -> None:
    op.execute("DROP SCHEMA dashtam_v1 CASCADE")
