"""The integrations: one folder for each provider API, built from the tools in `kit`; `registry` finds them."""
