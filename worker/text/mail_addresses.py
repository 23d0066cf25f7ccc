"""E-mail addresses: which can be written to, and in what form. Nothing is looked up."""

from __future__ import annotations

from typing import TYPE_CHECKING

# The library has large tables, and most commands read no address.
if TYPE_CHECKING:
    from email.headerregistry import Address

    from email_validator import ValidatedEmail


def normalised(address: str) -> str:
    """An address as it is stored: without surrounding blanks, its domain in small letters.

    Domains of a private network (`ops@mailhost`, `ops@mail.internal`) are allowed.

    Raises:
        ValueError: no mail can be sent to it; says why.
    """
    return _read(address.strip()).normalized


def for_header(address: str) -> Address:
    """An address for a mail's header and for SMTP: its domain in ASCII. `Name <address>` keeps the name.

    Raises:
        ValueError: no mail can be sent to it; says why.
    """
    from email.headerregistry import Address

    read = _read(address.strip(), named=True)
    return Address(display_name=read.display_name or "", username=read.local_part, domain=read.ascii_domain)


def _read(address: str, *, named: bool = False) -> ValidatedEmail:
    from email_validator import SPECIAL_USE_DOMAIN_NAMES, EmailNotValidError, validate_email

    # A private network may well have a mail server under `.local` or `.internal`; the demonstration's user is of
    # `.localhost`. The library says to change its list where such names are wanted.
    SPECIAL_USE_DOMAIN_NAMES.clear()
    try:
        return validate_email(address, check_deliverability=False, globally_deliverable=False, allow_display_name=named)
    except EmailNotValidError as error:
        raise ValueError(str(error)) from None


def hinted(address: str) -> str:
    """An address as its owner recognises it and others cannot write to it: `a…@example.org`."""
    name, _, domain = address.rpartition("@")
    return f"{name[:1]}…@{domain}"
