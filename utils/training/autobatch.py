"""How many pictures fit into a step."""

import torch

from utils.loading.batches import Batch
from utils.training.criterion import DetectionCriterion, weighted_sum

CPU_BATCH = 16
FRACTION = 0.8  # of the GPU's memory that training may take
TRIALS = (1, 2, 4, 8, 16)


def fit_batch_size(model, criterion: DetectionCriterion, imgsz: int) -> int:
    """Measure the memory of a training step at a few batch sizes and extrapolate to 80 % of the GPU.

    On a CPU, where memory is rarely what limits, it is 16. What model and criterion hold stays as it was.

    Returns:
        A batch size, 1 .. 256.
    """
    device = next(model.parameters()).device
    if device.type != 'cuda':
        return CPU_BATCH
    states = {part: {key: value.clone() for key, value in part.state_dict().items()} for part in (model, criterion)}
    free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    peaks = {}
    for size in TRIALS:
        torch.cuda.reset_peak_memory_stats(device)
        try:
            _trial_step(model, criterion, size, imgsz)
        except torch.OutOfMemoryError:
            break
        peaks[size] = torch.cuda.max_memory_allocated(device)
    model.zero_grad(set_to_none=True)
    criterion.zero_grad(set_to_none=True)
    for part, state in states.items():
        part.load_state_dict(state)
    torch.cuda.empty_cache()
    if len(peaks) < 2:
        return 1
    (small, low), (large, high) = min(peaks.items()), max(peaks.items())
    each = max((high - low) / (large - small), 1)
    return int(min(max((FRACTION * free - low) / each + small, 1), 256))


def _trial_step(model, criterion: DetectionCriterion, size: int, imgsz: int) -> None:
    device = next(model.parameters()).device
    images = torch.zeros(size, 3, imgsz, imgsz, device=device).contiguous(memory_format=torch.channels_last)
    rows = torch.tensor([[i, 0, 0.5, 0.5, 0.05, 0.05] for i in range(size) for _ in range(20)], device=device)
    edges = torch.zeros(len(rows), 5, device=device)
    edges[:, 4] = 1  # their weight
    maps = torch.zeros_like(images, dtype=torch.uint8)  # for the methods that read some
    batch = Batch(images, rows, rows[:0], [], [], [], [], edges=edges, maps=maps)
    terms = criterion(model.train(), images, batch)
    weighted_sum(terms, criterion.weights(0.0)).backward()
