"""One file for each provider API behind the interface in `base`; `registry` lists them; `http` is the only way out."""
