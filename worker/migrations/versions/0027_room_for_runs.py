"""Free room on each page of runs: the second version of a row then finds place beside the first one.

Postgres then writes to WAL only what differs between the two.
"""

from __future__ import annotations

from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE sync_runs SET (fillfactor = 70)")


def downgrade() -> None:
    op.execute("ALTER TABLE sync_runs RESET (fillfactor)")
