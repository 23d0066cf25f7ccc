"""SimpleFIN, served: apps such as Actual, Sure or Firefly III read a user's accounts here.

The protocol is that of simplefin.org, versions 1 and 2. docs/simplefin.md says how an app is connected.
"""
