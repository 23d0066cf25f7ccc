"""Whether an integration may be called just now: circuit breaker, kill switch, quotas."""
