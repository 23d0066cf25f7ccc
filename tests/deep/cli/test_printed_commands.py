"""Every command of ours that is printed, by the product or its documentation, runs to its end in a `make run`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.demonstrated import Demonstrated, filled_in
from tests.support.printed_commands import EXAMPLES, IN_BLOCKS, PRINTED
from tests.support.waiting import wait_for
from tests.unit.integrations.statement_files.test_ofx import sgml, sgml_row
from worker.cli.exits import ExitCode

# All of them in one process, with the tours: they share a `make run`.
pytestmark = [pytest.mark.deep, pytest.mark.release, pytest.mark.xdist_group("tour")]

# The comment behind a command is no part of it.
LINES = sorted({line.partition("  #")[0].strip() for _, line in (*PRINTED, *EXAMPLES, *IN_BLOCKS)})

NOT_HERE = {
    "dashtam run": "the demonstration is one; it refuses a second in the same home (deep/cli/test_run.py runs it)",
    "dashtam run --once --json": "the same",
    "dashtam devstack down && dashtam run": "the same",
    'dashtam sandbox storm "Plaid one"': "its hooks use up the quota that the other commands need",
    'dashtam sandbox storm "Plaid one" --count 1000': "the same",
    "dashtam devstack down": "it would stop the demonstration (deep/cli/test_troubles.py runs it)",
    "dashtam devstack up": "refused beside a demonstration (deep/cli/test_troubles.py runs it)",
    "dashtam devstack up && dashtam migrate": "the same",
    "dashtam devstack down && dashtam devstack up": "the same",
    'dashtam link toy --user ada@example.org --create-user --alias "My toy"': "that integration is not written yet "
    "(deep/test_new_integration.py writes and links one)",
    'dashtam link enable_banking --user you@example.org --create-user --alias "My bank"': "it asks for a bank "
    "(integration/cli/test_acting.py answers)",
} | {
    line: "nobody of the demonstration has an account twice (integration/cli/test_accounts.py runs such commands)"
    for line in LINES
    if line.startswith(("dashtam accounts merge ", "dashtam accounts split ", "dashtam accounts undo "))
}
# Files of banks that commands read.
STATEMENTS = {
    "march.ofx": sgml(sgml_row()).decode(),
    "statement.ofx": sgml(sgml_row()).decode(),
    "march.csv": "Buchungstag;Betrag;Text\n31.03.2025;-12,50;Bait shop\n",
    "statement.csv": "Date,Amount,Description\n2025-03-31,-12.50,Bait shop\n",
}
# What these refuse in a world that is well is what they are for; they say so in one line.
REFUSED = {
    "dashtam keys retire k1": "is the active key",
    "dashtam sync x --cancel": "is not being synced",
}
# What makes a command possible, or ends what it began.
BEFORE = {
    "dashtam audit verify --against heads.json": ("dashtam audit verify --save heads.json",),
    "dashtam providers resume": ('dashtam providers pause "Schwab one"',),
    "dashtam integrations resume": ("dashtam integrations pause schwab",),
    'dashtam sandbox consent "Plaid one" > /dev/null &&': (
        'dashtam sandbox revoke "Plaid one"',
        'dashtam sync "Plaid one" --force --wait',
    ),
}
AFTER = {
    "dashtam integrations pause": ("dashtam integrations resume {key}",),
    "dashtam providers pause": ('dashtam providers resume "Schwab one"',),
    "dashtam sandbox fault": ("dashtam sandbox restore",),
    "dashtam sandbox hooks": ("dashtam sandbox restore",),
    "dashtam sandbox outage": ("dashtam sandbox restore", "dashtam integrations resume schwab"),
    "dashtam providers unlink": ('dashtam link schwab --user demo@dashtam.localhost --alias "Schwab one"',),
    "dashtam sandbox revoke": (
        'dashtam sandbox consent "Plaid one" | dashtam link plaid --user demo@dashtam.localhost --alias "Plaid one"',
    ),
}


@pytest.fixture(scope="module")
def world(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demonstrated]:
    with Demonstrated.of(checkout, tmp_path_factory.mktemp("files")) as world:
        for name, content in STATEMENTS.items():
            world.write(name, content)
        world.write("passwords.json", json.dumps(dict.fromkeys(("migrate", "app", "readonly"), "made-up-word-1")))
        yield world


def _of(table: dict[str, tuple[str, ...]], line: str) -> Iterator[str]:
    key = "plaid" if "plaid" in line else "schwab"
    for begins, lines in table.items():
        if line.startswith(begins):
            yield from (needed.format(key=key) for needed in lines)


# Several lines may say the same once they are filled in.
RUN = {filled_in(line): line for line in LINES if line not in NOT_HERE}


def _run(world: Demonstrated, line: str, given: str | None) -> tuple[int, str]:
    """A sync that an earlier command asked for may begin only now; then another one is refused until it has ended."""
    if not line.startswith("dashtam sync") or line in REFUSED:
        return world.run(line, given=given)
    done: list[tuple[int, str]] = []
    wait_for(lambda: done.append(world.run(line)) or done[-1][0] != ExitCode.REFUSED, what=f"{line} to be taken")
    return done[-1]


@pytest.mark.parametrize("line", RUN.values(), ids=RUN)
def test_it_runs_as_printed(line: str, world: Demonstrated) -> None:
    for needed in _of(BEFORE, line):
        # The sync is there to fail: by it the worker finds out that a consent was withdrawn. A hook may be quicker.
        expected = {ExitCode.FAILED, ExitCode.REFUSED} if "sync" in needed else {ExitCode.OK}
        assert world.run(needed)[0] in expected
    if "public-token.txt" in line:
        world.write("public-token.txt", f"{world.given_to_the_user('plaid-1')}\n")

    given = None
    if line.startswith("dashtam link") and "<" not in line and "|" not in line:
        given = f"{world.given_to_the_user('simplefin-1' if 'simplefin' in line else 'plaid-1')}\n"
    code, output = _run(world, line, given)

    if line in REFUSED:
        assert (code, REFUSED[line] in output) == (3, True), output
    else:
        assert code == 0, f"{filled_in(line)}\n{output}"
    assert "Traceback" not in output
    for needed in _of(AFTER, line):
        code, output = world.run(needed)
        assert code == 0, f"{needed}\n{output}"


def test_what_is_said_of_printed_commands_is_about_printed_ones() -> None:
    assert {*NOT_HERE, *REFUSED} <= set(LINES)
    for table in (BEFORE, AFTER):
        assert all(any(line.startswith(begins) for line in LINES) for begins in table)
