"""The Sottovoce keyserver: accounts with their signed device lists, prekeys and queue addresses, and usernames.

It knows nothing of messages, contacts or groups, and never loads the SDK.
"""
