"""What travels between Sottovoce programs, as bytes.

Frames, identifiers, signed-record layouts, labels, error codes, limits, origins and padding.
Everything here is a pure function or a frozen value: no I/O, no trio, no keys, no ciphers. The
SDK and both servers import it, so that both sides of every connection parse the same bytes.
"""
