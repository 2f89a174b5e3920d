"""Streams are functions of their keys, the same in every version and on every machine."""

import torch

from scorefield.randomness import derive_seed, keyed_generator


def test_the_seed_of_a_key_never_changes() -> None:
    """Runs made by an older version must resume with the same noise: changing this number breaks them."""
    assert derive_seed(0, "noise", 3, 0) == 3851322854570372068
    assert torch.rand(1, generator=keyed_generator(0, "noise", 3, 0)).item() == 0.892666757106781


def test_different_keys_give_different_streams() -> None:
    keys = [(s, p, *k) for s in (0, 1, 11) for p in ("noise", "samples") for k in ((), (0,), (1,), (1, 1), (11,), (0, 0))]
    seeds = [derive_seed(*key) for key in keys]
    assert len(set(seeds)) == len(keys)
    assert all(0 <= s < 2**63 for s in seeds)


def test_a_generator_begins_afresh_and_leaves_global_state_alone() -> None:
    before = torch.get_rng_state()
    first = torch.randn(5, generator=keyed_generator(1, "samples", 2))
    again = torch.randn(5, generator=keyed_generator(1, "samples", 2))
    other = torch.randn(5, generator=keyed_generator(1, "samples", 3))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)
