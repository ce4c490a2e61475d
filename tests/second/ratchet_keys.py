"""ratchet.md, "Root step and chain": the keys of a chain and of its messages. No message and no state."""

from .notation import fields, hkdf, hmac, label


def root_step(root_key: bytes, shared: bytes, pq_secret: bytes, epoch: int) -> list[bytes]:
    """RK', CK, NHK, NTK, ECK; `pq_secret` is empty where no epoch begins."""
    output = hkdf(root_key, shared + pq_secret, label("root") + epoch.to_bytes(4, "big"), 160)
    return fields(output, (32,) * 5, "malformed")


def walk(chain_key: bytes, number: int) -> tuple[bytes, bytes]:
    """The key of message `number` of a chain that begins with `chain_key`, and the chain key after it."""
    for _ in range(number):
        chain_key = hmac(chain_key, b"\x02")
    return hmac(chain_key, b"\x01"), hmac(chain_key, b"\x02")
