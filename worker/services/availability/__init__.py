"""Whether an integration may be called now: circuit breaker, kill switch, quotas."""
