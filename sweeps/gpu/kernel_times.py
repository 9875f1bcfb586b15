"""Print where the GPU's time goes in a fused encoder: python kernel_times.py BACKBONE RESOLUTION...

One table per resolution, in bfloat16: the kernels by their share of the GPU's time in one forward pass, as
the mean of several passes under torch.profiler.
"""

import sys
from collections import defaultdict

import torch
from torch.profiler import DeviceType, ProfilerActivity, profile

from vlmprof.backbones import create_backbone

PASSES = 5
LONGEST_NAME = 90

backbone, *sides = sys.argv[1:]
for side in map(int, sides):
    size = (side, side)
    model = create_backbone(
        backbone, levels="all", image_size=size, device="cuda", dtype=torch.bfloat16, kernels="triton"
    )
    images = torch.randn(1, 3, *size, device="cuda", dtype=torch.bfloat16)
    with torch.inference_mode():
        for _ in range(3):
            model(images)
        torch.cuda.synchronize()
        with profile(activities=[ProfilerActivity.CUDA]) as profiler:
            for _ in range(PASSES):
                model(images)
            torch.cuda.synchronize()
    time_us: dict[str, float] = defaultdict(float)
    calls: dict[str, int] = defaultdict(int)
    for event in profiler.events():
        if event.device_type == DeviceType.CUDA:
            time_us[event.name] += event.device_time / PASSES
            calls[event.name] += 1
    total_us = sum(time_us.values())
    print(f"{backbone} at {side}²: {total_us / 1e3:.3f} ms in {sum(calls.values()) // PASSES} kernels")
    for name, spent_us in sorted(time_us.items(), key=lambda item: -item[1]):
        share, launches = spent_us / total_us, calls[name] // PASSES
        print(f"  {spent_us:10.1f} us {share:6.1%} {launches:4d}x  {name[:LONGEST_NAME]}")
    del model, images
