"""Read-only queries for operators, explanations and gauges; most of them cover all logins."""
