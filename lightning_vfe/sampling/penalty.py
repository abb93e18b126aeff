"""The penalty method: Metropolis decisions that are exact on average where energies are known with noise only."""

from __future__ import annotations

from torch import Tensor


def penalty(noise: Tensor, freedom: Tensor) -> Tensor:
    r"""What is taken off -beta delta, so that noisy decisions min(1, exp(-beta delta - u)) keep detailed balance,

        u = chi^2/2 + chi^4 / (4 (nu + 2)) + chi^6 / (3 (nu + 2)(nu + 4)).

    delta is normal around E(y) - E(x), and chi^2 = beta^2 s^2 the square of its standard deviation in units of kT. The
    first term is exact where s is known. The others correct for an s that is estimated with nu degrees of freedom; the
    series holds while chi^2 / nu is below about 1/4.

    Args:
        noise: chi^2.  # (...)
        freedom: nu, infinite where s is known.  # (...)

    Returns:
        u.  # (...)

    Source: Ceperley and Dewing, J. Chem. Phys. 110, 9812 (1999), with nu = n - 1 for n samples.
    """
    second = noise.square() / (4.0 * (freedom + 2.0))
    third = noise**3 / (3.0 * (freedom + 2.0) * (freedom + 4.0))
    return 0.5 * noise + second + third
