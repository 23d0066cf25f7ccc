"""Requests to a profile without a server."""

from __future__ import annotations

from urllib.parse import urlencode

from worker.sandbox.core import Profile
from worker.sandbox.stand_ins import stand_in
from worker.sandbox.wire import Answer, Request, encode

PROFILES = (stand_in("schwab"), stand_in("plaid"))
BASIC = "Basic c2FuZGJveC1hcHA6c2FuZGJveC1zZWNyZXQ="


def ask(profile: Profile, request: Request) -> Answer:
    return profile.answer(request, profile.caller(request))


def form_request(path: str, form: dict[str, str], authorization: str = BASIC) -> Request:
    return Request("POST", path, "", {b"authorization": authorization.encode()}, urlencode(form).encode())


def get_request(path: str, token: str, **query: str) -> Request:
    return Request("GET", path, urlencode(query), {b"authorization": f"Bearer {token}".encode()}, b"")


def plaid_request(path: str, token: str = "", **body: object) -> Request:
    credentials = {"client_id": "sandbox-client", "secret": "sandbox-secret", "access_token": token}
    return Request("POST", path, "", {}, encode(credentials | body))
