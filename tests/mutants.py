"""Can the tests fail? Each mutant is one wrong sign or factor in a copy of the package; some test must notice.

    python tests/mutants.py [WORD…]      only mutants whose file or text has one of the words

Prints which test killed each mutant; exit code 1 if one survives.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BASELINES = "tests/baselines"
CONTRACTS = "tests/contracts"
GUIDANCE = "tests/contracts/test_guidance.py"
INPAINT = "tests/experiment/test_inpaint.py"
INVERSE = "tests/contracts/test_inverse.py"
LIKELIHOOD = "tests/experiment/test_likelihood.py"
OBJECTIVES = "tests/contracts/test_objectives.py"
DENSITIES = "tests/densities"
ACROSS = "tests/contracts/test_across_levels.py"
ANNEALED = "tests/samplers/test_annealed.py"
AT_RANDOM = "tests/estimators/test_missing_at_random.py"
CHECKPOINT = "tests/estimators/test_checkpoint.py"
CONTRASTIVE = "tests/objectives/test_contrastive.py"
DENSITY = "tests/estimators/test_density.py"
DISTRIBUTED = "tests/training/test_distributed.py"
CHAINS = "tests/samplers/test_chains.py"
EXPONENTIAL = "tests/densities/exponential"
ENERGY = "tests/estimators/test_energy.py"
KERNEL = "tests/densities/kernel"
KERNEL_DENSITY = "tests/estimators/test_kernel.py"
MIXTURE = "tests/estimators/test_mixture.py"
PARTITION = "tests/likelihood/test_partition.py"
PROCESSES = "tests/test_processes.py"
SAMPLERS = "tests/samplers"
TABLES = "tests/metrics/test_tables.py"
TRANSFORMS = "tests/data/test_transforms.py"
WALKS = "tests/contracts/test_samplers.py"


@dataclass(frozen=True)
class Mutant:
    """`old`, which occurs exactly once in `file`, replaced by `new`; `tests` are to notice."""

    file: str
    old: str
    new: str
    tests: str = CONTRACTS
    row: int | None = None  # with a row of IDENTITIES.md, `scorefield verify --rows` is to notice instead

    @property
    def title(self) -> str:
        """What is done to which file."""
        row = f"row {self.row} " if self.row else ""
        return f"{row}{self.file}: {self.old.strip()}  →  {self.new.strip() or '(nothing)'}"


MUTANTS = [
    Mutant("interfaces.py", "_functorch.peek_interpreter_stack() is not None", "is_grad_enabled()", "tests/test_interfaces.py"),
    Mutant("interfaces.py", "forward_ad._current_level >= 0", "False", "tests/test_interfaces.py"),
    Mutant("metrics/tables.py", "2 if within else 1", "1", TABLES),
    Mutant("metrics/tables.py", "wilson_interval(accuracy, n)", "wilson_interval(accuracy, 8 * n)", TABLES),
    Mutant("data/transforms.py", "(x - inside) * np.exp(slope), slope", "(x - inside), slope", TRANSFORMS),
    Mutant("data/transforms.py", "(z - inside) * np.exp(-slopes)", "(z - inside) * np.exp(slopes)", TRANSFORMS),
    Mutant("data/transforms.py", "np.where(straight, 0.0, second", "np.where(False, 0.0, second", TRANSFORMS),
    Mutant("data/transforms.py", "math.inf if math.isfinite(ends[1])", "math.inf if True", TRANSFORMS),
    Mutant("estimators/mixture.py", "width**2 * whole", "width * whole", MIXTURE),
    Mutant("estimators/mixture.py", "1 / (len(TAILS) * (n + 1))", "1 / (len(TAILS) * n)", MIXTURE),
    Mutant("estimators/mixture.py", "whole.weights * n / (n + 1)", "whole.weights", MIXTURE),
    Mutant(
        "estimators/training.py",
        "(z, -z)",
        "(z, z)",
        f"{DENSITY}::test_each_noise_comes_with_its_negative",
    ),
    Mutant(
        "estimators/training.py",
        "return max(models, key",
        "return min(models, key",
        f"{DENSITY}::test_of_the_mixtures_and_the_network_the_best_is_kept",
    ),
    Mutant(
        "estimators/density.py",
        "[(1,), COUNTS]",
        "[(1,), (1,)]",
        f"{DENSITY}::test_of_the_mixtures_and_the_network_the_best_is_kept",
    ),
    Mutant("estimators/training.py", "table.patterns(size, generator)", "gaps", AT_RANDOM),
    Mutant("estimators/training.py", "one & ~gaps, ~one", "one, ~one", AT_RANDOM),
    Mutant("estimators/training.py", "chosen = left_out.any(", "chosen = scored.any(", AT_RANDOM),
    Mutant("estimators/training.py", "            self.refill()\n", "            pass\n", AT_RANDOM),
    Mutant("estimators/training.py", ">= PATIENCE * self", ">= 3 * PATIENCE * self", CHECKPOINT),
    Mutant("estimators/checkpoint.py", 'self._tensors.get("filled", filled)', "filled", CHECKPOINT),
    Mutant("estimators/checkpoint.py", '("step", "best_step", "best_loss"))', '("step", "step", "best_loss"))', CHECKPOINT),
    Mutant("estimators/checkpoint.py", "if said != self.fingerprint", "if False", CHECKPOINT),
    Mutant("estimators/table.py", "scores - ROUNDING * np.abs(scores)", "scores", DENSITY),
    Mutant("estimators/table.py", "chunk)[: n_samples - start]", "chunk)[:n_samples]", DENSITY),
    Mutant("estimators/density.py", "((part - denoised) / self.spreads_) ** 2", "(part - denoised) ** 2", DENSITY),
    Mutant("estimators/density.py", "noisy + sigma**2 * score_of", "noisy + sigma * score_of", DENSITY),
    Mutant("data/transforms.py", "(high - low) / 2) if", "high - low) if", TRANSFORMS),
    Mutant("data/transforms.py", "end if column.resolution or", "end if False or", TRANSFORMS),
    Mutant(
        "data/tables.py", "pd.RangeIndex(start, start + len(frame))", "pd.RangeIndex(len(frame))", "tests/data/test_tables.py"
    ),
    Mutant("cli/tables.py", "before + int(m[2])", "int(m[2])", "tests/cli/test_tables.py"),
    Mutant("cli/tables.py", 'of a part", draw, part', 'of a part", part', "tests/cli/test_tables.py"),
    Mutant("estimators/energy.py", "+ phi / level", "+ phi", ENERGY),
    Mutant("estimators/energy.py", "x * (1 + level[:, None] ** 2).rsqrt()", "x", ENERGY),
    Mutant("estimators/energy.py", "density(x, level)", "density(x, 0.0)", ENERGY),
    Mutant("estimators/energy.py", "- self.partition_.log_z", "+ self.partition_.log_z", ENERGY),
    Mutant("densities/exponential/domains.py", "(1 - x.shape[1]) * x)", "(2 - x.shape[1]) * x)", EXPONENTIAL),
    Mutant("densities/exponential/domains.py", "slope * total - u * slope", "slope * total + u * slope", EXPONENTIAL),
    Mutant("densities/exponential/domains.py", "torch.where(below < above, 1.0, -1.0)", "torch.ones_like(below)", EXPONENTIAL),
    Mutant("densities/exponential/domains.py", "unit**2 * w)", "unit * w)", EXPONENTIAL),
    Mutant("densities/exponential/family.py", "linear -= second[:, d]", "linear += second[:, d]", EXPONENTIAL),
    Mutant("densities/exponential/family.py", "(linear + found.times(last))", "(linear - found.times(last))", EXPONENTIAL),
    Mutant(
        "densities/exponential/family.py", "found -= (self.across * weights", "found += (self.across * weights", EXPONENTIAL
    ),
    Mutant("densities/exponential/family.py", "coef = -inverse @ linear", "coef = inverse @ linear", EXPONENTIAL),
    Mutant("densities/exponential/family.py", "coef / 2 + linear @ coef)", "coef + linear @ coef)", EXPONENTIAL),
    Mutant("densities/exponential/family.py", "+ part.linear) * share", "- part.linear) * share", EXPONENTIAL),
    Mutant("densities/exponential/family.py", "inverse @ outer @ inverse,", "inverse / n,", EXPONENTIAL),
    Mutant("densities/exponential/family.py", "psi + ridge * part", "psi + 0 * part", EXPONENTIAL),
    Mutant("densities/exponential/family.py", "cross += drawn.T @ psi", "cross += psi.T @ psi", EXPONENTIAL),
    Mutant(
        "densities/exponential/family.py",
        "column_names(X)), int((weights > 0).sum())",
        "column_names(X)), len(x)",
        EXPONENTIAL,
    ),
    Mutant("densities/exponential/fit.py", "training_loss + 2 * self", "training_loss + self", EXPONENTIAL),
    Mutant("densities/exponential/fit.py", "value + self.family.base(x)", "value - self.family.base(x)", EXPONENTIAL),
    Mutant("densities/exponential/fit.py", "self.coef) / 2 + part.linear)", "self.coef) + part.linear)", EXPONENTIAL),
    Mutant(
        "densities/exponential/domains.py",
        "weighted_median(self._distance(x)[0], weights)",
        "weighted_median(self._distance(x)[0], weights**0)",
        EXPONENTIAL,
    ),
    Mutant("densities/exponential/domains.py", "beyond, 1.0).tolist", "beyond, 7.0).tolist", EXPONENTIAL),
    Mutant(
        "densities/exponential/probe.py", "amiss.nanmedian(0).values > AMISS", "amiss.nanmedian(0).values > 1e9", EXPONENTIAL
    ),
    Mutant("densities/exponential/probe.py", "(low.bend + high.bend) / 2).abs()", "(low.bend + high.bend)).abs()", EXPONENTIAL),
    Mutant("densities/exponential/probe.py", "> POLE * scale", "> 1e300 * scale", EXPONENTIAL),
    Mutant(
        "densities/exponential/charts.py",
        "torch.where(above | below, y, 0.0)).sum(1)",
        "torch.where(above, y, 0.0)).sum(1)",
        EXPONENTIAL,
    ),
    Mutant("densities/exponential/charts.py", "+ y - 2 * torch", "+ y - torch", EXPONENTIAL),
    Mutant(
        "densities/exponential/charts.py", "return self._logs(y).sum(1)", "return self._logs(y)[:, :-1].sum(1)", EXPONENTIAL
    ),
    Mutant("densities/exponential/charts.py", "(1 - degrees / 2) * math", "-degrees / 2 * math", EXPONENTIAL),
    Mutant("densities/exponential/fit.py", "(1 + level) / 2)) * self", "level)) * self", EXPONENTIAL),
    Mutant(
        "densities/exponential/statistics.py", "return coef[:d], -(upper + upper.T)", "return coef[:d], -upper", EXPONENTIAL
    ),
    Mutant("densities/exponential/graphical.py", "return (slope + slope.T) / 2", "return slope", EXPONENTIAL),
    Mutant("densities/exponential/graphical.py", "- moment * (pull / total)", "+ moment * (pull / total)", EXPONENTIAL),
    Mutant("densities/exponential/graphical.py", "+ 2 * (i == j) * w[:, i]", "+ (i == j) * w[:, i]", EXPONENTIAL),
    Mutant("densities/exponential/graphical.py", "4 * self.gamma * math", "0 * self.gamma * math", EXPONENTIAL),
    Mutant("densities/exponential/graphical.py", "float(judge.value(precision)) / 5", "-k", EXPONENTIAL),
    Mutant("densities/exponential/graphical.py", "self.names).fit(x, sample_weight)", "self.names).fit(x)", EXPONENTIAL),
    Mutant("densities/exponential/graphical.py", "* k.norm():", "* 1e6 * k.norm():", EXPONENTIAL),
    Mutant(
        "densities/kernel/kernels.py",
        "rate = -1 / self.bandwidth**2\n        value",
        "rate = -2 / self.bandwidth**2\n        value",
        KERNEL,
    ),
    Mutant(
        "densities/kernel/curl_free.py",
        "total = slopes if base_score is None else slopes + base_score",
        "total = slopes",
        KERNEL,
    ),
    Mutant(
        "densities/kernel/exponential.py", "return (score**2).sum(1) / 2 + trace", "return (score**2).sum(1) + trace", KERNEL
    ),
    Mutant("densities/kernel/exponential.py", "- of_penalty", "+ of_penalty", KERNEL),
    Mutant("densities/kernel/exponential.py", "(least_bandwidth * size,", "(0.1 * size,", KERNEL),
    Mutant("densities/kernel/exponential.py", "(max(least_ridge, 1e-10", "(max(0.0, 1e-10", KERNEL),
    Mutant("densities/kernel/exponential.py", "(1.0, most_inflation)", "(1.0, 1e3)", KERNEL),
    Mutant("densities/kernel/scores.py", "losses[i] = loss if", "losses[i] = -loss if", KERNEL),
    Mutant("densities/rows.py", "x.amin(0) == x.amax(0)", "x.amin(0) > x.amax(0)", "tests/densities/kernel/test_scores.py"),
    Mutant("estimators/kernel.py", "MOST_INFLATION, LEAST_BANDWIDTH", "MOST_INFLATION, 0.1", KERNEL_DENSITY),
    Mutant("densities/kernel/exponential.py", "matrix.diagonal().add_(ridge)", "matrix.diagonal().add_(2 * ridge)", KERNEL),
    Mutant("densities/kernel/exponential.py", "self.precision / factor", "self.precision * factor", KERNEL),
    Mutant("densities/kernel/scores.py", "at_data / (-len(x) * self.ridge)", "at_data / (len(x) * self.ridge)", KERNEL),
    Mutant("densities/kernel/scores.py", "-functions @", "functions @", KERNEL),
    Mutant("densities/kernel/scores.py", "(2 * k - 3) * (2 * k + 2 * nu - 1)", "(2 * k - 3) * (2 * k + 2 * nu + 1)", KERNEL),
    Mutant(
        "likelihood/annealing.py",
        "            shares, last = log_weights.softmax(1), k",
        "            shares, last = (0 * log_weights).softmax(1), k",
        KERNEL_DENSITY,
    ),
    Mutant("estimators/kernel.py", ".numpy() - self.partition_.log_z", ".numpy() + self.partition_.log_z", KERNEL_DENSITY),
    Mutant("metrics/stein.py", "(s_y - s_x) * k1", "(s_x - s_y) * k1", "tests/metrics/test_stein.py"),
    Mutant("metrics/stein.py", "-(d * k1 + k2 * r2)", "-(d * k1 - k2 * r2)", "tests/metrics/test_stein.py"),
    Mutant("metrics/stein.py", "3 * base**-2.5", "base**-2.5", "tests/metrics/test_stein.py"),
    Mutant("metrics/stein.py", ".sum(1) / pairs", ".sum(1) / (2 * pairs)", "tests/metrics/test_stein.py"),
    Mutant("metrics/modes.py", "apart - 3 * error", "3 * error - apart", "tests/metrics/test_modes.py"),
    Mutant("samplers/annealed.py", "4.0 * (mean - self.kernel.aim)", "4.0 * (self.kernel.aim - mean)", ANNEALED),
    Mutant("samplers/annealed.py", "levels[-1] ** 2 / power", "levels[-1] ** 2", ANNEALED),
    Mutant("samplers/annealed.py", "math.exp(log_ratio) * sigma**2", "math.exp(log_ratio)", ANNEALED),
    Mutant("data/cache.py", "np.isin(split.labels, numbers)", "np.isin(split.labels, 3)", "tests/cli/test_compose.py"),
    Mutant("experiment/logz.py", "math.hypot(one.se, other.se)", "one.se + other.se", "tests/cli/test_logz.py"),
    Mutant(
        "likelihood/flow.py",
        "prior.log_density(latent, ends[1]) + integral",
        "prior.log_density(latent, ends[1]) - integral",
        PARTITION,
    ),
    Mutant("objectives/contrastive.py", "value = at_negatives - at_data", "value = at_data - at_negatives", CONTRASTIVE),
    Mutant("objectives/contrastive.py", "max(0.0, 1 - 2 * i / self.steps)", "1", CONTRASTIVE),
    Mutant("objectives/contrastive.py", "if learning and self.kernel.aim", "if self.kernel.aim", CONTRASTIVE),
    Mutant("objectives/contrastive.py", "        if learning:\n", "        if True:\n", CONTRASTIVE),
    Mutant("objectives/contrastive.py", "self.log_z + math.log(self.ratio)", "self.log_z", CONTRASTIVE),
    Mutant("objectives/contrastive.py", "softplus(at_noise - offset)", "softplus(at_noise + offset)", CONTRASTIVE),
    Mutant("objectives/contrastive.py", "torch.cat([at_data[None], at_noise])", "at_noise", CONTRASTIVE),
    Mutant("objectives/contrastive.py", "x, _ = noised(x, sigma, generator)\n        with", "pass\n        with", CONTRASTIVE),
    Mutant("training/state.py", "v[rank] if k in", "v[0] if k in", DISTRIBUTED),
    Mutant("training/state.py", "_for_model(self, self.rank_local)", "_for_model(self, [])", DISTRIBUTED),
    Mutant("samplers/kernels.py", "alpha=eps if i + 1 < steps else eps / 2", "alpha=eps", CHAINS),
    Mutant("samplers/kernels.py", "hamiltonian(begin) - hamiltonian(end)", "hamiltonian(end) - hamiltonian(begin)", CHAINS),
    Mutant("samplers/kernels.py", "(end)) / target.temperature", "(end))", CHAINS),
    Mutant("samplers/kernels.py", "sum_event(point.velocity**2) / 2", "sum_event(point.velocity**2)", CHAINS),
    Mutant("samplers/kernels.py", "(1 - kept**2) * target", "(1 - kept) * target", CHAINS),
    Mutant("samplers/kernels.py", ".remainder(2)", ".remainder(1)", CHAINS),
    Mutant("samplers/kernels.py", "(bounded & back) | below | above, -velocity", "(bounded & back) | below, -velocity", CHAINS),
    Mutant("samplers/kernels.py", "torch.where(above, 2 * high - x, x)", "torch.where(above, high, x)", CHAINS),
    Mutant("samplers/kernels.py", "torch.where(gain < math.inf, ", "torch.where(gain == gain, ", CHAINS),
    Mutant("samplers/chains.py", "self.aim - acceptance", "acceptance - self.aim", CHAINS),
    Mutant("samplers/chains.py", "h = tuning.result", "pass", CHAINS),
    Mutant("samplers/gibbs.py", "log_conditional(model, x, i, cond)", "log_conditional(model, x, 0, cond)", CHAINS),
    Mutant("densities/compose.py", "[1.0, -weight]", "[1.0, weight]", DENSITIES),
    Mutant("densities/compose.py", "[density], [exponent]", "[density], [1.0]", DENSITIES),
    Mutant("densities/compose.py", "return self.scale * super().score", "return super().score", DENSITIES),
    Mutant("densities/confinement.py", ".min()) / d", ".min())", PARTITION),
    Mutant("likelihood/annealing.py", "point.log_density.double() - before\n", "point.log_density.double()\n", PARTITION),
    Mutant("likelihood/annealing.py", ".logsumexp(1) - math.log(each)", ".logsumexp(1)", PARTITION),
    Mutant("likelihood/annealing.py", "ratio - point.log_density.double()", "-ratio - point.log_density.double()", PARTITION),
    Mutant("likelihood/annealing.py", "log_weights -= path.base", "log_weights -= 0 * path.base", PARTITION),
    Mutant(
        "likelihood/annealing.py",
        "double() - ratio\n            watch(1)\n        upper",
        "double()\n            watch(1)\n        upper",
        PARTITION,
    ),
    Mutant(
        "likelihood/annealing.py",
        "double() - ratio\n            watch(1)\n        value",
        "double() + ratio\n            watch(1)\n        value",
        PARTITION,
    ),
    Mutant("likelihood/annealing.py", "added**2 * posterior", "added * posterior", PARTITION),
    Mutant("likelihood/annealing.py", "sum_event(there - back) / 2", "sum_event(there - back)", PARTITION),
    Mutant("likelihood/annealing.py", "(self.added / self.variance).log()", "(self.variance / self.added).log()", PARTITION),
    Mutant("likelihood/annealing.py", "log(unit(self.a) / unit(self.b))", "log(unit(self.b) / unit(self.a))", PARTITION),
    Mutant("likelihood/annealing.py", "math.sqrt(self.added) * noise", "self.added * noise", PARTITION),
    Mutant(
        "likelihood/annealing.py", "best_variance(a, b, point.score / unit(a))", "best_variance(a, b, point.score)", PARTITION
    ),
    Mutant("likelihood/annealing.py", "shares.cumsum(1), places", "shares, places", PARTITION),
    Mutant("likelihood/annealing.py", "log_weights[poor] = 0", "pass", PARTITION),
    Mutant("likelihood/annealing.py", "exact.to(path.home) / path.scale", "exact.to(path.home)", PARTITION),
    Mutant("likelihood/partition.py", "(2 * radius / (n - 1))", "(2 * radius / n)", PARTITION),
    Mutant("likelihood/partition.py", "float(w.std()) / (mean * n**0.5)", "float(w.std()) / mean", PARTITION),
    Mutant("likelihood/partition.py", "math.log(len(rows) / n)", "math.log(n / len(rows))", PARTITION),
    Mutant("likelihood/partition.py", "math.sqrt(spread) / slope", "math.sqrt(spread / slope)", PARTITION),
    Mutant("likelihood/partition.py", "psislw(-values)", "psislw(values)", PARTITION),
    Mutant("models.py", "return -1 / total, d / (s", "return -1 / total, -d / (s"),
    Mutant("models.py", "d / (s * total**0.5)", "1 / (s * total**0.5)"),
    Mutant("models.py", "total = s**2 + d**2", "total = s**2 + 1"),
    Mutant("models.py", "return -1 / (1 + s**2), -((1", "return -1 / (1 + s), -((1"),
    Mutant("models.py", "return -1 / (s * (1 + s)), -1", "return -1 / (1 + s), -1"),
    Mutant("models.py", "return 0 * s, -1 / s,", "return 0 * s, 1 / s,"),
    Mutant("models.py", "return 0 * s, 1 / s,", "return 0 * s, 1 / s**2,"),
    Mutant("models.py", "return -1 / s**2, 1 / s**2,", "return -1 / s**2, 1 / s,"),
    Mutant("models.py", "log / 4)", "log)"),
    Mutant("models.py", "sum_event(x**2) / 2", "sum_event(x**2)"),
    Mutant("models.py", "c.out / c.inner * phi", "c.out * phi"),
    Mutant("models.py", "return x + s**2 * model", "return x - s**2 * model"),
    Mutant("models.py", "return x + s**2 * model", "return x + s * model"),
    Mutant(
        "models.py", "return -expand(noise_levels(sigma, x), x) * model", "return expand(noise_levels(sigma, x), x) * model"
    ),
    Mutant("networks/embedding.py", "torch.where(cond < 0, none", "torch.where(cond < 1, none", "tests/networks"),
    Mutant("experiment/classes.py", "torch.arange(n) % len", "torch.arange(n) // len", "tests/experiment/test_classes.py"),
    Mutant("experiment/inpaint.py", "where(known, incomplete.pixels[part]", "where(~known, incomplete.pixels[part]", INPAINT),
    Mutant("experiment/inpaint.py", "/ (levels - 1)).round()", "/ levels).round()", INPAINT),
    Mutant("experiment/inpaint.py", "full_rows(number, total, CHUNK) // n", "full_rows(0, total, CHUNK) // n", INPAINT),
    Mutant("experiment/train.py", "generator=generator) < share", "generator=generator) > share", "tests/experiment"),
    Mutant("experiment/train.py", '"labels", step, rank)', '"labels", 0, rank)', "tests/experiment"),
    Mutant("samplers/inverse.py", "pseudo_inverse(y - self(x))", "pseudo_inverse(self(x) - y)", INVERSE),
    Mutant("samplers/inverse.py", "levels[i + 1] * noise)", "levels[i] * noise)", INVERSE),
    Mutant("samplers/inverse.py", "self.measurement + levels", "self.measurement - 0 * levels", INVERSE),
    Mutant("samplers/inverse.py", "levels[first] ** 2 - levels[i + 1] ** 2", "levels[first] ** 2", INVERSE),
    Mutant("samplers/inverse.py", "in range(self.resample - 1)", "in range(self.resample)", INVERSE),
    Mutant("samplers/inverse.py", "(1 + sigma**2) * gradient", "sigma**2 * gradient", INVERSE),
    Mutant("samplers/inverse.py", "denoised + self.strength", "denoised - self.strength", INVERSE),
    Mutant("samplers/inverse.py", "yield state if state.sigma > 0", "yield state if state.sigma >= 0", INVERSE),
    Mutant("samplers/inverse.py", "stretches * self.jump", "stretches", INVERSE),
    Mutant("guidance.py", "lerp(away, towards, self", "lerp(towards, away, self", GUIDANCE),
    Mutant("guidance.py", "lerp(away, towards, self.weight)", "lerp(away, towards, 1 + self.weight)", GUIDANCE),
    Mutant("guidance.py", "torch.full_like(cond, -1)", "torch.full_like(cond, 0)", GUIDANCE),
    Mutant("guidance.py", "noise_levels(sigma, x).repeat(2)", "noise_levels(sigma, x).repeat_interleave(2)", GUIDANCE),
    Mutant("guidance.py", "self.weaker.score(x, sigma, cond), towards", "self.weaker.score(x, sigma), towards", GUIDANCE),
    Mutant("samplers/generate.py", "torch.arange(chunk * size, (chunk + 1) * size", "torch.arange(0, size", "tests/samplers"),
    Mutant("interfaces.py", "pullback(torch.ones_like(value))", "pullback(-torch.ones_like(value))"),
    Mutant("interfaces.py", "not low * (1 - 1e-5) <= value", "not 0 <= value"),
    Mutant("objectives/denoising.py", "sum_event((scaled + z) ** 2)", "sum_event((scaled - z) ** 2)"),
    Mutant("objectives/denoising.py", "scaled = s * field", "scaled = s**2 * field"),
    Mutant("objectives/denoising.py", "field.score(x + s * z)", "field.score(x - s * z)"),
    Mutant("objectives/denoising.py", "2 * z * (scaled - clean) + 1", "2 * z * (scaled + clean) + 1"),
    Mutant("objectives/denoising.py", "2 * z * (scaled - clean) + 1", "z * (scaled - clean) + 1"),
    Mutant("objectives/denoising.py", "2 * z * (scaled - clean) + 1", "2 * z * (scaled - clean)"),
    Mutant("objectives/denoising.py", "/ (sigma * self.sigma_data) ** 2", "/ sigma**2"),
    Mutant("objectives/denoising.py", "return sigma**self.exponent", "return sigma ** (self.exponent / 2)"),
    Mutant("objectives/denoising.py", "error / (2 * self.sigma**2)", "error / (2 * self.sigma)"),
    Mutant("objectives/denoising.py", "error / (2 * self.sigma**2)", "error / self.sigma**2"),
    Mutant("objectives/denoising.py", "weight = self.weighting(sigma) * sigma**2", "weight = self.weighting(sigma) * sigma"),
    Mutant("objectives/denoising.py", "(strata + jitter) / n", "jitter"),
    Mutant(
        "objectives/denoising.py", "torch.randperm(n, generator=generator, device=x.device)", "torch.arange(n, device=x.device)"
    ),
    Mutant("samplers/langevin.py", "math.sqrt(2 * h * temperature)", "math.sqrt(h * temperature)"),
    Mutant("samplers/langevin.py", "math.sqrt(2 * h * temperature)", "math.sqrt(2 * h) * temperature"),
    Mutant("samplers/langevin.py", "return x + h * model", "return x + 2 * h * model"),
    Mutant("samplers/langevin.py", "self.step_ratio * sigma**2", "self.step_ratio * sigma"),
    Mutant("samplers/langevin.py", "denoise(model, x, levels[-1], cond)", "denoise(model, x, levels[0], cond)"),
    Mutant("samplers/levels.py", "** self.rho for i", "** 2 for i", "tests/samplers"),
    Mutant("samplers/generate.py", '"samples", chunk,', '"samples", 0,', "tests/samplers"),
    Mutant("densities/analytic.py", "c.offset / c.variances)", "c.offset / c.variances.sqrt())"),
    Mutant("densities/analytic.py", "double()[:, None, None] ** 2", "double()[:, None, None]"),
    Mutant("densities/analytic.py", '"bij,bj->bi"', '"bji,bj->bi"', DENSITIES),
    Mutant("densities/ring.py", "(r - self.radius) ** 2 / (2 * variance)", "(r - self.radius) ** 2 / variance", DENSITIES),
    Mutant("densities/ring.py", ".log() - radial - (2", ".log() - radial + (2", DENSITIES),
    Mutant("densities/ring.py", "_mean_cosine_ratio(kappa) - 1\n", "_mean_cosine_ratio(kappa) + 1\n", DENSITIES),
    Mutant("densities/ring.py", "pull = self.radius**2 /", "pull = self.radius /", DENSITIES),
    Mutant("densities/ring.py", "r * self.radius / variance", "r / variance", DENSITIES),
    Mutant("densities/ring.py", "x, self.sigma_range) ** 2", "x, self.sigma_range)", DENSITIES),
    Mutant("densities/ring.py", "(self.std**2 + level**2).sqrt()", "(self.std + level)", DENSITIES),
    Mutant("densities/ring.py", "torch.special.i0e(positive)), 0.5)", "torch.special.i0e(positive)), 1.0)", DENSITIES),
    Mutant("densities/ring.py", "kept + (1 - kept)", "kept + (1 + kept)", DENSITIES),
    Mutant("densities/ring.py", "self.radius**2 / 2 + self.std**2", "self.radius**2 + self.std**2", DENSITIES),
    Mutant("densities/classics.py", "+ slope * across / self.std", "- slope * across / self.std", DENSITIES),
    Mutant("densities/classics.py", "slope = 2 * self.bend", "slope = self.bend", DENSITIES),
    Mutant("densities/classics.py", "self.width**2 * (along**2 - 1)", "self.width * (along**2 - 1)", DENSITIES),
    Mutant("densities/classics.py", "(self.dimension - 1) * v + (scaled", "self.dimension * v + (scaled", DENSITIES),
    Mutant("densities/classics.py", "sum(1) - (self.dimension - 1)) / 2", "sum(1) - (self.dimension - 1))", DENSITIES),
    Mutant("densities/classics.py", "torch.cat([v, (v / 2).exp()", "torch.cat([v, v.exp()", DENSITIES),
    Mutant("densities/classics.py", "-4 * self.barrier / self.location", "-4 * self.barrier", DENSITIES),
    Mutant("densities/classics.py", "- self.dimension * self.log_z", "- self.log_z", DENSITIES),
    Mutant("densities/classics.py", "half = self.barrier / 2", "half = self.barrier", DENSITIES),
    Mutant("densities/classics.py", "** 2 - (y - 1) ** 2)", "** 2)", DENSITIES),
    Mutant("densities/classics.py", "(self.df + (white**2).sum(0))", "(1 + (white**2).sum(0))", DENSITIES),
    Mutant("densities/classics.py", "self.df / (2 * half_chi2)", "self.df / half_chi2", DENSITIES),
    Mutant("densities/classics.py", "z @ self.root.mT", "z @ self.root", DENSITIES),
    Mutant(
        "densities/classics.py",
        "log_z + self.root.diagonal().log().sum()",
        "log_z - self.root.diagonal().log().sum()",
        DENSITIES,
    ),
    Mutant("densities/point_sets.py", "+ column % 2", "+ 0 * column", DENSITIES),
    Mutant("densities/point_sets.py", "rate * along.exp()", "rate * along", DENSITIES),
    Mutant("densities/point_sets.py", "tangential**2) / 2)", "tangential**2))", DENSITIES),
    Mutant("densities/point_sets.py", "9 / 16 - 1 / math.pi", "9 / 16 + 1 / math.pi", DENSITIES),
    Mutant("densities/point_sets.py", "- mean[1] ** 2) / 2", "+ mean[1] ** 2) / 2", DENSITIES),
    Mutant("densities/compose.py", "log() - z)", "log() + z)", DENSITIES),
    Mutant("densities/compose.py", "cond).softmax(0)", "cond).exp()", DENSITIES),
    Mutant("densities/compose.py", "torch.stack([p @ g.means[0] for", "torch.stack([g.means[0] for", DENSITIES),
    Mutant("densities/compose.py", "precisions = [1 / g.eigen", "precisions = [g.eigen", DENSITIES),
    Mutant(
        "densities/compose.py",
        "nn.ModuleList(d for d in self.densities if isinstance(d, nn.Module))",
        "nn.ModuleList()",
        DENSITIES,
    ),
    Mutant("interfaces.py", " or value == math.inf", "", DENSITIES),
    Mutant("processes.py", "return f, 2 * process", "return f, process", PROCESSES),
    Mutant("processes.py", "noise_level(process, t), cond) / alpha", "noise_level(process, t), cond)", PROCESSES),
    Mutant("processes.py", "return 1 - t", "return 1 + t", PROCESSES),
    Mutant(
        "processes.py",
        "return self.sigma_min * (self.sigma_max / self.sigma_min) ** t",
        "return self.sigma_min * (self.sigma_max / self.sigma_min) ** (2 * t)",
        PROCESSES,
    ),
    Mutant("processes.py", "return (-self.integral(t) / 2).exp()", "return (-self.integral(t)).exp()", PROCESSES),
    Mutant(
        "processes.py",
        "return (-torch.expm1(-self.integral(t))).sqrt()",
        "return (-torch.expm1(-self.integral(t) / 2)).sqrt()",
        PROCESSES,
    ),
    Mutant("processes.py", "return -torch.expm1(", "return -2 * torch.expm1(", PROCESSES),
    Mutant("processes.py", "self.beta_min) / 2 * t**2", "self.beta_min) * t**2", PROCESSES),
    Mutant("processes.py", "beta_min: float = 0.1", "beta_min: float = 0.2", PROCESSES),
    Mutant("processes.py", "beta_max: float = 20.0", "beta_max: float = 10.0", PROCESSES),
    Mutant("processes.py", "self.angle(t).cos() / math.cos(self.start)", "self.angle(t).cos()", PROCESSES),
    Mutant("processes.py", "(u + self.start).sin()", "(u - self.start).sin()", PROCESSES),
    Mutant("processes.py", "self.offset / (1 + self.offset) * math.pi / 2", "self.offset * math.pi / 2", PROCESSES),
    Mutant("processes.py", "self.start + t / (1 + self.offset)", "self.start + t", PROCESSES),
    Mutant("processes.py", "offset: float = 0.008", "offset: float = 0.08", PROCESSES),
    Mutant("processes.py", '"cosine": Cosine()', '"cosine": VP()', PROCESSES),
    Mutant("processes.py", "noise_level(process, t) ** -2", "noise_level(process, t) ** -1", PROCESSES),
    Mutant("processes.py", "range(56, -1, -7)", "range(56, 27, -7)", PROCESSES),
    Mutant("processes.py", "torch.minimum(found + below, end)", "torch.minimum(found + 9999, end)", PROCESSES),
    Mutant("processes.py", "process.alpha(t), drift, diffusion)", "process.alpha(t), diffusion, drift)", PROCESSES),
    Mutant("processes.py", "at.diffusion / (2 * at.alpha)", "at.diffusion / at.alpha", PROCESSES),
    Mutant("processes.py", "at.diffusion / (2 * at.alpha)", "at.diffusion / 2", PROCESSES),
    Mutant("processes.py", "alpha=at.drift)", "alpha=-at.drift)", PROCESSES),
    Mutant("processes.py", "model.score(x / at.alpha, at", "model.score(x, at", PROCESSES),
    Mutant("integrate.py", "b=(0.5, 0.5)", "b=(0.4, 0.6)", WALKS),
    Mutant("integrate.py", "c=(0.0, 1.0))", "c=(0.0, 0.5))", WALKS),
    Mutant("integrate.py", "a=((), (1.0,)), b", "a=((), (0.5,)), b", WALKS),
    Mutant("integrate.py", "a=((), (0.5,), (0.0, 0.5)", "a=((), (0.5,), (0.5, 0.5)", WALKS),
    Mutant("integrate.py", "(0.0, 0.0, 1.0))", "(0.0, 1.0, 0.0))", WALKS),
    Mutant("integrate.py", "b=(1 / 6, 1 / 3, 1 / 3, 1 / 6)", "b=(1 / 6, 1 / 6, 1 / 3, 1 / 3)", WALKS),
    Mutant("integrate.py", "c=(0.0, 0.5, 0.5, 1.0)", "c=(0.0, 0.5, 1.0, 1.0)", WALKS),
    Mutant("integrate.py", "alpha=h * weight", "alpha=weight", WALKS),
    Mutant("integrate.py", "mean(1).max().sqrt()", "mean().sqrt()", SAMPLERS),
    Mutant("integrate.py", "rtol=rtol, atol=atol, method", "rtol=atol, atol=rtol, method", SAMPLERS),
    Mutant("integrate.py", ', "step_t": times[1:]', "", WALKS),
    Mutant("samplers/flow.py", "alphas[i] * x) / alphas[i + 1]", "alphas[i] * x) / alphas[i]", WALKS),
    Mutant(
        "samplers/flow.py", "levels_of(self, model, self.process))[::-1]", "levels_of(self, model, self.process))", SAMPLERS
    ),
    Mutant("samplers/exponential.py", "math.sqrt(1 - (following / sigma) ** 2)", "math.sqrt(1 - following / sigma)", SAMPLERS),
    Mutant("samplers/exponential.py", "fresh = eta * following", "fresh = eta * sigma", SAMPLERS),
    Mutant("samplers/exponential.py", "fresh = eta * following", "fresh = eta**2 * following", SAMPLERS),
    Mutant("samplers/exponential.py", "math.sqrt(following**2 - fresh**2)", "following", SAMPLERS),
    Mutant("samplers/exponential.py", "torch.lerp(denoised, x, kept)", "torch.lerp(denoised, x, kept**2)", SAMPLERS),
    Mutant("samplers/exponential.py", "[-math.log(s) for s in levels]", "[-2 * math.log(s) for s in levels]", SAMPLERS),
    Mutant("samplers/exponential.py", "constant * h / 2 * slope", "constant * h * slope", SAMPLERS),
    Mutant("samplers/exponential.py", "constant * h / 2 * slope", "constant / 2 * slope", SAMPLERS),
    Mutant("samplers/exponential.py", "linear = h - constant", "linear = h + constant", SAMPLERS),
    Mutant("samplers/exponential.py", "torch.lerp(now, x, math.exp(-h))", "torch.lerp(now, x, 1 - h)", SAMPLERS),
    Mutant("samplers/exponential.py", "first + linear / h * (denoise", "first + linear * (denoise", SAMPLERS),
    Mutant(
        "samplers/exponential.py",
        "denoise(model, first, levels[1], cond) - now",
        "denoise(model, x, levels[1], cond) - now",
        SAMPLERS,
    ),
    Mutant("samplers/exponential.py", "(past[-1] - past[-2]) / back", "(past[-1] - past[-2]) / h", SAMPLERS),
    Mutant("samplers/exponential.py", "(past[-2] - past[-3]) / further", "(past[-2] - past[-3]) / back", SAMPLERS),
    Mutant("samplers/exponential.py", "/ (back + further)", "/ (2 * back)", SAMPLERS),
    Mutant("samplers/exponential.py", "(h**2 - 2 * linear + back", "(h**2 / 2 - linear + back", SAMPLERS),
    Mutant("samplers/exponential.py", "+ back * linear) * bend", "- back * linear) * bend", SAMPLERS),
    Mutant("samplers/exponential.py", "(h**2 - 2 * linear + back", "(h**2 / 2 - linear + back", WALKS),
    Mutant("samplers/exponential.py", "self.to_zero + (self.order == 3)", "self.to_zero", WALKS),
    Mutant("samplers/reverse.py", "(1 + h * at.drift)", "(1 - h * at.drift)", SAMPLERS),
    Mutant("samplers/reverse.py", "h * at.diffusion / at.alpha * score", "h * at.diffusion / 2 / at.alpha * score", SAMPLERS),
    Mutant("samplers/reverse.py", "h * at.diffusion / at.alpha * score", "h * at.diffusion * score", SAMPLERS),
    Mutant("samplers/reverse.py", "math.sqrt(-h * at.diffusion)", "math.sqrt(-h * at.diffusion / 2)", SAMPLERS),
    Mutant("samplers/reverse.py", "noise_like(x, generator)) / then.alpha", "noise_like(x, generator)) / at.alpha", SAMPLERS),
    Mutant("samplers/reverse.py", "sigma = levels[i + 1]", "sigma = levels[i]", SAMPLERS),
    Mutant("samplers/reverse.py", "self.step_ratio * sigma**2", "self.step_ratio * sigma", SAMPLERS),
    Mutant("samplers/reverse.py", "0.0512", "0.0256", SAMPLERS),
    Mutant(
        "samplers/reverse.py", "min(self.churn / self.steps, math.sqrt(2) - 1)", "min(self.churn / self.steps, 1)", SAMPLERS
    ),
    Mutant("samplers/reverse.py", "min(self.churn / self.steps, math", "min(self.churn / (self.steps - 1), math", SAMPLERS),
    Mutant("samplers/reverse.py", "math.sqrt(raised**2 - sigma**2)", "(raised - sigma)", SAMPLERS),
    Mutant("samplers/reverse.py", "self.noise * math.sqrt(raised", "math.sqrt(raised", SAMPLERS),
    Mutant("samplers/reverse.py", "low <= sigma <= high", "low < sigma < high", SAMPLERS),
    Mutant("samplers/reverse.py", "sigma * (1 + gamma), levels[0])", "sigma * (1 + gamma), 1e9)", SAMPLERS),
    Mutant("samplers/reverse.py", "return -sigma * model", "return -model", SAMPLERS),
    Mutant("samplers/reverse.py", "(sigma, following), following - sigma", "(sigma, sigma), following - sigma", SAMPLERS),
    Mutant("samplers/reverse.py", "(sigma, following), following - sigma", "(sigma, following), following", SAMPLERS),
    Mutant("samplers/levels.py", "(low / high) ** (i / (steps - 1))", "(low / high) ** (i / steps)", SAMPLERS),
    Mutant("samplers/levels.py", "time_at(self.process, sigma_range[::-1])", "time_at(self.process, sigma_range)", SAMPLERS),
    Mutant("samplers/levels.py", "return [sigma_range[1], *levels[1:-1], sigma_range[0]]", "return levels", SAMPLERS),
    Mutant("samplers/levels.py", "max(a, least), min(b, most)", "a, b", SAMPLERS),
    Mutant("samplers/levels.py", "rho: float = 7.0", "rho: float = 5.0", SAMPLERS),
    Mutant(
        "samplers/descent.py",
        "return levels_of(self, model, self.coordinates)[1] * standard",
        "return levels_of(self, model, self.coordinates)[0] * standard",
        SAMPLERS,
    ),
    Mutant("samplers/descent.py", "denoise(model, state.x, levels[-1]", "denoise(model, state.x, levels[0]", WALKS),
    Mutant(
        "samplers/descent.py",
        "(self.steps - 1) * self.evaluations + self.to_zero",
        "self.steps * self.evaluations + self.to_zero",
    ),
    Mutant("training/ema.py", "power_exponent(width) + 1)", "power_exponent(width))", "tests/training/test_ema.py"),
    Mutant("training/ema.py", "12 - width**-2", "12 + width**-2", "tests/training/test_ema.py"),
    Mutant(
        "training/config.py",
        "max(1.0, step / self.decay_after) ** -self.decay_power",
        "max(1.0, step / self.decay_after) ** -1",
        "tests/training/test_config.py",
    ),
    Mutant(
        "training/state.py", "torch.empty_like(like, device=value.device).copy_(value)", "value", "tests/training/test_state.py"
    ),
    Mutant(
        "training/state.py",
        'self.average.load_state_dict(part("average."))',
        'self.average.load_state_dict(part("model.model."))',
        "tests/training/test_state.py",
    ),
    Mutant("training/log.py", "detach().double() / dimensions", "detach().double()", "tests/training/test_log.py"),
    Mutant("system.py", "        sync(aside)\n", "", "tests/test_system.py"),
    Mutant("objectives/ratio.py", "(flips.sigmoid() ** 2)", "((-flips).sigmoid() ** 2)", "tests/objectives"),
    Mutant("objectives/ratio.py", "(flips.sigmoid() ** 2)", "flips.sigmoid()", "tests/objectives"),
    Mutant("objectives/ratio.py", "(leaving**2 - 2 * returning)", "(leaving**2 - returning)", "tests/objectives"),
    Mutant("objectives/ratio.py", "(leaving**2 - 2 * returning)", "(leaving**2 + 2 * returning)", "tests/objectives"),
    Mutant(
        "objectives/ratio.py", "log_ratios.exp(), (-log_ratios).exp()", "log_ratios.exp(), log_ratios.exp()", "tests/objectives"
    ),
    Mutant("objectives/ratio.py", "not isinstance(model, Energy))", "True)", "tests/objectives"),
    Mutant("objectives/ratio.py", "returning = _returning(model, x, cond)", "returning = leaving", "tests/objectives"),
    Mutant("objectives/ratio.py", "cond.repeat_interleave(d * k, 0)", "cond.repeat(d * k, 1)", "tests/objectives"),
    Mutant("objectives/ratio.py", "Loss(-log_conditionals", "Loss(log_conditionals", "tests/objectives"),
    Mutant("objectives/ratio.py", "Loss(-model.log_density", "Loss(model.log_density", "tests/objectives"),
    Mutant(
        "objectives/ratio.py", ' or not getattr(model, "normalised", not isinstance(model, Energy))', "", "tests/objectives"
    ),
    Mutant(
        "objectives/generalised.py", "inverse.sum((1, 2))", "inverse.gather(2, x[:, :, None]).sum((1, 2))", "tests/objectives"
    ),
    Mutant("objectives/generalised.py", "(-log_conditionals(", "(log_conditionals(", "tests/objectives"),
    Mutant("objectives/generalised.py", ".flatten(1), -trace)", ".flatten(1), trace)", "tests/objectives"),
    Mutant("objectives/generalised.py", "sum(1) - 2 * adjoint", "sum(1) - adjoint", "tests/objectives"),
    Mutant("objectives/generalised.py", "(ratio**2).sum(1)", "(ratio**2).sum(1) / 2", "tests/objectives"),
    Mutant(
        "densities/discrete.py",
        "return by_state.log_softmax(2)",
        "return by_state.log_softmax(1)",
        "tests/densities/test_discrete.py",
    ),
    Mutant(
        "densities/discrete.py",
        "by_state - at_x[:, None, None]",
        "at_x[:, None, None] - by_state",
        "tests/densities/test_discrete.py",
    ),
    Mutant("densities/discrete.py", "phi @ above * phi", "phi @ (above + above.T) * phi", "tests/densities/test_discrete.py"),
    Mutant("densities/discrete.py", "(output - output.gather(2, x[:, :, None]))", "output", "tests/densities/test_discrete.py"),
    Mutant(
        "densities/discrete.py", "cond.repeat_interleave(count, 0)", "cond.repeat(count, 1)", "tests/densities/test_discrete.py"
    ),
    Mutant("densities/discrete.py", "self.logits.log_softmax(0)", "self.logits", "tests/densities/test_discrete.py"),
    Mutant("densities/discrete.py", "    check_states(x, states)\n", "", "tests/objectives"),
    Mutant("objectives/ratio.py", "            check_states(x, model.states)", "            pass", "tests/objectives"),
    Mutant("objectives/ratio.py", "            check_batch(x)", "            pass", "tests/objectives"),
    Mutant("objectives/generalised.py", "        check_level(self.sigma)", "        pass", "tests/objectives"),
    Mutant("densities/analytic.py", "not (skew <= 1e-5 * largest).all()", "False", DENSITIES),
    Mutant("jets.py", "F.linear(x.tangents, weight), second", "F.linear(x.tangents, -weight), second", "tests/test_jets.py"),
    Mutant(
        "jets.py",
        "first * x.second + curvature * x.squares()",
        "first * x.second - curvature * x.squares()",
        "tests/test_jets.py",
    ),
    Mutant("jets.py", "first * second + curvature * squares", "first * second + 2 * curvature * squares", "tests/test_jets.py"),
    Mutant("jets.py", "tangents, 2 * curvature * of_second", "tangents, curvature * of_second", "tests/test_jacobian_trace.py"),
    Mutant(
        "jets.py",
        "to_curvature = of_second[0] * squares",
        "to_curvature = squares.expand_as(first)",
        "tests/test_jacobian_trace.py",
    ),
    Mutant("jets.py", "s + value * (1 - s), slope", "s - value * (1 - s), slope", "tests/test_jets.py"),
    Mutant("jets.py", "density * (2 - v**2)", "density * (1 - v**2)", "tests/test_jets.py"),
    Mutant("jets.py", "-2 * t * first", "2 * t * first", "tests/test_jets.py"),
    Mutant("jets.py", "0.75 * r / v**2", "0.5 * r / v**2", "tests/test_jets.py"),
    Mutant("jets.py", "if func in (torch.layer_norm, F.layer_norm):", "if func is None:", "tests/test_jacobian_trace.py"),
    Mutant("jacobian_trace.py", "v * (math.sqrt(event_size(x)) / norms)", "v / norms", "tests/test_jacobian_trace.py"),
    Mutant(
        "jacobian_trace.py", "torch.where(v > 0, 1.0, -1.0)", "torch.where(v > 0, 1.0, 0.0)", "tests/test_jacobian_trace.py"
    ),
    Mutant(
        "jacobian_trace.py",
        "return curvature.mean(0), se",
        "return curvature.sum(0), se",
        "tests/test_jacobian_trace.py",
    ),
    Mutant("jacobian_trace.py", "curvature.std(0) / math.sqrt(k)", "curvature.std(0)", "tests/test_jacobian_trace.py"),
    Mutant("jacobian_trace.py", "score[k:-1], v) / (2 * eps)", "score[k:-1], v) / eps", "tests/test_jacobian_trace.py"),
    Mutant(
        "jacobian_trace.py",
        "(ahead + behind - 2 * here) / h**2",
        "(ahead + behind - 2 * here) / h",
        "tests/test_jacobian_trace.py",
    ),
    Mutant(
        "jacobian_trace.py",
        "(ahead + behind - 2 * here) / h**2",
        "(ahead - behind - 2 * here) / h**2",
        "tests/test_jacobian_trace.py",
    ),
    Mutant("jacobian_trace.py", "(ahead - behind) / (2 * h), ", "(ahead - here) / h, ", "tests/test_jacobian_trace.py"),
    Mutant(
        "jacobian_trace.py",
        "inner(ahead - behind, v) / (2 * h)",
        "inner(ahead - behind, v) / h",
        "tests/test_jacobian_trace.py",
    ),
    Mutant(
        "jacobian_trace.py",
        "inner(jet.tangents, block).sum(0)",
        "inner(jet.tangents, block).mean(0)",
        "tests/test_jacobian_trace.py",
    ),
    Mutant("baselines/finite.py", ".double() + pseudocount", ".double()", BASELINES),
    Mutant("baselines/finite.py", "(seen.double() / len(self.images)).log()", "seen.double().log()", BASELINES),
    Mutant("baselines/finite.py", "* 2 >= levels", "* 2 > levels", BASELINES),
    Mutant(
        "baselines/finite.py",
        "bright = 2 * torch.arange(self.levels, device=counts.device) >= self.levels",
        "bright = 2 * torch.arange(self.levels, device=counts.device) > self.levels",
        BASELINES,
    ),
    Mutant("baselines/finite.py", "self.log_patch.gather(1, self.patches(x).T).sum(0) + self", "self", BASELINES),
    Mutant("baselines/finite.py", "drawn[1] + middle", "drawn[1]", BASELINES),
    Mutant("baselines/finite.py", "tiles.transpose(3, 4)", "tiles", BASELINES),
    Mutant(
        "baselines/model.py",
        "self.spec.scaling.encode(self.family.sample(n, generator=generator))",
        "self.family.sample(n, generator=generator)",
        BASELINES,
    ),
    Mutant("training/state.py", "if validation < self.best_loss", "if validation > self.best_loss", "tests/training"),
    Mutant(
        "training/loop.py",
        "if training.keep_best and state.step % training.validate_every == 0:",
        "if training.keep_best:",
        "tests/training",
    ),
    Mutant(
        "metrics/distances.py",
        "statistic(a[of_a != i], b[of_b != i])",
        "statistic(a[of_a != i], b)",
        "tests/metrics/test_distances.py",
    ),
    Mutant("experiment/probability.py", "factor * energy.value", "energy.value", "tests/experiment/test_probability.py"),
    Mutant(
        "experiment/levels.py",
        "-factor * raw_log_density(-bound",
        "-factor * raw_log_density(bound",
        "tests/experiment/test_levels.py",
    ),
    Mutant("experiment/levels.py", "np.log(high / low) / steps", "np.log(high / low)", "tests/experiment/test_levels.py"),
    Mutant(
        "experiment/compare.py",
        "budget * outcome.step / outcome.seconds",
        "budget * outcome.seconds / outcome.step",
        "tests/experiment/test_compare.py",
    ),
    Mutant(
        "experiment/compare.py",
        '(samples[:n], ""), (reference, REAL)',
        '(reference, ""), (samples[:n], REAL)',
        "tests/experiment/test_compare.py",
    ),
    Mutant(
        "experiment/compared.py",
        "turned = [None if v is None else -v",
        "turned = [None if v is None else v",
        "tests/experiment/test_compared.py",
    ),
    Mutant("plots/compare.py", "loss / math.log(b / a)", "loss", "tests/plots/test_compare.py"),
    Mutant("report/comparison.py", 'r["value"] < COPIES', 'r["value"] > COPIES', "tests/test_report_comparison.py"),
    Mutant(
        "networks/mlp.py",
        "self.coordinates(x.flatten(1) if x.ndim > 2 else x)",
        "self.coordinates(x.flatten(1).flip(1) if x.ndim > 2 else x)",
        "tests/networks/test_mlp.py",
    ),
    Mutant("baselines/autoregressive.py", "is_causal=cache is None", "is_causal=False", BASELINES),
    Mutant("baselines/autoregressive.py", "F.pad(rows[:, :-1], (1, 0)", "F.pad(rows[:, 1:], (0, 1)", BASELINES),
    Mutant("baselines/autoregressive.py", "torch.cat([cache[0], k], 2)", "torch.cat([k, cache[0]], 2)", BASELINES),
    Mutant("baselines/autoregressive.py", "self.places[first : first", "self.places[0 : 0", BASELINES),
    Mutant("baselines/latent.py", "-(standardised**2) / 2 - self.log_std", "-(standardised**2) / 2 + self.log_std", BASELINES),
    Mutant("baselines/latent.py", "logsumexp(0) - math.log(draws)", "logsumexp(0)", BASELINES),
    Mutant(
        "baselines/latent.py",
        "law.log_density(z) - prior.log_density(z)",
        "prior.log_density(z) - law.log_density(z)",
        BASELINES,
    ),
    Mutant("baselines/latent.py", "prior = standard(z) if top else", "prior = standard(z) if True else", BASELINES),
    Mutant("baselines/latent.py", "for decoder in self.decoders[:0:-1]:", "for decoder in self.decoders[:1:-1]:", BASELINES),
    Mutant("objectives/denoising.py", "sigma * slope - sum_event(z**2 - 1)", "slope - sum_event(z**2 - 1)", ACROSS),
    Mutant("objectives/denoising.py", "sigma * slope - sum_event(z**2 - 1)", "sigma * slope + sum_event(z**2 - 1)", ACROSS),
    Mutant("objectives/denoising.py", "sigma * slope - sum_event(z**2 - 1)", "sigma * slope - sum_event(z**2)", ACROSS),
    Mutant("objectives/denoising.py", "pairs[:, 1]) ** 2 / 2)", "pairs[:, 1]) ** 2)", ACROSS),
    Mutant("objectives/denoising.py", "weight * error + self.across", "error + self.across", ACROSS),
    Mutant("objectives/denoising.py", ".repeat_interleave(each)", ".repeat(each)", ACROSS),
    Mutant("objectives/matching.py", "sum_event(score**2) / 2 + trace", "sum_event(score**2) + trace", OBJECTIVES),
    Mutant("objectives/matching.py", "sum_event(score**2) / 2 + trace", "sum_event(score**2) / 2 - trace", OBJECTIVES),
    Mutant(
        "objectives/matching.py",
        "sum_event(score**2) / 2 + trace",
        "sum_event(score**2) / 2 + trace / x[0].numel()",
        OBJECTIVES,
    ),
    Mutant("objectives/matching.py", "- target) ** 2) / 2, level", "- target) ** 2), level", OBJECTIVES),
    Mutant("objectives/matching.py", "along.slope**2 / 2 + along.curvature", "along.slope**2 + along.curvature", OBJECTIVES),
    Mutant(
        "objectives/matching.py", "along.slope**2 / 2 + along.curvature", "along.slope**2 / 2 - along.curvature", OBJECTIVES
    ),
    Mutant("objectives/matching.py", "+ along.curvature).mean(0)", "+ along.curvature).sum(0)", OBJECTIVES),
    Mutant("objectives/matching.py", "return x + sigma * torch.randn", "return x + sigma**2 * torch.randn", OBJECTIVES),
    Mutant("models.py", "output - self.confinement / 2", "output + self.confinement / 2", "tests/test_models.py"),
    Mutant(
        "likelihood/flow.py",
        "at.diffusion / (2 * at.alpha**2) * traces",
        "at.diffusion / (2 * at.alpha) * traces",
        "tests/likelihood",
    ),
    Mutant(
        "likelihood/flow.py",
        "at.diffusion / (2 * at.alpha**2) * traces",
        "at.diffusion / at.alpha**2 * traces",
        "tests/likelihood",
    ),
    Mutant(
        "likelihood/flow.py", "log_density = log_prior - integral", "log_density = log_prior + integral", "tests/likelihood"
    ),
    Mutant(
        "likelihood/flow.py", "velocity_along(score, at, position)", "velocity_along(-score, at, position)", "tests/likelihood"
    ),
    Mutant("likelihood/flow.py", "- 1 - (v / total).log()", "- (v / total).log()", "tests/likelihood"),
    Mutant("likelihood/elbo.py", "torch.expm1(2 * gaps)", "torch.expm1(gaps)", "tests/likelihood"),
    Mutant("likelihood/elbo.py", "ladder[1:][t]", "ladder[:-1][t]", "tests/likelihood"),
    Mutant("likelihood/elbo.py", "torch.stack(lasts) / 2", "torch.stack(lasts)", "tests/likelihood"),
    Mutant("likelihood/elbo.py", "math.log(2 * math.pi * low**2)", "math.log(math.pi * low**2)", "tests/likelihood"),
    Mutant("likelihood/elbo.py", "(sum_event(x**2) - d)", "(sum_event(x**2) + d)", "tests/likelihood"),
    Mutant("likelihood/elbo.py", "math.log(total / sigma**2)", "math.log(total / sigma)", "tests/likelihood"),
    Mutant("likelihood/units.py", "return log_density - log_scale", "return log_density + log_scale", "tests/likelihood"),
    Mutant("likelihood/units.py", "math.log(2))", "1)", "tests/likelihood"),
    Mutant("likelihood/units.py", "device=values.device) - 0.5", "device=values.device)", "tests/likelihood"),
    Mutant("jacobian_trace.py", "math.sqrt(1 - k / d)", "math.sqrt(1 - 1 / d)", "tests/test_jacobian_trace.py"),
    Mutant("experiment/logprob.py", "(1 + len(calibration) - below)", "(len(calibration) - below)", "tests/experiment"),
    Mutant("training/muon.py", "beta=b, alpha=c", "beta=c, alpha=b", "tests/training/test_muon.py"),
    Mutant("training/muon.py", "max(direction.shape) ** 0.5", "min(direction.shape) ** 0.5", "tests/training/test_muon.py"),
    Mutant("training/muon.py", "1 - MOMENTUM)\n", "MOMENTUM)\n", "tests/training/test_muon.py"),
    Mutant("integrate.py", ', "first_step": abs(end - start) / 100', "", "tests/samplers/test_flow.py"),
    Mutant("experiment/logprob.py", "np.isfinite(found.log_density), np.abs", "True, np.abs", "tests/experiment"),
    Mutant("jets.py", "2 * a.times(b, product)", "a.times(b, product)", "tests/test_jets.py"),
    Mutant("jets.py", "isinstance(b, Jet) and b.value.ndim < 3", "False", "tests/test_jets.py"),
    Mutant("jets.py", "dim % x.ndim == 0", "False", "tests/test_jets.py"),
    Mutant("experiment/likelihood.py", "refine = effort.refine or chunk == 0", "refine = effort.refine", LIKELIHOOD),
    Mutant("experiment/likelihood.py", 'found[chunk]["rows"] != digest', "False", LIKELIHOOD),
    Mutant("experiment/likelihood.py", "-raw_log_density(-bound", "raw_log_density(bound", LIKELIHOOD),
    Mutant("experiment/likelihood.py", "math.log(high / low) / len(bound.density)", "math.log(high / low)", LIKELIHOOD),
    Mutant("experiment/train.py", 'random_rows(total, total, purpose="validation")', "np.arange(total)", LIKELIHOOD),
    Mutant(
        "experiment/config.py",
        "dequantise(raw, generator) if noised",
        "dequantise(raw, generator) if not noised",
        "tests/experiment",
    ),
    Mutant("samplers/generate.py", "clamp(max=n - 1)", "clamp(max=n)", INPAINT),
]


IDENTITIES = [
    Mutant("objectives/contrastive.py", "for y in (x, negatives))", "for y in (negatives, x))", row=22),
    Mutant("objectives/contrastive.py", "self.log_z + math.log(self.ratio)", "self.log_z", row=23),
    Mutant("objectives/matching.py", "sum_event(score**2) / 2 + trace", "sum_event(score**2) / 2 - trace", row=1),
    Mutant("objectives/matching.py", "- target) ** 2) / 2, level", "- target) ** 2), level", row=1),
    Mutant("jets.py", "first * second + curvature * squares", "first * second - curvature * squares", row=1),
    Mutant("jacobian_trace.py", "v * (math.sqrt(event_size(x)) / norms)", "v / norms", row=2),
    Mutant("jacobian_trace.py", "torch.where(v > 0, 1.0, -1.0)", "torch.where(v > 0, 1.0, 0.0)", row=2),
    Mutant("objectives/matching.py", "along.slope**2 / 2 + along.curvature", "along.slope**2 + along.curvature", row=3),
    Mutant("objectives/matching.py", "+ along.curvature).mean(0)", "+ along.curvature).sum(0)", row=3),
    Mutant("jacobian_trace.py", "(ahead - behind) / (2 * h), ", "(ahead - here) / h, ", row=4),
    Mutant("jacobian_trace.py", "(ahead + behind - 2 * here) / h**2", "(ahead + behind - 2 * here) / h", row=4),
    Mutant("objectives/denoising.py", "sum_event((scaled + z) ** 2)", "sum_event((scaled - z) ** 2)", row=5),
    Mutant("objectives/denoising.py", "error / (2 * self.sigma**2)", "error / self.sigma**2", row=5),
    Mutant("objectives/denoising.py", "error / (2 * self.sigma**2)", "error / (2 * self.sigma)", row=5),
    Mutant("models.py", "return x + s**2 * model", "return x + s * model", row=6),
    Mutant("models.py", "return x + s**2 * model", "return x - s**2 * model", row=6),
    Mutant("densities/analytic.py", "double()[:, None, None] ** 2", "double()[:, None, None]", row=7),
    Mutant("densities/analytic.py", "c.offset / c.variances)", "c.offset / c.variances / 2)", row=7),
    Mutant("objectives/generalised.py", "sum(1) - 2 * adjoint", "sum(1) - adjoint", row=8),
    Mutant("objectives/generalised.py", ".flatten(1), -trace)", ".flatten(1), trace)", row=8),
    Mutant("objectives/ratio.py", "(flips.sigmoid() ** 2)", "((-flips).sigmoid() ** 2)", row=9),
    Mutant("objectives/ratio.py", "(flips.sigmoid() ** 2)", "flips.sigmoid()", row=9),
    Mutant("densities/exponential/family.py", "linear -= second[:, d]", "linear += second[:, d]", row=10),
    Mutant(
        "densities/exponential/family.py", "metric.divergence, first[:, :d])", "metric.divergence, 0 * first[:, :d])", row=10
    ),
    Mutant("densities/exponential/family.py", "+ part.linear) * share", "- part.linear) * share", row=10),
    Mutant("densities/exponential/domains.py", "slope * total - u * slope", "slope * total + u * slope", row=10),
    Mutant("processes.py", "return f, 2 * process", "return f, process", row=11),
    Mutant("processes.py", "noise_level(process, t), cond) / alpha", "noise_level(process, t), cond)", row=11),
    Mutant("processes.py", "range(56, -1, -7)", "range(56, 27, -7)", row=11),
    Mutant("processes.py", "(u + self.start).sin()", "(u - self.start).sin()", row=11),
    Mutant("processes.py", "at.diffusion / (2 * at.alpha)", "at.diffusion / at.alpha", row=12),
    Mutant("integrate.py", "b=(0.5, 0.5)", "b=(0.4, 0.6)", row=12),
    Mutant("integrate.py", "b=(1 / 6, 1 / 3, 1 / 3, 1 / 6)", "b=(1 / 6, 1 / 6, 1 / 3, 1 / 3)", row=12),
    Mutant("samplers/exponential.py", "constant * h / 2 * slope", "constant * h * slope", row=12),
    Mutant("samplers/exponential.py", "(h**2 - 2 * linear + back", "(h**2 / 2 - linear + back", row=12),
    Mutant("samplers/exponential.py", "math.sqrt(1 - (following / sigma) ** 2)", "math.sqrt(1 - following / sigma)", row=12),
    Mutant("samplers/reverse.py", "math.sqrt(-h * at.diffusion)", "math.sqrt(-h * at.diffusion / 2)", row=12),
    Mutant("likelihood/flow.py", "log_density = log_prior - integral", "log_density = log_prior + integral", row=13),
    Mutant("likelihood/flow.py", "at.diffusion / (2 * at.alpha**2) * traces", "at.diffusion / 2 * traces", row=13),
    Mutant("likelihood/flow.py", "- 1 - (v / total).log()", "- (v / total).log()", row=13),
    Mutant("likelihood/elbo.py", "torch.expm1(2 * gaps)", "torch.expm1(gaps)", row=14),
    Mutant("likelihood/elbo.py", "torch.stack(lasts) / 2", "torch.stack(lasts)", row=14),
    Mutant("samplers/exponential.py", "(following / sigma) ** 2", "following / sigma", row=14),
    Mutant("objectives/denoising.py", "return sigma**self.exponent", "return sigma ** (self.exponent + 1)", row=24),
    Mutant("samplers/reverse.py", "math.sqrt(-h * at.diffusion)", "math.sqrt(-h * at.diffusion / 2)", row=24),
    Mutant("samplers/kernels.py", "begin, math.sqrt(2 * h), 1)", "begin, math.sqrt(h), 1)", row=15),
    Mutant("samplers/kernels.py", "sum_event(point.velocity**2) / 2", "sum_event(point.velocity**2)", row=15),
    Mutant("likelihood/annealing.py", "log_weights = -path.base", "log_weights = 0 * path.base", row=18),
    Mutant("likelihood/annealing.py", "sum_event(there - back) / 2", "sum_event(back - there) / 2", row=18),
    Mutant("samplers/langevin.py", "math.sqrt(2 * h * temperature)", "math.sqrt(h * temperature)", row=16),
    Mutant("samplers/langevin.py", "return x + h * model", "return x + h / 2 * model", row=16),
    Mutant("metrics/score.py", "parts = log_density.argsort()", "parts = (-log_density).argsort()", row=17),
    Mutant("densities/discrete.py", "self.logits.log_softmax(0)", "self.logits", row=19),
    Mutant("densities/compose.py", "log() - z)", "log() + z)", row=20),
    Mutant("densities/compose.py", "torch.stack([p @ g.means[0] for", "torch.stack([g.means[0] for", row=20),
    Mutant("metrics/score.py", "matrix_norm(j - j.mT) / (2", "matrix_norm(j + j.mT) / (2", row=21),
    Mutant("metrics/score.py", "j - j.mT) / (2 * torch", "j - j.mT) / (torch", row=21),
]
"""at least one for each row of IDENTITIES.md that `scorefield verify` computes"""


def failed_check(records: str) -> str | None:
    """The first check that failed by a number, in the JSON of `scorefield verify`; a crash or NaN detects nothing."""
    failed = (r for r in json.loads(records)["rows"] if not r["pass"] and r["error"] is not None)
    return next((f"row {r['row']}: {r['statement']}" for r in failed), None)


def killer(mutant: Mutant) -> str | None:
    """The first test or check that fails on the mutant, or None; in a copy, so the tree is never touched."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "src"
        shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__"))
        path = source / "scorefield" / mutant.file
        text = path.read_text()
        if text.count(mutant.old) != 1:
            raise SystemExit(f"{mutant.file} has {mutant.old!r} {text.count(mutant.old)} times, not once: mend the table")
        path.write_text(text.replace(mutant.old, mutant.new))
        command = ["pytest", mutant.tests, "-x", "-q", "-p", "no:cacheprovider", "--tb=no"]
        if mutant.row is not None:
            command = ["scorefield", "verify", "--rows", str(mutant.row), "--json", f"{folder}/checks.json"]
        environment = {**os.environ, "PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
        result = subprocess.run(
            [sys.executable, "-m", *command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        if mutant.row is not None and result.returncode in (0, 1):
            return failed_check((Path(folder) / "checks.json").read_text())
    if result.returncode == 0:
        return None
    found = re.search(r"^(?:FAILED|ERROR) (\S+)", result.stdout, re.MULTILINE)
    if result.returncode != 1 or found is None:
        raise SystemExit(f"{command[0]} did not run:\n{result.stdout}{result.stderr}")
    return found[1]


def main(words: list[str]) -> int:
    """Run the table, print it, and say whether all died."""
    chosen = [m for m in MUTANTS + IDENTITIES if not words or any(word in m.title for word in words)]
    survivors = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for mutant, killed_by in zip(chosen, pool.map(killer, chosen), strict=True):
            survivors += killed_by is None
            print(f"{'SURVIVED' if killed_by is None else 'killed  '}  {mutant.title}\n          {killed_by or ''}", flush=True)
    print(f"{survivors} survived" if survivors else "all killed")
    return int(survivors > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
