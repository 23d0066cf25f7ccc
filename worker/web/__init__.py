"""The HTTP API, `python -m worker.web`. It sends tasks and reads; it calls providers only to get or end a grant."""
