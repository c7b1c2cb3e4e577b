"""Compile the kernels for GPUs that are not there, and print what they take of each one's shared memory, in bytes."""

import json
import sys
import warnings

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from capfilt.med import chunks, kernels
from capfilt.med.sampling import CHUNK

LAUNCHED = {"_add_norm": kernels, "_attend_last": kernels, "_attend_few": kernels, "_survey": chunks, "_gather": chunks}
TYPES = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.int64: "*i64", int: "i32", float: "fp32"}


class Launch:
    """Stands for a kernel, and notes what it is launched with."""

    def __init__(self, kernel: triton.JITFunction) -> None:
        self.kernel = kernel
        self.shared: dict[int, int] = {}

    def __getitem__(self, grid: tuple[int]) -> "Launch":
        return self

    def __call__(self, *args: object, **options: object) -> None:
        signature, known, whole = {}, {}, {}
        for number, (parameter, value) in enumerate(zip(self.kernel.params, args, strict=True)):
            if parameter.is_constexpr or value is None:
                signature[parameter.name], known[parameter.name] = "constexpr", value
                continue
            tensor = isinstance(value, torch.Tensor)
            signature[parameter.name] = TYPES[value.dtype if tensor else type(value)]
            if tensor or (isinstance(value, int) and value % 16 == 0 and not parameter.do_not_specialize):
                whole[number,] = [["tt.divisibility", 16]]
        for capability in map(int, sys.argv[1:]):
            source = ASTSource(self.kernel, signature, known, whole)
            compiled = triton.compile(source, GPUTarget("cuda", capability, 32), options)
            self.shared[capability] = max(self.shared.get(capability, 0), compiled.metadata.shared)


def launch_all() -> None:
    """Launch each kernel for what takes it most, which are the widest heads."""
    half, rows = torch.bfloat16, torch.empty(4, 1024)
    kernels.add_norm(rows, rows.to(half), rows[0], rows[0], 1e-6, torch.empty_like(rows), rows.to(half))
    cache = torch.empty(4, 12, 32, 64, dtype=half)
    kernels.attend_last(torch.empty(4, 3 * 768, dtype=half), cache, cache, 3)
    for heads in (12, 3):
        image = torch.empty(4, 577, heads, 768 // heads, dtype=half).transpose(1, 2)
        kernels.attend_few(torch.empty(4, 64, 768, dtype=half), image, image)
    words, room = torch.zeros(4, 477 * CHUNK, dtype=half), torch.zeros(4, 24, dtype=torch.long)
    chunks.likeliest(words, room[:, :5], 1.1, 102, 50)


if __name__ == "__main__":
    warnings.simplefilter("error")  # Triton tells of defaults that are about to change
    launches = {name: Launch(getattr(module, name)) for name, module in LAUNCHED.items()}
    for name, launch in launches.items():
        setattr(LAUNCHED[name], name, launch)
    launch_all()
    json.dump({name: launch.shared for name, launch in launches.items()}, sys.stdout)
