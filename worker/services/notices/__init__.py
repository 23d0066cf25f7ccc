"""Notices to users and operators: which are queued, and the channels through which they are sent."""
