"""Sans-IO state machines of the SDK: bytes and rows in, bytes and rows out.

No sockets, no clocks, no trio and no database library: time is passed in, rows come through `state`'s contract.
"""
