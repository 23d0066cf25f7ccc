"""What operators ask about logins and runs, and what they may do to them; for the command line and other doors."""
