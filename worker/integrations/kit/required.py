"""What a class must define to be an integration."""

from __future__ import annotations

from worker.integrations.kit.integration import Integration
from worker.integrations.kit.link_kinds import LinkKind


def missing_of(integration: type[Integration]) -> list[str]:
    """Required attributes and methods that a class does not have: their names, in the order of the base class."""
    lacks = [name for name in ("key", "name", "link_kind", "settings_class") if not hasattr(integration, name)]
    kind = getattr(integration, "link_kind", None)
    methods = ["exchange", "pages"]
    if integration.refresh_policy is not None:
        methods.append("refresh")
    if isinstance(kind, LinkKind) and kind.redirects:
        makes_address = integration.begin_consent is not Integration.begin_consent
        methods += ["redirect_uri", *([] if makes_address else ["authorize_url"])]
        methods += ["choices"] if any(field.chosen for field in kind.asks) else []
    if integration.can_renew:
        methods += ["begin_renewal", "complete_renewal"]
    if integration.can_check:
        methods += ["check_login", "ask_for_hooks"]
    if integration.front_end is not Integration.front_end:
        methods.append("open_front_end")
    return lacks + [name for name in methods if getattr(integration, name) is getattr(Integration, name)]
