"""A folder for each provider API, made of what `kit` has; `registry` finds them."""
