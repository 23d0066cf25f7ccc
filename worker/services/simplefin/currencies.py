"""Currencies as SimpleFIN writes them: a code of ISO 4217 and its decimals, else an address that names the currency."""

from __future__ import annotations

import re
from decimal import ROUND_HALF_EVEN, Context, Decimal

from worker.errors import NotFound

# Source: ISO 4217, list one, with those withdrawn since 2022, because institutions still state them for a time.
_LISTED = """
    AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE
    CHF CHW CLF CLP CNY COP COU CRC CUC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ
    GYD HKD HNL HRK HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL
    LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN
    PYG QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SLL SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD
    TWD TZS UAH UGX USD USN UYI UYU UYW UZS VED VES VND VUV WST XAF XCD XCG XOF XPF YER ZAR ZMW ZWG ZWL
"""
_NONE = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"
_THREE = "BHD IQD JOD KWD LYD OMR TND"
_FOUR = "CLF UYW"
_CODES = frozenset(_LISTED.split())
_USUAL = 2
_DECIMALS = {code: places for codes, places in ((_NONE, 0), (_THREE, 3), (_FOUR, 4)) for code in codes.split()}
_WIDE = Context(prec=200, rounding=ROUND_HALF_EVEN)
_CUSTOM = re.compile(r"[A-Za-z0-9]{3,12}")


def amount(value: Decimal, currency: str) -> str:
    """An amount with exactly the decimals of its currency; a currency outside ISO 4217 keeps all, and has two or more.

    Some apps take the decimal point out and read the rest as cents, so `100.5` would be ten times too small.
    """
    places = _DECIMALS.get(currency, _USUAL) if currency in _CODES else max(_USUAL, -int(value.as_tuple().exponent))
    rounded = value.quantize(Decimal(1).scaleb(-places), context=_WIDE)
    return f"{rounded or abs(rounded):f}"


def plain(value: Decimal | None) -> str | None:
    """A number as it is, without an exponent; None for None."""
    return None if value is None else f"{value:f}"


def written(currency: str, root: str) -> str:
    """The currency as an account has it: its code, or the address that tells what it is."""
    return currency if currency in _CODES else f"{root}/currencies/{currency}"


def described(code: str) -> dict[str, str]:
    """What is behind the address of a currency outside ISO 4217.

    Raises:
        NotFound: it is no such currency.
    """
    if not _CUSTOM.fullmatch(code) or code in _CODES:
        raise NotFound("this is no custom currency")
    return {"name": code, "abbr": code}
