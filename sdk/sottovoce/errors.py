"""The one tree of exceptions that the SDK raises. Nothing foreign crosses the API.

`str(error)` is one line for a person; `error.diagnostics()` adds what to do next, as a traceback does; `error.code` is
stable, for programs.
No exception holds a key, a passphrase or a message's text.
"""

from typing import ClassVar


class SottovoceError(Exception):
    """Base of all, never raised itself."""

    code: ClassVar[str] = "error"
    hint: str = ""

    def __init__(self, text: str, *, hint: str | None = None) -> None:
        super().__init__(text)
        if hint is not None:
            self.hint = hint
        if self.hint:
            self.add_note(self.hint)  # Python prints it below the error in a traceback

    def diagnostics(self) -> str:
        """What happened, and what to do next."""
        return f"{self}: {self.hint}" if self.hint else str(self)


class InvalidInput(SottovoceError):
    """An argument is not what it must be. Nothing was changed."""

    code = "invalid_input"


class MessageTooLarge(InvalidInput):
    """The text does not fit in one envelope. Nothing was sent."""

    code = "message_too_large"
    hint = "split it into several messages"


class NotRegistered(SottovoceError):
    """The store holds no registered account."""

    code = "not_registered"
    hint = "register a name first"


class AlreadyRegistered(SottovoceError):
    """The store holds an account under another name."""

    code = "already_registered"
    hint = "use another store for another account"


class NameTaken(SottovoceError):
    """Another account has this username."""

    code = "name_taken"
    hint = "choose another name"


class UnknownRecipient(SottovoceError):
    """The keyserver knows no such name or account."""

    code = "unknown_recipient"
    hint = "check the spelling, or ask the person for the account id"


class NoDevices(SottovoceError):
    """The account exists, but none of its devices can be written to at present."""

    code = "no_devices"
    hint = "its devices have been away for over 30 days; a message can be sent when one of them has been online again"


class ServerUnreachable(SottovoceError):
    """No answer from the server. What was stored stays stored and is sent later."""

    code = "server_unreachable"
    hint = "check that the server is running and its address is right, then try again"


class WrongServer(SottovoceError):
    """What answered is not the server that this client can use."""

    code = "wrong_server"
    hint = "check the server's address"


class ServerRefused(SottovoceError):
    """The server would not carry out the request."""

    code = "server_refused"


class RegistrationClosed(ServerRefused):
    """The relay makes no queues for newcomers, or none without a good invite code."""

    code = "registration_closed"
    hint = "ask whoever runs it for an invite code, and give it as invite_code (on the command line --invite-code)"


class UntrustedKeys(SottovoceError):
    """The keyserver handed out keys that do not prove themselves. Nothing was sent under them."""

    code = "untrusted_keys"
    hint = "the keyserver is faulty or hostile; compare account ids with the person by other means"


class Blocked(SottovoceError):
    """The person has blocked this account. Nothing was sent."""

    code = "blocked"
    hint = "unblock it first"


class AccountForked(SottovoceError):
    """Two signed device lists claim one place in the account's chain: somebody else may have its root key. Nothing was
    sent."""

    code = "account_forked"
    hint = "ask the person by other means, then say with settle_fork which list counts"


class Unexpected(SottovoceError):
    """A fault of this library. Nothing that was stored is lost, and the client goes on."""

    code = "unexpected"
    hint = "please report it to the project"


class TimedOut(SottovoceError, TimeoutError):
    """What was waited for has not happened in the time given. Nothing else has changed."""

    code = "timed_out"


class ClientClosed(SottovoceError):
    """The client's block has ended, or it was opened by the process that this one was forked from."""

    code = "client_closed"
    hint = "open the store again; after a fork, each process needs an account of its own"


class AlreadyReading(SottovoceError):
    """Another task or thread waits for this client's messages, or for its events, and a second one asks for the same.
    Nothing was read; the first goes on."""

    code = "already_reading"
    hint = "let one task or thread read, and hand what it reads to the others through a queue"


class DeliveryFailed(SottovoceError):
    """A message will not reach one of the recipient's devices."""

    code = "delivery_failed"


class StoreError(SottovoceError):
    """The local store cannot be used. Base of the errors below."""

    code = "store_error"


class StoreInUse(StoreError):
    """Another process, or another client in this one, has the store open."""

    code = "store_in_use"
    hint = "stop the other program that uses it, or give each its own store"


class WrongPassphrase(StoreError):
    """The passphrase does not open the store."""

    code = "wrong_passphrase"
    hint = "try again; nobody can recover a forgotten passphrase"


class PassphraseNeeded(StoreError):
    """The store is locked with a passphrase and none was given."""

    code = "passphrase_needed"
    hint = "give the passphrase that it was made with"


class KeyringNeeded(StoreError):
    """The store's key is in the operating system's keyring, and that was not asked."""

    code = "keyring_needed"
    hint = "open it with keyring=True"


class KeyringUnavailable(StoreError):
    """The operating system's keyring cannot be used, is locked, or has no key for this store."""

    code = "keyring_unavailable"
    hint = "unlock it or set one up; on a machine without one, use a passphrase"


class StoreUnreadable(StoreError):
    """The file is not a Sottovoce store, is damaged, or its key file is gone."""

    code = "store_unreadable"
    hint = "a store and the .key file beside it belong together: restore both from the same backup"


class StoreVersion(StoreError):
    """The store was written by another version of this library."""

    code = "store_version"
    hint = "use the version of Sottovoce that wrote it, or a newer one"


class StoreFailed(StoreError):
    """The disk is full, read-only or failing. The operation did not happen: nothing of it is sent or shown. What was
    stored before is intact.

    One exception: where the disk failed at the very last, when all was written and only not known to be safe, and the
    program is killed before it stores anything else, the next opening may find the operation done. A message whose
    `send` raised this then goes out."""

    code = "store_failed"
    hint = "free space or check permissions, then try again"
