"""The two built-in integrations that tests of everything else work with, by what sets them apart.

Tests of an integration name it themselves; what serves many tests takes its keys from here.
"""

from __future__ import annotations

REFRESHED_KEY = "schwab"
"""Its access tokens expire, and its refresh tokens rotate."""
LASTING_KEY = "plaid"
"""Its access tokens never expire, and are never refreshed."""
