"""Does a model with classes do as it is told? A fixed classifier looks at samples of requested classes and at completed digits.

    scorefield train digits --recipe digits-classes --out runs/digits-classes
    python benchmarks/conditioning.py runs/digits-classes --judge ../shared/judge/judge.py [--guidance 1 1.5 2] [--threads 1]

Agreement: the share of 500 samples, 50 of each digit, in which the classifier sees the digit asked for. Completions: the lower
half of every test digit is removed and drawn again by `DPS` and by `RePaint`, without telling which digit it is; the
classifier's accuracy on them stands beside that on the masked and on the whole digits, and the known pixels are compared.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from judge import Judge
from torch import Tensor

from scorefield import DPS, ClassifierFreeGuidance, Heun, Mask, RePaint, generate, load, open_data
from scorefield.experiment.sample import arrays_of
from scorefield.persistence import Model
from scorefield.samplers import InverseSampler

KNOWN = torch.arange(8)[:, None].expand(8, 8) < 4


def agreement(model: Model, judge: Judge, guidance: float, n: int, seed: int) -> str:
    """A row of the table."""
    labels = torch.arange(n) * 10 // n
    score = ClassifierFreeGuidance(model, guidance)
    drawn = torch.cat(list(generate(score, Heun(18), n, model.spec.event_shape, seed=seed, cond=labels)))
    pixels = arrays_of(model.spec.scaling.decode(drawn), 17)
    right = (judge.probabilities(pixels).argmax(1) == labels).double().mean().item()
    return f"| {guidance:g} | {right:.1%} | {judge.frechet(pixels):.2f} |"


def completed(model: Model, sampler: InverseSampler, shape: torch.Size, seed: int) -> Tensor:
    """Raw completions."""
    generator = torch.Generator().manual_seed(seed)
    *_, state = sampler(model, sampler.start(model, tuple(shape), generator), generator=generator)
    return model.spec.scaling.decode(state.x)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--judge", type=Path, required=True)
    parser.add_argument("--guidance", nargs="+", type=float, default=[1.0, 1.5, 2.0])
    parser.add_argument("-n", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    judge, model = Judge(args.judge, "digits"), load(args.run).eval()

    print("| guidance | agreement | Fréchet distance |\n|---|---|---|")
    for guidance in args.guidance:
        print(agreement(model, judge, guidance, args.n, args.seed), flush=True)

    test = open_data("digits").splits["test"]
    assert test.labels is not None
    raw, labels = torch.from_numpy(np.array(test.x)).float(), torch.from_numpy(test.labels)
    problem = {"operator": Mask(KNOWN), "measurement": model.spec.scaling.encode(raw)}
    found = {"whole": raw, "masked": torch.where(KNOWN, raw, 0)}
    for sampler in (DPS(**problem), RePaint(**problem)):  # type: ignore[arg-type]
        found[f"{type(sampler).__name__}, {sampler.nfe} evaluations"] = completed(model, sampler, raw.shape, args.seed)
    print(f"\n| {len(raw)} test digits | accuracy | known pixels changed by at most |\n|---|---|---|")
    for name, x in found.items():
        right = (judge.probabilities(arrays_of(x, 17)).argmax(1) == labels).double().mean().item()
        changed = (x - raw)[..., KNOWN].abs().max().item()
        print(f"| {name} | {right:.1%} | {changed:g} of 16 |", flush=True)


if __name__ == "__main__":
    main()
