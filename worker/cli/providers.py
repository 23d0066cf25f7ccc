"""`dashtam providers`: lists and shows linked logins, sets their interval, pauses, resumes and unlinks them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group, RenderableType

from worker.cli.ask import IntegrationOption, ProviderArgument, ask, one_of, operator, remember_names
from worker.cli.output import AsJson, lists_alone, pairs, plain, print_json, relative, say, show, status, table

if TYPE_CHECKING:
    from worker.models.fleet import ProviderRow
    from worker.models.vocabulary import ProviderStatus

app = typer.Typer(
    help="List linked logins; set how often they are synced; pause, resume or unlink them.", invoke_without_command=True
)

MAX_INTERVAL = 31 * 24 * 3600

Reason = Annotated[str | None, typer.Option(help="Why; kept in the audit log.")]


def _statuses() -> type[ProviderStatus]:
    from worker.models.vocabulary import ProviderStatus

    return ProviderStatus


@app.command("list")
def list_(
    status_: Annotated[str | None, one_of(_statuses)] = None,
    integration: IntegrationOption = None,
    user: Annotated[str | None, typer.Option(help="Only those of this e-mail address or user id.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000)] = 50,
    as_json: AsJson = False,
) -> None:
    """List providers.

    [bold]Example[/]

    dashtam providers list --status needs_reauth --integration schwab
    """
    from worker.services.fleet import looking

    rows = ask(looking.providers, status=status_, provider_key=integration, user=user, limit=limit)
    show(rows, as_json=as_json, render=_list)
    remember_names()


lists_alone(app, list_)


def _list(rows: list[ProviderRow]) -> RenderableType:
    now = datetime.now(UTC)
    return table(
        ("id", "alias", "user", "integration", "status", "token expires", "next refresh", "synced", "next sync"),
        [
            (
                str(row.id),
                plain(row.alias),
                plain(row.user),
                row.provider_key,
                status(row.status),
                relative(row.access_expires_at, now),
                relative(row.refresh_due_at, now),
                relative(row.synced_at, now),
                relative(row.sync_due_at, now),
            )
            for row in rows
        ],
    )


@app.command("show")
def show_(provider: ProviderArgument, as_json: AsJson = False) -> None:
    """Show one provider: its token's dates, its rows, its last attempts and runs. The token is never shown.

    [bold]Example[/]

    dashtam providers show "Schwab one"
    """
    from worker.services.fleet import details

    data = ask(details.provider, provider)
    show(data, as_json=as_json, render=_show)


def _show(data: dict[str, Any]) -> RenderableType:
    row, token, stored = data["provider"], data["token"], data["stored"]
    facts = [
        ("id", str(row.id)),
        ("alias", plain(row.alias)),
        ("integration", row.provider_key),
        ("status", status(row.status) + (f" ({plain(row.status_reason)})" if row.status_reason else "")),
        ("user", f"{plain(row.user)} ({row.user_id})"),
        ("access token ends", row.access_expires_at),
        ("grant ends", row.grant_expires_at),
        ("refreshed", row.refreshed_at),
        ("next refresh", row.refresh_due_at),
        ("synced", row.synced_at),
        ("next sync", row.sync_due_at),
        ("synced every", f"{row.sync_interval} s" if row.sync_interval else "SYNC_INTERVAL"),
        ("generation", token.generation if token else None),
        ("encryption key", token.key_id if token else None),
        ("rows", f"{stored.accounts} accounts, {stored.transactions} transactions, {stored.holdings} holdings"),
        ("quarantine", data["quarantined"]),
    ]
    attempts = table(
        ("started", "status", "trigger", "#generation", "error", "reason"),
        [(a.started_at, status(a.status), a.trigger, a.generation, a.error, a.reason) for a in data["attempts"]],
        title="refresh attempts",
    )
    runs = table(
        ("started", "status", "trigger", "#added", "#changed", "#removed", "error"),
        [
            (r.started_at, status(r.status), r.trigger, r.added, r.changed, r.removed, r.error_reason)
            for r in data["runs"]
        ],
        title="sync runs",
    )
    drifts = table(
        ("account", "figure", "#stated", "#stored", "seen"),
        [(d.account, d.figure, d.stated, d.stored, d.seen_at) for d in data["drifts"]],
        title="drift from the provider's books",
    )
    return Group(pairs(facts), "", attempts, "", runs, "", drifts)


@app.command()
def interval(
    provider: ProviderArgument,
    seconds: Annotated[int | None, typer.Option(min=60, max=MAX_INTERVAL, help="Seconds between two syncs.")] = None,
    usual: Annotated[bool, typer.Option("--usual", help="Back to SYNC_INTERVAL.")] = False,
    as_json: AsJson = False,
) -> None:
    """Set how often one provider is synced, instead of SYNC_INTERVAL.

    [bold]Example[/]

    dashtam providers interval "Schwab one" --seconds 3600
    """
    if (seconds is None) is not usual:
        raise typer.BadParameter("give either --seconds or --usual")
    from worker.services.fleet import steering
    from worker.settings import get_settings

    row, changed = ask(steering.set_interval, provider, seconds=seconds, actor=operator())
    if as_json:
        print_json({"id": row.id, "sync_interval": seconds, "changed": changed})
    else:
        every = f"{seconds} s" if seconds else f"{get_settings().sync_interval} s, as SYNC_INTERVAL says"
        say(f"{plain(row.alias)} is synced every {every}{'' if changed else ', as it was'}")


@app.command()
def pause(provider: ProviderArgument, reason: Reason = None, as_json: AsJson = False) -> None:
    """Pause a provider: no schedule refreshes or syncs it. Its token and rows are kept.

    [bold]Example[/]

    dashtam providers pause "Schwab one" --reason "the user asked"
    """
    from worker.services.fleet import steering

    row, changed = ask(steering.pause, provider, actor=operator(), reason=reason)
    _tell(row, changed, "paused", "it was paused already", as_json=as_json)


@app.command()
def resume(provider: ProviderArgument, as_json: AsJson = False) -> None:
    """Resume a paused provider; missed work is due at once.

    [bold]Example[/]

    dashtam providers resume "Schwab one"
    """
    from worker.services.fleet import steering

    row, changed = ask(steering.resume, provider, actor=operator())
    _tell(row, changed, "active", "it was active already", as_json=as_json)


@app.command()
def unlink(
    provider: ProviderArgument,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """End a link: revoke the grant at the provider if this is possible, and delete the token. Rows are kept.

    [bold]Example[/]

    dashtam providers unlink "Schwab one" --yes
    """
    from worker.services.fleet import looking
    from worker.services.linking import end

    row = ask(looking.find_provider, provider)
    if not yes:
        typer.confirm(
            f"Unlink {row.alias} ({row.provider_key})? Its user must consent anew to link it again.", abort=True
        )
    revoked = ask(end.unlink, row.id, actor=operator())
    if as_json:
        print_json({"id": row.id, "status": "unlinked", "revoked": revoked})
    else:
        where = (
            "and revoked at the provider"
            if revoked
            else "here; the provider has no way to revoke a consent, or could not be asked and is asked again"
        )
        say(f"{plain(row.alias)} is unlinked {where}")


def _tell(row: ProviderRow, changed: bool, new: str, unchanged: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"id": row.id, "status": new, "changed": changed})
    else:
        say(f"{plain(row.alias)} is {status(new)}" if changed else f"{plain(row.alias)}: {unchanged}")
