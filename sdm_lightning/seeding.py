"""Seeds that are the same on every machine and in every process."""

import hashlib


def stable_seed(*parts: object) -> int:
    """A seed in [0, 2^63) made of the printed form of its parts.

    Python's own ``hash`` differs between processes; this does not.

    Args:
        parts: Integers and strings, such as (seed, key, pass number).
    """
    text = "/".join(str(part) for part in parts)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
