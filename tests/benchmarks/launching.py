"""Measure the host time of launching an encoder, without that of the driver.

python tests/simulated_gpu/simulate.py python tests/benchmarks/launching.py [BACKBONE…]
"""

from __future__ import annotations

import statistics
import sys
import time

import torch
from torch.profiler import ProfilerActivity, profile

from vlmprof.backbones import create_backbone

CALLS = 60


def main() -> None:
    """Print launches, host latency and host latency per launch of each backbone at 224², in bfloat16."""
    for name in sys.argv[1:] or ("vmamba-t", "vit-s"):
        encoder = create_backbone(name, image_size=(224, 224), device="cuda", dtype=torch.bfloat16)
        images = torch.zeros(1, 3, 224, 224, device="cuda", dtype=torch.bfloat16)
        host_s = []
        with torch.inference_mode():
            for _ in range(5):
                encoder(images)
            for _ in range(CALLS):
                torch.cuda.synchronize()
                begun_s = time.perf_counter()
                encoder(images)
                host_s.append(time.perf_counter() - begun_s)
            torch.cuda.synchronize()
            with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as records:
                encoder(images)
                torch.cuda.synchronize()
        launches = sum(event.device_type.name == "CUDA" for event in records.events())
        median_us = 1e6 * statistics.median(host_s)
        print(f"{name}: {launches} launches, {median_us / 1e3:.2f} ms, {median_us / launches:.1f} µs each")


if __name__ == "__main__":
    main()
