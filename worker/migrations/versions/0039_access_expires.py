"""`due_times` has a column and an index for the end of access tokens; 0040 fills them and keeps them.

There are two migrations, so that neither holds a lock on one table while it waits for a lock on the other: workers that
claim logins and store tokens use both.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0039"
down_revision = "0038"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("due_times", sa.Column("access_expires_at", sa.DateTime(timezone=True), nullable=True))
    # No row is in it yet, so it takes one pass over a small table, in which claims wait.
    op.create_index(
        "ix_due_times_access_expires",
        "due_times",
        ["access_expires_at"],
        postgresql_where=sa.text("access_expires_at IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_due_times_access_expires", table_name="due_times")
    op.drop_column("due_times", "access_expires_at")
