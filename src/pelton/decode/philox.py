"""Counter-based random numbers: Philox4x32-10, so that sampling has no state to fork or roll back.

Source: Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011.
`numpy.random.Philox` is the 4x64 variant and gives other numbers.
"""

from __future__ import annotations

_MULTIPLIER_0 = 0xD2511F53
_MULTIPLIER_1 = 0xCD9E8D57
_WEYL_0 = 0x9E3779B9  # golden ratio
_WEYL_1 = 0xBB67AE85  # sqrt(3) - 1
_MASK = 0xFFFFFFFF
_ROUNDS = 10

Words = tuple[int, int, int, int]


def philox4x32(counter: Words, key: tuple[int, int]) -> Words:
    """Ten rounds of Philox on four 32-bit counter words under two 32-bit key words."""
    word_0, word_1, word_2, word_3 = counter
    key_0, key_1 = key
    for _ in range(_ROUNDS):
        product_0 = _MULTIPLIER_0 * word_0
        product_1 = _MULTIPLIER_1 * word_2
        word_0 = (product_1 >> 32) ^ word_1 ^ key_0
        word_1 = product_1 & _MASK
        word_2 = (product_0 >> 32) ^ word_3 ^ key_1
        word_3 = product_0 & _MASK
        key_0 = (key_0 + _WEYL_0) & _MASK
        key_1 = (key_1 + _WEYL_1) & _MASK
    return word_0, word_1, word_2, word_3


def uniform(seed: int, position: int, stream: int = 0) -> float:
    """A number in [0, 1) with 53 random bits, fixed by the lowest 64 bits of its three arguments.

    `position` is the place in the sequence of the token being chosen, `stream` tells the `n`
    sequences of one request apart. Plain integers: one number costs about 3 microseconds.
    """
    counter = (position & _MASK, position >> 32 & _MASK, stream & _MASK, stream >> 32 & _MASK)
    high, low, _, _ = philox4x32(counter, (seed & _MASK, seed >> 32 & _MASK))
    return ((high >> 5) * 67108864 + (low >> 6)) * 2.0**-53
