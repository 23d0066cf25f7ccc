"""Text from outside: e-mail addresses, and what is shown on a terminal or in a log."""
