"""How fast a step could be if nothing but its multiplications took time."""

import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from models.yolo import DetectionModel

SIDES = (1024, 2048, 4096)


def matrix_rate(device: torch.device, dtype: torch.dtype, tries: int = 5) -> float:
    """Operations a second of the device's best square matrix product; a multiplication and an addition are two."""
    best = 0.0
    for side in SIDES if device.type == 'cpu' else (4096, 8192):
        a = torch.rand(side, side, device=device).to(dtype)
        for number in range(tries + 1):
            _wait(device)
            start = time.perf_counter()
            a @ a
            _wait(device)
            if number:
                best = max(best, 2 * side**3 / (time.perf_counter() - start))
    return best


def operations(model: DetectionModel, imgsz: int, backward: bool) -> float:
    """Operations for one picture: forward, and with `backward` the gradients of weights and inputs too."""
    model = model.cpu().float()
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(backward):
        maps, _ = model.raw_maps(torch.zeros(1, 3, imgsz, imgsz))
        if backward:
            sum(raw.sum() for raw in maps).backward()
    return float(counter.get_total_flops())


def _wait(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
