"""What was read, as text, JSON, hOCR 1.2 and ALTO 4.2."""

import itertools
import json
import math
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np

from ocrdistill.detector import Word

ALTO = 'http://www.loc.gov/standards/alto/ns-v4#'
ALTO_SCHEMA = 'http://www.loc.gov/standards/alto/v4/alto-4-2.xsd'
INSTANCE = 'http://www.w3.org/2001/XMLSchema-instance'
XHTML = 'http://www.w3.org/1999/xhtml'
XML = '<?xml version="1.0" encoding="UTF-8"?>\n'
FORBIDDEN = re.compile('[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]')  # in XML; it reads \r as \n


class Page(NamedTuple):
    """An image that was read.

    name: as it is told.
    width, height: in pixels.
    words: in reading order.
    """

    name: str
    width: int
    height: int
    words: list[Word]


def to_text(pages: list[Page], named: bool = False) -> str:
    """A line of text a row, words with spaces between; of several images each under its name; '' of none.

    Args:
        named: a single one has its name, too: there were others, which could not be read.
    """
    parts = []
    for page in pages:
        lines = [' '.join(word.text for word in line if word.text) for line in _lines(page)]
        head = [f'# {page.name}'] if named or len(pages) > 1 else []
        parts.append('\n'.join([*head, *filter(None, lines)]))
    return '\n\n'.join(parts) + '\n' if parts else ''


def to_json(pages: list[Page]) -> str:
    """As detections.json, with text and text_score."""
    entries = [
        {'image': page.name, 'width': page.width, 'height': page.height}
        | {'detections': [word.as_dict() for word in page.words]}
        for page in pages
    ]
    return '[' + ',\n'.join(json.dumps(entry, ensure_ascii=False) for entry in entries) + ']\n'


def to_hocr(pages: list[Page]) -> str:
    """hOCR 1.2: ocr_page, ocr_line, ocrx_word with boxes, corners (poly) and confidences in percent (x_wconf); '' of no
    pages, of which it must have one."""
    if not pages:
        return ''
    html = ElementTree.Element('html', {'xmlns': XHTML})
    head = ElementTree.SubElement(html, 'head')
    ElementTree.SubElement(head, 'title').text = ', '.join(_name(page) for page in pages)
    ElementTree.SubElement(head, 'meta', {'http-equiv': 'Content-Type', 'content': 'text/html;charset=utf-8'})
    ElementTree.SubElement(head, 'meta', {'name': 'ocr-system', 'content': 'ocrdistill'})
    capabilities = 'ocr_page ocr_line ocrx_word ocrp_poly ocrp_wconf'
    ElementTree.SubElement(head, 'meta', {'name': 'ocr-capabilities', 'content': capabilities})
    body = ElementTree.SubElement(html, 'body')
    for number, page in enumerate(pages):
        name = _name(page).replace('"', "'")
        title = f'image "{name}"; bbox 0 0 {page.width} {page.height}; ppageno {number}'
        block = ElementTree.SubElement(body, 'div', {'class': 'ocr_page', 'id': f'page_{number + 1}', 'title': title})
        _hocr_lines(block, page, number + 1)
    ElementTree.indent(html)
    doctype = '<!DOCTYPE html>\n'
    # For readers of HTML, to whom <span/> is the beginning of an element alone.
    return XML + doctype + ElementTree.tostring(html, 'unicode', short_empty_elements=False) + '\n'


def _hocr_lines(block: ElementTree.Element, page: Page, page_number: int) -> None:
    for number, line in enumerate(_lines(page), 1):
        x1, y1, x2, y2 = _around([word.box for word in line], page)
        lies = f'textangle {angle}' if (angle := _angle(line)) else _baseline(line, x1, y2)
        title = f'bbox {x1} {y1} {x2} {y2}; {lies}; x_size {_height(line)}'
        name = f'{page_number}_{number}'
        element = ElementTree.SubElement(block, 'span', {'class': 'ocr_line', 'id': f'line_{name}', 'title': title})
        for count, word in enumerate(line, 1):
            box = ' '.join(map(str, _around([word.box], page)))
            poly = ' '.join(f'{value:.0f}' for value in word.quad.ravel())
            title = f'bbox {box}; x_wconf {round(100 * (word.text_score or 0))}; poly {poly}'
            place = {'class': 'ocrx_word', 'id': f'word_{name}_{count}', 'title': title}
            ElementTree.SubElement(element, 'span', place).text = _clean(word.text)


def to_alto(pages: list[Page]) -> str:
    """ALTO 4.2, a Page for each image: TextLine, String with WC (confidence) and the corners as a Polygon; '' of no
    pages, of which it must have one."""
    if not pages:
        return ''
    alto = ElementTree.Element('alto', {'xmlns': ALTO, 'xmlns:xsi': INSTANCE})
    alto.set('xsi:schemaLocation', f'{ALTO} {ALTO_SCHEMA}')
    description = ElementTree.SubElement(alto, 'Description')
    ElementTree.SubElement(description, 'MeasurementUnit').text = 'pixel'
    if len(pages) == 1:
        information = ElementTree.SubElement(description, 'sourceImageInformation')
        ElementTree.SubElement(information, 'fileName').text = _name(pages[0])
    step = ElementTree.SubElement(description, 'Processing', {'ID': 'processing_1'})
    software = ElementTree.SubElement(step, 'processingSoftware')
    ElementTree.SubElement(software, 'softwareName').text = 'ocrdistill'
    layout = ElementTree.SubElement(alto, 'Layout')
    for number, page in enumerate(pages, 1):
        size = {'WIDTH': str(page.width), 'HEIGHT': str(page.height)}
        place = {'ID': f'page_{number}', 'PHYSICAL_IMG_NR': str(number), **size}
        element = ElementTree.SubElement(layout, 'Page', place)
        space = ElementTree.SubElement(element, 'PrintSpace', {'HPOS': '0', 'VPOS': '0', **size})
        if page.words:
            whole = _place([word.box for word in page.words], page)
            block = ElementTree.SubElement(space, 'TextBlock', {'ID': f'block_{number}', **whole})
            _alto_lines(block, page, number)
    ElementTree.indent(alto)
    return XML + ElementTree.tostring(alto, 'unicode') + '\n'


def _alto_lines(block: ElementTree.Element, page: Page, page_number: int) -> None:
    for number, line in enumerate(_lines(page), 1):
        name, place = f'{page_number}_{number}', _place([word.box for word in line], page)
        element = ElementTree.SubElement(block, 'TextLine', {'ID': f'line_{name}', **place})
        for count, word in enumerate(line, 1):
            if count > 1:
                ElementTree.SubElement(element, 'SP')
            place = {'ID': f'word_{name}_{count}', **_place([word.box], page)}
            place |= {'CONTENT': _clean(word.text), 'WC': f'{word.text_score or 0:.4f}'}
            string = ElementTree.SubElement(element, 'String', place)
            shape = ElementTree.SubElement(string, 'Shape')
            points = ' '.join(f'{x:.0f},{y:.0f}' for x, y in word.quad)
            ElementTree.SubElement(shape, 'Polygon', {'POINTS': points})


FORMATS: dict[str, Callable[[list[Page]], str]] = {'text': to_text, 'json': to_json, 'hocr': to_hocr, 'alto': to_alto}


def _lines(page: Page) -> Iterator[list[Word]]:
    """The words line by line."""
    for _, words in itertools.groupby(page.words, lambda word: word.line):
        yield list(words)


def _around(boxes: list[np.ndarray], page: Page) -> tuple[int, int, int, int]:
    """The whole pixels x1, y1, x2, y2 around boxes, inside the page."""
    all_boxes = np.array(boxes)
    x1, y1 = np.floor(all_boxes[:, :2].min(0)).astype(int).tolist()
    x2, y2 = np.ceil(all_boxes[:, 2:].max(0)).astype(int).tolist()
    return max(x1, 0), max(y1, 0), min(x2, page.width), min(y2, page.height)


def _place(boxes: list[np.ndarray], page: Page) -> dict[str, str]:
    """ALTO's attributes of what lies around boxes."""
    x1, y1, x2, y2 = _around(boxes, page)
    return {'HPOS': str(x1), 'VPOS': str(y1), 'WIDTH': str(x2 - x1), 'HEIGHT': str(y2 - y1)}


def _height(line: list[Word]) -> int:
    """Pixels of the words' height, across their own direction."""
    return round(float(np.median([np.linalg.norm(word.quad[3] - word.quad[0]) for word in line])))


def _angle(line: list[Word]) -> int:
    """hOCR's textangle: degrees by which the words' median direction is turned counter-clockwise; 0 up to 45 degrees to
    either side, where a baseline tells the slope."""
    across, down = np.median([word.quad[[1, 2]].sum(0) - word.quad[[0, 3]].sum(0) for word in line], 0)
    angle = math.degrees(math.atan2(-down, across))
    return round(angle) % 360 if abs(angle) > 45 else 0


def _baseline(line: list[Word], left: int, bottom: int) -> str:
    """hOCR's slope, and offset in pixels from the lower left corner of the line's box (y points down)."""
    ends = np.concatenate([word.quad[[3, 2]] for word in line])
    across, down = np.ptp(ends, axis=0)  # of words that rather stand above each other there is no slope
    slope = float(np.polyfit(ends[:, 0], ends[:, 1], 1)[0]) if across >= max(down, 1) else 0.0
    offset = float((ends[:, 1] - slope * (ends[:, 0] - left)).mean()) - bottom
    return f'baseline {slope:.3f} {offset:.0f}'


def _name(page: Page) -> str:
    """With escapes for bytes that are no UTF-8: without them it would be the name of another file."""
    return _clean(page.name.encode('utf-8', 'backslashreplace').decode())


def _clean(text: str | None) -> str:
    """What XML may hold."""
    return FORBIDDEN.sub('', text or '')
