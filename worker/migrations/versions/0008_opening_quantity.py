"""What the books check of a position starts from."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("holdings", sa.Column("opening_quantity", sa.Numeric(), nullable=True))
    op.create_check_constraint(
        op.f("ck_holdings_opening_quantity_finite"),
        "holdings",
        "opening_quantity > '-Infinity' AND opening_quantity < 'Infinity'",
    )


def downgrade() -> None:
    op.drop_constraint(op.f("ck_holdings_opening_quantity_finite"), "holdings", type_="check")
    op.drop_column("holdings", "opening_quantity")
