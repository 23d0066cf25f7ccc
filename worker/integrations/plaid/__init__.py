"""Plaid: the integration, its vocabulary and its stand-in. Importing this package does not import these modules."""
