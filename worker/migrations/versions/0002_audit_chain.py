"""The audit log numbers and chains its own rows, and refuses to be altered."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

HASH = """
CREATE FUNCTION provider_audit_hash(entry provider_audit_logs) RETURNS bytea LANGUAGE sql IMMUTABLE AS $$
    SELECT sha256(
        coalesce(entry.prev_hash, ''::bytea) || convert_to(jsonb_build_array(
            entry.id, entry.provider_id, entry.seq, entry.action, entry.actor, entry.reason, entry.task_id,
            entry.detail, extract(epoch FROM entry.created_at)
        )::text, 'UTF8')
    )
$$
"""

# The lock makes one chain per provider out of concurrent inserts; it is held until the transaction ends.
CHAIN = """
CREATE FUNCTION provider_audit_chain() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    last record;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(NEW.provider_id::text, 0));
    SELECT seq, hash INTO last FROM provider_audit_logs
        WHERE provider_id = NEW.provider_id ORDER BY seq DESC LIMIT 1;
    NEW.seq := coalesce(last.seq, 0) + 1;
    NEW.prev_hash := last.hash;
    NEW.hash := provider_audit_hash(NEW);
    RETURN NEW;
END
$$
"""

REFUSE = """
CREATE FUNCTION provider_audit_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'provider_audit_logs is insert-only: % refused', TG_OP USING ERRCODE = 'insufficient_privilege';
END
$$
"""


def upgrade() -> None:
    op.execute(HASH)
    op.execute(CHAIN)
    op.execute(REFUSE)
    op.execute(
        "CREATE TRIGGER chain BEFORE INSERT ON provider_audit_logs FOR EACH ROW EXECUTE FUNCTION provider_audit_chain()"
    )
    op.execute(
        "CREATE TRIGGER refuse_rows BEFORE UPDATE OR DELETE ON provider_audit_logs "
        "FOR EACH ROW EXECUTE FUNCTION provider_audit_refuse()"
    )
    op.execute(
        "CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON provider_audit_logs "
        "FOR EACH STATEMENT EXECUTE FUNCTION provider_audit_refuse()"
    )


def downgrade() -> None:
    op.execute("DROP TRIGGER refuse_truncate ON provider_audit_logs")
    op.execute("DROP TRIGGER refuse_rows ON provider_audit_logs")
    op.execute("DROP TRIGGER chain ON provider_audit_logs")
    op.execute("DROP FUNCTION provider_audit_refuse()")
    op.execute("DROP FUNCTION provider_audit_chain()")
    op.execute("DROP FUNCTION provider_audit_hash(provider_audit_logs)")
