"""Draw what each distillation method looks at, over a rendered picture: docs/methods/*.png.

    python docs/draw_methods.py

The demo's teacher and student see the same picture, to which the adapters are fitted, as training fits them to the
first batch.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import matplotlib  # noqa: E402

matplotlib.use('Agg')
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from matplotlib.patches import Rectangle  # noqa: E402
from matplotlib.ticker import MaxNLocator  # noqa: E402
from torch import Tensor  # noqa: E402

from models.checkpoint import load_model  # noqa: E402
from utils.boxes import xywh_to_xyxy  # noqa: E402
from utils.distillation import find_method  # noqa: E402
from utils.distillation.base import Signals, overlapped_cells, scores  # noqa: E402
from utils.loading.batches import collate  # noqa: E402
from utils.loading.config import load_data_config  # noqa: E402
from utils.loading.dataset import TextDataset  # noqa: E402
from utils.runtime.cli import run_command  # noqa: E402

LAYERS = (4, 6, 9, 17, 20, 23)
NECK = {17: 8, 20: 16, 23: 32}  # layer: pixels a cell
WIDTH, HEIGHT = 640, 384


class Scene:
    """One picture as both models see it."""

    def __init__(self, folder: Path):
        command = [sys.executable, ROOT / 'data/synthtext.py', '--out', folder, '--size', f'{WIDTH}x{HEIGHT}']
        subprocess.run([*map(str, command), '--train', '10', '--test', '2', '--seed', '11'], check=True, cwd=ROOT)
        yaml = folder / 'data.yaml'
        yaml.write_text(f'path: {folder}\ntrain: train.txt\nval: val.txt\nnames: [text]\n')
        dataset = TextDataset(load_data_config(yaml), 'train', WIDTH, rect=True, batch_size=1)
        index = int(np.argmax([len(rows) for rows in dataset.labels]))
        batch = collate([dataset[0, index]])
        self.image = batch.images[0].permute(1, 2, 0).numpy()
        self.student = load_model(ROOT / 'teacher/demo/yolov5n.pt', fuse=False)
        self.teacher = load_model(ROOT / 'teacher/demo/yolov5s.pt', fuse=False)
        images = batch.images.float() / 255
        with torch.no_grad():
            (_, maps), features = self.student(images, LAYERS)
            (_, teacher_maps), teacher_features = self.teacher(images, LAYERS)
        self.signals = Signals(
            tuple(images.shape[2:]), batch.targets, batch.ignore, maps, teacher_maps, features, teacher_features,
            self.student.head,
        )  # fmt: skip

    def method(self, name: str, **options):
        """A method with adapters fitted to the picture."""
        kind = find_method(name)
        method = kind(self.student, self.teacher, kind.LAYERS, torch.Generator().manual_seed(0), options)
        method.fit_adapters(self.signals)
        return method.train()


def show(axes, scene: Scene, title: str, field: Tensor | None = None, boxes: Tensor | None = None) -> None:
    """The picture, under a field of cells (h, w) in colours with their scale, or boxes xyxy (0..1)."""
    height, width = scene.image.shape[:2]
    axes.imshow(scene.image if field is None else scene.image.mean(2), cmap='gray', extent=(0, width, height, 0))
    if field is not None:
        values = field.detach().float().numpy()
        highest = max(float(np.quantile(values, 0.995)), 1e-12)
        colours = axes.imshow(values, cmap='inferno', alpha=0.65, extent=(0, width, height, 0),
                              interpolation='nearest', vmin=min(float(values.min()), 0), vmax=highest)  # fmt: skip
        bar = axes.figure.colorbar(colours, ax=axes, fraction=0.028, pad=0.015,
                                   extend='max' if values.max() > highest * 1.001 else 'neither')  # fmt: skip
        bar.solids.set_alpha(1)
        bar.ax.tick_params(labelsize=7)
        bar.locator = MaxNLocator(4)
        bar.formatter.set_powerlimits((-2, 3))
        bar.formatter.set_useMathText(True)
        bar.ax.yaxis.get_offset_text().set_fontsize(7)
    for x1, y1, x2, y2 in [] if boxes is None else (boxes * torch.tensor([width, height] * 2)).tolist():
        axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor='#00e5ff', linewidth=1.5))
    axes.set_title(title, fontsize=9)
    axes.set_axis_off()


@torch.no_grad()
def draw_hint(scene, axes):
    method = scene.method('hint')
    for axis, layer in zip(axes, method.layers, strict=True):
        show(axis, scene, f'E, layer {layer}', method.difference(scene.signals, layer)[0])


@torch.no_grad()
def draw_mask(scene, axes):
    for axis, (layer, stride) in zip(axes, NECK.items(), strict=True):
        size = (HEIGHT // stride, WIDTH // stride)
        inside = overlapped_cells(scene.signals.targets, 1, size)[0].float()
        ignored = overlapped_cells(scene.signals.ignore, 1, size)[0]
        show(axis, scene, f"M, layer {layer} (mid-tone: don't care)", inside.masked_fill(ignored, 0.5))


@torch.no_grad()
def draw_pfi(scene, axes):
    gap = (scores(scene.signals.student_maps[0]) - scores(scene.signals.teacher_maps[0])).square().mean((1, 4))[0]
    difference = scene.method('pfi').difference(scene.signals, 17)[0]
    show(axes[0], scene, 'P, layer 17: where the heads disagree', gap)
    show(axes[1], scene, 'E, layer 17', difference)
    show(axes[2], scene, 'P E', gap * difference)


@torch.no_grad()
def draw_defeat(scene, axes):
    from utils.distillation.methods.defeat import assigned_cells

    positive = assigned_cells(scene.signals, scene.signals.targets)[0]
    start = 0
    for axis, (layer, raw) in zip(axes, zip(NECK, scene.signals.student_maps, strict=True), strict=True):
        _, anchors, h, w, _ = raw.shape
        cells = positive[start : start + anchors * h * w].view(anchors, h, w).sum(0).float()
        start += anchors * h * w
        show(axis, scene, f'positive anchors a cell, layer {layer}', cells)


@torch.no_grad()
def draw_gid(scene, axes):
    from utils.distillation.methods.gid import general_instances

    boxes, valid = general_instances(scene.signals, 10, 0.3)
    gap = (scores(scene.signals.student_maps[0]) - scores(scene.signals.teacher_maps[0])).abs().amax((1, 4))[0]
    show(axes[0], scene, '|p_t - p_s|, stride 8', gap)
    show(axes[1], scene, 'the ten instances', boxes=boxes[0][valid[0]])
    show(axes[2], scene, 'the labels', boxes=xywh_to_xyxy(scene.signals.targets[:, 2:]))


@torch.no_grad()
def draw_rank(scene, axes):
    from utils.distillation.methods.rank import answers, log_softmax

    student, teacher, row = answers(scene.signals)
    objects = len(scene.signals.targets)
    student, teacher = (log_softmax(score, row, objects).exp() for score in (student, teacher))
    largest = int(scene.signals.targets[:, 4].argmax())
    show(axes[0], scene, 'one object', boxes=xywh_to_xyxy(scene.signals.targets[largest : largest + 1, 2:]))
    for axis, name, values in ((axes[1], 'teacher', teacher), (axes[2], 'student', student)):
        axis.bar(range(int((row == largest).sum())), values[row == largest], color='#c2410c')
        axis.set_title(f"{name}: softmax over the object's anchors", fontsize=9)
        axis.set_ylim(0, float(torch.stack((student[row == largest], teacher[row == largest])).max()) * 1.1)
        axis.tick_params(labelsize=7)


@torch.no_grad()
def draw_cwd(scene, axes):
    _, teacher = scene.method('cwd').features(scene.signals, 17)
    attention = teacher[0].flatten(1).softmax(1).view(teacher.shape[1:])
    for axis, channel in zip(axes, attention.amax((1, 2)).topk(3).indices.tolist(), strict=True):
        show(axis, scene, f'phi of channel {channel} (teacher, layer 17)', attention[channel].sqrt())


@torch.no_grad()
def draw_pkd(scene, axes):
    from utils.distillation.methods.pkd import standardised

    student, teacher = map(standardised, scene.method('pkd').features(scene.signals, 17))
    channel = int(teacher[0].amax((1, 2)).argmax())
    show(axes[0], scene, f'teacher, channel {channel}, standardised', teacher[0, channel])
    show(axes[1], scene, 'student, adapted, standardised', student[0, channel])
    show(axes[2], scene, 'half the squared difference, all channels', (student - teacher).square().mean(1)[0] / 2)


@torch.no_grad()
def draw_mgd(scene, axes):
    method = scene.method('mgd')
    random = torch.Generator().manual_seed(int(method.seed))
    for axis, (layer, stride) in zip(axes, NECK.items(), strict=True):
        kept = torch.rand(HEIGHT // stride, WIDTH // stride, generator=random) >= method.options['ratio']
        show(axis, scene, f'the cells that are kept, layer {layer}', kept.float())


@torch.no_grad()
def draw_fgd(scene, axes):
    from utils.distillation.methods.fgd import scale_masks

    method = scene.method('fgd')
    adapted, teacher = method.features(scene.signals, 17)
    (attention, _), (own, _) = method._attention(teacher), method._attention(adapted)
    objects, _ = scale_masks(scene.signals.targets, scene.signals.ignore, attention.shape)
    show(axes[0], scene, "A^S, teacher's, layer 17", attention[0])
    show(axes[1], scene, "A^S, the adapted student's", own[0])
    show(axes[2], scene, 'S on the foreground', objects[0])


@torch.no_grad()
def draw_logit(scene, axes):
    for axis, (layer, raw) in zip(axes, zip(NECK, scene.signals.teacher_maps, strict=True), strict=True):
        show(axis, scene, f'o_T, best anchor, stride {NECK[layer]}', raw[..., 4].sigmoid().amax(1)[0])


@torch.no_grad()
def draw_score_l2(scene, axes):
    weight = scores(scene.signals.teacher_maps[0]).amax((1, 4))[0]
    difference = scene.method('score_l2').difference(scene.signals, 17)[0]
    show(axes[0], scene, 'W, layer 17', weight)
    show(axes[1], scene, 'E, layer 17', difference)
    show(axes[2], scene, 'W E', weight * difference)


DRAWINGS = {name.removeprefix('draw_'): function for name, function in list(globals().items()) if name[:5] == 'draw_'}


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    out = ROOT / 'docs/methods'
    out.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        scene = Scene(Path(folder))
    for name, draw in DRAWINGS.items():
        figure, axes = plt.subplots(1, 3, figsize=(12, 2.6), dpi=80, layout='constrained')
        draw(scene, axes)
        figure.savefig(out / f'{name}.png')
        plt.close(figure)
        print(out / f'{name}.png')


if __name__ == '__main__':
    run_command(main)
