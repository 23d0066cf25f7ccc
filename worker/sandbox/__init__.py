"""Stand-in provider APIs: a server on loopback that speaks the providers' published wire formats.

It shares no code with the integrations, so that it is a check on them. What is here knows no provider; a stand-in's
books and wire format are in the folder of its integration, in the package `stand_in`, and `stand_ins` finds them.
"""
