"""The HTTP door: `python -m worker.web`. It enqueues and reads; it calls a provider only to exchange or end a grant."""
