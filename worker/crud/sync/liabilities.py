"""Stores the terms of cards and loans, which a page lists completely."""

from __future__ import annotations

from worker.crud.sync import nouns, quarantine
from worker.crud.sync.apply import apply
from worker.crud.sync.listed import storable, vanished
from worker.crud.sync.work import Work
from worker.models.pages import Page

_NOUN = nouns.LIABILITIES


def apply_liabilities(work: Work, page: Page) -> None:
    """Stores the page's liabilities, and closes those that are missing from a complete listing."""
    if work.rules.open_quarantine and page.liabilities_complete_for:
        quarantine.resolve_liabilities(work, page.liabilities_complete_for)
    found = storable(work, page.liabilities, _NOUN, kind="liability")
    listed = [nouns.liability(record, account_id, work.run_id) for (account_id, _), record in found.items()]
    outcome = apply(work.connection, _NOUN, listed, careful=work.careful)
    work.tally.add("liabilities", added=outcome.added, changed=outcome.changed, unchanged=outcome.unchanged)
    work.reject_refused("liability", _NOUN, outcome.refused)
    complete_for = page.liabilities_complete_for
    gone = vanished(work, page, _NOUN, complete_for=complete_for, listed=found.keys(), kinds={"liability"})
    if gone:
        work.connection.execute(
            "UPDATE liabilities SET closed_at = %s, content_hash = ''::bytea, run_id = %s WHERE id = ANY(%s)",
            (work.now, work.run.id, gone),
        )
        work.tally.add("liabilities", removed=len(gone))
