"""COCO's JSON, and COCO-Text's."""

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from data.formats.common import BadEntry
from data.formats.image_files import ImageFiles
from data.formats.pages import (
    MAX_JSON_BYTES,
    Page,
    Region,
    expect,
    load_json,
    to_box,
    to_number,
    to_polygon,
    to_size,
    turned_by,
    word_of,
    word_region,
)
from models.errors import UserError
from utils.runtime.words import counted

TEXTOCR_ILLEGIBLE = '.'  # its word for what nobody could read


def read_coco_text(file: Path, files: ImageFiles) -> Iterator[Page]:
    """COCO_Text.json, versions 1 and 2. Sets of which no annotation was published are left out."""
    try:
        content = expect(load_json(file, MAX_JSON_BYTES), dict, 'the content')
        images, annotations = expect(content.get('imgs'), dict, '"imgs"'), expect(content.get('anns'), dict, '"anns"')
    except BadEntry as error:
        raise UserError(f'{file} is no COCO-Text file: {error}') from None
    of_image = _by_image(annotations.values())
    sets = {str(image.get('set')) for key, image in images.items() if isinstance(image, dict) and key in of_image}
    for key, image in images.items():
        page = Page(f'{file.name} image {key[:40]}')
        with page.problems():
            page.split = str(expect(image, dict, 'the image').get('set'))
            if page.split not in sets:
                page.left_out = 'picture of sets without annotations'
                with contextlib.suppress(BadEntry):
                    page.image = files.find(str(image.get('file_name')))
                yield page
                continue
            if page.split not in ('train', 'val', 'test'):
                raise BadEntry(f'"set" is {page.split[:30]!a}, expected train, val or test')
            page.split = page.split if len(sets) > 1 else ''  # TextOCR has a file for each set
            page.image = files.find(expect(image.get('file_name'), str, '"file_name"'))
            page.size = to_size(image.get('width'), image.get('height'))
            page.add_rows(of_image[key], _parse_coco_text)
        yield page
    yield from _strays(file, of_image, images)


def _parse_coco_text(annotation) -> Region:
    """A polygon ('polygon' in version 1, 'mask' in version 2, 'points' in TextOCR) or else the box."""
    annotation = expect(annotation, dict, 'the annotation')
    points = annotation.get('points')
    corners = annotation.get('mask') or annotation.get('polygon') or points
    whole = isinstance(corners, list) and len(corners) >= 6
    polygon = to_polygon(corners) if whole else _box(annotation)
    word = str(annotation.get('utf8_string') or '')
    illegible = annotation.get('legibility') == 'illegible' or (bool(points) and word == TEXTOCR_ILLEGIBLE)
    return word_region(polygon, word, illegible, is_box=not whole)


def read_coco(file: Path, files: ImageFiles) -> Iterator[Page]:
    """COCO's JSON of objects: "images", "annotations" and "categories". An image without annotations is one without
    text."""
    try:
        content = expect(load_json(file, MAX_JSON_BYTES), dict, 'the content')
        images = expect(content.get('images'), list, '"images"')
        annotations = expect(content.get('annotations'), list, '"annotations"')
    except BadEntry as error:
        raise UserError(f'{file} is no COCO file of objects: {error}') from None
    categories = content.get('categories')
    names = {
        str(category.get('id')): str(category.get('name'))
        for category in (categories if isinstance(categories, list) else [])
        if isinstance(category, dict)
    }
    of_image = _by_image(annotations)
    for number, image in enumerate(images, 1):
        page = Page(f'{file.name} image {number}')
        with page.problems():
            key = str(expect(image, dict, 'the image').get('id'))
            page.name = f'{file.name} image {key[:40]}'
            page.image = files.find(expect(image.get('file_name'), str, '"file_name"'))
            if image.get('width') and image.get('height'):
                page.size = to_size(image['width'], image['height'])
            page.add_rows(of_image.get(key, []), lambda annotation: _parse_coco(annotation, names))
        yield page
    yield from _strays(file, of_image, {str(image.get('id')) for image in images if isinstance(image, dict)})


def _by_image(annotations: Iterable) -> dict[str, list]:
    """Annotations by the image that they name; what is none, under ''."""
    found = defaultdict(list)
    for annotation in annotations:
        found[str(annotation.get('image_id')) if isinstance(annotation, dict) else ''].append(annotation)
    return found


def _strays(file: Path, of_image: dict[str, list], images: Iterable[str]) -> Iterator[Page]:
    """A page with a problem for every image that annotations name and the file does not."""
    for key in of_image.keys() - set(images):
        count = counted(len(of_image[key]), 'annotation')
        yield Page(f'{file.name} image {key[:40]!a}', problem=f'{count}, but the file lists no such image')


def _parse_coco(annotation, names: dict[str, str]) -> Region:
    """The polygon where there is one of one part, else the box; a crowd, and what is to be ignored, is don't-care."""
    annotation = expect(annotation, dict, 'the annotation')
    parts = annotation.get('segmentation')
    whole = isinstance(parts, list) and len(parts) == 1 and isinstance(parts[0], list) and len(parts[0]) >= 6
    attributes = annotation.get('attributes')
    attributes = attributes if isinstance(attributes, dict) else {}
    polygon, is_box = (to_polygon(parts[0]), False) if whole else turned_by(_box(annotation), attributes)
    category = str(annotation.get('category_id'))
    labels = (names.get(category, category),)
    dont_care = bool(annotation.get('iscrowd')) or annotation.get('ignore') == 1
    return word_region(polygon, word_of(annotation, attributes), dont_care, labels, is_box=is_box)


def _box(annotation: dict) -> np.ndarray:
    box = expect(annotation.get('bbox'), list, '"bbox"')
    if len(box) != 4:
        raise BadEntry(f'"bbox" has {len(box)} numbers')
    x, y, w, h = map(to_number, box)
    if min(w, h) < 0:
        raise BadEntry(f'"bbox" is {w:g} wide and {h:g} high')
    return to_box(x, y, x + w, y + h)
