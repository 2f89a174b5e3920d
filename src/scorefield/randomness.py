"""Randomness is a function of a key, never of global state.

A stream is named by (seed, purpose, …integers), for example ("train", 0, step, rank). Resuming at a step, or asking
for more samples, therefore repeats exactly what an uninterrupted run would have drawn.
"""

from hashlib import blake2b

import torch


def derive_seed(seed: int, purpose: str, *key: int) -> int:
    """A 63-bit seed for the stream (seed, purpose, *key); different keys give independent streams."""
    text = f"{seed}/{purpose}/" + "/".join(str(k) for k in key)
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest()) >> 1


def keyed_generator(seed: int, purpose: str, *key: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh `torch.Generator` on `device` for the stream (seed, purpose, *key)."""
    return torch.Generator(device).manual_seed(derive_seed(seed, purpose, *key))
