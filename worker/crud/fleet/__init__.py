"""Read-only queries about all logins together: for operators, for people who ask why, for gauges."""
