"""Every integration passes the checks that ship with the kit, against its own stand-in."""

from __future__ import annotations

import pytest

from worker.integrations.kit.contract import CHECKS, Check, Subject, name_of
from worker.integrations.registry import REGISTRY
from worker.sandbox.stand_ins import stand_in

pytestmark = pytest.mark.deep


@pytest.mark.parametrize("key", sorted(REGISTRY))
@pytest.mark.parametrize("check", CHECKS, ids=name_of)
def test_contract(check: Check, key: str) -> None:
    check(Subject(REGISTRY[key], stand_in(key)))
