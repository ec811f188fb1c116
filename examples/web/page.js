import { chooseBoxes, loadDetector } from './detector.js';

const $ = (id) => document.getElementById(id);
// shown: a picture with what was found in it; confidence: the model's own to all its digits, until the slider moves
const state = { detector: null, picture: null, shown: null, confidence: 0 };

// Files are used one after another, however fast they come: a session runs one picture at a time.
let last = Promise.resolve();
const inTurn = (job) => (last = last.then(job).catch((error) => say(`That failed: ${error.message}`, true)));

function say(message, isError = false) {
  $('status').textContent = message;
  $('status').className = isError ? 'error' : '';
}

async function useModel(bytes, origin) {
  say('Loading the model …');
  const former = state.detector;
  state.detector = null;
  await former?.release();
  try {
    state.detector = await loadDetector(bytes);
  } catch (error) {
    return say(`${origin} cannot be used: ${error.message}`, true);
  }
  state.confidence = state.detector.about.conf_threshold ?? 0.25;
  $('confidence').value = state.confidence;
  $('shown').textContent = state.confidence.toFixed(2);
  say('Ready.');
  showSize();
  if (state.picture) await detect();
}

async function usePicture(file) {
  try {
    state.picture = await readPicture(file);
  } catch {
    return say(`${file.name || 'That'} is no picture that this browser can show.`, true);
  }
  if (state.detector) await detect();
  else say('Choose a model first: an ONNX file of export.py.', true);
}

// Its name, its pixels (ImageData) and a canvas with it.
async function readPicture(file) {
  const bitmap = await createImageBitmap(file, { imageOrientation: 'from-image' }); // upright, as EXIF says
  const { width, height } = bitmap;
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext('2d');
  context.fillStyle = 'white'; // what is transparent
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const pixels = context.getImageData(0, 0, width, height);
  if (pixels.data[3] === 0) throw new Error('larger than a canvas may be: nothing was drawn, not even the white');
  return { name: file.name || 'picture', canvas, pixels };
}

async function detect() {
  say('Looking …');
  await new Promise((done) => setTimeout(done, 20)); // lets the message show
  try {
    const found = await state.detector.find(state.picture.pixels);
    state.shown = { ...state.picture, ...found, names: state.detector.about.names };
  } catch (error) {
    return say(`The detector failed: ${error.message}`, true);
  }
  show();
}

function words() {
  return chooseBoxes(state.shown.candidates, state.confidence);
}

function show() {
  const found = words();
  const { name, canvas: picture, milliseconds } = state.shown;
  const canvas = $('canvas');
  [canvas.width, canvas.height] = [picture.width, picture.height];
  const context = canvas.getContext('2d');
  context.drawImage(picture, 0, 0);
  context.lineWidth = Math.max(1, Math.round((canvas.width + canvas.height) / 1000));
  context.strokeStyle = '#009e73';
  for (const { quad } of found) {
    context.beginPath();
    for (const [x, y] of quad) context.lineTo(x, y);
    context.closePath();
    context.stroke();
  }
  $('words').replaceChildren(...found.map(listItem));
  $('download').disabled = false;
  const count = `${found.length} ${found.length === 1 ? 'word' : 'words'}`;
  say(`${count} in ${name}, ${picture.width} × ${picture.height} pixels; the network took ${Math.round(milliseconds)} ms.`);
}

function listItem({ quad: [[x, y], right, , below], score, category }) {
  const { canvas, names } = state.shown;
  const crop = document.createElement('canvas');
  const [width, height] = [right, below].map(([toX, toY]) => Math.max(1, Math.hypot(toX - x, toY - y)));
  [crop.width, crop.height] = [Math.round(width), Math.round(height)];
  // Level: the upper side along x, the left one along y; both as vectors of the picture.
  const [a, b, c, d] = [(right[0] - x) / width, (right[1] - y) / width, (below[0] - x) / height, (below[1] - y) / height];
  const area = a * d - b * c;
  const context = crop.getContext('2d');
  if (Math.abs(area) > 1e-3) context.setTransform(d / area, -b / area, -c / area, a / area, (c * y - d * x) / area, (b * x - a * y) / area);
  context.drawImage(canvas, 0, 0);
  const item = document.createElement('li');
  const label = Object.keys(names).length > 1 ? `${names[category]} ` : '';
  item.append(crop, `${label}${score.toFixed(2)}`);
  return item;
}

// The form of detect.py's detections.json, without the lines.
function download() {
  const { name, canvas, names } = state.shown;
  const round = (value, digits) => Number(value.toFixed(digits));
  const detections = words().map(({ box, quad, score, category }) => ({
    box: box.map((side) => round(side, 2)),
    quad: quad.map((corner) => corner.map((side) => round(side, 2))),
    score: round(score, 5),
    class: category,
    name: names[category],
  }));
  const entry = { image: name, width: canvas.width, height: canvas.height, detections };
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([JSON.stringify([entry], null, 1)], { type: 'application/json' }));
  link.download = 'detections.json';
  link.click();
  URL.revokeObjectURL(link.href);
}

let kept = Promise.resolve(); // once the network is stored

async function fetchModel() {
  const answer = await fetch('model.onnx').catch(() => null);
  if (answer?.ok) {
    kept = keep(answer.clone());
    kept.catch(() => {}); // keepForOffline hears of it
    await useModel(new Uint8Array(await answer.arrayBuffer()), 'model.onnx');
  } else say('There is no model.onnx beside this page. Choose an ONNX file of export.py as model.', true);
}

const useModelFile = async (file) => useModel(new Uint8Array(await file.arrayBuffer()), file.name);

async function useFile(file) {
  if (file.name?.toLowerCase().endsWith('.onnx')) await useModelFile(file);
  else await usePicture(file);
}

const takeFile = (file, use = useFile) => file && inTurn(() => use(file));

// For sw.js, which did not see the first load.
async function keep(model) {
  if (!navigator.serviceWorker) return; // nor is there a store then
  await (await caches.open('ocrdistill')).put('./model.onnx', model);
}

// What the page has loaded so far, unpacked.
function showSize() {
  const loaded = performance.getEntriesByType('resource');
  const sum = (wanted) => loaded.filter(({ name }) => wanted(name)).reduce((size, entry) => size + entry.decodedBodySize, 0);
  const mega = (size) => `${(size / 1e6).toFixed(1)} MB`;
  const [runtime, network] = [sum((name) => name.includes('onnxruntime-web')), sum((name) => name.endsWith('model.onnx'))];
  $('size').textContent = `Loaded: ${mega(sum(() => true))} (runtime ${mega(runtime)}, network ${mega(network)}).`;
}

async function keepForOffline(fetched) {
  if (!navigator.serviceWorker) return; // over http browsers have them on this machine only
  await navigator.serviceWorker.register('sw.js');
  await navigator.serviceWorker.ready;
  await fetched;
  await kept;
  $('offline').textContent = 'From now on the page works without a network.';
}

async function useExample() {
  const answer = await fetch('example.jpg');
  if (!answer.ok) throw new Error('there is no example.jpg beside the page');
  await usePicture(new File([await answer.blob()], 'example.jpg'));
}

$('example').addEventListener('click', () => inTurn(useExample));
$('picture').addEventListener('change', (event) => takeFile(event.target.files[0]));
$('model').addEventListener('change', (event) => takeFile(event.target.files[0], useModelFile));
$('download').addEventListener('click', download);
$('confidence').addEventListener('input', () => {
  state.confidence = Number($('confidence').value);
  $('shown').textContent = state.confidence.toFixed(2);
  if (state.shown) show();
});
document.addEventListener('paste', (event) => takeFile(event.clipboardData.files[0]));
for (const kind of ['dragover', 'dragleave', 'drop']) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    $('drop').classList.toggle('over', kind === 'dragover');
    if (kind === 'drop') takeFile(event.dataTransfer.files[0]);
  });
}
keepForOffline(inTurn(fetchModel)).catch(() => {}); // it works as before, with a network
