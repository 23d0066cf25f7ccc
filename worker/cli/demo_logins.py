"""The demo user, and the logins that `dashtam run` links for it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Login:
    """A login of the sandbox and the alias under which the demo user links it.

    Attributes:
        in_browser: whether its owner consents at an address; otherwise the provider gives the user a token.
    """

    provider_key: str
    number: int
    alias: str
    in_browser: bool = False

    @property
    def name(self) -> str:
        """Its name in the sandbox."""
        return f"{self.provider_key}-{self.number}"


USER = "demo@dashtam.localhost"
LOGINS = (
    Login("schwab", 1, "Schwab one", in_browser=True),
    Login("schwab", 2, "Schwab two", in_browser=True),
    Login("plaid", 1, "Plaid one"),
    Login("plaid", 2, "Plaid two"),
)
