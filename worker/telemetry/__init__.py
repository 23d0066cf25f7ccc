"""Logs, metrics, traces, and the programs that show them (exporter and Flower)."""
