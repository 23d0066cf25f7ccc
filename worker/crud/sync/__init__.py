"""Statements of the account sync: runs, pages, rows, cursors, quarantine, books check."""
