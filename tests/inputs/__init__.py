"""Small inputs as they come out of people's tools and folders; each function writes one kind of them."""

import os
from hashlib import sha256
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

RED = (220, 30, 30)  # of the top left quarter of every image, so that it is seen which way is up


def picture(file: Path, size: tuple[int, int] = (60, 40), **options) -> Path:
    """An image of (width, height) in grey, its top left quarter red; a few pixels tell its path, so that no other image
    is a copy of it. `options` of Pillow's save."""
    file.parent.mkdir(parents=True, exist_ok=True)
    image = pixels(size)
    mark = np.frombuffer(sha256(os.fsencode(file)).digest()[: 3 * min(size[0], 8)], np.uint8).reshape(-1, 3)
    image[-1, -len(mark) :] = mark
    Image.fromarray(image).save(file, **options)
    return file


def pixels(size: tuple[int, int] = (60, 40)) -> np.ndarray:
    """(H, W, 3) uint8 of `picture`."""
    image = np.full((size[1], size[0], 3), 128, np.uint8)
    image[: size[1] // 2, : size[0] // 2] = RED
    return image


def red_quarter(image: np.ndarray) -> str:
    """Where the red quarter of an image is: 'top left', 'bottom right' ..."""
    red = (image[..., 0].astype(int) - image[..., 1]) > 60
    y, x = np.argwhere(red).mean(0) / red.shape
    return f'{"top" if y < 0.5 else "bottom"} {"left" if x < 0.5 else "right"}'


def xmp(orientation: int, form: str) -> bytes:
    """An XMP packet that holds nothing but an orientation, as 'attribute', 'quoted' (with single quotes) or
    'element'."""
    inside = {
        'attribute': f'<rdf:Description tiff:Orientation="{orientation}"/>',
        'quoted': f"<rdf:Description tiff:Orientation='{orientation}'/>",
        'element': f'<rdf:Description><tiff:Orientation>{orientation}</tiff:Orientation></rdf:Description>',
    }[form]
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF>{inside}</rdf:RDF></x:xmpmeta>'.encode()


def few_bits(file: Path, top: int, colour: bool = False) -> Path:
    """A 16-bit image of 64 columns whose values go evenly from 0 to `top`."""
    row = np.linspace(0, top, 64).round().astype(np.uint16)
    values = np.tile(row, (32, 1))
    cv2.imwrite(str(file), np.dstack([values] * 3) if colour else values)
    return file


def data_set(folder: Path, labels: dict[str, str | bytes | None], yaml: str = '') -> Path:
    """A set of images with label files of these contents (None: no file), the same for train and val; its yaml."""
    for name, content in labels.items():
        picture(folder / f'images/train/{name}.png')
        file = folder / f'labels/train/{name}.txt'
        file.parent.mkdir(parents=True, exist_ok=True)
        if content is not None:
            file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return write_yaml(folder, yaml or f'path: {folder}\ntrain: images/train\nval: images/train\nnames: [text]\n')


def write_yaml(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'data.yaml').write_text(text)
    return folder / 'data.yaml'


def roboflow(folder: Path) -> Path:
    """As Roboflow exports 'YOLOv5 PyTorch': no path, '../' before folders that lie beside the yaml."""
    for split, count in (('train', 2), ('valid', 1), ('test', 1)):
        for number in range(count):
            picture(folder / f'{split}/images/a{number}_jpg.rf.0123abcd.jpg')
            file = folder / f'{split}/labels/a{number}_jpg.rf.0123abcd.txt'
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text('0 0.5 0.5 0.2 0.1\n')
    return write_yaml(
        folder,
        "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: 1\nnames: ['text']\n\n"
        'roboflow:\n  workspace: w\n  project: p\n  version: 1\n  license: CC BY 4.0\n  url: https://example.org\n',
    )


def cvat_yolo(folder: Path) -> Path:
    """As CVAT exports 'Ultralytics YOLO Detection 1.0': path '.', rows with data/ before the path."""
    data_set(folder, {'a': '0 0.5 0.5 0.2 0.1\n', 'b': '0 0.5 0.5 0.2 0.1\n'})
    (folder / 'train.txt').write_text('data/images/train/a.png\ndata/images/train/b.png\n')
    return write_yaml(folder, 'names:\n  0: text\npath: .\ntrain: train.txt\nval: train.txt\n')


def with_thumbnail(file: Path, image: Image.Image) -> Path:
    """A TIFF whose first page is a thumbnail of 16 x 8 pixels, and whose second is the image."""
    small = Image.new(image.mode, (16, 8), 200)
    small.save(file, save_all=True, append_images=[image], tiffinfo={254: 1})
    with Image.open(file) as pages:  # Pillow writes the tag to both pages: take it from the second
        pages.seek(1)
        place = pages.tag_v2._offset
    content = bytearray(file.read_bytes())
    spot = content.index((254).to_bytes(2, 'little'), place)
    content[spot + 8] = 0
    file.write_bytes(content)
    return file
