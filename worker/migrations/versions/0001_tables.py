"""All tables of the first release."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "heartbeats",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("detail", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_heartbeats")),
    )
    op.create_table(
        "integration_states",
        sa.Column("provider_key", sa.String(), nullable=False),
        sa.Column("paused_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("paused_reason", sa.String(), nullable=True),
        sa.Column("paused_by", sa.String(), nullable=True),
        sa.Column("breaker", sa.String(), server_default="closed", nullable=False),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("probe_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("alarm", sa.String(), nullable=True),
        sa.Column("alarm_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("provider_key", name=op.f("pk_integration_states")),
    )
    op.create_table(
        "provider_audit_logs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("provider_id", sa.Uuid(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=True),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("task_id", sa.String(), nullable=True),
        sa.Column("detail", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("prev_hash", sa.LargeBinary(), nullable=True),
        sa.Column("hash", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_provider_audit_logs")),
        sa.UniqueConstraint("provider_id", "seq", name=op.f("uq_provider_audit_logs_provider_id_seq")),
    )
    op.create_table(
        "quota_days",
        sa.Column("provider_key", sa.String(), nullable=False),
        sa.Column("bucket", sa.String(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("used", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("provider_key", "bucket", "day", name=op.f("pk_quota_days")),
    )
    op.create_table(
        "securities",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("symbol", sa.String(), nullable=True),
        sa.Column("name", sa.String(), nullable=True),
        sa.Column("cusip", sa.String(), nullable=True),
        sa.Column("isin", sa.String(), nullable=True),
        sa.Column("currency", sa.String(), nullable=True),
        sa.Column("multiplier", sa.Numeric(), nullable=False),
        sa.Column("content_hash", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint(
            "multiplier > '-Infinity' AND multiplier < 'Infinity'", name=op.f("ck_securities_multiplier_finite")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_securities")),
        sa.UniqueConstraint("key", name=op.f("uq_securities_key")),
    )
    op.create_table(
        "task_deliveries",
        sa.Column("task_id", sa.String(), nullable=False),
        sa.Column("deliveries", sa.Integer(), nullable=False),
        sa.Column("first_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("task_id", name=op.f("pk_task_deliveries")),
    )
    op.create_table(
        "task_failures",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("task_id", sa.String(), nullable=False),
        sa.Column("task_name", sa.String(), nullable=False),
        sa.Column("arguments", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("deliveries", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("resolved_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("resolution", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_task_failures")),
    )
    op.create_index(
        "ix_task_failures_open", "task_failures", ["created_at"], unique=False, postgresql_where="resolved_at IS NULL"
    )
    op.create_table(
        "users",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("email", sa.String(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
        sa.UniqueConstraint("email", name=op.f("uq_users_email")),
    )
    op.create_table(
        "link_states",
        sa.Column("state_hash", sa.LargeBinary(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("provider_key", sa.String(), nullable=False),
        sa.Column("alias", sa.String(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_link_states_user_id_users"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("state_hash", name=op.f("pk_link_states")),
    )
    op.create_index(op.f("ix_link_states_expires_at"), "link_states", ["expires_at"], unique=False)
    op.create_table(
        "providers",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("provider_key", sa.String(), nullable=False),
        sa.Column("alias", sa.String(), nullable=False),
        sa.Column("external_id", sa.String(), nullable=True),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("status_reason", sa.String(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("access_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("grant_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("refreshed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("refresh_due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("refresh_failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("synced_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("sync_due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("sync_failures", sa.Integer(), server_default="0", nullable=False),
        sa.CheckConstraint(
            "status IN ('pending', 'active', 'needs_reauth', 'paused', 'unlinked')", name=op.f("ck_providers_status")
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_providers_user_id_users"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_providers")),
        sa.UniqueConstraint("provider_key", "external_id", name=op.f("uq_providers_provider_key_external_id")),
        sa.UniqueConstraint("user_id", "provider_key", "alias", name=op.f("uq_providers_user_id_provider_key_alias")),
        postgresql_with={"fillfactor": 70},
    )
    op.create_index(
        "ix_providers_access_expires",
        "providers",
        ["access_expires_at"],
        unique=False,
        postgresql_where="status = 'active'",
    )
    op.create_index(
        "ix_providers_grant_expires",
        "providers",
        ["grant_expires_at"],
        unique=False,
        postgresql_where="status = 'active' AND grant_expires_at IS NOT NULL",
    )
    op.create_index(
        "ix_providers_not_active",
        "providers",
        ["status", "provider_key"],
        unique=False,
        postgresql_where="status <> 'active'",
    )
    op.create_index(
        "ix_providers_refresh_due",
        "providers",
        ["provider_key", "refresh_due_at"],
        unique=False,
        postgresql_where="status = 'active' AND refresh_due_at IS NOT NULL",
    )
    op.create_index(
        "ix_providers_sync_due",
        "providers",
        ["provider_key", "sync_due_at"],
        unique=False,
        postgresql_where="status = 'active' AND sync_due_at IS NOT NULL",
    )
    op.create_table(
        "accounts",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("provider_id", sa.Uuid(), nullable=False),
        sa.Column("provider_account_id", sa.String(), nullable=False),
        sa.Column("provider_ref", sa.String(), nullable=True),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("official_name", sa.String(), nullable=True),
        sa.Column("mask", sa.String(), nullable=True),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("subtype", sa.String(), nullable=False),
        sa.Column("provider_type", sa.String(), nullable=True),
        sa.Column("provider_subtype", sa.String(), nullable=True),
        sa.Column("margin", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("currency", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("content_hash", sa.LargeBinary(), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["provider_id"], ["providers.id"], name=op.f("fk_accounts_provider_id_providers"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_accounts")),
        sa.UniqueConstraint(
            "provider_id", "provider_account_id", name=op.f("uq_accounts_provider_id_provider_account_id")
        ),
    )
    op.create_table(
        "notices",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("provider_id", sa.Uuid(), nullable=False),
        sa.Column("subject_key", sa.String(), nullable=False),
        sa.Column("stage", sa.String(), nullable=False),
        sa.Column("channel", sa.String(), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("last_error", sa.String(), nullable=True),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["provider_id"], ["providers.id"], name=op.f("fk_notices_provider_id_providers"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notices")),
        sa.UniqueConstraint(
            "provider_id",
            "subject_key",
            "stage",
            "channel",
            name=op.f("uq_notices_provider_id_subject_key_stage_channel"),
        ),
    )
    op.create_index(
        "ix_notices_due", "notices", ["due_at"], unique=False, postgresql_where="sent_at IS NULL AND due_at IS NOT NULL"
    )
    op.create_table(
        "provider_tokens",
        sa.Column("provider_id", sa.Uuid(), nullable=False),
        sa.Column("access_token", sa.String(), nullable=False),
        sa.Column("refresh_token", sa.String(), nullable=True),
        sa.Column("key_id", sa.String(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("scope", sa.String(), nullable=True),
        sa.Column("lifetime_s", sa.Integer(), nullable=True),
        sa.Column("issued_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("lease_owner", sa.Uuid(), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["provider_id"], ["providers.id"], name=op.f("fk_provider_tokens_provider_id_providers"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("provider_id", name=op.f("pk_provider_tokens")),
        postgresql_with={"fillfactor": 70},
    )
    op.create_index("ix_provider_tokens_key_id", "provider_tokens", ["key_id"], unique=False)
    op.create_table(
        "quarantine",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("provider_id", sa.Uuid(), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=True),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("account_key", sa.String(), nullable=True),
        sa.Column("record_key", sa.String(), nullable=True),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("detail", sa.String(), nullable=True),
        sa.Column("payload", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("resolved_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("resolution", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(
            ["provider_id"], ["providers.id"], name=op.f("fk_quarantine_provider_id_providers"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_quarantine")),
        sa.UniqueConstraint("provider_id", "fingerprint", name=op.f("uq_quarantine_provider_id_fingerprint")),
    )
    op.create_index("ix_quarantine_created", "quarantine", ["created_at"], unique=False)
    op.create_index(
        "ix_quarantine_open", "quarantine", ["provider_id"], unique=False, postgresql_where="resolved_at IS NULL"
    )
    op.create_table(
        "sync_cursors",
        sa.Column("provider_id", sa.Uuid(), nullable=False),
        sa.Column("feed", sa.String(), nullable=False),
        sa.Column("cursor", sa.String(), nullable=False),
        sa.Column("loop_cursor", sa.String(), nullable=True),
        sa.Column("loop_id", sa.Uuid(), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["provider_id"], ["providers.id"], name=op.f("fk_sync_cursors_provider_id_providers"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("provider_id", "feed", name=op.f("pk_sync_cursors")),
    )
    op.create_table(
        "sync_runs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("provider_id", sa.Uuid(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("trigger", sa.String(), nullable=False),
        sa.Column("mode", sa.String(), server_default="incremental", nullable=False),
        sa.Column("owner", sa.Uuid(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("heartbeat_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cancel_requested", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("pages", sa.Integer(), server_default="0", nullable=False),
        sa.Column("added", sa.Integer(), server_default="0", nullable=False),
        sa.Column("changed", sa.Integer(), server_default="0", nullable=False),
        sa.Column("unchanged", sa.Integer(), server_default="0", nullable=False),
        sa.Column("removed", sa.Integer(), server_default="0", nullable=False),
        sa.Column("quarantined", sa.Integer(), server_default="0", nullable=False),
        sa.Column("counts", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False),
        sa.Column("cursor_before", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("cursor_after", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("error", sa.String(), nullable=True),
        sa.Column("error_scope", sa.String(), nullable=True),
        sa.Column("error_reason", sa.String(), nullable=True),
        sa.Column("problems", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.ForeignKeyConstraint(
            ["provider_id"], ["providers.id"], name=op.f("fk_sync_runs_provider_id_providers"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sync_runs")),
    )
    op.create_index("ix_sync_runs_provider", "sync_runs", ["provider_id", "started_at"], unique=False)
    op.create_index("ix_sync_runs_started", "sync_runs", ["started_at"], unique=False)
    op.create_index(
        "uq_sync_runs_running", "sync_runs", ["provider_id"], unique=True, postgresql_where="status = 'running'"
    )
    op.create_table(
        "token_refreshes",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("provider_id", sa.Uuid(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("trigger", sa.String(), nullable=False),
        sa.Column("error", sa.String(), nullable=True),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("lease_owner", sa.Uuid(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["provider_id"], ["providers.id"], name=op.f("fk_token_refreshes_provider_id_providers"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_token_refreshes")),
    )
    op.create_index("ix_token_refreshes_provider", "token_refreshes", ["provider_id", "started_at"], unique=False)
    op.create_index(
        "ix_token_refreshes_sent", "token_refreshes", ["provider_id"], unique=False, postgresql_where="status = 'sent'"
    )
    op.create_index("ix_token_refreshes_started", "token_refreshes", ["started_at"], unique=False)
    op.create_table(
        "balances",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("current", sa.Numeric(), nullable=True),
        sa.Column("available", sa.Numeric(), nullable=True),
        sa.Column("credit_limit", sa.Numeric(), nullable=True),
        sa.Column("cash", sa.Numeric(), nullable=True),
        sa.Column("market_value", sa.Numeric(), nullable=True),
        sa.Column("currency", sa.String(), nullable=False),
        sa.Column("as_of", sa.DateTime(timezone=True), nullable=True),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("content_hash", sa.LargeBinary(), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=True),
        sa.Column("taken_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "available > '-Infinity' AND available < 'Infinity'", name=op.f("ck_balances_available_finite")
        ),
        sa.CheckConstraint("cash > '-Infinity' AND cash < 'Infinity'", name=op.f("ck_balances_cash_finite")),
        sa.CheckConstraint(
            "credit_limit > '-Infinity' AND credit_limit < 'Infinity'", name=op.f("ck_balances_credit_limit_finite")
        ),
        sa.CheckConstraint("current > '-Infinity' AND current < 'Infinity'", name=op.f("ck_balances_current_finite")),
        sa.CheckConstraint(
            "market_value > '-Infinity' AND market_value < 'Infinity'", name=op.f("ck_balances_market_value_finite")
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_balances_account_id_accounts"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_balances")),
    )
    op.create_index("ix_balances_latest", "balances", ["account_id", "taken_at"], unique=False)
    op.create_index("ix_balances_taken_at", "balances", ["taken_at"], unique=False)
    op.create_table(
        "book_drifts",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("figure", sa.String(), nullable=False),
        sa.Column("stated", sa.Numeric(), nullable=False),
        sa.Column("stored", sa.Numeric(), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=True),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("stated > '-Infinity' AND stated < 'Infinity'", name=op.f("ck_book_drifts_stated_finite")),
        sa.CheckConstraint("stored > '-Infinity' AND stored < 'Infinity'", name=op.f("ck_book_drifts_stored_finite")),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_book_drifts_account_id_accounts"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_book_drifts")),
        sa.UniqueConstraint("account_id", "figure", name=op.f("uq_book_drifts_account_id_figure")),
    )
    op.create_table(
        "holdings",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("holding_key", sa.String(), nullable=False),
        sa.Column("security_id", sa.Uuid(), nullable=False),
        sa.Column("quantity", sa.Numeric(), nullable=False),
        sa.Column("market_value", sa.Numeric(), nullable=True),
        sa.Column("price", sa.Numeric(), nullable=True),
        sa.Column("average_price", sa.Numeric(), nullable=True),
        sa.Column("cost_basis", sa.Numeric(), nullable=True),
        sa.Column("currency", sa.String(), nullable=False),
        sa.Column("as_of", sa.Date(), nullable=True),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("content_hash", sa.LargeBinary(), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=True),
        sa.CheckConstraint(
            "average_price > '-Infinity' AND average_price < 'Infinity'", name=op.f("ck_holdings_average_price_finite")
        ),
        sa.CheckConstraint(
            "cost_basis > '-Infinity' AND cost_basis < 'Infinity'", name=op.f("ck_holdings_cost_basis_finite")
        ),
        sa.CheckConstraint(
            "market_value > '-Infinity' AND market_value < 'Infinity'", name=op.f("ck_holdings_market_value_finite")
        ),
        sa.CheckConstraint("price > '-Infinity' AND price < 'Infinity'", name=op.f("ck_holdings_price_finite")),
        sa.CheckConstraint(
            "quantity > '-Infinity' AND quantity < 'Infinity'", name=op.f("ck_holdings_quantity_finite")
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_holdings_account_id_accounts"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["security_id"], ["securities.id"], name=op.f("fk_holdings_security_id_securities")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_holdings")),
        sa.UniqueConstraint("account_id", "holding_key", name=op.f("uq_holdings_account_id_holding_key")),
    )
    op.create_table(
        "transactions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("provider_transaction_id", sa.String(), nullable=False),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("subtype", sa.String(), nullable=True),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("amount", sa.Numeric(), nullable=False),
        sa.Column("currency", sa.String(), nullable=False),
        sa.Column("posted_date", sa.Date(), nullable=False),
        sa.Column("occurred_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("settlement_date", sa.Date(), nullable=True),
        sa.Column("description", sa.String(), nullable=True),
        sa.Column("counterparty", sa.String(), nullable=True),
        sa.Column("category", sa.String(), nullable=True),
        sa.Column("security_id", sa.Uuid(), nullable=True),
        sa.Column("quantity", sa.Numeric(), nullable=True),
        sa.Column("price", sa.Numeric(), nullable=True),
        sa.Column("fees", sa.Numeric(), nullable=True),
        sa.Column("pending_key", sa.String(), nullable=True),
        sa.Column("provider_type", sa.String(), nullable=True),
        sa.Column("flags", postgresql.ARRAY(sa.Text()), nullable=True),
        sa.Column("content_hash", sa.LargeBinary(), nullable=False),
        sa.Column("loop_id", sa.Uuid(), nullable=True),
        sa.Column("run_id", sa.Uuid(), nullable=True),
        sa.CheckConstraint("amount > '-Infinity' AND amount < 'Infinity'", name=op.f("ck_transactions_amount_finite")),
        sa.CheckConstraint("fees > '-Infinity' AND fees < 'Infinity'", name=op.f("ck_transactions_fees_finite")),
        sa.CheckConstraint("price > '-Infinity' AND price < 'Infinity'", name=op.f("ck_transactions_price_finite")),
        sa.CheckConstraint(
            "quantity > '-Infinity' AND quantity < 'Infinity'", name=op.f("ck_transactions_quantity_finite")
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_transactions_account_id_accounts"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["security_id"], ["securities.id"], name=op.f("fk_transactions_security_id_securities")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_transactions")),
        sa.UniqueConstraint(
            "account_id", "provider_transaction_id", name=op.f("uq_transactions_account_id_provider_transaction_id")
        ),
    )
    op.create_index(
        "ix_transactions_pending", "transactions", ["account_id"], unique=False, postgresql_where="status = 'pending'"
    )
    op.create_index("ix_transactions_posted", "transactions", ["account_id", "posted_date"], unique=False)
    op.create_table(
        "holding_days",
        sa.Column("holding_id", sa.Uuid(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("quantity", sa.Numeric(), nullable=False),
        sa.Column("market_value", sa.Numeric(), nullable=True),
        sa.Column("price", sa.Numeric(), nullable=True),
        sa.CheckConstraint(
            "market_value > '-Infinity' AND market_value < 'Infinity'", name=op.f("ck_holding_days_market_value_finite")
        ),
        sa.CheckConstraint("price > '-Infinity' AND price < 'Infinity'", name=op.f("ck_holding_days_price_finite")),
        sa.CheckConstraint(
            "quantity > '-Infinity' AND quantity < 'Infinity'", name=op.f("ck_holding_days_quantity_finite")
        ),
        sa.ForeignKeyConstraint(
            ["holding_id"], ["holdings.id"], name=op.f("fk_holding_days_holding_id_holdings"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("holding_id", "day", name=op.f("pk_holding_days")),
    )
    op.create_index("ix_holding_days_day", "holding_days", ["day"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_holding_days_day", table_name="holding_days")
    op.drop_table("holding_days")
    op.drop_index("ix_transactions_posted", table_name="transactions")
    op.drop_index("ix_transactions_pending", table_name="transactions", postgresql_where="status = 'pending'")
    op.drop_table("transactions")
    op.drop_table("holdings")
    op.drop_table("book_drifts")
    op.drop_index("ix_balances_taken_at", table_name="balances")
    op.drop_index("ix_balances_latest", table_name="balances")
    op.drop_table("balances")
    op.drop_index("ix_token_refreshes_started", table_name="token_refreshes")
    op.drop_index("ix_token_refreshes_sent", table_name="token_refreshes", postgresql_where="status = 'sent'")
    op.drop_index("ix_token_refreshes_provider", table_name="token_refreshes")
    op.drop_table("token_refreshes")
    op.drop_index("uq_sync_runs_running", table_name="sync_runs", postgresql_where="status = 'running'")
    op.drop_index("ix_sync_runs_started", table_name="sync_runs")
    op.drop_index("ix_sync_runs_provider", table_name="sync_runs")
    op.drop_table("sync_runs")
    op.drop_table("sync_cursors")
    op.drop_index("ix_quarantine_open", table_name="quarantine", postgresql_where="resolved_at IS NULL")
    op.drop_index("ix_quarantine_created", table_name="quarantine")
    op.drop_table("quarantine")
    op.drop_index("ix_provider_tokens_key_id", table_name="provider_tokens")
    op.drop_table("provider_tokens")
    op.drop_index("ix_notices_due", table_name="notices", postgresql_where="sent_at IS NULL AND due_at IS NOT NULL")
    op.drop_table("notices")
    op.drop_table("accounts")
    op.drop_index(
        "ix_providers_sync_due",
        table_name="providers",
        postgresql_where="status = 'active' AND sync_due_at IS NOT NULL",
    )
    op.drop_index(
        "ix_providers_refresh_due",
        table_name="providers",
        postgresql_where="status = 'active' AND refresh_due_at IS NOT NULL",
    )
    op.drop_index("ix_providers_not_active", table_name="providers", postgresql_where="status <> 'active'")
    op.drop_index(
        "ix_providers_grant_expires",
        table_name="providers",
        postgresql_where="status = 'active' AND grant_expires_at IS NOT NULL",
    )
    op.drop_index("ix_providers_access_expires", table_name="providers", postgresql_where="status = 'active'")
    op.drop_table("providers")
    op.drop_index(op.f("ix_link_states_expires_at"), table_name="link_states")
    op.drop_table("link_states")
    op.drop_table("users")
    op.drop_index("ix_task_failures_open", table_name="task_failures", postgresql_where="resolved_at IS NULL")
    op.drop_table("task_failures")
    op.drop_table("task_deliveries")
    op.drop_table("securities")
    op.drop_table("quota_days")
    op.drop_table("provider_audit_logs")
    op.drop_table("integration_states")
    op.drop_table("heartbeats")
