"""The sandbox: a server on loopback that runs all stand-ins, with the providers' published wire formats.

It shares no code with the integrations, so that it is an independent check of them. The code here is the same for all
providers. A stand-in's books and wire format are in the package `stand_in` in the folder of its integration; the module
`stand_ins` finds them.
"""
