"""The rules by which a run stores its pages."""

from __future__ import annotations

from worker.crud.sync.nouns import raw_hasher
from worker.crud.sync.runs import RunBegun
from worker.crud.sync.work import Rules
from worker.integrations.kit.integration import Integration
from worker.integrations.kit.masking import masked


def rules(begun: RunBegun, integration: Integration, *, mass_deletion_share: float) -> Rules:
    """The rules of a run whose pages come from this integration.

    Args:
        begun: the run.
        integration: whose mapping makes the rows.
        mass_deletion_share: the setting `MASS_DELETION_SHARE`.
    """
    return Rules(
        content_hashes=raw_hasher(integration.key, integration.mapping_version),
        mask=masked,
        mass_deletion_share=mass_deletion_share,
        open_quarantine=begun.open_quarantine,
        expect_new=begun.is_first,
    )
