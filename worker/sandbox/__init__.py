"""Stand-in provider APIs: a server on loopback that speaks the providers' published wire formats.

It shares no code with `worker.integrations`, so that it is a check on them. The core (`core`, `ledger`, `grants`,
`faults`, `barriers`, `quotas`, `request_log`, `admin`) knows no provider; everything that does is a file in `profiles`.
"""
