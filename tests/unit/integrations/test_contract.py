"""Every integration passes the checks that ship with the kit, against its own stand-in."""

from __future__ import annotations

import pytest

from worker.integrations.kit.contract import CHECKS, Check, Subject, name_of
from worker.integrations.registry import REGISTRY
from worker.sandbox.stand_ins import stand_in

pytestmark = pytest.mark.deep


# What is read from files has no server to stand in for.
CALLING = sorted(key for key, integration in REGISTRY.items() if not integration.reads_files)


@pytest.mark.parametrize("key", CALLING)
@pytest.mark.parametrize("check", CHECKS, ids=name_of)
def test_contract(check: Check, key: str) -> None:
    check(Subject(REGISTRY[key], stand_in(key)))
