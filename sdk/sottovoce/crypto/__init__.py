"""The protocol's cryptography: keys, signed records, the handshake, sealing and the ratchet.

Pure, synchronous functions and small classes. No I/O, no clock (times come in as unix seconds), no store, no
network. Only `primitives` calls a cryptography library; only `CryptoRefusal` leaves the package for bad input.
"""
