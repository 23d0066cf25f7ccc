"""The log behind the change feed: which accounts, balances, positions and transactions a statement has changed.

Triggers write it, so that it also has what workers of another release and statements by hand change. One row of the log
lists up to a thousand rows of one user. A statement that changes nothing that the feed shows writes none.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None

_ROWS_EACH = 1000
_SEARCHED = "SET search_path = pg_catalog, public, pg_temp"

# The columns that the feed shows, without the id.
SHOWN = {
    "accounts": "provider_id name official_name mask type subtype margin currency status",
    "balances": "account_id currency current available credit_limit cash market_value as_of taken_at",
    "holdings": "account_id security_id quantity price market_value average_price cost_basis currency as_of closed_at",
    "transactions": "account_id posted_date occurred_at settlement_date status type subtype description counterparty"
    " category amount currency security_id quantity price fees",
}
SHOWN_OF_SECURITIES = "type symbol name cusip isin currency multiplier"
_ALL = (*SHOWN, "securities")


def upgrade() -> None:
    _make_tables()
    for noun in SHOWN:
        op.execute(_function(noun))
        for event, tables in (
            ("INSERT", "NEW TABLE AS new_rows"),
            ("UPDATE", "OLD TABLE AS old_rows NEW TABLE AS new_rows"),
            ("DELETE", "OLD TABLE AS old_rows"),
        ):
            op.execute(
                f"CREATE TRIGGER change_log_{event.lower()} AFTER {event} ON {noun} REFERENCING {tables}"
                f" FOR EACH STATEMENT EXECUTE FUNCTION change_log_{noun}()"
            )
    op.execute(_OF_SECURITIES)
    op.execute(
        "CREATE TRIGGER change_log_update AFTER UPDATE ON securities REFERENCING OLD TABLE AS old_rows"
        " NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION change_log_securities()"
    )
    _log_cascades()
    op.execute(_BEGIN_ANEW)
    for table in (*_ALL, "change_log", "change_reads"):
        op.execute(
            f"CREATE TRIGGER change_log_truncate AFTER TRUNCATE ON {table}"
            " FOR EACH STATEMENT EXECUTE FUNCTION change_log_begin_anew()"
        )


def downgrade() -> None:
    for noun in SHOWN:
        for event in ("insert", "update", "delete"):
            op.execute(f"DROP TRIGGER change_log_{event} ON {noun}")
    op.execute("DROP TRIGGER change_log_update ON securities")
    for table in _ALL:
        op.execute(f"DROP TRIGGER change_log_truncate ON {table}")
    for table in ("providers", "accounts"):
        op.execute(f"DROP TRIGGER change_log_cascade ON {table}")
        op.execute(f"DROP FUNCTION change_log_cascade_{table}()")
    for table in ("change_log", "change_reads", "change_origin"):
        op.drop_table(table)
    for name in (*_ALL, "begin_anew"):
        op.execute(f"DROP FUNCTION change_log_{name}()")


def _make_tables() -> None:
    now = sa.text("clock_timestamp()")
    op.create_table(
        "change_log",
        sa.Column("xid", sa.BigInteger(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=True),
        sa.Column("noun", sa.String(), nullable=False),
        sa.Column("change", sa.String(), nullable=False),
        sa.Column("ids", sa.ARRAY(sa.Uuid()), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=now, nullable=False),
        sa.PrimaryKeyConstraint("xid", "sequence", name="pk_change_log"),
    )
    op.create_index("ix_change_log_user_id_xid_sequence", "change_log", ["user_id", "xid", "sequence"])
    op.create_index("ix_change_log_at", "change_log", ["at"])
    op.create_table(
        "change_reads",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=now, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_change_reads"),
    )
    op.create_index("ix_change_reads_at", "change_reads", ["at"])
    op.create_table(
        "change_origin",
        sa.Column("one", sa.Boolean(), server_default="true", nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("epoch", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("kept_from", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("one", name="pk_change_origin"),
        sa.CheckConstraint("one", name="ck_change_origin_one"),
    )
    op.execute("INSERT INTO change_origin DEFAULT VALUES")


def _function(noun: str) -> str:
    owner = "providers p ON p.id = r.provider_id"
    if noun != "accounts":
        owner = "accounts a ON a.id = r.account_id JOIN providers p ON p.id = a.provider_id"
    columns = SHOWN[noun].split()
    new, old = (", ".join(f"{side}.{name}" for name in columns) for side in "no")
    owned = "account_id" if noun != "accounts" else "provider_id"

    def write(change: str, source: str, side: str = "n") -> str:
        return f"""
            INSERT INTO change_log (xid, user_id, noun, change, ids)
            SELECT pg_current_xact_id()::text::bigint, p.user_id, '{noun}', '{change}', array_agg(r.id)
            FROM (SELECT {side}.id, {side}.{owned}, row_number() OVER () / {_ROWS_EACH} AS part FROM {source}) AS r
            JOIN {owner}
            GROUP BY p.user_id, r.part;
        """  # noqa: S608 - made of the constants above

    both = "new_rows n JOIN old_rows o ON o.id = n.id"
    # A row that moves to another account may have had another owner, who must hear of it, too.
    # Of a row whose account or login is gone, the deletion of that one has already logged it.
    return f"""
    CREATE FUNCTION change_log_{noun}() RETURNS trigger LANGUAGE plpgsql {_SEARCHED} AS $$
    BEGIN
        IF TG_OP = 'INSERT' THEN
            {write("added", "new_rows n")}
        ELSIF TG_OP = 'UPDATE' THEN
            {write("modified", f"{both} WHERE ({new}) IS DISTINCT FROM ({old})")}
            {write("removed", f"{both} WHERE n.{owned} <> o.{owned}", side="o")}
        ELSE
            {write("removed", "old_rows o", side="o")}
        END IF;
        RETURN NULL;
    END $$
    """


_NEW, _OLD = (", ".join(f"{side}.{name}" for name in SHOWN_OF_SECURITIES.split()) for side in "no")
# A security may belong to positions of very many users, so it is logged by itself, for all.
_OF_SECURITIES = f"""
    CREATE FUNCTION change_log_securities() RETURNS trigger LANGUAGE plpgsql {_SEARCHED} AS $$
    BEGIN
        INSERT INTO change_log (xid, user_id, noun, change, ids)
        SELECT pg_current_xact_id()::text::bigint, NULL, 'securities', 'modified', array_agg(n.id)
        FROM new_rows n JOIN old_rows o ON o.id = n.id WHERE ({_NEW}) IS DISTINCT FROM ({_OLD})
        HAVING count(*) > 0;
        RETURN NULL;
    END $$
"""  # noqa: S608 - made of the constants above

_BEGIN_ANEW = f"""
    CREATE FUNCTION change_log_begin_anew() RETURNS trigger LANGUAGE plpgsql {_SEARCHED} AS $$
    BEGIN
        UPDATE change_origin SET epoch = gen_random_uuid();
        RETURN NULL;
    END $$
"""  # noqa: S608 - made of the constants above


def _log_cascades() -> None:
    """A cascade deletes the owner first. Then nobody could say whose the rows were, so they are deleted before it."""
    of_account = ("balances", "holdings", "transactions")
    children = {
        "providers": "DELETE FROM accounts WHERE provider_id = OLD.id;",
        "accounts": " ".join(f"DELETE FROM {table} WHERE account_id = OLD.id;" for table in of_account),  # noqa: S608
    }
    for table, deletes in children.items():
        op.execute(
            f"""
            CREATE FUNCTION change_log_cascade_{table}() RETURNS trigger LANGUAGE plpgsql {_SEARCHED} AS $$
            BEGIN
                {deletes}
                RETURN OLD;
            END $$
            """
        )
        op.execute(
            f"CREATE TRIGGER change_log_cascade BEFORE DELETE ON {table}"
            f" FOR EACH ROW EXECUTE FUNCTION change_log_cascade_{table}()"
        )
