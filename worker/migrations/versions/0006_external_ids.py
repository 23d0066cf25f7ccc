"""Logins without an id of the provider's own stay out of the index of such ids: one write less for each claim."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_constraint("uq_providers_provider_key_external_id", "providers")
    op.create_index(
        "uq_providers_external_id",
        "providers",
        ["provider_key", "external_id"],
        unique=True,
        postgresql_where="external_id IS NOT NULL",
    )


def downgrade() -> None:
    op.drop_index("uq_providers_external_id", table_name="providers", postgresql_where="external_id IS NOT NULL")
    op.create_unique_constraint("uq_providers_provider_key_external_id", "providers", ["provider_key", "external_id"])
