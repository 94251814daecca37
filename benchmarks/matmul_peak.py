"""What share of the device's measured matrix product a guided step reaches: ResNet-50, 512 px, bfloat16.

    python -m benchmarks.matmul_peak [--device cuda] [--toy]

The peak is the best rate of square bfloat16 products on the same device in the same minute. The step is the training
loop's own (`benchmarks/step.py`), as it is, compiled, and compiled with CUDA graphs; its floating-point operations are
counted by torch on the network's forward and backward pass. Goal: 0.4 on a GPU.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.step import Settings, guided_step, make_batch, make_network
from sightline.structures.evidence import Batch
from sightline.structures.evidence import to_channels_last as last

GOAL = 0.4


def seconds_of(call: Callable[[], object], device: str, times: int) -> float:
    """The best of several calls, after two that are not counted."""
    found = []
    for _ in range(times + 2):
        _wait(device)
        begun = time.perf_counter()
        call()
        _wait(device)
        found.append(time.perf_counter() - begun)
    return min(found[2:])


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def matmul_rate(device: str, sides: tuple[int, ...], times: int = 10) -> float:
    """Floating-point operations a second of the best square product."""
    best = 0.0
    for side in sides:
        a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
        best = max(best, 2.0 * side**3 / seconds_of(lambda a=a, b=b: a @ b, device, times))
    return best


def step_operations(backbone: str, batch: Batch) -> float:
    """Floating-point operations of one forward and backward pass."""
    network = last(make_network(backbone, guided=True).to(batch.images.device)).train()
    with FlopCounterMode(display=False) as counter:
        network(last(batch.images)).logits.sum().backward()
    return float(counter.get_total_flops())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--toy", action="store_true")
    parser.add_argument("--batch", type=int, default=64)
    asked = parser.parse_args()
    toy, device = asked.toy, asked.device
    chosen = Settings(size=64 if toy else 512, batch=4 if toy else asked.batch, device=device)
    backbone = "test_resnet" if toy else "resnet50"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    peak = matmul_rate(device, (256,) if toy else (4096, 8192, 16384), 2 if toy else 10)
    batch = make_batch(chosen)
    operations = step_operations(backbone, batch)
    print(f"best bfloat16 product: {peak / 1e12:.4g} TFLOP/s; a step: {operations / 1e12:.4g} TFLOP\n")
    print(f"| guided {backbone}, {chosen.batch} pictures of {chosen.size} px, bf16 | step, ms | pictures/s | of peak |")
    print("|---|---|---|---|")
    modes = {"as it is": None, "compiled": "default", "compiled, CUDA graphs": "max-autotune-no-cudagraphs"}
    if device == "cuda":
        modes["compiled, CUDA graphs"] = "reduce-overhead"
    else:
        del modes["compiled, CUDA graphs"]
    for name, mode in modes.items():
        network = make_network(backbone, guided=True).to(device)
        step = guided_step(network, batch, chosen, "bf16-mixed")
        if mode is not None:
            # in place: the loop's own step calls the network by its name
            network.compile(mode=mode)
        try:
            seconds = seconds_of(step, device, 2 if toy else 20)
        except Exception as error:  # a compiler that is not there is a row of the table, not the end of it
            print(f"| {name} | {type(error).__name__}: {str(error).splitlines()[0][:80]} | – | – |", flush=True)
            continue
        share = operations / seconds / peak
        print(f"| {name} | {seconds * 1e3:.1f} | {chosen.batch / seconds:.0f} | {share:.2f} |", flush=True)
    if not toy:
        print(f"\ngoal: {GOAL} of the measured product, on a GPU")


if __name__ == "__main__":
    main()
