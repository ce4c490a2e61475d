"""The protocol a second time, for checking only: written from the text of protocol-spec alone.

It imports nothing of the project and not the library that the core uses: PyNaCl, the standard library and plain Python
(and BIP-39's published list of words).
It is slow, leaks secrets through time and must never run outside tests.
"""
