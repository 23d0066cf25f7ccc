"""Notices from the grant's clock to the receiver: real Postgres, SMTP server and webhook receiver."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from tests.factories import make_linked_provider, make_user
from tests.integration.availability.conftest import MakeQuiet
from tests.support.certificates import self_signed
from tests.support.smtp import Mailbox, smtp_server
from tests.support.webhook_receiver import Receiver, webhook_receiver
from worker.crud import notices as queue
from worker.models import Notice, Provider, ProviderAuditLog
from worker.runtime import Runtime
from worker.services.notices import queue as notices

pytestmark = pytest.mark.deep

NOW = datetime(2025, 3, 14, 15, 0, tzinfo=UTC)


def link(runtime: Runtime, ends: datetime | None, **values: object) -> UUID:
    with runtime.transaction() as session:
        user = make_user(session, email=f"{values.pop('email', 'ann')}-{ends and ends.timestamp()}@example.com")
        return make_linked_provider(session, runtime.encryption, user=user, grant_expires_at=ends, **values).id


def queued(runtime: Runtime) -> list[tuple[UUID | None, str]]:
    with Session(runtime.engine) as session:
        rows = session.scalars(select(Notice).order_by(Notice.created_at, Notice.id)).all()
    return [(row.provider_id, row.stage) for row in rows]


def only_notice(runtime: Runtime) -> Notice:
    with Session(runtime.engine) as session:
        return session.scalars(select(Notice)).one()


def warn(runtime: Runtime, now: datetime, since: datetime | None = None) -> None:
    runtime.run(notices.warn_of_expiring_grants(runtime, now, since=since))


def need_reauth(runtime: Runtime, alias: str = "My broker") -> UUID:
    id_ = link(runtime, NOW, alias=alias)
    with runtime.transaction() as session:
        session.execute(update(Provider).values(status="needs_reauth", status_reason="invalid_grant"))
        queue.enqueue(session, provider_id=id_, stage="needs_reauth", subject_key="1", channels=channels(runtime))
    return id_


def channels(runtime: Runtime) -> tuple[str, ...]:
    return runtime.settings.enabled_channels


def send(runtime: Runtime) -> int:
    return runtime.run(notices.send_notices(runtime))


def make_due(runtime: Runtime) -> None:
    with runtime.transaction() as session:
        session.execute(update(Notice).where(Notice.sent_at.is_(None)).values(due_at=func.now() - timedelta(seconds=1)))


# Stages --------------------------------------------------------------------------------------------------------------


def test_each_stage_is_queued_once_as_the_end_comes_nearer(quiet: Runtime) -> None:
    id_ = link(quiet, NOW + timedelta(hours=100))
    since = None
    for hour in (0, 20, 27, 28, 29, 60, 75, 76, 77, 97, 98, 99):
        now = NOW + timedelta(hours=hour)
        warn(quiet, now, since)
        warn(quiet, now, since)
        since = now

    assert queued(quiet) == [(id_, "expires_72h"), (id_, "expires_24h"), (id_, "expires_2h")]


@pytest.mark.parametrize(
    ("left", "stage"), [(73, None), (71, "expires_72h"), (23, "expires_24h"), (1, "expires_2h"), (-1, None)]
)
def test_late_start_queues_the_nearest_stage_alone(quiet: Runtime, left: int, stage: str | None) -> None:
    link(quiet, NOW + timedelta(hours=left))

    warn(quiet, NOW)

    assert [found for _, found in queued(quiet)] == ([stage] if stage else [])


def test_stages_missed_while_nobody_looked_are_made_up_for(quiet: Runtime) -> None:
    id_ = link(quiet, NOW + timedelta(hours=80))
    warn(quiet, NOW)

    warn(quiet, NOW + timedelta(hours=30), since=NOW)

    assert queued(quiet) == [(id_, "expires_72h")]


def test_next_grant_is_warned_about_anew(quiet: Runtime) -> None:
    id_ = link(quiet, NOW + timedelta(hours=20))
    warn(quiet, NOW)
    with quiet.transaction() as session:
        session.execute(update(Provider).values(grant_expires_at=NOW + timedelta(days=7, hours=20)))

    warn(quiet, NOW + timedelta(days=7))

    assert queued(quiet) == [(id_, "expires_24h")] * 2


def test_fleet_is_warned_in_batches_without_leaving_one_out(quiet: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "_BATCH", 3)
    ends = [NOW + timedelta(hours=1, minutes=place // 4) for place in range(10)]
    ids = {link(quiet, end, email=f"user{place}") for place, end in enumerate(ends)}

    warn(quiet, NOW)

    assert {id_ for id_, _ in queued(quiet)} == ids
    assert len(queued(quiet)) == 10


def test_ended_grant_stops_the_login_with_audit_and_notice(quiet: Runtime) -> None:
    ended, living = link(quiet, NOW - timedelta(seconds=1)), link(quiet, NOW + timedelta(seconds=1))

    assert quiet.run(notices.expire_grants(quiet, NOW)) == 1
    assert quiet.run(notices.expire_grants(quiet, NOW)) == 0

    with Session(quiet.engine) as session:
        provider = session.get_one(Provider, ended)
        assert (provider.status, provider.status_reason) == ("needs_reauth", "grant_expired")
        assert (provider.refresh_due_at, provider.sync_due_at) == (None, None)
        assert session.get_one(Provider, living).status == "active"
        (entry,) = session.scalars(select(ProviderAuditLog))
        assert (entry.provider_id, entry.action, entry.reason, entry.actor) == (
            ended,
            "needs_reauth",
            "grant_expired",
            "system",
        )
    assert queued(quiet) == [(ended, "expired")]


# Sending -------------------------------------------------------------------------------------------------------------


def test_notice_is_sent_once_and_recorded(quiet: Runtime) -> None:
    need_reauth(quiet)

    assert send(quiet) == 1
    assert send(quiet) == 0

    notice = only_notice(quiet)
    assert (notice.attempts, notice.due_at, notice.last_error) == (1, None, None)
    assert notice.sent_at is not None


def test_two_senders_share_the_queue(make_quiet: MakeQuiet) -> None:
    runtimes = [make_quiet(), make_quiet()]
    id_ = need_reauth(runtimes[0])
    with runtimes[0].transaction() as session:
        for number in range(60):
            queue.enqueue(
                session, provider_id=id_, stage="needs_reauth", subject_key=f"more-{number}", channels=("log",)
            )
    sent: list[int] = []
    threads = [threading.Thread(target=lambda one=runtime: sent.append(send(one))) for runtime in runtimes]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(sent) == 61
    with Session(runtimes[0].engine) as session:
        assert set(session.scalars(select(Notice.attempts))) == {1}


def test_user_who_has_signed_in_again_is_told_nothing(quiet: Runtime) -> None:
    need_reauth(quiet)
    with quiet.transaction() as session:
        session.execute(update(Provider).values(status="active", grant_expires_at=NOW + timedelta(days=7)))

    assert send(quiet) == 0

    notice = only_notice(quiet)
    assert (notice.last_error, notice.due_at, notice.sent_at) == ("no longer true", None, None)


def test_rows_of_channels_that_are_not_enabled_are_closed(quiet: Runtime) -> None:
    id_ = need_reauth(quiet)
    with quiet.transaction() as session:
        assert queue.enqueue(session, provider_id=id_, stage="needs_reauth", subject_key="2") == 3

    assert send(quiet) == 2

    with Session(quiet.engine) as session:
        errors = session.scalars(select(Notice.last_error).where(Notice.sent_at.is_(None))).all()
    assert errors == ["channel is not enabled"] * 2


# Webhook -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def hooked(make_quiet: MakeQuiet) -> object:
    with webhook_receiver() as receiver:
        runtime = make_quiet(notice_channels="webhook", webhook_url=receiver.url, webhook_secret="hook-secret")
        yield runtime, receiver


def test_webhook_is_signed_over_timestamp_and_body(hooked: tuple[Runtime, Receiver]) -> None:
    runtime, receiver = hooked
    id_ = need_reauth(runtime)

    assert send(runtime) == 1

    (request,) = receiver.received
    timestamp = request.headers["x-dashtam-timestamp"]
    expected = hmac.new(b"hook-secret", timestamp.encode() + b"." + request.body, hashlib.sha256).hexdigest()
    assert request.headers["x-dashtam-signature"] == f"v1={expected}"
    assert abs(int(timestamp) - datetime.now(UTC).timestamp()) < 60
    assert request.path == "/hooks/dashtam?tenant=1"
    event = json.loads(request.body)
    assert event["id"] == request.headers["x-dashtam-notice"] == str(only_notice(runtime).id)
    assert (event["stage"], event["provider_id"], event["reason"]) == ("needs_reauth", str(id_), "invalid_grant")


def test_webhook_that_fails_is_tried_again_later_with_the_same_id(hooked: tuple[Runtime, Receiver]) -> None:
    runtime, receiver = hooked
    receiver.answers = [500]
    need_reauth(runtime)

    before = datetime.now(UTC)
    assert send(runtime) == 0
    notice = only_notice(runtime)
    assert notice.last_error == "webhook: http_500"
    assert notice.due_at is not None
    assert timedelta(seconds=59) < notice.due_at - before < timedelta(seconds=90)

    make_due(runtime)
    assert send(runtime) == 1
    assert len({request.headers["x-dashtam-notice"] for request in receiver.received}) == 1
    assert only_notice(runtime).attempts == 2


def test_webhook_follows_no_redirect(hooked: tuple[Runtime, Receiver]) -> None:
    runtime, receiver = hooked
    need_reauth(runtime)

    with webhook_receiver() as other:
        receiver.answers, receiver.location = [307], other.url
        assert send(runtime) == 0

    assert other.received == []
    assert only_notice(runtime).last_error == "webhook: redirect_refused"


def test_receiver_that_is_gone_is_given_up(hooked: tuple[Runtime, Receiver]) -> None:
    runtime, receiver = hooked
    receiver.answers = [410]
    need_reauth(runtime)

    send(runtime)

    assert (only_notice(runtime).due_at, only_notice(runtime).last_error) == (None, "webhook: http_410")


def test_notice_that_never_leaves_is_given_up_in_the_end(hooked: tuple[Runtime, Receiver]) -> None:
    runtime, receiver = hooked
    receiver.answers = [500, 500]
    need_reauth(runtime)
    with runtime.transaction() as session:
        session.execute(update(Notice).values(attempts=10))

    send(runtime)
    assert only_notice(runtime).due_at is not None
    make_due(runtime)
    send(runtime)

    notice = only_notice(runtime)
    assert (notice.attempts, notice.due_at, notice.sent_at) == (12, None, None)


# E-mail --------------------------------------------------------------------------------------------------------------


def mailing(make_quiet: MakeQuiet, box: Mailbox, **overrides: object) -> Runtime:
    return make_quiet(
        **{
            "notice_channels": "email",
            "smtp_host": "localhost",
            "smtp_port": box.port,
            "smtp_security": "none",
            "notice_from": "Dashtam <notices@dashtam.example>",
            "operator_email": "operator@dashtam.example",
        }
        | overrides
    )


def test_mail_names_login_and_next_step(make_quiet: MakeQuiet) -> None:
    with smtp_server() as box:
        runtime = mailing(make_quiet, box)
        need_reauth(runtime, alias="Savings\r\nBcc: evil@example.com 1234567890")

        assert send(runtime) == 1

    (mail,) = box.mails
    text = mail.get_content()
    assert mail["To"].startswith("ann-")
    assert mail["Bcc"] is None
    assert mail["Message-ID"] == f"<{only_notice(runtime).id}@dashtam.example>"
    assert "Made-up Bank" in mail["Subject"]
    assert "sign in to Made-up Bank again" in text
    assert "1234567890" not in text + mail["Subject"]
    assert "…7890" in text


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_mail_goes_over_verified_tls_with_the_servers_credentials(
    make_quiet: MakeQuiet, tmp_path: Path, security: str
) -> None:
    context, trusted = self_signed(tmp_path, "localhost")
    box = Mailbox(tls=context, implicit_tls=security == "tls", user="ses-user", password="ses-password")
    with smtp_server(box):
        runtime = mailing(
            make_quiet,
            box,
            smtp_security=security,
            smtp_ca_file=trusted,
            smtp_user="ses-user",
            smtp_password="ses-password",
        )
        need_reauth(runtime)

        assert send(runtime) == 1

    assert box.encrypted == [True]


@pytest.mark.parametrize("trouble", ["unknown authority", "other name", "no starttls"])
def test_mail_is_not_sent_to_a_server_that_cannot_be_verified(
    make_quiet: MakeQuiet, tmp_path: Path, trouble: str
) -> None:
    context, trusted = self_signed(tmp_path, "elsewhere.example" if trouble == "other name" else "localhost")
    box = Mailbox(tls=None if trouble == "no starttls" else context)
    with smtp_server(box):
        runtime = mailing(
            make_quiet,
            box,
            smtp_security="starttls",
            smtp_ca_file=None if trouble == "unknown authority" else trusted,
        )
        need_reauth(runtime)

        assert send(runtime) == 0

    assert box.mails == []
    assert (only_notice(runtime).last_error or "").startswith("email: no connection")
    assert only_notice(runtime).due_at is not None


def test_batch_of_mails_uses_one_connection(make_quiet: MakeQuiet) -> None:
    with smtp_server() as box:
        runtime = mailing(make_quiet, box)
        id_ = need_reauth(runtime)
        with runtime.transaction() as session:
            for number in range(20):
                queue.enqueue(
                    session, provider_id=id_, stage="needs_reauth", subject_key=f"{number}+", channels=("email",)
                )

        assert send(runtime) == 21

    assert (len(box.mails), box.connections) == (21, 1)


def test_refused_recipient_is_given_up_and_others_get_their_mail(make_quiet: MakeQuiet) -> None:
    with smtp_server() as box:
        runtime = mailing(make_quiet, box)
        need_reauth(runtime)
        box.refuse = {f"ann-{NOW.timestamp()}@example.com": 550}
        with runtime.transaction() as session:
            queue.enqueue(
                session, provider_key="schwab", stage="app_misconfigured", subject_key="1", channels=("email",)
            )

        assert send(runtime) == 1

    assert [mail["To"] for mail in box.mails] == ["operator@dashtam.example"]
    assert "dashtam integrations resume schwab" in box.mails[0].get_content()
    with Session(runtime.engine) as session:
        refused = session.scalars(select(Notice).where(Notice.sent_at.is_(None))).one()
    assert (refused.last_error, refused.due_at) == ("email: recipient refused (550)", None)


def test_server_that_is_busy_is_tried_once_per_batch(make_quiet: MakeQuiet) -> None:
    with smtp_server(Mailbox(busy=True)) as box:
        runtime = mailing(make_quiet, box)
        id_ = need_reauth(runtime)
        with runtime.transaction() as session:
            queue.enqueue(session, provider_id=id_, stage="needs_reauth", subject_key="2", channels=("email",))

        assert send(runtime) == 0

    assert box.connections == 1
    with Session(runtime.engine) as session:
        assert all(session.scalars(select(Notice.due_at)))


@pytest.mark.parametrize(
    ("email", "says"), [("NULL", "nobody to write to"), ("E'a\\nBcc: evil@example.com'", "unusable address")]
)
def test_user_without_an_address_that_mail_can_have_is_given_up(make_quiet: MakeQuiet, email: str, says: str) -> None:
    with smtp_server() as box:
        runtime = mailing(make_quiet, box)
        need_reauth(runtime)
        with runtime.transaction() as session:
            session.connection().exec_driver_sql(f"UPDATE users SET email = {email}")  # noqa: S608

        assert send(runtime) == 0

    assert (only_notice(runtime).last_error, only_notice(runtime).due_at) == (f"email: {says}", None)
    assert box.mails == []


@pytest.mark.parametrize("code", [451, 421])
def test_mail_that_the_server_cannot_take_now_is_tried_again_later(make_quiet: MakeQuiet, code: int) -> None:
    with smtp_server(Mailbox(data_code=code)) as box:
        runtime = mailing(make_quiet, box)
        need_reauth(runtime)

        assert send(runtime) == 0

    notice = only_notice(runtime)
    assert notice.last_error == f"email: SMTPDataError ({code})"
    assert notice.due_at is not None
