"""What operators can look at and change: logins, runs, integrations. For the command line and the HTTP API."""
