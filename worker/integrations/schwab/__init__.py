"""Charles Schwab: the integration, its vocabulary, and its stand-in. Importing this package imports none of them."""
