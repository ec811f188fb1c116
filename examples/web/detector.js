// An ONNX file of `export.py --format onnx` as a function from pictures to boxes, with onnxruntime-web.
const RUNTIME = './node_modules/onnxruntime-web/dist/ort.wasm.min.mjs';
const GREY = 114;
const BOX_IOU = 0.45; // above it the worse of two boxes of a class goes
const QUAD_IOU = 0.3; // the same of quads
const UPRIGHT_IOU = 0.8; // of boxes that are one word, whatever their quads
const MAX_DET = 1000; // boxes of a picture at most

export async function loadDetector(bytes) {
  const about = readMetadata(bytes);
  if (!about.names || about.nms) throw new Error('no file of export.py --format onnx (without --nms)');
  const ort = await import(RUNTIME).catch(() => { throw new Error(noRuntime(RUNTIME)); });
  const session = await ort.InferenceSession.create(bytes).catch((error) => {
    throw error.message.startsWith('no available backend') ? new Error(noRuntime('its WebAssembly file')) : error;
  });
  const release = () => session.release(); // its memory is WebAssembly's, which nothing else gives back
  return { about, release, find: (picture) => find(ort, session, about, picture) };
}

const noRuntime = (file) => `onnxruntime-web cannot be loaded (${file}). Run npm ci in the folder of this page, then reload it.`;

// The description that export.py puts into the file. onnxruntime-web does not hand it out, so it is read here: of the
// protocol buffer ModelProto only field 14, metadata_props, is looked at (key: field 1, value: field 2, JSON).
export function readMetadata(bytes) {
  const about = {};
  try {
    for (const [field, content] of fields(bytes)) {
      if (field !== 14) continue;
      const entry = Object.fromEntries(fields(content));
      about[text(entry[1])] = JSON.parse(text(entry[2]));
    }
  } catch {
    return {}; // not such a file
  }
  return about;
}

const text = (bytes) => new TextDecoder().decode(bytes);

function* fields(bytes) {
  let at = 0;
  const varint = () => {
    for (let value = 0, factor = 1; ; factor *= 128) {
      if (at >= bytes.length || factor > 2 ** 56) throw new Error('cut short');
      const byte = bytes[at++];
      value += (byte & 127) * factor;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const key = varint();
    const wire = key % 8;
    if (wire === 0) {
      varint();
    } else {
      const length = { 1: 8, 2: wire === 2 ? varint() : 0, 5: 4 }[wire];
      if (length === undefined || at + length > bytes.length) throw new Error('no protocol buffer');
      yield [Math.floor(key / 8), bytes.subarray(at, at + length)];
      at += length;
    }
  }
}

// The words of a picture (ImageData): every box that may count, best first, before NMS, and the milliseconds of the
// network. `chooseBoxes` makes the final list for a confidence, at once, when a slider moves.
async function find(ort, session, about, picture) {
  const [height, width] = [picture.height, picture.width];
  const longest = Math.max(height, width);
  const scale = roundEven(Math.min(about.imgsz[0] / height, about.imgsz[1] / width) * longest) / longest;
  const newHeight = Math.max(roundEven(height * scale), 1);
  const newWidth = Math.max(roundEven(width * scale), 1);
  const whole = about.dynamic ? [newHeight, newWidth].map((n) => Math.ceil(n / about.stride + 0.5) * about.stride) : about.imgsz;
  const top = Math.floor((whole[0] - newHeight) / 2);
  const left = Math.floor((whole[1] - newWidth) / 2);
  const input = letterbox(resize(picture, newWidth, newHeight), whole, top, left);

  const start = performance.now();
  const output = await session.run({ images: new ort.Tensor('float32', input, [1, 3, ...whole]) });
  const milliseconds = performance.now() - start;
  // (1, M, 5 + classes): x, y, w, h, objectness, scores of the classes; with quads four more: the edges.
  const { data, dims } = output.boxes;
  const place = { left, top, scaleX: newWidth / width, scaleY: newHeight / height, width, height };
  return { candidates: decode(data, dims[2], Object.keys(about.names).length, place), milliseconds };
}

// As Python rounds: halves to the even neighbour.
const roundEven = (value) => (value % 1 === 0.5 ? 2 * Math.round(value / 2) : Math.round(value));

export function decode(data, columns, classes, { left, top, scaleX, scaleY, width, height }) {
  const candidates = [];
  const toPicture = ([x, y]) => [clamp((x - left) / scaleX, width), clamp((y - top) / scaleY, height)];
  for (let row = 0; row < data.length; row += columns) {
    if (data[row + 4] < 0.05) continue; // the slider begins there
    const scores = data.subarray(row + 5, row + 5 + classes);
    const category = scores.indexOf(Math.max(...scores));
    const [x, y, w, h] = data.subarray(row, row + 4);
    const raw = [x - w / 2, y - h / 2, x + w / 2, y + h / 2];
    const edges = columns > 5 + classes ? data.subarray(row + 5 + classes, row + columns) : null;
    const rawQuad = corners(raw, edges ?? [0, 0, 0, 0]);
    candidates.push({
      raw,
      box: [...toPicture(raw.slice(0, 2)), ...toPicture(raw.slice(2))],
      rawQuad: edges && rawQuad, // null: overlaps are those of boxes
      quad: rawQuad.map(toPicture), // clockwise from the top left
      score: data[row + 4] * scores[category],
      category,
    });
  }
  return candidates.sort((a, b) => b.score - a.score);
}

// The corners TL, TR, BR, BL of a box and its four signed edges, as utils/quads.py has them.
function corners([x0, y0, x1, y1], [t, b, l, r]) {
  const [w, h, z] = [x1 - x0, y1 - y0, (value) => Math.max(value, 0)];
  return [
    [x0 + z(-l) * w, y0 + z(-t) * h],
    [x1 - z(r) * w, y0 + z(t) * h],
    [x1 - z(-r) * w, y1 - z(-b) * h],
    [x0 + z(l) * w, y1 - z(b) * h],
  ];
}

const clamp = (value, high) => Math.min(Math.max(value, 0), high);

// The words among candidates that are sorted by score: those surer than `confidence`, each once.
export function chooseBoxes(candidates, confidence) {
  const sure = candidates.filter(({ score }) => score > confidence);
  const boxesMeet = (most) => (a, b) => overlap(a.raw, b.raw) > most;
  const quadsMeet = (a, b) => overlap(a.raw, b.raw) > 0 && quadOverlap(a.rawQuad, b.rawQuad) > QUAD_IOU;
  // Of a network with quads first boxes that overlap almost wholly, then quads, as ocrdistill/nms.py does it.
  const kept = sure[0]?.rawQuad ? suppress(suppress(sure, boxesMeet(UPRIGHT_IOU)), quadsMeet) : suppress(sure, boxesMeet(BOX_IOU));
  return kept.filter(({ box }) => box[2] > box[0] && box[3] > box[1]).slice(0, MAX_DET); // none that lies on the grey
}

// Non-maximum suppression within each class.
function suppress(candidates, meet) {
  const kept = [];
  for (const one of candidates) {
    if (!kept.some((other) => other.category === one.category && meet(other, one))) kept.push(one);
  }
  return kept;
}

// IoU of two convex clockwise quads: the first is cut by the four sides of the second (Sutherland & Hodgman 1974).
function quadOverlap(a, b) {
  let cut = a;
  b.forEach(([x, y], side) => {
    const [toX, toY] = [b[(side + 1) % 4][0] - x, b[(side + 1) % 4][1] - y];
    const distance = ([px, py]) => toX * (py - y) - toY * (px - x); // positive inside
    cut = cut.flatMap((from, index) => {
      const to = cut[(index + 1) % cut.length];
      const [start, end] = [distance(from), distance(to)];
      const kept = start >= 0 ? [from] : [];
      if (start >= 0 === end >= 0) return kept;
      const step = start / (start - end);
      return [...kept, [from[0] + step * (to[0] - from[0]), from[1] + step * (to[1] - from[1])]];
    });
  });
  const shared = Math.min(area(cut), area(a), area(b));
  return shared / Math.max(area(a) + area(b) - shared, 1e-9);
}

const area = (points) =>
  Math.max(points.reduce((sum, [x, y], i) => {
    const [nextX, nextY] = points[(i + 1) % points.length];
    return sum + (x * nextY - nextX * y) / 2;
  }, 0), 0);

function overlap(a, b) {
  const width = Math.min(a[2], b[2]) - Math.max(a[0], b[0]);
  const height = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  if (width <= 0 || height <= 0) return 0;
  const size = (box) => (box[2] - box[0]) * (box[3] - box[1]);
  return (width * height) / (size(a) + size(b) - width * height);
}

// A picture of another size: the mean of what a pixel covers where it shrinks, bilinear where it grows, as OpenCV's
// INTER_AREA and INTER_LINEAR do it. (A canvas shrinks differently in every browser, and boxes would move.)
function resize({ data, width, height }, newWidth, newHeight) {
  const across = weights(width, newWidth);
  const down = weights(height, newHeight);
  const rows = new Float32Array(height * newWidth * 3);
  for (let y = 0, to = 0; y < height; y++) {
    for (const { first, shares } of across) {
      for (let channel = 0; channel < 3; channel++, to++) {
        let sum = 0;
        for (let k = 0; k < shares.length; k++) sum += shares[k] * data[(y * width + first + k) * 4 + channel];
        rows[to] = sum;
      }
    }
  }
  const pixels = new Uint8ClampedArray(newHeight * newWidth * 3); // rounds
  const line = newWidth * 3;
  down.forEach(({ first, shares }, y) => {
    for (let x = 0; x < line; x++) {
      let sum = 0;
      for (let k = 0; k < shares.length; k++) sum += shares[k] * rows[(first + k) * line + x];
      pixels[y * line + x] = sum;
    }
  });
  return { pixels, width: newWidth, height: newHeight };
}

// For every new pixel of one side the first old pixel that it is made of, and their shares.
function weights(length, newLength) {
  const step = length / newLength;
  return Array.from({ length: newLength }, (_, index) => {
    if (step <= 1) {
      const centre = clamp((index + 0.5) * step - 0.5, length - 1);
      const first = Math.min(Math.floor(centre), Math.max(length - 2, 0));
      return { first, shares: length > 1 ? [1 - (centre - first), centre - first] : [1] };
    }
    const [start, end] = [index * step, Math.min((index + 1) * step, length)];
    const first = Math.floor(start);
    const last = Math.min(Math.ceil(end - 1e-9), length);
    const shares = Array.from({ length: last - first }, (_, k) => Math.min(end, first + k + 1) - Math.max(start, first + k));
    return { first, shares: shares.map((share) => share / (end - start)) };
  });
}

// (1, 3, height, width), 0 to 1, grey where there is no picture.
function letterbox({ pixels, width, height }, whole, top, left) {
  const plane = whole[0] * whole[1];
  const input = new Float32Array(3 * plane).fill(GREY / 255);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const to = (top + y) * whole[1] + left + x;
      const from = (y * width + x) * 3;
      for (let channel = 0; channel < 3; channel++) input[channel * plane + to] = pixels[from + channel] / 255;
    }
  }
  return input;
}
