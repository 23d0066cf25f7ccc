"""Link kinds: the ways in which a login can be linked, each with the form that the user fills in.

An integration sets one of these as its `link_kind`. The command line and the HTTP API ask for its `fields`, and
`Integration.exchange` gets the values by the fields' names. An integration can use its own labels with
`dataclasses.replace(KEY_AND_SECRET, fields=…)`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from worker.errors import Refused

CODE = "code"
CODE_VERIFIER = "code_verifier"
_MOST_NAMED = 20


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the values that a field may have.

    Attributes:
        value: what the integration gets.
        label: the text that a person reads and may type.
        group: a heading under which several choices stand; may be empty.
    """

    value: str
    label: str
    group: str = ""


@dataclass(frozen=True, slots=True)
class FormField:
    """One field of the form.

    Attributes:
        name: its name in the form that `Integration.exchange` gets.
        label: the text that a person reads beside it.
        secret: its value is not shown while it is typed and never written to a log.
        lines: its value may have several lines, like a key file.
        help: one sentence that says where the user finds the value.
        chosen: its value is one of those that `Integration.choices` lists.
    """

    name: str
    label: str
    secret: bool = True
    lines: bool = False
    help: str = ""
    chosen: bool = False

    def pick(self, choices: Sequence[Choice], given: str) -> str:
        """The value of the choice that a person means: its value, its label, or words that only its label has.

        Raises:
            Refused: none or several fit. The text names those that fit.
        """
        words = given.lower().split()
        for choice in choices:
            if given == choice.value or words == choice.label.lower().split():
                return choice.value
        fitting = [one for one in choices if words and all(word in one.label.lower() for word in words)]
        if len(fitting) == 1:
            return fitting[0].value
        if not fitting:
            raise Refused(f"no {self.label} has these words in its name; nothing was changed. Give other words")
        named = "; ".join(choice.label for choice in fitting[:_MOST_NAMED])
        more = f"; and {len(fitting) - _MOST_NAMED} more" if len(fitting) > _MOST_NAMED else ""
        raise Refused(
            f"these words fit {len(fitting)}: {named}{more}. Nothing was changed. Give more words of one name"
        )


@dataclass(frozen=True, slots=True)
class FrontEnd:
    """The provider's own form, which a script of the provider shows inside our page.

    A page of ours loads nothing from other hosts but this script, and what the script itself loads.

    Attributes:
        script: the address of the provider's script.
        adapter: the text of our own script. It opens the form with the token that is in the page (`data-token` of the
            element `front-end`), and puts what the provider hands over into the page's form, which it then submits.
        frames: addresses of which the script shows frames.
        calls: addresses which the script calls.
    """

    script: str
    adapter: str
    frames: tuple[str, ...] = ()
    calls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LinkKind:
    """One way of linking.

    Attributes:
        name: a fixed word; `dashtam integrations list` shows it.
        title: a sentence that says what the user does.
        fields: the fields of the form, in the order in which they are asked for.
        asks: fields that are filled in before the user is sent to the provider's address, if it `redirects`.
        redirects: the user consents at an address of the provider, which sends the user back with a code.
        pkce: the code can be exchanged only with a secret of ours, the code verifier (RFC 7636).
        told: names of what only the provider's own form fills in, beside the fields; each may be missing.
        works_once: what is entered can be exchanged once, and gives tokens that do not expire. If these are not stored,
            they are kept for a day, for whoever enters the same again (`worker.services.linking.kept`).
    """

    name: str
    title: str
    fields: tuple[FormField, ...] = ()
    asks: tuple[FormField, ...] = ()
    redirects: bool = False
    pkce: bool = False
    told: tuple[str, ...] = ()
    works_once: bool = False

    def checked(self, form: Mapping[str, str]) -> dict[str, str]:
        """The values of the form, without spaces before and after them.

        Raises:
            Refused: a field is missing or empty, or does not belong to this form.
        """
        told = {name: form[name] for name in self.told if name in form}
        return told | _filled(self.fields, {name: value for name, value in form.items() if name not in told})

    def asked(self, form: Mapping[str, str]) -> dict[str, str]:
        """The same for the fields that are filled in before the user is sent to the provider."""
        return _filled(self.asks, form)


def _filled(fields: Iterable[FormField], form: Mapping[str, str]) -> dict[str, str]:
    labels = {field.name: field.label for field in fields}
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
    works_once=True,
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
FILE = LinkKind("file", "give a file that you have downloaded from your bank; no login is needed")

ALL = (OAUTH, OAUTH_PKCE, PUBLIC_TOKEN, SETUP_TOKEN, KEY_AND_SECRET, KEY_FILE, FILE)
