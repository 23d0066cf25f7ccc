"""What the demonstration links: the one list of its logins."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Login:
    """A login of the sandbox and the alias under which the demo user links it."""

    provider_key: str
    number: int
    alias: str

    @property
    def name(self) -> str:
        """What the sandbox calls it."""
        return f"{self.provider_key}-{self.number}"


LOGINS = (
    Login("schwab", 1, "Schwab one"),
    Login("schwab", 2, "Schwab two"),
    Login("plaid", 1, "Plaid one"),
    Login("plaid", 2, "Plaid two"),
)
PROVIDER_KEYS = tuple(dict.fromkeys(login.provider_key for login in LOGINS))
