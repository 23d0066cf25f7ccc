"""Logs, metrics, traces and the programs that show them."""
