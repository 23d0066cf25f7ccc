"""A little SMTP server that keeps what it is given: STARTTLS, TLS, AUTH PLAIN, refusals."""

from __future__ import annotations

import base64
import socketserver
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage

from tests.support.serving import serving


@dataclass
class Mailbox:
    """What the server was told, and how it is to behave.

    Attributes:
        refuse: addresses that are refused, with the code.
        data_code: how a mail's text is answered.
        user, password: required when set.
        international: whether addresses may have letters of any script.
        on_mail: called after each mail, before it is acknowledged.
    """

    tls: ssl.SSLContext | None = None
    implicit_tls: bool = False
    refuse: dict[str, int] = field(default_factory=dict)
    data_code: int = 250
    user: str = ""
    password: str = ""
    busy: bool = False
    international: bool = True
    on_mail: Callable[[], object] = lambda: None
    recipients: list[str] = field(default_factory=list)
    mails: list[EmailMessage] = field(default_factory=list)
    encrypted: list[bool] = field(default_factory=list)
    connections: int = 0
    port: int = 0


class _Handler(socketserver.StreamRequestHandler):
    server: _Server
    timeout = 10

    def setup(self) -> None:
        self.box = self.server.box
        self.box.connections += 1
        self.secure = False
        self.trusted = not self.box.user
        if self.box.implicit_tls:
            self._wrap()
        super().setup()

    def handle(self) -> None:
        self._say("421 busy" if self.box.busy else "220 mailbox")
        while not self.box.busy and (line := self.rfile.readline()):
            words = line.decode().strip()
            if not self._answer(words.split(" ")[0].upper(), words):
                return

    def finish(self) -> None:
        super().finish()
        self.request.close()  # the server itself knows only the socket below TLS

    def _answer(self, verb: str, words: str) -> bool:
        if verb == "EHLO":
            offers = ["mailbox", *([] if self.secure or not self.box.tls else ["STARTTLS"]), "AUTH PLAIN"]
            offers += ["8BITMIME", "SMTPUTF8"] if self.box.international else []
            for place, offer in enumerate(offers):
                self._say(f"250{' ' if place == len(offers) - 1 else '-'}{offer}")
        elif verb == "STARTTLS":
            self._say("220 go on")
            super().finish()
            self._wrap()
            super().setup()
        elif verb == "AUTH":
            _, user, password = base64.b64decode(words.split(" ")[2]).decode().split("\0")
            self.trusted = (user, password) == (self.box.user, self.box.password)
            self._say("235 welcome" if self.trusted else "535 no")
        elif verb == "RCPT":
            address = words.partition("<")[2].partition(">")[0]
            code = self.box.refuse.get(address, 250 if self.trusted else 530)
            if code == 250:
                self.box.recipients.append(address)
            self._say(f"{code} recipient")
        elif verb == "DATA":
            self._take()
        elif verb == "QUIT":
            self._say("221 bye")
            return False
        else:
            self._say("250 fine")
        return True

    def _take(self) -> None:
        self._say("354 go on")
        lines = []
        while (line := self.rfile.readline()) not in (b".\r\n", b""):
            lines.append(line)
        mail = message_from_bytes(b"".join(lines), policy=policy.default)
        assert isinstance(mail, EmailMessage)
        if self.box.data_code == 250:
            self.box.mails.append(mail)
            self.box.encrypted.append(self.secure)
            self.box.on_mail()
        self._say(f"{self.box.data_code} done")

    def _wrap(self) -> None:
        assert self.box.tls is not None
        self.request = self.box.tls.wrap_socket(self.request, server_side=True)
        self.secure = True

    def _say(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True

    def __init__(self, box: Mailbox) -> None:
        self.box = box
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up, for example over a certificate, is no news."""


@contextmanager
def smtp_server(box: Mailbox | None = None) -> Iterator[Mailbox]:
    """Runs the server on a free port of this machine."""
    box = box or Mailbox()
    server = _Server(box)
    box.port = server.server_address[1]
    with serving(server):
        yield box
