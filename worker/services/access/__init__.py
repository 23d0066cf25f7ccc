"""Who may do what through the HTTP API: API keys, and whose rows a key may see."""
