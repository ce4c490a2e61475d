"""What both servers need and neither owns: the guarded web server, the database loop, signature checks, settings, logs.

Nothing here knows what a queue or an account is.
"""
