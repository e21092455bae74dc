"""The U-Net as one writes it by hand in PyTorch: what `tools/benchmark.py engine` compares with.

And what only PyTorch can say of a GPU: how fast it multiplies, the memory in use, its versions.
"""

from __future__ import annotations

from typing import Any, Callable

import torch
import torch.nn.functional as F
from torch import nn


class PlainUNet(nn.Module):
    """The network of Ronneberger et al. 2015, Fig. 1, channels last.

    The first level has `width` maps; 64 is the paper's.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        maps = [width * 2**level for level in range(5)]
        self.down = nn.ModuleList(
            nn.ModuleList([nn.Conv2d(before, after, 3), nn.Conv2d(after, after, 3)])
            for before, after in zip([1, *maps], maps)
        )
        self.across = nn.ModuleList(
            nn.ConvTranspose2d(2 * after, after, 2, 2) for after in maps[:-1]
        )
        self.up = nn.ModuleList(
            nn.ModuleList([nn.Conv2d(2 * after, after, 3), nn.Conv2d(after, after, 3)])
            for after in maps[:-1]
        )
        self.score = nn.Conv2d(width, 2, 1)
        self.to(memory_format=torch.channels_last)

    @classmethod
    def of(cls, net: Any) -> PlainUNet:
        """Return the module with the weights of a caffe.Net of this network."""
        given = [layer.blobs for layer in net.layers if len(layer.blobs)]
        module = cls(given[0][0].shape[0])
        convolutions = [one for pair in module.down for one in pair]
        for across, pair in zip(reversed(module.across), reversed(module.up)):
            convolutions += [across, *pair]
        with torch.no_grad():
            for convolution, (weights, bias) in zip([*convolutions, module.score], given):
                convolution.weight.copy_(torch.from_numpy(weights.data))
                convolution.bias.copy_(torch.from_numpy(bias.data.ravel()))
        return module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the scores: (n, 2, height - 184, width - 184) of (n, 1, height, width)."""
        skips = []
        for level, block in enumerate(self.down):
            if level:
                x = F.max_pool2d(x, 2)
            for convolution in block:
                x = F.relu(convolution(x))
            if level >= 3:
                x = F.dropout(x, 0.5, self.training)
            skips.append(x)
        for level in reversed(range(4)):
            x = self.across[level](x)
            skip = skips[level]
            edge = (skip.shape[2] - x.shape[2]) // 2
            skip = skip[:, :, edge : edge + x.shape[2], edge : edge + x.shape[3]]
            x = torch.cat([x, skip], 1)
            for convolution in self.up[level]:
                x = F.relu(convolution(x))
        return self.score(x)


def wait() -> None:
    """Wait until the GPU of this process has done everything that it was given."""
    torch.cuda.synchronize()


def gpu_gib(anew: bool = False) -> tuple[float, float]:
    """Return the memory of this process's tensors on the GPU in GiB, now and at most.

    Anew: from now on without what has been.
    """
    torch.cuda.init()
    if anew:
        torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated() / 2**30, torch.cuda.max_memory_allocated() / 2**30


def versions() -> dict[str, str]:
    """Return what computes: PyTorch, and CUDA, cuDNN and the GPU's name where there is one."""
    found = {"torch": torch.__version__}
    if torch.cuda.is_available():
        found["CUDA"] = str(torch.version.cuda)
        found["cuDNN"] = str(torch.backends.cudnn.version())
        found["GPU"] = torch.cuda.get_device_name()
    return found


def compute_in(precision: str, device: str) -> tuple[torch.device, torch.autocast]:
    """Set float32's precision for this process; return the device and the bfloat16 context."""
    where = torch.device("cpu" if device == "cpu" else f"cuda:{device}")
    if where.type == "cuda":
        torch.cuda.set_device(where)
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    return where, torch.autocast(where.type, torch.bfloat16, enabled=precision == "bf16")


def matrix_product(size: int, device: str = "cpu", precision: str = "fp32") -> Callable[[], None]:
    """Return what multiplies two matrices of size x size: the device's peak in a precision."""
    where, _ = compute_in(precision, device)
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    left, right = (torch.rand(size, size, device=where).to(kind) for _ in range(2))
    result = torch.empty_like(left)

    def multiply() -> None:
        torch.mm(left, right, out=result)
        if where.type == "cuda":
            wait()

    return multiply


def plain_step(
    width: int, tile: int, train: bool, device: str = "cpu", precision: str = "fp32"
) -> Callable[[], None]:
    """Return what runs one training step (weighted soft-max loss, SGD), or one forward pass.

    The device is cpu or the number of a GPU, where a step is over when it returns; the precision
    fp32, tf32 or bf16 (by autocast: parameters stay float32).
    """
    where, reduced = compute_in(precision, device)
    net = PlainUNet(width).to(where)
    data = torch.rand(1, 1, tile, tile).contiguous(memory_format=torch.channels_last).to(where)
    on_gpu = where.type == "cuda"

    if not train:
        net.eval()

        def forward() -> None:
            torch.backends.cudnn.benchmark = True
            with torch.inference_mode(), reduced:
                F.softmax(net(data), 1)
            if on_gpu:
                wait()

        return forward
    labels = torch.zeros(1, tile - 184, tile - 184, dtype=torch.long, device=where)
    weights = torch.rand(1, tile - 184, tile - 184, device=where)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-6, momentum=0.99, weight_decay=0.0005)

    def step() -> None:
        # Another engine in this process may have changed it.
        torch.backends.cudnn.benchmark = True
        optimizer.zero_grad()
        with reduced:
            scores = net(data)
        losses = F.cross_entropy(scores.float(), labels, reduction="none")
        (losses * weights).mean().backward()
        optimizer.step()
        if on_gpu:
            wait()

    return step
