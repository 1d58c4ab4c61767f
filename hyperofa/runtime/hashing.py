"""Digests of text."""

import hashlib


def sha256_text(*parts: str) -> str:
    """Hex SHA-256 of strings, kept apart so that no two lists of parts share a digest."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()
