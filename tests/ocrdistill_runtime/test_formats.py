"""What was read as text, JSON, hOCR and ALTO, and recognisers' turns and tables."""

import contextlib
import io
import json
import os
import sys
import types
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pypdf
import pytest
from hocr_tools_lib.tools import hocr_check, hocr_lines, hocr_pdf
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree
from PIL import Image

from ocrdistill import TextReader, UserError, Word
from ocrdistill.reading import formats, recognisers
from tests.support import ROOT

ALTO = {'a': formats.ALTO}
ANY_TEXT = st.text(st.characters() | st.sampled_from('&<>"\'üß漢\t\r\n\x00\ud800\ufffe'), max_size=8)


def word(box: tuple, text: str, line: int, score: float = 0.875) -> Word:
    x1, y1, x2, y2 = box
    quad = np.array([(x1, y1), (x2, y1 + 1), (x2, y2), (x1, y2 - 1)], float)
    return Word(quad, np.array(box, float), 0.75, line, text=text, text_score=score)


@pytest.fixture
def page() -> formats.Page:
    words = [
        word((10.4, 20, 50.6, 30), 'A&B', 0),
        word((60, 20, 90, 30), '<"ü">', 0),
        word((10, 50, 70, 62), 'C\x07d', 1),
    ]
    return formats.Page('scan "1".png', 100, 80, words)


def test_text_has_a_row_a_line(page):
    assert formats.to_text([page]) == 'A&B <"ü">\nC\x07d\n'
    second = formats.Page('b.png', 5, 5, [])
    assert formats.to_text([page, second]) == '# scan "1".png\nA&B <"ü">\nC\x07d\n\n# b.png\n'


def test_json_is_that_of_detections_with_text(page):
    (entry,) = json.loads(formats.to_json([page]))
    assert (entry['image'], entry['width'], entry['height']) == ('scan "1".png', 100, 80)
    first = entry['detections'][0]
    assert (first['text'], first['text_score'], first['score'], first['line']) == ('A&B', 0.875, 0.75, 0)
    assert set(first) == {'box', 'quad', 'score', 'class', 'name', 'line', 'text', 'text_score'}


class HocrReader(HTMLParser):
    """Collects (class, title, text) of every element with a class, as a browser reads it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[list[str]] = []
        self.open: list[list[str] | None] = []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag == 'meta':
            return
        self.open.append([given['class'], given['title'], ''] if 'class' in given else None)
        if self.open[-1]:
            self.found.append(self.open[-1])

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)  # HTML has no empty elements but a few, as meta

    def handle_endtag(self, tag):
        if tag != 'meta':
            self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1]:
            self.open[-1][2] += data.strip()


@pytest.mark.parametrize('count', [1, 2])
def test_hocr_says_what_was_read_and_where(page, count):
    text = formats.to_hocr([page] * count)
    ElementTree.fromstring(text)  # XML, too
    reader = HocrReader()
    reader.feed(text)
    kinds = [kind for kind, _, _ in reader.found]
    assert kinds == ['ocr_page', 'ocr_line', 'ocrx_word', 'ocrx_word', 'ocr_line', 'ocrx_word'] * count
    assert reader.found[0][1] == 'image "scan \'1\'.png"; bbox 0 0 100 80; ppageno 0'
    assert [text for kind, _, text in reader.found if kind == 'ocrx_word'] == ['A&B', '<"ü">', 'Cd'] * count
    line, first = reader.found[1][1], reader.found[2][1]
    assert line.startswith('bbox 10 20 90 30; baseline ') and line.endswith('x_size 9')
    assert first == 'bbox 10 20 51 30; x_wconf 88; poly 10 20 51 21 51 30 10 29'
    if count == 1:
        identifiers = [element.get('id') for element in ElementTree.fromstring(text).iter() if element.get('id')]
        assert len(identifiers) == len(set(identifiers)) == 6


def test_hocr_without_a_text_or_without_words_is_nested_as_it_should():
    word = Word(
        np.array([(0, 0), (9, 0), (9, 9), (0, 9)], float), np.array([0, 0, 9, 9.0]), 1.0, 0, text='', text_score=0
    )
    reader = HocrReader()
    reader.feed(formats.to_hocr([formats.Page('a', 20, 20, []), formats.Page('b', 20, 20, [word])]))
    assert reader.open == [] and [kind for kind, _, _ in reader.found][1:] == ['ocr_page', 'ocr_line', 'ocrx_word']


@pytest.mark.parametrize('write', [formats.to_hocr, formats.to_alto])
def test_bytes_of_a_name_that_are_no_utf8_are_escaped(write):
    assert 'caf\\udce9.jpg' in write([formats.Page('caf\udce9.jpg', 20, 20, [])])


def test_hocrs_baseline_by_hand():
    """The lower sides rise by 10 over 100 pixels and end 5 above the box's lower edge."""
    quad = np.array([(0, 20), (100, 10), (100, 30), (0, 40)], float)
    leaning = Word(quad, np.array([0, 10, 100, 45.0]), 1.0, 0, text='a', text_score=1.0)
    assert 'baseline -0.100 -5;' in formats.to_hocr([formats.Page('a', 100, 50, [leaning])])


@pytest.mark.parametrize(
    ('degrees', 'told'),
    [(30, None), (-40, None), (60, 60), (90, 90), (135, 135), (180, 180), (-90, 270), (-46, 314)],
)
def test_hocrs_textangle_of_lines_that_are_not_level(degrees, told):
    """Counter-clockwise, as seen: 90 is text that runs up. Of three words one lies otherwise."""
    turn = np.exp(-1j * np.radians(degrees))  # y points down

    def turned(x: float, by: complex) -> Word:
        corners = (np.array([0, 40, 40 + 20j, 20j]) + x) * by
        quad = np.stack([corners.real, corners.imag], 1) + 200
        return Word(quad, np.concatenate([quad.min(0), quad.max(0)]), 1.0, 0, text='a', text_score=1.0)

    words = [turned(0, turn), turned(50, turn), turned(100, 1)]
    text = formats.to_hocr([formats.Page('a', 400, 400, words)])
    assert (f'; textangle {told}; x_size 20' in text) == (told is not None) == ('baseline' not in text)


def test_nothing_was_read():
    """hOCR and ALTO must have a page."""
    assert [formats.FORMATS[form]([]) for form in ('text', 'json', 'hocr', 'alto')] == ['', '[]\n', '', '']


def schema() -> etree.XMLSchema:
    """The part of ALTO 4.2 that we write. ALTO_SCHEMA names another file: the standard's own needs xlink.xsd beside it,
    and its import changed to that."""
    file = os.environ.get('ALTO_SCHEMA', ROOT / 'tests/ocrdistill_runtime/alto-4-2-part.xsd')
    return etree.XMLSchema(etree.parse(str(file)))


def test_alto_says_what_was_read_and_where(page):
    root = ElementTree.fromstring(formats.to_alto([page, formats.Page('empty.png', 5, 5, [])]))
    strings = root.findall('.//a:String', ALTO)
    assert [string.get('CONTENT') for string in strings] == ['A&B', '<"ü">', 'Cd']
    assert (strings[0].get('HPOS'), strings[0].get('WIDTH'), strings[0].get('WC')) == ('10', '41', '0.8750')
    assert strings[0].find('.//a:Polygon', ALTO).get('POINTS') == '10,20 51,21 51,30 10,29'
    assert len(root.findall('.//a:SP', ALTO)) == 1 and len(root.findall('.//a:Page', ALTO)) == 2
    assert root.find('.//a:fileName', ALTO) is None  # of one picture only


@pytest.mark.parametrize(
    'change',
    [
        ('ID="word_1_1_2"', 'ID="word_1_1_1"'),  # twice
        ('<MeasurementUnit>pixel', '<MeasurementUnit>px'),
        ('WC="0.8750"', 'WC="87.50"'),
        ('CONTENT=', 'TEXT='),
        ('<SP />', '<SP /><SP />'),
        ('PHYSICAL_IMG_NR="1"', ''),
    ],
)
def test_the_schema_refuses_what_alto_does(page, change):
    text = formats.to_alto([page])
    assert schema().validate(etree.fromstring(text.encode()))
    assert change[0] in text and not schema().validate(etree.fromstring(text.replace(*change).encode()))


@st.composite
def pages(draw) -> formats.Page:
    """Words of any characters at any place that touches a page."""
    words, line = [], 0
    for _ in range(draw(st.integers(0, 5))):
        x1, y1 = draw(st.floats(-20, 99)), draw(st.floats(-20, 79))
        box = (x1, y1, max(x1, 0) + draw(st.floats(1, 60)), max(y1, 0) + draw(st.floats(1, 60)))
        line += draw(st.integers(0, 1))
        words.append(word(box, draw(ANY_TEXT), line, draw(st.floats(0, 1))))
    return formats.Page(draw(ANY_TEXT), 100, 80, words)


@given(st.lists(pages(), min_size=1, max_size=3))
@settings(deadline=None, max_examples=50)
def test_whatever_is_read_is_valid(several):
    """ALTO by its schema, hOCR by the checks of hocr-tools; both with the text, but for what XML cannot hold."""
    said = [formats.FORBIDDEN.sub('', word.text) for page in several for word in page.words]
    document = etree.fromstring(formats.to_alto(several).encode())
    schema().assertValid(document)
    assert [string.get('CONTENT') for string in document.iter(f'{{{formats.ALTO}}}String')] == said
    checks = io.StringIO()
    with contextlib.redirect_stderr(checks):
        # Words that lie over each other may do so in the picture.
        hocr_check.Checker(io.BytesIO(formats.to_hocr(several).encode()), no_overlap=True).check()
    assert checks.getvalue() and 'not ok' not in checks.getvalue()
    words = etree.fromstring(formats.to_hocr(several).encode()).iterfind('.//*[@class="ocrx_word"]')
    assert [element.text or '' for element in words] == said


def test_hocr_tools_reads_the_lines_and_makes_a_searchable_pdf(page, tmp_path):
    """As docs/reading.md has it, from a folder with page.jpg and page.hocr."""
    Image.new('RGB', (page.width, page.height), 'white').save(tmp_path / 'page.jpg')
    (tmp_path / 'page.hocr').write_text(formats.to_hocr([page]), encoding='utf-8')
    assert list(hocr_lines.lines(tmp_path / 'page.hocr')) == ['A&B <"ü">', 'Cd']
    hocr_pdf.export_pdf(tmp_path, tmp_path / 'page.pdf')
    (sheet,) = pypdf.PdfReader(tmp_path / 'page.pdf').pages
    assert sheet.extract_text().split() == ['A&B', '<"ü">', 'Cd']


def test_high_and_narrow_crops_are_read_in_quarter_turns_too():
    """A word that runs up or down, or a 1 or I, which on its side looks like another letter."""
    wide, tall = np.zeros((10, 30, 3), np.uint8), np.zeros((30, 10, 3), np.uint8)
    tall[0] = 255
    assert [view.shape for view in recognisers.turns(wide)] == [(10, 30, 3)]
    level, first, second = recognisers.turns(tall)
    assert level is tall
    assert first[0, 0, 0] == 255 and first.shape == (10, 30, 3) and second[0, -1, 0] == 255 and second[0, 0, 0] == 0
    read = [('a', 0.9), ('I', 0.3), ('b', 0.2), ('c', 0.7)]
    assert recognisers.surest([wide, tall], read) == [('a', 0.9), ('c', 0.7)]


def test_tesseracts_table():
    columns = ['level', 'page_num', 'block_num', 'par_num', 'line_num', 'word_num']
    columns += ['left', 'top', 'width', 'height', 'conf', 'text']
    rows = [
        [1, 1, 0, 0, 0, 0, 0, 0, 9, 9, -1, ''],
        [5, 1, 1, 1, 1, 1, 0, 0, 9, 9, 96.5, 'EX'],
        [5, 1, 1, 1, 1, 2, 0, 0, 9, 9, 50, 'IT'],
        [1, 2, 0, 0, 0, 0, 0, 0, 9, 9, -1, ''],
        [5, 3, 1, 1, 1, 1, 0, 0, 9, 9, 20, 'b'],
    ]
    table = '\n'.join('\t'.join(map(str, row)) for row in [columns, *rows])
    assert recognisers.parse_tsv(table, 3) == [('EXIT', 0.5), ('', 0.0), ('b', 0.2)]
    assert recognisers.parse_tsv('', 2) == [('', 0.0), ('', 0.0)]


def test_readers_hand_crops_to_recognisers(tmp_path):
    pytest.importorskip('onnx', reason='onnx is missing')
    from tests.ocrdistill_runtime.networks import write_network

    file = write_network(tmp_path / 'a.onnx', [[100, 60, 40, 20, 0.9, 1, 0, 0, 0, 0]])
    shapes = []

    def recognise(crops):
        shapes.extend(crop.shape for crop in crops)
        return [('word', 0.123456)] * len(crops)

    reader = TextReader(recognise, model=file, size=640, threshold=0.6)
    (found,) = reader(np.full((360, 640, 3), 255, np.uint8))
    assert (found.text, found.text_score, shapes) == ('word', 0.12346, [(24, 44, 3)])
    assert reader(np.zeros((360, 640, 3), np.uint8)) == [] and len(shapes) == 1


def test_reading_tells_where_turned_words_begin(tmp_path):
    """The detector finds two words side by side; the recogniser reads the dark end first, which is the right one."""
    pytest.importorskip('onnx', reason='onnx is missing')
    from tests.ocrdistill_runtime.networks import write_network

    file = write_network(tmp_path / 'a.onnx', [[x, 60, 40, 20, 0.9, 1, 0, 0, 0, 0] for x in (100, 200)])
    image = np.full((360, 640, 3), 255, np.uint8)
    image[56:64, 100:119] = image[56:64, 200:219] = 150

    def recognise(crops):
        halves = [np.array_split(crop, 2, 1) for crop in crops]
        return [('right', 0.9) if left.mean() < right.mean() else ('wrong', 0.2) for left, right in halves]

    plain, both = (TextReader(recognise, model=file, size=640, rotate=rotate)(image) for rotate in (False, True))
    assert {word.text for word in plain} == {'wrong'} and [word.line for word in plain] == [0, 0]
    level = [word for word in both if word.quad[0][1] == word.quad[1][1]]
    assert [word.text for word in level] == ['right', 'right']
    assert sorted(word.quad[0].tolist() for word in level) == sorted(word.quad[2].tolist() for word in plain)


@pytest.mark.parametrize('turn', range(4))
def test_words_that_were_found_upright_begin_where_reading_does(turn):
    """A high, narrow quad is read in four turns: text that runs down or up, or one narrow letter, which may stand on
    its head. A crop that stands upright the recogniser turns itself, too, and is then a little surer."""
    quad = np.array([[100, 100], [130, 100], [130, 300], [100, 300]], float)
    image = np.full((400, 300, 3), 255, np.uint8)
    image[110:150, 105:125] = (0, 0, 255)  # the upper end
    word = Word(quad, np.array([100, 100, 130, 300], float), 0.9, 0, image=image)

    def turn_of(crop):
        high, wide = crop.shape[:2]
        first = crop[: high // 2] if high > wide else crop[:, : wide // 2]
        return {(True, True): 0, (False, True): 1, (True, False): 2, (False, False): 3}[high > wide, first.min() == 0]

    def recognise(crops):
        found = [turn_of(crop) for crop in crops]
        upright = 0.91 if turn in (1, 3) else 0.2
        return [(' right ', 0.9) if k == turn else ('right', upright) if k in (0, 2) else ('no', 0.2) for k in found]

    (found,) = TextReader(recognise, rotate=True).read([word])
    assert found.text == 'right' and np.array_equal(found.quad[0], quad[turn])
    (plain,) = TextReader(recognise).read([word])
    assert np.array_equal(plain.quad, quad)


ANSWERS = (
    *(None, 5, [], [None], [('a',)], [('a', None)], [('a', float('nan'))], [(None, 0.5)]),
    *([('a', 1)] * 2, [('a', 96.0)]),
)


@pytest.mark.parametrize('answer', ANSWERS)
def test_recognisers_that_answer_something_else_are_refused(tmp_path, answer):
    pytest.importorskip('onnx', reason='onnx is missing')
    from tests.ocrdistill_runtime.networks import write_network

    file = write_network(tmp_path / 'a.onnx', [[100, 60, 40, 20, 0.9, 1, 0, 0, 0, 0]])
    reader = TextReader(lambda _: answer, model=file, size=640, threshold=0.6)
    with pytest.raises(UserError, match='must return .text, score 0..1. of each of 1 crops'):
        reader(np.full((360, 640, 3), 255, np.uint8))


def test_a_single_page_is_named_where_others_failed():
    pages = [formats.Page('a.jpg', 9, 9, [])]
    assert formats.to_text(pages) == '\n' and formats.to_text(pages, named=True) == '# a.jpg\n'


def test_rapidocr_gets_bgr_and_answers_in_order(monkeypatch):
    seen = {}

    class Engine:
        def __init__(self, params):
            seen.update(params)

        def recognize_txt(self, crops):
            seen['pixel'] = crops[0][0, 0].tolist()
            return types.SimpleNamespace(txts=[str(number) for number in range(len(crops))], scores=[0.5] * len(crops))

    package = types.ModuleType('rapidocr')
    package.RapidOCR = Engine
    monkeypatch.setitem(sys.modules, 'rapidocr', package)
    recognise = recognisers.make_recogniser('rapidocr', threads=2)
    red = np.zeros((10, 30, 3), np.uint8)
    red[..., 0] = 255
    assert recognise([red, red]) == [('0', 0.5), ('1', 0.5)] and recognise([]) == []
    assert seen['pixel'] == [0, 0, 255] and seen['EngineConfig.onnxruntime.intra_op_num_threads'] == 2
    with pytest.raises(UserError, match="language: 'deu' is for tesseract"):
        recognisers.make_recogniser('rapidocr', 'deu')


@pytest.mark.skipif(os.name == 'nt', reason='the stand-in is a shell script')
def test_tesseract_is_called_once_for_all_words(monkeypatch, tmp_path):
    program, calls = tmp_path / 'tesseract', tmp_path / 'calls'
    columns = 'level page_num block_num par_num line_num word_num left top width height conf text'.replace(' ', '\\t')
    row = '5\\t1\\t1\\t1\\t1\\t1\\t0\\t0\\t9\\t9\\t90\\tEXIT'
    program.write_text(
        f'#!/bin/sh\necho "$@" >> {calls}\n[ "$1" = --list-langs ] && echo eng && exit\nprintf "{columns}\\n{row}\\n"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv('PATH', f'{tmp_path}:{os.environ["PATH"]}')
    word = np.zeros((10, 30, 3), np.uint8)
    assert recognisers.make_recogniser('tesseract')([word, word]) == [('EXIT', 0.9), ('', 0.0)]
    assert len(calls.read_text().splitlines()) == 2  # the languages, the words
    with pytest.raises(UserError, match='no data of the language xyz'):
        recognisers.make_recogniser('tesseract', 'xyz')


def test_a_recogniser_of_ones_own_takes_no_language():
    with pytest.raises(UserError, match="'deu' is for tesseract"):
        TextReader(lambda crops: [('', 0.0)] * len(crops), language='deu')


def test_unknown_recognisers_are_refused(monkeypatch):
    with pytest.raises(UserError, match="'rapidocr' or 'tesseract'"):
        recognisers.make_recogniser('other')
    monkeypatch.setenv('PATH', '')
    with pytest.raises(UserError, match='no program tesseract'):
        recognisers.make_recogniser('tesseract')


def test_low_words_are_enlarged_for_tesseract_and_others_left():
    low, high = np.zeros((8, 40, 3), np.uint8), np.zeros((64, 90, 3), np.uint8)
    assert [recognisers._enlarged(crop).size for crop in (low, high)] == [(160, 32), (90, 64)]
