"""How a login is linked: which way the user goes, and the form that asks for what the provider gave them.

An integration names one of these as its `link_kind`. The command line and every other door ask for `fields`; what was
filled in goes to `Integration.exchange` by the fields' names. An integration may ask in its own words with
`dataclasses.replace(KEY_AND_SECRET, fields=…)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from worker.errors import Refused

CODE = "code"
CODE_VERIFIER = "code_verifier"


@dataclass(frozen=True, slots=True)
class FormField:
    """One thing that is asked for.

    Attributes:
        name: its name in what `Integration.exchange` gets.
        label: what a person reads beside it.
        secret: not shown while it is typed, and never written to a log.
        lines: may have several lines, as a key file has.
        help: one sentence: where the user finds it.
    """

    name: str
    label: str
    secret: bool = True
    lines: bool = False
    help: str = ""


@dataclass(frozen=True, slots=True)
class LinkKind:
    """One way of linking.

    Attributes:
        name: stable word, as `dashtam integrations list` shows it.
        title: what the user does, in words.
        fields: what is asked for afterwards, in this order.
        redirects: the user consents at an address of the provider, which sends them back with a code.
        pkce: that address and the exchange are tied together by a secret of ours (RFC 7636).
    """

    name: str
    title: str
    fields: tuple[FormField, ...] = ()
    redirects: bool = False
    pkce: bool = False

    def checked(self, form: Mapping[str, str]) -> dict[str, str]:
        """What was filled in, without the space around it.

        Raises:
            Refused: a field is missing or empty, or is none of this form.
        """
        labels = {field.name: field.label for field in self.fields}
        if unknown := sorted(form.keys() - labels.keys()):
            raise Refused(f"the form has no field {', '.join(unknown)}; it has {', '.join(labels) or 'none'}")
        filled = {name: form.get(name, "").strip() for name in labels}
        if empty := [labels[name] for name, value in filled.items() if not value]:
            raise Refused(f"nothing was given as {', '.join(empty)}; nothing was linked")
        return filled


_CALLBACK = FormField(
    "callback_url", "address", help="The whole address on which the browser lands after you have consented."
)

OAUTH = LinkKind("oauth", "consent at the provider's own address", (_CALLBACK,), redirects=True)
OAUTH_PKCE = LinkKind("oauth_pkce", OAUTH.title, (_CALLBACK,), redirects=True, pkce=True)
PUBLIC_TOKEN = LinkKind(
    "public_token",
    "consent in the provider's own front end, which hands over a public token",
    (FormField("public_token", "public token", help="What the provider's front end handed over."),),
)
SETUP_TOKEN = LinkKind(
    "setup_token",
    "get a setup token from the provider",
    (FormField("setup_token", "setup token", help="Good for one use; the provider's own pages show it."),),
)
KEY_AND_SECRET = LinkKind(
    "key_and_secret",
    "make an API key in your account at the provider",
    (
        FormField("key", "API key", help="The provider's own pages show it beside the secret."),
        FormField("secret", "API secret", help="The provider shows it once, when the key is made."),
    ),
)
KEY_FILE = LinkKind(
    "key_file",
    "make a key in your account at the provider, and give the file that it is in",
    (
        FormField("key_id", "name of the key", secret=False, help="The name under which the provider knows the key."),
        FormField("key_file", "key file", lines=True, help="The private key: all lines of the file."),
    ),
)
FILE = LinkKind("file", "nothing: its data comes in files, and no login is needed")

ALL = (OAUTH, OAUTH_PKCE, PUBLIC_TOKEN, SETUP_TOKEN, KEY_AND_SECRET, KEY_FILE, FILE)
