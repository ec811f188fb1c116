"""Formats in XML: Pascal VOC, CVAT."""

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from data.formats.common import BadEntry
from data.formats.image_files import ImageFiles
from data.formats.pages import (
    MAX_JSON_BYTES,
    Page,
    Region,
    annotation_files,
    image_of,
    own_image,
    read_bounded,
    to_box,
    to_number,
    to_polygon,
    to_size,
    turned_box,
    turned_by,
    word_of,
    word_region,
)
from models.errors import UserError
from utils.loading.rows import decode_text

MAX_PAGE_BYTES = 16 << 20  # of a file for one image
SUBSETS = {'train': 'train', 'test': 'test', 'validation': 'val', 'valid': 'val', 'val': 'val'}  # in lower case


def load_xml(file: Path, limit: int) -> ElementTree.Element:
    """The root of an XML file. Raises BadEntry for what is none; definitions of entities, which grow, are refused."""
    content = read_bounded(file, limit)
    text = decode_text(content)
    if '<!DOCTYPE' in text or '<!ENTITY' in text:
        raise BadEntry('it defines a document type, which is not read')
    try:
        # As bytes, so that the declaration says the encoding; what decode_text found out otherwise, as text.
        return ElementTree.fromstring(content if content.isascii() or b'encoding' in content[:100] else text)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise BadEntry(f'no XML ({error})') from None


def read_voc(folder: Path, images: ImageFiles) -> Iterator[Page]:
    """Pascal VOC, a file for each image, as LabelImg and Roboflow write it; roLabelImg's turned boxes too."""
    for file, relative in annotation_files(folder, ('.xml',)):
        page = Page(relative.as_posix(), own_image(relative, images))
        with page.problems():
            root = load_xml(file, MAX_PAGE_BYTES)
            if root.tag != 'annotation':
                raise BadEntry(f'<{root.tag[:30]}>, expected <annotation>')
            page.image = image_of(root.findtext('filename') or None, relative, images, page)
            width, height = root.findtext('size/width'), root.findtext('size/height')
            if width and height and (width, height) != ('0', '0'):  # some tools do not know it
                page.size = to_size(width, height)
            page.add_rows(root.findall('object'), _parse_voc)
        yield page


def _parse_voc(item: ElementTree.Element) -> Region:
    """What is 'difficult' is don't-care: it is not evaluated."""
    label, box, turned, polygon = (
        (item.findtext('name') or '').strip(),
        *map(item.find, ('bndbox', 'robndbox', 'polygon')),
    )
    attributes = {
        (a.findtext('name') or '').casefold(): a.findtext('value') or '' for a in item.iterfind('attributes/attribute')
    }
    is_box = False
    if polygon is not None and len(polygon) >= 6:
        corners = to_polygon(child.text for child in sorted(polygon, key=_corner_order))
    elif turned is not None:
        cx, cy, w, h, angle = (to_number(turned.findtext(name)) for name in ('cx', 'cy', 'w', 'h', 'angle'))
        corners = turned_box(cx, cy, w, h, angle)
    elif box is not None:
        corners, is_box = turned_by(
            to_box(*(box.findtext(name) for name in ('xmin', 'ymin', 'xmax', 'ymax'))), attributes
        )
    else:
        raise BadEntry('neither <bndbox> nor <polygon>')
    difficult = (item.findtext('difficult') or '').strip() == '1'
    word = item.findtext('text') or word_of(attributes)
    return word_region(corners, word, difficult, (label,), is_box=is_box)


def _corner_order(child: ElementTree.Element) -> tuple[int, str]:
    """x1, y1, x2, y2, ..., x10, y10: by number, x first."""
    number = child.tag[1:]
    if child.tag[:1] not in ('x', 'y') or not number.isdecimal():
        raise BadEntry(f'<polygon> holds <{child.tag[:30]}>, expected <x1>, <y1>, ...')
    return int(number), child.tag


def read_cvat(file: Path, images: ImageFiles) -> Iterator[Page]:
    """'CVAT for images 1.1': boxes, also turned, and polygons; an attribute named text or transcription is the word."""
    try:
        root = load_xml(file, MAX_JSON_BYTES)
        if root.find('track') is not None:
            raise BadEntry("tracks of a video; export as 'CVAT for images'")
        if root.tag != 'annotations' or root.find('image') is None:
            raise BadEntry('expected <annotations> with <image>')
    except BadEntry as error:
        raise UserError(f'{file} is no file of CVAT: {error}') from None
    splits = _splits_of({(image.get('subset') or '').casefold() for image in root.findall('image')})
    for image in root.findall('image'):
        page = Page(f'{file.name} image {str(image.get("id"))[:40]}')
        with page.problems():
            page.image = _image_of(image, images)
            page.size = to_size(image.get('width'), image.get('height'))
            page.split = splits.get((image.get('subset') or '').casefold(), '')
            page.add_rows((shape for shape in image if shape.tag != 'tag'), _parse_cvat)
        yield page


def _image_of(image: ElementTree.Element, files: ImageFiles) -> Path:
    """The picture of an <image>; of several of its name the one in the folder of its subset, where exports put it."""
    name, subset = image.get('name') or '', image.get('subset')
    try:
        return files.find(name)
    except BadEntry:
        if not subset:
            raise
        return files.find(f'{subset}/{name}')


def _splits_of(subsets: set[str]) -> dict[str, str]:
    """What subsets of CVAT are for, where there are several kinds ('': of another name, to be split); without one for
    validation, --val takes a share of those for training."""
    kinds = {SUBSETS.get(name, '') for name in subsets}
    if len(kinds) == 1:
        return {}
    return {name: split for name, split in SUBSETS.items() if split != 'train' or 'val' in kinds}


def _parse_cvat(shape: ElementTree.Element) -> Region:
    is_box = False
    if shape.tag == 'box':
        box = to_box(*(shape.get(name) for name in ('xtl', 'ytl', 'xbr', 'ybr')))
        corners, is_box = turned_by(box, shape.attrib)
    elif shape.tag == 'polygon':
        points = [point.split(',') for point in (shape.get('points') or '').split(';')]
        if any(len(point) != 2 for point in points):
            raise BadEntry('a point is not x,y')
        corners = to_polygon(value for point in points for value in point)
    else:
        raise BadEntry(f'the shape {shape.tag[:30]!a} is not supported, use boxes and polygons')
    attributes = {str(a.get('name')).casefold(): a.text or '' for a in shape.findall('attribute')}
    return word_region(corners, word_of(attributes), labels=(str(shape.get('label')),), is_box=is_box)
