"""Telling users and operators: what is queued, and the channels that it is sent by."""
