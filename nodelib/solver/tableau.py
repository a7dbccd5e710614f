"""Explicit Runge-Kutta methods as tables of coefficients.

One step of size h from y_n is

    Y_i = y_n + h sum_{j<i} a_ij k_j,   k_i = f(t_n + c_i h, Y_i),   y_{n+1} = y_n + h sum_i b_i k_i.

Dormand and Prince (1980) chose a method of order 5 whose last stage is evaluated at y_{n+1} itself
("first same as last"): its derivative opens the next step and, with the weights `error`, estimates
the local error through an embedded solution of order 4.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Tableau:
    """Coefficients of an explicit Runge-Kutta method with s stages.

    a: s rows, row i with i entries; b: s weights; c: s nodes in [0, 1]; order: of the solution;
    error: s weights of the error estimate, empty for methods without one;
    middle: s weights of the state at the middle of the step, for dense output (Shampine, 1986);
    first_same_as_last: the last stage is f(t_{n+1}, y_{n+1}).
    """

    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    c: tuple[float, ...]
    order: int
    error: tuple[float, ...] = ()
    middle: tuple[float, ...] = ()
    first_same_as_last: bool = False

    @property
    def stages(self) -> int:
        return len(self.b)

    def dense(self, x: float) -> tuple[float, ...]:
        """Weights w with y(t_n + x h) = y_n + h sum_i w_i k_i, for x in [0, 1].

        The polynomial of degree 4 that torchdiffeq uses: it meets both end states, both end
        derivatives and the state at the middle of the step. At x = 1 the weights are b exactly.
        """
        if x == 1.0:
            return self.b
        end = x * x * (-5 + x * (14 - 8 * x))
        middle = 16 * x * x * (1 + x * (x - 2))
        weights = [end * b + middle * m for b, m in zip(self.b, self.middle)]
        weights[0] += x * (1 + x * (-4 + x * (5 - 2 * x)))
        weights[-1] += x * x * (1 + x * (2 * x - 3))
        return tuple(weights)


DOPRI5 = Tableau(
    a=(
        (),
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    ),
    b=(35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0.0),
    c=(0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0),
    order=5,
    # b minus the weights of the embedded solution; Shampine's variant, as in torchdiffeq
    error=(
        35 / 384 - 1951 / 21600,
        0.0,
        500 / 1113 - 22642 / 50085,
        125 / 192 - 451 / 720,
        -2187 / 6784 + 12231 / 42400,
        11 / 84 - 649 / 6300,
        -1 / 60,
    ),
    middle=(
        6025192743 / 30085553152 / 2,
        0.0,
        51252292925 / 65400821598 / 2,
        -2691868925 / 45128329728 / 2,
        187940372067 / 1594534317056 / 2,
        -1776094331 / 19743644256 / 2,
        11237099 / 235043384 / 2,
    ),
    first_same_as_last=True,
)

EULER = Tableau(a=((),), b=(1.0,), c=(0.0,), order=1)

RK4 = Tableau(
    a=((), (1 / 2,), (0.0, 1 / 2), (0.0, 0.0, 1.0)),
    b=(1 / 6, 1 / 3, 1 / 3, 1 / 6),
    c=(0.0, 1 / 2, 1 / 2, 1.0),
    order=4,
)
