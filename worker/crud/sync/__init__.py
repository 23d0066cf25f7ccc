"""Statements of the account sync: runs, pages, rows, cursors, quarantine and the books check."""
