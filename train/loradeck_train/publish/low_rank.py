"""The nearest matrix of low rank (Eckart and Young 1936), by SVD or, for large matrices, its randomised form."""

from dataclasses import dataclass

import torch
from torch import Tensor

_EXACT = 1024
_OVERSAMPLING = 16
_ITERATIONS = 4


@dataclass(frozen=True)
class Truncated:
    """B A near the matrix, energy in squared Frobenius norm: of the matrix, and what is kept of it."""

    a: Tensor
    """[rank, inputs]"""
    b: Tensor
    """[outputs, rank]"""
    energy: float
    kept: float

    @property
    def share(self) -> float:
        """Kept energy by all of it; 1 for a zero matrix."""
        return min(1.0, self.kept / self.energy) if self.energy else 1.0


def truncated(matrix: Tensor, rank: int, seed: int = 0) -> Truncated:
    """The pair of `rank` (at most the matrix's sides, padded to it with zeros), singular values shared by both."""
    u, values, v = singular(matrix, rank, seed)
    root = values.sqrt()
    a, b = (v * root).t(), u * root
    more = rank - a.shape[0]
    if more > 0:
        a, b = torch.cat([a, a.new_zeros(more, a.shape[1])]), torch.cat([b, b.new_zeros(b.shape[0], more)], 1)
    energy = float(matrix.double().square().sum())
    return Truncated(a.contiguous(), b.contiguous(), energy, float(values.double().square().sum()))


def singular(matrix: Tensor, rank: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """The largest `rank` singular triples: U [outputs, rank], values, V [inputs, rank], float32.

    Up to sides of 1,024 exactly, beyond with a random range finder (Halko et al. 2011), 16 columns of oversampling and
    four power iterations.
    """
    matrix = matrix.float()
    rank = min(rank, *matrix.shape)
    if min(matrix.shape) <= _EXACT:
        u, values, vh = torch.linalg.svd(matrix, full_matrices=False)
        return u[:, :rank], values[:rank], vh[:rank].t()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        u, values, v = torch.svd_lowrank(matrix, q=min(rank + _OVERSAMPLING, *matrix.shape), niter=_ITERATIONS)
    return u[:, :rank], values[:rank], v[:, :rank]
