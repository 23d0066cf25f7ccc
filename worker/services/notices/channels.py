"""The channels that notices are sent through: e-mail over SMTP, a signed webhook, the log."""

from __future__ import annotations

import asyncio
import json
import smtplib
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import formatdate
from typing import Protocol

from worker.errors import Undelivered
from worker.integrations.webhook import Webhook
from worker.process.logger import Logger
from worker.settings import Settings
from worker.text.mail_addresses import for_header

log = Logger(__name__)

_SMTP_SECONDS = 15


@dataclass(frozen=True, slots=True)
class Message:
    """One notice, ready to be sent.

    Attributes:
        id: the notice's id; the same at every attempt, so that receivers can recognise a repeat.
        to: the receiver's e-mail address; None when it has none.
        event: the facts in machine-readable form: words, ids and times, never a token or an account number.
    """

    id: str
    to: str | None
    subject: str
    text: str
    event: dict[str, str | None]


class Channel(Protocol):
    """One way of sending notices."""

    async def send(self, message: Message) -> None:
        """Sends one message. Raises `Undelivered`."""
        ...

    async def aclose(self) -> None:
        """Closes open connections; called after each batch."""
        ...


class LogChannel:
    """Writes notices to the log."""

    async def send(self, message: Message) -> None:
        """Logs the message without the address. Never fails."""
        log.info("notice", notice_id=message.id, text=message.subject, **message.event)

    async def aclose(self) -> None:
        """Does nothing: no connection is open."""


class WebhookChannel:
    """Posts notices as JSON to `WEBHOOK_URL`, signed with `WEBHOOK_SECRET`."""

    def __init__(self, webhook: Webhook, *, clock: Callable[[], float] = time.time) -> None:
        self._webhook = webhook
        self._clock = clock

    async def send(self, message: Message) -> None:
        """See `Webhook.post`."""
        body = json.dumps(
            {"id": message.id, "subject": message.subject, "text": message.text, **message.event}, ensure_ascii=False
        )
        await self._webhook.post(body.encode(), notice_id=message.id, timestamp=int(self._clock()))

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._webhook.aclose()


class EmailChannel:
    """Sends plain-text e-mail through one SMTP server, for example Amazon SES.

    One connection is used for a whole batch. A server that cannot be reached is not tried again in the same batch. Its
    certificate is verified; without TLS the server must be on this machine.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._connection: smtplib.SMTP | None = None
        self._unreachable: str | None = None
        self._turn = asyncio.Lock()

    async def send(self, message: Message) -> None:
        """Raises `Undelivered`; `permanent` when there is no address or the server refuses it permanently."""
        if not message.to:
            raise Undelivered("email: nobody to write to", permanent=True)
        async with self._turn:  # smtplib's connection can send only one message at a time
            await asyncio.to_thread(self._send, message, message.to)

    async def aclose(self) -> None:
        """Closes the connection to the server."""
        if self._connection is not None:
            await asyncio.to_thread(self._disconnect)

    def _send(self, message: Message, to: str) -> None:
        try:
            recipient = for_header(to)
        except ValueError:
            raise Undelivered("email: unusable address", permanent=True) from None
        sender = for_header(self._settings.notice_from)
        mail = _mail(message, sender, recipient)
        connection = self._connected()
        try:
            connection.send_message(mail, from_addr=sender.addr_spec, to_addrs=[recipient.addr_spec])
        except smtplib.SMTPNotSupportedError:
            self._disconnect()
            raise Undelivered("email: the server does not accept this address", permanent=True) from None
        except smtplib.SMTPRecipientsRefused as error:
            self._disconnect()
            codes = [code for code, _ in error.recipients.values()]
            raise Undelivered(f"email: recipient refused ({codes[0]})", permanent=codes[0] >= 500) from None
        except smtplib.SMTPResponseException as error:
            self._disconnect()
            raise Undelivered(f"email: {type(error).__name__} ({error.smtp_code})") from None
        except (smtplib.SMTPException, OSError) as error:
            self._disconnect()
            raise Undelivered(f"email: {type(error).__name__}") from None

    def _connected(self) -> smtplib.SMTP:
        if self._unreachable is not None:
            raise Undelivered(self._unreachable)
        if self._connection is None:
            try:
                self._connection = self._connect()
            except (smtplib.SMTPException, OSError) as error:
                self._unreachable = f"email: no connection ({type(error).__name__})"
                raise Undelivered(self._unreachable) from None
        return self._connection

    def _connect(self) -> smtplib.SMTP:
        settings = self._settings
        context = ssl.create_default_context()
        if settings.smtp_ca_file is not None:
            context.load_verify_locations(settings.smtp_ca_file)
        if settings.smtp_security == "tls":
            connection: smtplib.SMTP = smtplib.SMTP_SSL(
                settings.smtp_host, settings.smtp_port, timeout=_SMTP_SECONDS, context=context
            )
        else:
            connection = smtplib.SMTP(settings.smtp_host, settings.smtp_port, timeout=_SMTP_SECONDS)
        try:
            if settings.smtp_security == "starttls":
                connection.starttls(context=context)
            if settings.smtp_user and settings.smtp_password is not None:
                connection.login(settings.smtp_user, settings.smtp_password.get_secret_value())
        except BaseException:
            connection.close()
            raise
        return connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(smtplib.SMTPException, OSError):
                connection.quit()


def _mail(message: Message, sender: Address, recipient: Address) -> EmailMessage:
    mail = EmailMessage()
    mail["From"] = sender
    mail["To"] = recipient
    mail["Subject"] = message.subject
    mail["Date"] = formatdate()
    mail["Message-ID"] = f"<{message.id}@{sender.domain}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(message.text)
    return mail


def build_channels(settings: Settings) -> dict[str, Channel]:
    """The enabled channels, by name.

    Raises:
        ConfigurationError: the webhook's URL is unsafe.
    """
    channels: dict[str, Channel] = {}
    for name in settings.enabled_channels:
        if name == "log":
            channels[name] = LogChannel()
        elif name == "email":
            channels[name] = EmailChannel(settings)
        elif settings.webhook_secret is not None:
            channels[name] = WebhookChannel(
                Webhook(settings.webhook_url, secret=settings.webhook_secret.get_secret_value())
            )
    return channels
