"""The encrypted local database: rows of the state machines, durable before anything is acknowledged or sent.

Synchronous; the client calls it in a worker thread. Nothing here knows what a session or a relay does.
"""
