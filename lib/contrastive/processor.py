"""What processors need to be fast, away from what is computed: memory that is kept, convolutions that save work."""

import ctypes
import mmap
import sys
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@cache
def keep_freed_memory() -> None:
    """Have glibc keep the large blocks that each training step frees and asks for again, in huge pages.

    By default it hands them back to the kernel, which zeroes every page anew, in each step. Does nothing where there
    is no glibc.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is None or not hasattr(libc, "mallopt"):
        return
    libc.mallopt(-4, 0)  # M_MMAP_MAX: no block by mmap
    libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: keep what is free at the top of the heap
    # A block that is asked for and freed unused costs no memory, and leaves its addresses marked for huge pages.
    size, huge = 2**30, 2**21
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    if block := libc.malloc(size):
        libc.madvise(-(-block // huge) * huge, size - huge, mmap.MADV_HUGEPAGE)
        libc.free(block)


def on_gpu(x: Tensor) -> bool:
    """Whether a tensor lies on a device that works while Python goes on: what is computed should not depend on what
    lies there, which would have to be waited for, and is done in larger pieces than suit a processor's cache."""
    return x.device.type != "cpu"


def cpu_flags() -> set[str]:
    """The processor's feature flags as Linux tells them; none elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    return set(next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), ()))


class PooledConv(nn.Conv2d):
    """A 3x3 convolution that 2x2 pooling follows: of an odd size, the last row or column, which pooling would drop,
    is not computed. On 7x7 maps that saves a quarter of the work."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """N x in x H x W -> N x out x H x W, or H - 1 and W - 1 where these are odd."""
        odd_height, odd_width = (size % 2 for size in x.shape[-2:])
        if not odd_height and not odd_width:
            return super().forward(x)
        return F.conv2d(F.pad(x, (1, 1 - odd_width, 1, 1 - odd_height)), self.weight)


def linear_scores(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x @ weight.T + bias for float32 N x D features and classes x D weights.

    That product is most of what a probe costs. With so few classes oneDNN computes it faster as a 1x1 convolution of an
    image of 64 pixels a row than PyTorch does as it is written; on few images neither takes long.
    """
    by_convolution = x.device.type == "cpu" and torch.backends.mkldnn.is_available() and len(x) >= 1024
    rows = len(x) // 64 * 64 if by_convolution else 0
    if rows == 0:
        return F.linear(x, weight, bias)
    pixels = x[:rows].view(1, -1, 64, x.shape[1]).permute(0, 3, 1, 2)
    scores = F.conv2d(pixels, weight[:, :, None, None], bias)[0].flatten(1).T
    return torch.cat([scores, F.linear(x[rows:], weight, bias)])
