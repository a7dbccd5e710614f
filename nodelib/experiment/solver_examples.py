"""Adversarial examples of the solver: images that fool the program at tolerance 1e-3, and not the flow.

    python -m nodelib measure small-10 small-random small-100 --seed 0 --part solver

A network is a program: a solve at tolerance 1e-3 whose step sizes depend on the image. The differential
equation that it stands for has a flow of its own. An attack on the program may find images on which the two
disagree, and it follows a gradient that holds the step sizes fixed while the image moves.

Expected, written down before any of it was measured (known then: four to six steps a solve; the state at the
end is off by about 1 % in small-10 and a fourth of that in small-100; and in four images of an untrained
network at t = 1 the last of these lines held, with errors of 1 to 2 %). Each can fail:

- *They are examples of the flow.* Of the images that fool the program at most 5 % are classified right by the
  flow at tolerance 1e-7, at every epsilon from 0.05 on, in all three networks. Refuted by more than 20 % in
  one; open between.
- *Solvers agree.* RK4 and tolerance 1e-5 classify right as few of them as the flow does, within 5 points.
- *Attacks do not seek the solver's error.* Its median on attacked images at 0.1, as a share of the margin's
  typical size, is at most twice that on clean images.
- *Jumps are there.* At epsilon 0.3 the pattern of accepted and rejected steps changes on the way in more than
  half of the images; the median jump of the margin is below 5 % of the clean margin.
- *Exact means within a few per cent.* At the smallest differences the gradient with fixed step sizes is off
  by less than 5 % (median) along its own signs and by less than 20 % along random ones; with the step sizes
  held, by less than 0.1 %. Refuted above 20 and 50 %: then an attacker of the program has a better gradient
  to follow.

A control came after these, when the first two networks had shown an error several times as large on attacked
images as on clean ones, and before it was measured:

- *It is the attack, not the noise.* Random signs of the same size raise the median error less than half as
  much as the attack at 0.1, and on attacked images the program's margin is below the flow's (median, its 95 %
  interval below 0). Refuted for a network where random signs raise it as much, or the median is not below 0.

At other end times and tolerances (`elsewhere`) these were expected, with all of the above known and before
any of it was measured (it was tried on eight images of small-10, one of them the solver's own at 1e-1):

- *The end time does not matter.* At tolerance 1e-3, epsilon 0.1 and 0.3, and each end time of the table at
  which the program gets half of the images right or more, at most 5 % of the images that fool it are its own.
  Refuted by more than 20 %.
- *The tolerance decides.* At the own end time and epsilon 0.1 their share falls with the tolerance in every
  network, from above 5 % at 1e-1 to none at 1e-5. Refuted for a network where it is not above 1 % at 1e-1, or
  is smaller there than at 1e-3.

Last, whether attacks seek the solver's error or any image that they make has it (`sought`), with all of the
above known and before any image made at one tolerance was scored at another:

- *It is not sought.* Of images made at tolerance `TIGHT`, at which the program errs by a fiftieth of what it
  does at its own (small-10, 0.1), the median error at its own tolerance is at least 0.8 times that of images
  made there, at epsilon 0.1 and in all three networks; and the program's margin is below the flow's on them,
  too (median, its 95 % interval below 0). Refuted for a network where it is less than half, or where the
  median is not below 0: there the attack has climbed the error. Open between.
"""

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from nodelib.attacks import Attack
from nodelib.attacks.common import attacking
from nodelib.attacks.losses import margins
from nodelib.experiment.configs import TABLE_T1
from nodelib.experiment.gradient_health import OFF_TIES
from nodelib.networks import ODENet
from nodelib.solver.forward import Solution
from nodelib.solver.integrate import odeint

EPSILONS = (0.02, 0.05, 0.1, 0.3)
LARGER = EPSILONS[1:]  # at which the program is attacked elsewhere
TOLERANCES = (1e-1, 1e-2, 1e-4, 1e-5)  # of the program, beside its own
BATCH = 64  # images per solve, of the program that is attacked
TIGHT = 1e-5  # at which images are made that know nothing of the solver's error at 1e-3
RK4_STEPS = 200  # the state at the end is then off by 3e-5 of its size or less
POINTS = 64  # on the way from an image to the attacked one, both included
HALVINGS = 12  # to narrow a jump down to 4e-6 of the way
DIFFERENCES = (1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3)  # pixel units
FOLLOWED, DIFFERENCED = 64, 32  # of the images: on the way to the attacked ones, and by differences
# the solvers that classify the images again: images per solve, precision, and settings of `odeint`
SOLVERS: dict[str, tuple[int, torch.dtype, dict[str, Any]]] = {
    "one by one": (1, torch.float32, {}),
    "1e-5": (BATCH, torch.float32, dict(rtol=1e-5, atol=1e-5)),
    "rk4": (BATCH, torch.float32, dict(method="rk4")),
    "flow": (BATCH, torch.float64, dict(rtol=1e-7, atol=1e-7)),
}
Found = Iterator[tuple[str, Tensor, dict[str, Any]]]  # name, a value per image, settings


def solve(model: ODENet, images: Tensor, **settings: Any) -> tuple[Tensor, Solution]:
    """Logits of one solve to the model's own end time, at its own tolerances, and the solve.

    settings: of `nodelib.solver.integrate.odeint`, in their place.
    """
    block = model.block
    given = {"t": (0.0, block.t1), "rtol": block.rtol, "atol": block.atol, "params": (), **settings}
    if given.get("method") == "rk4":
        given.setdefault("step_size", block.t1 / RK4_STEPS)
    solution = odeint(block.func, model.stem(images), **given)
    return model.head(solution.y[-1]), solution


@torch.no_grad()
def answers(model: ODENet, images: Tensor, batch: int = BATCH, dtype: torch.dtype = torch.float32,
            settings: dict[str, Any] | None = None) -> Tensor:
    """Logits in float64, shape (N, 10), from solves of so many images each in that precision."""
    model = copy.deepcopy(model).to(dtype)
    return torch.cat([solve(model, x, **settings or {})[0] for x in images.to(dtype).split(batch)]).double()


def by_solver(model: ODENet, clean: Tensor, labels: Tensor, attacked: Tensor, epsilon: float,
              solvers: Iterable[str] = SOLVERS) -> Found:
    """Which of the attacked images that fool the program fool the solvers of `SOLVERS`, and the reverse.

    clean: the program's `answers` to the images unattacked, those of which it gets wrong are left out;
    attacked: for epsilon 0 the images themselves.
    """
    program = answers(model, attacked)
    known = clean.argmax(1) == labels
    size, fooled = margins(clean, labels).median(), program.argmax(1) != labels
    for solver in solvers:
        batch, dtype, settings = SOLVERS[solver]
        found, told = answers(model, attacked, batch, dtype, settings), dict(epsilon=epsilon, solver=solver)
        right = found.argmax(1) == labels
        yield "fools_program_only", right[known & fooled], told
        yield "fools_solver_only", ~right[known & ~fooled], told
        yield "solver_error", ((margins(found, labels) - margins(program, labels)) / size).abs(), told


def moved(model: ODENet, images: Tensor, labels: Tensor, attack: Attack) -> Tensor:
    """The images as an attack changes them, 64 a solve."""
    return torch.cat([attack(model, x, y) for x, y in zip(images.split(BATCH), labels.split(BATCH))])


def margin_attack(epsilon: float) -> Attack:
    """PGD-40 on the margin, a step an epsilon's fifteenth."""
    return Attack("pgd", epsilon, epsilon / 15, 40, loss="margin", gradient="exact")


def biases(model: ODENet, images: Tensor, labels: Tensor, epsilons: Sequence[float] = (0.1, 0.3)) -> Found:
    """How far the program's margin is above the flow's, over the median clean margin, and how far at all; on
    attacked images, and on images moved as far by random signs.
    """
    size = margins(answers(model, images), labels).median()
    for attack in (attack for epsilon in epsilons
                   for attack in (margin_attack(epsilon), Attack("random-signs", epsilon))):
        there, told = moved(model, images, labels, attack), dict(epsilon=attack.epsilon, attack=attack.name)
        program, flow = (margins(answers(model, there, *solver), labels) for solver in ((), SOLVERS["flow"]))
        yield "solver_bias", (program - flow) / size, told
        yield "solver_distance", ((program - flow) / size).abs(), told


def sought(model: ODENet, images: Tensor, labels: Tensor, epsilons: Sequence[float] = (0.1, 0.3)) -> Found:
    """Bias and distance of `biases`, at the model's own tolerance, of images that the attack makes there and
    at `TIGHT` (setting `made_at`); how many of either fool the program; and how much farther the program is
    from the flow on the former, image by image.
    """
    size = margins(answers(model, images), labels).median()
    tight = copy.deepcopy(model)
    tight.block.rtol = tight.block.atol = TIGHT
    for epsilon in epsilons:
        distances = []
        for maker in (model, tight):
            there = moved(maker, images, labels, margin_attack(epsilon))
            told = dict(epsilon=epsilon, made_at=maker.block.rtol)
            program, flow = (margins(answers(model, there, *solver), labels)
                             for solver in ((), SOLVERS["flow"]))
            distances.append(((program - flow) / size).abs())
            yield "solver_bias_made", (program - flow) / size, told
            yield "solver_distance_made", distances[-1], told
            yield "fools_program_made", program < 0, told
        yield "solver_distance_sought", distances[0] - distances[1], dict(epsilon=epsilon)


def pattern(solution: Solution) -> tuple[int, ...]:
    """How many steps were rejected before each accepted one."""
    rejected = Counter(t for t, _, _ in solution.rejected_steps)
    return tuple(rejected[t] for t in solution.step_times)


@torch.no_grad()
def jumps(model: ODENet, images: Tensor, labels: Tensor, attacked: Tensor, epsilon: float) -> Found:
    """How often the pattern of steps changes on the straight way from each image to the attacked one, each
    solved alone, and by how much of the clean margin the margin jumps at the first change.
    """
    counts, sizes = [], []
    for k in range(len(images)):
        start, way, label = images[k:k + 1], (attacked - images)[k:k + 1], labels[k:k + 1]

        def at(s: float, start: Tensor = start, way: Tensor = way) -> tuple[Tensor, tuple[int, ...]]:
            logits, solution = solve(model, start + s * way)
            return logits, pattern(solution)

        passed = [at(i / (POINTS - 1)) for i in range(POINTS)]
        changes = [i for i in range(1, POINTS) if passed[i][1] != passed[i - 1][1]]
        counts.append(len(changes))
        if changes:
            low, high = (changes[0] - 1) / (POINTS - 1), changes[0] / (POINTS - 1)
            before, after = passed[changes[0] - 1], passed[changes[0]]
            for _ in range(HALVINGS):
                middle = (low + high) / 2
                found = at(middle)
                if found[1] == before[1]:
                    low, before = middle, found
                else:
                    high, after = middle, found
            step = margins(after[0], label) - margins(before[0], label)
            sizes.append((step / margins(passed[0][0], label)).abs())
    yield "step_changes", torch.tensor(counts, dtype=torch.float64), dict(epsilon=epsilon, points=POINTS)
    yield "step_jump", torch.cat(sizes) if sizes else torch.zeros(0), dict(epsilon=epsilon)


def slopes(program: Callable[[Tensor], Tensor], image: Tensor, label: Tensor, random: Tensor,
           differences: Sequence[float] = DIFFERENCES) -> dict[tuple[str, float], float]:
    """Error of a program's reverse along signs, those of its own and random ones, by central differences.

    Args:
        program: image -> logits, in float64; random: signs, the image's shape.

    Returns:
        (direction, difference) -> |difference quotient - derivative| over what such a derivative measures:
        the gradient's l1 norm along its own signs, its Euclidean norm (the root mean square over all signs)
        along random ones.
    """
    x = image.detach().requires_grad_(True)
    logits = program(x)
    rival = logits.detach().scatter(1, label[:, None], float("-inf")).argmax(1)

    def margin(logits: Tensor) -> Tensor:  # the same rival on both sides
        return logits[0, label[0]] - logits[0, rival[0]]

    (gradient,) = torch.autograd.grad(margin(logits), x)
    result = {}
    with torch.no_grad():
        for name, signs, size in (("gradient", gradient.sign(), gradient.abs().sum()),
                                  ("random", random, gradient.norm())):
            for h in differences:
                up, down = (margin(program(image + step * signs)) for step in (h, -h))
                error = (up - down) / (2 * h) - (gradient * signs).sum()
                result[name, h] = float(error.abs() / size)
    return result


def exactness(model: ODENet, images: Tensor, labels: Tensor,
              differences: Sequence[float] = DIFFERENCES) -> Found:
    """The errors of `slopes` of the program, whose step sizes follow the image, and of one that takes the
    same steps whatever the image; one image per solve, in float64 and off the pooling's ties.
    """
    double, generator = copy.deepcopy(model).double(), torch.Generator().manual_seed(0)
    errors: dict[tuple[str, str, float], list[float]] = {}
    with attacking(double, "exact"):
        for k in range(len(images)):
            image = images[k:k + 1].double()
            image = image + OFF_TIES * torch.rand(image.shape, generator=generator, dtype=image.dtype)
            random = torch.randint(2, image.shape, generator=generator, dtype=image.dtype) * 2 - 1
            with torch.no_grad():
                times = solve(double, image)[1].step_times + [double.block.t1]

            def held(x: Tensor, times: list[float] = times) -> Tensor:  # one step from each time to the next
                return solve(double, x, t=times, method="dopri5-fixed", step_size=times[-1])[0]

            for steps, program in (("of the image", lambda x: solve(double, x)[0]), ("held", held)):
                found = slopes(program, image, labels[k:k + 1], random, differences)
                for key, error in found.items():
                    errors.setdefault((steps, *key), []).append(error)
    for (steps, direction, h), values in errors.items():
        yield ("reverse_error", torch.tensor(values, dtype=torch.float64),
               dict(steps=steps, direction=direction, difference=h))


def examples(model: ODENet, images: Tensor, labels: Tensor, epsilons: Sequence[float] = EPSILONS) -> Found:
    """All of it but `biases`, `elsewhere` and `sought`."""
    clean = answers(model, images)
    for epsilon in (0.0, *epsilons):
        attacked = moved(model, images, labels, margin_attack(epsilon)) if epsilon else images
        yield from by_solver(model, clean, labels, attacked, epsilon)
        if epsilon:
            yield from jumps(model, images[:FOLLOWED], labels[:FOLLOWED], attacked[:FOLLOWED], epsilon)
    yield from exactness(model, images[:DIFFERENCED], labels[:DIFFERENCED])


def elsewhere(model: ODENet, images: Tensor, labels: Tensor, epsilons: Sequence[float] = LARGER) -> Found:
    """`by_solver` of the program at the table's end times, and at its own at other tolerances.

    Settings: t1, tolerance (absolute and relative), epsilon and solver. The flow and RK4 are solved to that
    end time as well, with as many steps.
    """
    own, tolerance = model.block.t1, model.block.rtol
    places = [(own, tolerance), *((t1, tolerance) for t1 in TABLE_T1 if t1 != own),
              *((own, other) for other in TOLERANCES)]
    for t1, tol in places:
        there = copy.deepcopy(model)
        there.block.t1, there.block.rtol, there.block.atol = t1, tol, tol
        clean, told = answers(there, images), dict(t1=t1, tolerance=tol)
        yield "program_right", clean.argmax(1) == labels, told
        for epsilon in epsilons:
            attacked = moved(there, images, labels, margin_attack(epsilon))
            for name, values, settings in by_solver(there, clean, labels, attacked, epsilon, ("flow", "rk4")):
                yield f"{name}_there", values, {**told, **settings}
