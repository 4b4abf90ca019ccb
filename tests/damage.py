"""Content that is not what was published: different for certain, never only by chance."""


def one_bit_off(content: bytes) -> bytes:
    """The same length, another last byte."""
    return content[:-1] + bytes([content[-1] ^ 1])
