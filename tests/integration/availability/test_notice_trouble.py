"""Notices while something goes wrong: odd addresses, a channel that breaks, a database that goes away in between."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, make_url, select, update
from sqlalchemy.orm import Session

from tests.factories import make_linked_provider, make_user
from tests.integration.availability.conftest import MakeQuiet
from tests.support.proxy import Proxy
from tests.support.smtp import Mailbox, smtp_server
from worker.crud import notices as queue
from worker.errors import Unavailable
from worker.models import Notice, Provider, User
from worker.runtime import Runtime
from worker.services.notices import queue as notices
from worker.services.notices.channels import Message

ODD = ("a@[", "a@", "@", "a", "a@b@c.example", "a\nBcc: evil@example.com@example.com", "a@" + "x" * 300 + ".example")
CLAIM = timedelta(minutes=5)


@pytest.fixture
def box() -> Iterator[Mailbox]:
    with smtp_server() as box:
        yield box


def mailing(make_quiet: MakeQuiet, box: Mailbox, **overrides: object) -> Runtime:
    return make_quiet(
        notice_channels="email",
        smtp_host="localhost",
        smtp_port=box.port,
        smtp_security="none",
        notice_from="Dashtam <notices@dashtam.example>",
        operator_email="operator@dashtam.example",
        **overrides,
    )


def needy(runtime: Runtime, *addresses: str, channel: str = "email") -> None:
    """Logins that need their user, one for each address, each with one notice."""
    with runtime.transaction() as session:
        for address in addresses:
            user = make_user(session, email=address)
            login = make_linked_provider(session, runtime.encryption, user=user, status="needs_reauth")
            queue.enqueue(
                session, provider_id=login.id, stage="needs_reauth", subject_key="1", channels=(channel,), due_at=PAST
            )


PAST = datetime(2025, 3, 14, 15, 0, tzinfo=UTC)


def make_due(runtime: Runtime) -> None:
    with runtime.transaction() as session:
        session.execute(
            update(Notice)
            .where(Notice.sent_at.is_(None), Notice.due_at.is_not(None))
            .values(due_at=func.now() - timedelta(seconds=1))
        )


def notice_to(runtime: Runtime, address: str) -> Notice:
    with Session(runtime.engine) as session:
        query = select(Notice).join_from(Notice, Provider).join(User).where(User.email == address)
        return session.scalars(query).one()


def received(box: Mailbox) -> Counter[str]:
    return Counter(str(mail["To"]) for mail in box.mails)


@pytest.mark.deep
@pytest.mark.parametrize("odd", ODD)
def test_one_odd_address_costs_nobody_else_a_mail_and_nobody_gets_two(
    make_quiet: MakeQuiet, box: Mailbox, odd: str
) -> None:
    runtime = mailing(make_quiet, box)
    others = [f"user{number}@example.com" for number in range(20)]
    needy(runtime, *others[:10], odd, *others[10:])

    for _ in range(3):
        runtime.run(notices.send_notices(runtime))
        make_due(runtime)

    assert received(box) == Counter(others)
    notice = notice_to(runtime, odd)
    assert (notice.attempts, notice.due_at, notice.last_error) == (1, None, "email: unusable address")


@pytest.mark.deep
def test_address_of_another_script_gets_its_mail(make_quiet: MakeQuiet, box: Mailbox) -> None:
    runtime = mailing(make_quiet, box)
    needy(runtime, "ann@münchen.example", "jörg@example.com")

    assert runtime.run(notices.send_notices(runtime)) == 2

    assert sorted(box.recipients) == ["ann@xn--mnchen-3ya.example", "jörg@example.com"]


def test_server_that_knows_no_such_address_is_not_asked_again(make_quiet: MakeQuiet) -> None:
    with smtp_server(Mailbox(international=False)) as box:
        runtime = mailing(make_quiet, box)
        needy(runtime, "jörg@example.com", "ann@example.com")

        assert runtime.run(notices.send_notices(runtime)) == 1

    notice = notice_to(runtime, "jörg@example.com")
    assert (notice.due_at, notice.last_error) == (None, "email: the server does not accept this address")


class Breaking:
    """A channel that fails in a way that nobody foresaw, for one recipient."""

    def __init__(self) -> None:
        self.sent: list[str | None] = []

    async def send(self, message: Message) -> None:
        if message.to == "odd@example.com":
            raise ZeroDivisionError("never to be stored: odd@example.com")
        self.sent.append(message.to)

    async def aclose(self) -> None:
        """Nothing is open."""


@pytest.mark.deep
def test_unforeseen_error_is_that_notice_s_alone_and_is_tried_again_so_often_and_no_more(quiet: Runtime) -> None:
    channel = Breaking()
    needy(quiet, "ann@example.com", "odd@example.com", "bob@example.com", channel="log")

    for _ in range(14):
        quiet.run(notices.send_notices(quiet, channels={"log": channel}))
        make_due(quiet)

    assert sorted(map(str, channel.sent)) == ["ann@example.com", "bob@example.com"]
    notice = notice_to(quiet, "odd@example.com")
    assert (notice.attempts, notice.due_at, notice.last_error) == (12, None, "log: ZeroDivisionError")


@pytest.fixture
def through_proxy(make_quiet: MakeQuiet, quiet: Runtime, box: Mailbox) -> Iterator[tuple[Runtime, Proxy]]:
    """A sender whose way to Postgres can be cut."""
    url = make_url(quiet.settings.database_url.get_secret_value())
    proxy = Proxy(lambda: url.port or 5432)
    proxy.start()
    with ExitStack() as stack:
        stack.callback(proxy.stop)
        away = url.set(port=proxy.port).render_as_string(hide_password=False)
        yield mailing(make_quiet, box, database_url=away), proxy


@pytest.mark.deep
def test_database_that_goes_away_between_sending_and_recording_brings_no_second_mail(
    through_proxy: tuple[Runtime, Proxy], quiet: Runtime, box: Mailbox
) -> None:
    sender, proxy = through_proxy
    addresses = [f"user{number}@example.com" for number in range(12)]
    needy(quiet, *addresses)
    with ExitStack() as blip:
        box.on_mail = lambda: len(box.mails) == 3 and blip.enter_context(proxy.refusing())
        with pytest.raises(Unavailable):
            sender.run(notices.send_notices(sender))
        during = len(box.mails)
        with pytest.raises(Unavailable):
            sender.run(notices.send_notices(sender))

    assert during <= 3 + 7  # what other attempts had under way at once
    assert len(box.mails) == during
    for _ in range(3):
        make_due(quiet)
        sender.run(notices.send_notices(sender))

    assert received(box) == Counter(addresses)
    with Session(quiet.engine) as session:
        assert set(session.scalars(select(Notice.attempts))) <= {1, 2}
        assert all(session.scalars(select(Notice.sent_at)))


@pytest.mark.deep
def test_notice_whose_senders_die_every_time_is_given_up_and_not_sent_for_ever(quiet: Runtime) -> None:
    needy(quiet, "ann@example.com", channel="log")
    with quiet.transaction() as session:
        session.execute(update(Notice).values(attempts=12))
    channel = Breaking()

    assert quiet.run(notices.send_notices(quiet, channels={"log": channel})) == 0

    assert channel.sent == []
    notice = notice_to(quiet, "ann@example.com")
    assert (notice.attempts, notice.due_at) == (12, None)
    assert notice.last_error == "given up: nobody recorded how the last attempt ended"


@pytest.mark.deep
def test_sender_whose_claim_has_passed_to_another_sends_nothing(quiet: Runtime) -> None:
    needy(quiet, "ann@example.com", channel="log")
    now = quiet.run(quiet.now())
    with quiet.transaction() as session:
        (slow,) = queue.claim_due(session, now=now, limit=1, claim=timedelta(seconds=-1), attempts=12)
    with quiet.transaction() as session:
        (quick,) = queue.claim_due(session, now=now, limit=1, claim=CLAIM, attempts=12)

    with quiet.transaction() as session:
        late = queue.begin_attempt(session, slow.notice, again_at=now + CLAIM)
        in_time = queue.begin_attempt(session, quick.notice, again_at=now + CLAIM)

    assert (late, in_time) == (False, True)
    assert notice_to(quiet, "ann@example.com").attempts == 1
