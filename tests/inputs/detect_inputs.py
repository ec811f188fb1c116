"""A folder of images as people have them, for detect.py: what it holds, and what is right for each file."""

import os
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

# {name in detections.json: (width, height)}; every other file of the folder is left out or cannot be read.
IMAGES = {
    'a.jpg': (60, 40),
    'b.avif': (60, 40),
    'd.gif': (60, 40),
    'd_page2.gif': (60, 40),
    'e.webp': (60, 40),
    'e_page2.webp': (60, 40),
    'e_page3.webp': (60, 40),
    'more/z.png': (50, 70),
    'scan.tif': (60, 40),
    'scan.tif_page2.tif': (80, 30),  # as the next name is taken
    'scan_page2.tif': (20, 20),
    'scan_page3.tif': (40, 90),
    'turned.jpg': (40, 60),
}
LEFT_OUT = {'.heic': 2, '.pdf': 1, 'without a suffix': 1}
UNREADABLE = ('broken.png', 'empty.jpg', 'nowhere.jpg')


def build(folder: Path) -> Path:
    """Write them into folder/in, with a linked folder beside it; returns folder/in."""
    rng = np.random.default_rng(0)

    def noise(width: int, height: int) -> Image.Image:
        return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))

    place, linked = folder / 'in', folder / 'linked'
    for path in (place / '.ipynb_checkpoints', linked):
        path.mkdir(parents=True)
    noise(60, 40).save(place / 'a.jpg')
    noise(60, 40).save(place / 'b.avif')
    noise(60, 40).save(place / 'd.gif', save_all=True, append_images=[noise(60, 40)])
    noise(60, 40).save(place / 'e.webp', save_all=True, append_images=[noise(60, 40), noise(60, 40)])
    noise(60, 40).save(place / 'scan.tif', save_all=True, append_images=[noise(80, 30), noise(40, 90)])
    noise(20, 20).save(place / 'scan_page2.tif')
    exif = Image.Exif()
    exif[0x0112] = 6
    noise(60, 40).save(place / 'turned.jpg', exif=exif)
    noise(50, 70).save(linked / 'z.png')
    os.symlink(linked, place / 'more')
    os.symlink(place, linked / 'round')  # a loop
    noise(60, 40).save(place / '.ipynb_checkpoints' / 'a-checkpoint.jpg')
    for name in ('c.HEIC', 'd.heic', 'f.pdf', 'README', '.hidden.jpg'):
        (place / name).write_bytes(b'....ftypheic')
    (place / 'broken.png').write_bytes((linked / 'z.png').read_bytes()[:200])
    (place / 'empty.jpg').write_bytes(b'')
    os.symlink(place / 'gone.jpg', place / 'nowhere.jpg')
    return place


def build_cut_video(file: Path, frames: int) -> Path:
    """Motion JPEG of 64 x 96 pixels whose second half is missing; its header still names all frames."""
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*'MJPG'), 10, (96, 64))
    rng = np.random.default_rng(0)
    for _ in range(frames):
        writer.write(rng.integers(0, 256, (64, 96, 3), dtype=np.uint8))
    writer.release()
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    return file
