"""The relay: anonymous queues of ciphertext, committed before they are answered for, deleted when acknowledged.

It knows queue ids, owners' public keys and hashes of send keys. It has no code that could decrypt, and no accounts.
"""
