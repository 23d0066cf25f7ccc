"""The two built-in integrations that tests of everything else work with, by what sets them apart.

Tests of an integration name it themselves; what serves many tests takes its keys from here. The variable
`TEST_REFRESHED_KEY` names another integration whose tokens rotate, to try it with tests that name none;
`TEST_SYNCED_KEY` names another one whose syncs the fault tests disturb.
"""

from __future__ import annotations

import os

REFRESHED_KEY = os.environ.get("TEST_REFRESHED_KEY", "schwab")
"""Its access tokens expire, and its refresh tokens rotate."""
LASTING_KEY = "plaid"
"""Its access tokens never expire, and are never refreshed."""
SYNCED_KEY = os.environ.get("TEST_SYNCED_KEY", LASTING_KEY)
"""The fault tests disturb its syncs."""
