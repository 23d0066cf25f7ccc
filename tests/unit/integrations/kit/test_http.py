from __future__ import annotations

import asyncio
import gzip
import ssl
import zlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import aiohttp
import httpx
import pytest
from structlog.testing import capture_logs

from worker.errors import BadPayload, BadRequest, ConfigurationError, OutcomeUnknown, RateLimited, Transient, Unsent
from worker.integrations.kit.aiohttp_wire import translate
from worker.integrations.kit.base import Caller, Departure
from worker.integrations.kit.contract.subject import no_pause
from worker.integrations.kit.http import Api, check_base_url, read_retry_after
from worker.integrations.kit.transport import Answer, client_tls
from worker.process.clocks import elapsed

BASE = "https://provider.test/base"
Handler = Callable[[httpx.Request], Any]


def api(handler: Handler, **more: Any) -> Api:
    values: dict[str, Any] = {"name": "test", "total_seconds": 5.0, "max_bytes": 1000, "sleep": no_pause}
    return Api(BASE, transport=httpx.MockTransport(handler), **(values | more))


def send(subject: Api, content: bytes | None = None, **headers: str) -> Answer:
    endpoint = subject.endpoint("token", "POST", "/token")
    return asyncio.run(subject.send(endpoint, Caller(), headers=headers, content=content))


def read(subject: Api, check: Callable[[Answer], None] = lambda answer: None, **more: Any) -> Answer:
    endpoint = subject.endpoint("rows", "GET", "/rows")
    return asyncio.run(subject.read(endpoint, Caller(), check=check, headers={}, **more))


def test_call_goes_below_the_base_url_with_parameters_encoded() -> None:
    seen: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(str(request.url))
        return httpx.Response(200)

    read(api(handler), params={"types": "A,B", "at": "2025-01-01T00:00:00.000Z"})

    assert seen == ["https://provider.test/base/rows?types=A%2CB&at=2025-01-01T00%3A00%3A00.000Z"]


def test_parameter_with_several_values_is_there_several_times_and_one_with_none_is_not() -> None:
    seen: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(str(request.url))
        return httpx.Response(200)

    read(api(handler), params={"account": ["a b", "c"], "other": [], "pending": "1"})

    assert seen == ["https://provider.test/base/rows?account=a+b&account=c&pending=1"]


@pytest.mark.deep
@pytest.mark.parametrize(
    "url",
    [
        "http://provider.test",
        "http://127.0.0.1.evil.test",
        "http://localhost.evil.test",
        "ftp://provider.test",
        "https://user:word@provider.test",
        "provider.test",
        "https://",
        "http://[::1",
    ],
)
def test_base_url_that_is_not_safe_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_base_url(url)

    assert "evil" not in str(caught.value)
    assert "word" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["https://provider.test", "http://127.0.0.1:8000/x", "http://localhost", "http://[::1]:1"]
)
def test_base_url_over_tls_or_on_this_machine_is_accepted(url: str) -> None:
    check_base_url(url)


@pytest.mark.parametrize(
    "link",
    [
        "https://elsewhere.test/rows?page=2",
        "http://provider.test/rows",
        "//elsewhere.test/",
        "https://u:p@provider.test/x",
    ],
)
def test_pagination_link_to_another_origin_is_refused(link: str) -> None:
    subject = api(lambda request: httpx.Response(200))

    with pytest.raises(BadPayload, match="link_to_other_origin"):
        subject.follow(subject.endpoint("rows", "GET", "/rows"), link)


@pytest.mark.parametrize("link", ["https://provider.test:port/", "/rows?page=\x00"])
def test_pagination_link_that_is_no_url_is_refused(link: str) -> None:
    subject = api(lambda request: httpx.Response(200))

    with pytest.raises(BadPayload, match="link_unreadable"):
        subject.follow(subject.endpoint("rows", "GET", "/rows"), link)


@pytest.mark.parametrize("link", ["/base/rows?page=2", "?page=2", "https://provider.test:443/base/rows?page=2"])
def test_pagination_link_within_the_origin_is_followed(link: str) -> None:
    subject = api(lambda request: httpx.Response(200))

    followed = subject.follow(subject.endpoint("rows", "GET", "/rows"), link)

    assert httpx.URL(followed.url).path == "/base/rows"
    assert httpx.URL(followed.url).params["page"] == "2"


def test_gzip_answer_is_unpacked() -> None:
    packed = gzip.compress(b'{"a":1}')
    subject = api(lambda request: httpx.Response(200, headers={"content-encoding": "gzip"}, stream=chunks(packed)))

    assert send(subject).body == b'{"a":1}'


@pytest.mark.deep
@pytest.mark.parametrize("size", [1, 7, 100_000])
@pytest.mark.parametrize("after", [b"", b"\x1f", b"\x00\x00", b"trailing"])
def test_gzip_answer_of_several_members_is_unpacked_whole(size: int, after: bytes) -> None:
    packed = b"".join(map(gzip.compress, (b'{"a":', b"", b"1}"))) + after
    subject = api(
        lambda request: httpx.Response(200, headers={"content-encoding": "gzip"}, stream=chunks(packed, size))
    )

    assert send(subject).body == b'{"a":1}'


@pytest.mark.parametrize("member", [b"0" * 500, b""])
def test_gzip_members_without_end_are_refused_at_the_limit(member: bytes) -> None:
    packed = gzip.compress(member) * 400
    subject = api(
        lambda request: httpx.Response(200, headers={"content-encoding": "gzip"}, stream=chunks(packed, 100)),
        max_bytes=4000,
    )

    with pytest.raises(BadPayload, match="body_too_large"):
        send(subject)


def test_gzip_answer_whose_last_member_ends_early_is_an_unknown_outcome() -> None:
    packed = gzip.compress(b'{"a":') + gzip.compress(b"1}")[:-9]
    subject = api(lambda request: httpx.Response(200, headers={"content-encoding": "gzip"}, stream=chunks(packed)))

    with pytest.raises(OutcomeUnknown, match="body_cut"):
        send(subject)


@pytest.mark.deep
def test_gzip_bomb_is_refused_before_it_unfolds() -> None:
    bomb = gzip.compress(b"0" * 5_000_000)
    subject = api(lambda request: httpx.Response(200, headers={"content-encoding": "gzip"}, stream=chunks(bomb)))

    with pytest.raises(BadPayload, match="body_too_large"):
        send(subject)


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "compress"])
def test_packing_that_was_not_asked_for_is_refused(encoding: str) -> None:
    body = chunks(gzip.compress(gzip.compress(b"x")))
    subject = api(lambda request: httpx.Response(200, headers={"content-encoding": encoding}, stream=body))

    with pytest.raises(BadPayload, match="content_encoding"):
        send(subject)


@pytest.mark.deep
def test_gzip_body_that_ends_early_is_an_unknown_outcome() -> None:
    cut = gzip.compress(b'{"access_token":"x"}' * 20)[:-12]
    subject = api(lambda request: httpx.Response(200, headers={"content-encoding": "gzip"}, stream=chunks(cut)))

    with pytest.raises(OutcomeUnknown, match="body_cut"):
        send(subject)


def test_gzip_body_that_is_none_is_an_unknown_outcome() -> None:
    subject = api(lambda request: httpx.Response(200, headers={"content-encoding": "gzip"}, stream=chunks(b"not gzip")))

    with pytest.raises(OutcomeUnknown):
        send(subject)


def test_body_of_exactly_the_limit_is_read() -> None:
    assert len(send(api(lambda request: httpx.Response(200, content=b"x" * 1000))).body) == 1000


def test_body_one_byte_over_the_limit_is_refused() -> None:
    with pytest.raises(BadPayload, match="body_too_large"):
        send(api(lambda request: httpx.Response(200, content=b"x" * 1001)))


def test_answer_that_does_not_come_ends_at_the_deadline() -> None:
    async def handler(request: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(OutcomeUnknown, match="timeout"):
        send(api(handler, total_seconds=0.01))


def test_answer_that_drips_ends_at_the_deadline() -> None:
    async def drip() -> AsyncIterator[bytes]:
        while True:
            yield b"x"
            await asyncio.sleep(0)

    subject = api(lambda request: httpx.Response(200, content=drip()), total_seconds=0.02, max_bytes=10**9)

    with pytest.raises(OutcomeUnknown, match="timeout"):
        send(subject)


def test_read_stops_trying_when_the_deadline_would_pass() -> None:
    calls: list[int] = []

    def handler(request: httpx.Request) -> httpx.Response:
        calls.append(1)
        raise httpx.ConnectError("refused")

    with pytest.raises(Transient):
        read(api(handler, total_seconds=0.05))

    assert len(calls) == 1


def test_read_gives_the_answer_of_a_later_try() -> None:
    answers = iter([httpx.ConnectError("refused"), httpx.ReadError("reset"), None])

    def handler(request: httpx.Request) -> httpx.Response:
        error = next(answers)
        if error is not None:
            raise error
        return httpx.Response(200, content=b"rows")

    assert read(api(handler)).body == b"rows"


def test_read_does_not_repeat_what_will_fail_again() -> None:
    calls: list[int] = []

    def handler(request: httpx.Request) -> httpx.Response:
        calls.append(1)
        return httpx.Response(400)

    def check(answer: Answer) -> None:
        raise BadRequest("http_400")

    with pytest.raises(BadRequest):
        read(api(handler), check)

    assert len(calls) == 1


def test_failure_is_logged_with_the_providers_own_id_and_without_the_url() -> None:
    subject = api(
        lambda request: httpx.Response(500, headers={"x-request-id": "corr-1"}), correlation_header="x-request-id"
    )

    with capture_logs() as logs:
        send(subject, content=b"refresh_token=SECRET", authorization="Basic SECRET")

    (entry,) = logs
    assert (entry["correlation_id"], entry["status"], entry["endpoint"]) == ("corr-1", 500, "token")
    assert "SECRET" not in str(logs)
    assert "provider.test" not in str(logs)


@pytest.mark.deep
@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (aiohttp.ClientConnectorError(None, OSError(111, "refused")), Unsent, "connect_failed"),  # type: ignore[arg-type]
        (aiohttp.ConnectionTimeoutError(), Unsent, "connect_failed"),
        (httpx.ConnectError("refused"), Unsent, "connect_failed"),
        (httpx.PoolTimeout("full"), Unsent, "connect_failed"),
        (ssl.SSLCertVerificationError("self-signed"), Unsent, "tls_certificate"),
        (aiohttp.ClientConnectorCertificateError(None, ssl.CertificateError()), Unsent, "tls_certificate"),
        (ssl.SSLError("handshake"), Unsent, "tls_handshake"),
        (aiohttp.ServerDisconnectedError(), OutcomeUnknown, "connection_lost"),
        (aiohttp.ClientOSError(104, "reset"), OutcomeUnknown, "connection_lost"),
        (aiohttp.ClientPayloadError("cut"), OutcomeUnknown, "connection_lost"),
        (aiohttp.SocketTimeoutError(), OutcomeUnknown, "timeout"),
        (TimeoutError(), OutcomeUnknown, "timeout"),
        (httpx.ReadTimeout("silent"), OutcomeUnknown, "timeout"),
        (httpx.RemoteProtocolError("nonsense"), OutcomeUnknown, "connection_lost"),
        (zlib.error("bad"), OutcomeUnknown, "connection_lost"),
        (ConnectionResetError(), OutcomeUnknown, "connection_lost"),
    ],
)
def test_network_error_means_unsent_only_when_nothing_was_sent(
    error: Exception, kind: type[Transient], reason: str
) -> None:
    translated = translate(error)

    assert type(translated) is kind
    assert translated.reason == reason


def test_ca_certificates_that_cannot_be_read_are_no_unknown_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/there/is/no/such/file.pem")
    client_tls.cache_clear()
    subject = Api(BASE, name="test", total_seconds=5.0, max_bytes=1000)

    with pytest.raises(Unsent, match="ca_certificates_unreadable"):
        send(subject)

    asyncio.run(subject.aclose())
    client_tls.cache_clear()


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("30", 30),
        ("3600", 3600),
        ("1000000000", 86400),
        ("1e9", 86400),
        ("inf", 86400),
        ("Mon, 10 Mar 2025 12:02:00 GMT", 120),
        ("Mon, 10 Mar 2035 11:00:00 GMT", 86400),
    ],
)
def test_retry_after_is_read_as_seconds_or_date_and_capped(value: str, seconds: int) -> None:
    # Whatever this machine's clock says: the date counts from the provider's own.
    headers = {"retry-after": value, "date": "Mon, 10 Mar 2025 12:00:00 GMT"}

    assert read_retry_after(headers) == timedelta(seconds=seconds)


def test_date_counts_from_this_machine_s_clock_when_the_provider_names_no_time_of_its_own() -> None:
    named = format_datetime(datetime.now(UTC) + timedelta(minutes=10), usegmt=True)

    found = read_retry_after({"retry-after": named, "date": "unreadable"})

    assert found is not None
    assert timedelta(minutes=5) < found <= timedelta(minutes=10)


@pytest.mark.parametrize("value", ["", "soon", "nan", "0", "-5", "-inf", "Mon, 10 Mar 2025 11:00:00 GMT"])
def test_retry_after_that_names_no_time_ahead_is_none(value: str) -> None:
    assert read_retry_after({"retry-after": value}) is None
    assert read_retry_after({}) is None


class WaitingGate:
    """Lets nobody through before `opened`; `refuses` raises then."""

    def __init__(self, *, refuses: bool = False) -> None:
        self.opened = asyncio.Event()
        self._refuses = refuses

    async def admit(self, caller: Caller, *, endpoint: str, account_key: str | None) -> None:
        await self.opened.wait()
        if self._refuses:
            raise RateLimited("over_budget")


def departure(*, leaves_in: float = 60.0) -> Departure:
    return Departure(leaves_by=elapsed() + leaves_in, ends_at=elapsed() + 60)


async def send_through(gate: WaitingGate, follows: Departure, sent: list[bool], *, seconds: float = 30.0) -> Answer:
    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(follows.held)
        return httpx.Response(200)

    subject = api(answer, gate=gate, total_seconds=seconds)
    return await subject.send(subject.endpoint("token", "POST", "/t"), Caller(departure=follows), headers={})


@pytest.mark.deep
def test_deadline_of_a_call_begins_when_the_request_leaves() -> None:
    async def wait_longer_than_the_deadline() -> Answer:
        gate, loop = WaitingGate(), asyncio.get_running_loop()
        loop.call_later(0.2, gate.opened.set)
        return await send_through(gate, departure(), [], seconds=0.1)

    assert asyncio.run(wait_longer_than_the_deadline()).status == 200


def test_request_that_waits_for_the_budget_is_known_not_to_have_left() -> None:
    async def give_up() -> Departure:
        gate, follows = WaitingGate(), departure()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await send_through(gate, follows, [])
        return follows

    assert asyncio.run(give_up()).held


def test_request_that_has_left_is_not_said_to_be_held() -> None:
    gate, follows, sent = WaitingGate(), departure(), list[bool]()
    gate.opened.set()

    asyncio.run(send_through(gate, follows, sent))

    assert sent == [False]
    assert not follows.held


def test_request_does_not_leave_when_the_wait_for_the_budget_took_too_long() -> None:
    gate, follows, sent = WaitingGate(), departure(leaves_in=-1), list[bool]()
    gate.opened.set()

    with pytest.raises(Unsent, match="lease_nearly_over"):
        asyncio.run(send_through(gate, follows, sent))

    assert (sent, follows.held) == ([], True)


def test_answer_does_not_show_its_body() -> None:
    assert repr(Answer(200, {}, b"SECRET")) == "Answer(status=200, bytes=6)"


def chunks(body: bytes, size: int = 16_384) -> httpx.AsyncByteStream:
    """A body as it comes from the network, not yet unpacked."""

    class Stream(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            for start in range(0, len(body), size):
                yield body[start : start + size]

    return Stream()
