"""`dashtam sandbox`: makes the sandbox of a running `dashtam run` behave as real providers sometimes do."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.demo_logins import LOGINS, USER, Login
from worker.cli.exits import UsageProblem
from worker.cli.output import AsJson, lists_alone, plain, print_json, say, show, table
from worker.errors import Refused, Unavailable

if TYPE_CHECKING:
    from worker.sandbox.control import SandboxControl

app = typer.Typer(
    help="Make something go wrong at the sandbox of `dashtam run`, and see what the worker does.",
    invoke_without_command=True,
)

# The members of `worker.sandbox.faults.Fault` for each kind of fault.
_FAULTS: dict[str, dict[str, object]] = {
    "error": {"do": "answer", "status": 500},
    "slow": {"do": "delay", "latency_ms": 3000},
    "silent": {"do": "hang"},
    "reset": {"do": "reset"},
    "truncated": {"do": "truncate"},
    "limited": {"do": "rate_limit", "retry_after": "5"},
}

_GOOD_ORDER: dict[str, object] = {"lose": 0.0, "double": 0.0, "delay_seconds": 0.0, "reorder": False}
_HOOKS_SHOWN = 20


def _logins(incomplete: str) -> Iterable[str]:
    return [login.alias for login in LOGINS if login.alias.startswith(incomplete)]


def _kinds(incomplete: str) -> Iterable[str]:
    return [kind for kind in _FAULTS if kind.startswith(incomplete)]


LoginArgument = Annotated[
    str,
    typer.Argument(
        metavar="LOGIN",
        help="Alias of a login of the demo user, or its name at the sandbox: `dashtam sandbox list`.",
        show_default=False,
        autocompletion=_logins,
    ),
]


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the logins of the sandbox. Those without an alias are not linked by `dashtam run`: try them yourself.

    [bold]Example[/]

    dashtam sandbox list
    """
    rows = [
        {"login": login.name, "alias": login.alias if login in LOGINS else None, "integration": login.provider_key}
        for login in (*LOGINS, *_free_logins())
    ]
    show(rows, as_json=as_json, render=lambda rows: table(tuple(rows[0]), [tuple(row.values()) for row in rows]))


lists_alone(app, list_)


@app.command()
def revoke(login: LoginArgument, as_json: AsJson = False) -> None:
    """Withdraw the consent of a login, as its owner can do at the provider's site.

    The worker notices this at the next refresh or sync: the login then needs its user.

    [bold]Example[/]

    dashtam sandbox revoke "Plaid one"
    """
    chosen = _login(login)
    _sandbox().revoke(chosen.name)
    _done(
        {"revoked": chosen.name},
        f"{plain(chosen.alias)}: consent withdrawn at the provider. The next refresh or sync will find out.\n"
        f'Look at it:    dashtam explain "{chosen.alias}"\n{_mend(chosen)}',
        as_json=as_json,
    )


@app.command()
def consent(login: LoginArgument, as_json: AsJson = False) -> None:
    """Log in at the provider as the owner of a login, and print what the provider gives the owner for linking.

    For Plaid this is a public token, which `dashtam link` reads from standard input. For a provider that redirects a
    browser, do not use this command: open the address that `dashtam link` prints.

    [bold]Example[/]

    dashtam sandbox consent "Plaid one" | dashtam link plaid --user demo@dashtam.localhost --alias "Plaid one"

    dashtam sandbox consent simplefin-1 | dashtam link simplefin --user demo@dashtam.localhost --alias "My bank"
    """
    chosen = _login(login)
    if chosen.in_browser:
        raise Refused(
            f"{chosen.alias} is linked in a browser; nothing was changed. Run this, and open the address that it "
            f"prints: {_link(chosen)}"
        )
    form = _sandbox().link(chosen.name, {})
    if as_json:
        print_json(form)
    else:
        sys.stdout.write("".join(f"{value}\n" for value in form.values()))


@app.command()
def advance(
    login: LoginArgument,
    steps: Annotated[int, typer.Option(min=1, max=1000, help="How many changes.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Make new transactions in a login's books, post pending ones, and change a price.

    [bold]Example[/]

    dashtam sandbox advance "Plaid one" --steps 20
    """
    chosen = _login(login)
    _sandbox().advance(steps, chosen.name)
    _done(
        {"advanced": chosen.name, "steps": steps},
        f"{plain(chosen.alias)}: {steps} changes in its books.\n"
        f'Fetch them:    dashtam sync "{chosen.alias}" --wait\n'
        f'Look at them:  dashtam transactions --provider "{chosen.alias}" --limit 5',
        as_json=as_json,
    )


@app.command()
def fault(
    login: LoginArgument,
    do: Annotated[
        str, typer.Option(metavar="KIND", help=f"One of {', '.join(_FAULTS)}.", autocompletion=_kinds)
    ] = "error",
    times: Annotated[int, typer.Option(min=1, max=1000, help="How many requests it hits.")] = 3,
    as_json: AsJson = False,
) -> None:
    """Make the next requests for one login fail.

    Kinds: error (status 500), slow (3 seconds late), silent (no answer), reset (connection cut), truncated (half an
    answer), limited (too many requests, try again in 5 seconds).

    [bold]Example[/]

    dashtam sandbox fault "Schwab one" --do silent --times 2
    """
    chosen = _login(login)
    if do not in _FAULTS:
        raise UsageProblem(f"--do {do!r} is none of {', '.join(_FAULTS)}; nothing was changed")
    _sandbox().arm(_FAULTS[do] | {"login": chosen.name, "times": times})
    _done(
        {"fault": do, "login": chosen.name, "times": times},
        f"{plain(chosen.alias)}: the next {times} requests for it will go wrong ({do}).\n"
        f'See one:       dashtam sync "{chosen.alias}" --wait\n'
        "End it early:  dashtam sandbox restore",
        as_json=as_json,
    )


@app.command()
def outage(login: LoginArgument, as_json: AsJson = False) -> None:
    """Make the whole provider of a login answer 503, until `dashtam sandbox restore`.

    [bold]Example[/]

    dashtam sandbox outage "Schwab one"
    """
    chosen = _login(login)
    _sandbox().arm({"profile": chosen.provider_key, "do": "answer", "status": 503, "times": None})
    _done(
        {"outage": chosen.provider_key},
        f"{chosen.provider_key}: every request is answered with 503 from now on. The circuit breaker opens soon.\n"
        "Look at it:    dashtam integrations\n"
        "End it:        dashtam sandbox restore",
        as_json=as_json,
    )


@app.command()
def hooks(
    lose: Annotated[float | None, typer.Option(min=0, max=1, help="Share of the hooks that are never sent.")] = None,
    double: Annotated[float | None, typer.Option(min=0, max=1, help="Share of the hooks that are sent twice.")] = None,
    delay: Annotated[float | None, typer.Option(min=0, max=3600, help="Seconds until a hook is sent.")] = None,
    reorder: Annotated[
        bool | None, typer.Option("--reorder/--in-order", help="Let hooks arrive in another order.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what became of the sandbox's hooks; with options, deliver them badly until `dashtam sandbox restore`.

    [bold]Example[/]

    dashtam sandbox hooks --lose 0.5 --double 0.2 --delay 3
    """
    control = _sandbox()
    given = {"lose": lose, "double": double, "delay_seconds": delay, "reorder": reorder}
    manner = {name: value for name, value in given.items() if value is not None}
    if manner:
        control.deliver_hooks(manner)
        _done(
            manner,
            "hooks are delivered like this from now on.\n"
            f'Send some:     dashtam sandbox advance "{LOGINS[-1].alias}"\n'
            "Look at them:  dashtam sandbox hooks\n"
            "End it:        dashtam sandbox restore",
            as_json=as_json,
        )
        return
    names = ("login", "kind", "tries", "status", "outcome")
    rows = [{name: told[name] for name in names} for told in control.hooks()[-_HOOKS_SHOWN:]]
    show(rows, as_json=as_json, render=lambda rows: table(names, [tuple(str(v) for v in row.values()) for row in rows]))


@app.command()
def storm(
    login: LoginArgument,
    count: Annotated[int, typer.Option(min=1, max=2000, help="How many hooks.")] = 1000,
    as_json: AsJson = False,
) -> None:
    """Send many hooks about new data of one login at once. The worker syncs it at most twice for all of them.

    [bold]Example[/]

    dashtam sandbox storm "Plaid one" --count 1000
    """
    chosen = _login(login)
    sent = _sandbox().send_hooks(chosen.name, count)
    if not sent:
        raise Refused(
            f"{chosen.alias} sends no hooks: its provider has none, or it was not synced yet; nothing was changed. "
            f'Sync it first: dashtam sync "{chosen.alias}" --wait'
        )
    _done(
        {"hooks": sent, "login": chosen.name},
        f"{plain(chosen.alias)}: {sent} hooks are on their way.\n"
        f'Look at it:    dashtam runs list --provider "{chosen.alias}" --limit 5',
        as_json=as_json,
    )


@app.command()
def restore(as_json: AsJson = False) -> None:
    """End all faults and outages, and deliver hooks well again.

    A consent that was withdrawn stays withdrawn: link that login again.

    [bold]Example[/]

    dashtam sandbox restore
    """
    control = _sandbox()
    ended = control.disarm()
    control.deliver_hooks(_GOOD_ORDER)
    _done({"ended": ended}, f"faults and outages that were ended: {ended}", as_json=as_json)


def _login(given: str) -> Login:
    for login in LOGINS:
        if given in (login.alias, login.name):
            return login
    free = _free_logins()
    for login in free:
        if given == login.name:
            return login
    known = ", ".join([*(f'"{login.alias}"' for login in LOGINS), *(login.name for login in free)])
    raise UsageProblem(f"the sandbox has no login {given!r}; nothing was changed. There are {known}")


def _free_logins() -> list[Login]:
    """The logins of a running sandbox that `dashtam run` does not link; none if no sandbox is running."""
    from worker.devstack import default_home
    from worker.integrations.registry import REGISTRY
    from worker.sandbox.control import SandboxAway, control_of

    try:
        names = set(control_of(default_home()).logins()) - {login.name for login in LOGINS}
    except (Refused, SandboxAway):
        return []
    parts = sorted((*name.rpartition("-"), name) for name in names)
    return [
        Login(key, int(number), alias=name, in_browser=REGISTRY[key].link_kind.redirects)
        for key, _, number, name in parts
    ]


def _sandbox() -> SandboxControl:
    from worker.devstack import default_home
    from worker.sandbox.control import control_of

    home = default_home()
    control = control_of(home)
    if not control.is_up():
        raise Unavailable(
            f"the sandbox of {home} is not running; nothing was changed. Start it in another terminal: dashtam run"
        )
    return control


def _done(data: object, sentence: str, *, as_json: bool) -> None:
    if as_json:
        print_json(data)
    else:
        say(sentence)


def _mend(login: Login) -> str:
    """How the login gets a consent again, once the worker knows that it needs one."""
    if login.in_browser:
        return f"Link it again: {_link(login)}"
    user_logs_in = f'dashtam sandbox consent "{login.alias}" > /dev/null'
    return (
        f'Find out now:  dashtam sync "{login.alias}" --force --wait\n'
        f"Then renew it: {user_logs_in} && echo | {_link(login)}"
    )


def _link(login: Login) -> str:
    return f'dashtam link {login.provider_key} --user {USER} --alias "{login.alias}"'
