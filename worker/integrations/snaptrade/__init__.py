"""SnapTrade: the integration, vocabulary and stand-in. Importing this package does not import these modules."""

NEEDS = "SNAPTRADE_CLIENT_ID"
