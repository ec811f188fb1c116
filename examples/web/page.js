import { chooseBoxes, loadDetector } from './detector.js';

const $ = (id) => document.getElementById(id);
const state = { detector: null, picture: null, result: null, name: '' };

function say(message, isError = false) {
  $('status').textContent = message;
  $('status').className = isError ? 'error' : '';
}

async function useModel(bytes, origin) {
  say('Loading the model …');
  state.detector = null;
  try {
    state.detector = await loadDetector(bytes);
  } catch (error) {
    return say(`${origin} cannot be used: ${error.message}`, true);
  }
  const threshold = state.detector.about.conf_threshold ?? 0.25;
  $('confidence').value = threshold;
  $('shown').textContent = threshold.toFixed(2);
  say('Ready.');
  if (state.picture) await detect();
}

async function usePicture(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: 'from-image' }); // upright, as EXIF says
  } catch {
    return say(`${file.name || 'That'} is no picture that this browser can show.`, true);
  }
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext('2d');
  context.fillStyle = 'white'; // what is transparent
  context.fillRect(0, 0, bitmap.width, bitmap.height);
  context.drawImage(bitmap, 0, 0);
  state.picture = context.getImageData(0, 0, bitmap.width, bitmap.height);
  state.bitmap = canvas;
  state.name = file.name || 'picture';
  if (state.detector) await detect();
  else say('Choose a model first: an ONNX file of export.py.', true);
}

async function detect() {
  say('Looking …');
  await new Promise(requestAnimationFrame); // lets the message show
  try {
    state.result = await state.detector.find(state.picture);
  } catch (error) {
    return say(`The detector failed: ${error.message}`, true);
  }
  show();
}

function words() {
  return chooseBoxes(state.result.candidates, Number($('confidence').value));
}

function show() {
  const found = words();
  const { names } = state.detector.about;
  const canvas = $('canvas');
  [canvas.width, canvas.height] = [state.picture.width, state.picture.height];
  const context = canvas.getContext('2d');
  context.drawImage(state.bitmap, 0, 0);
  context.lineWidth = Math.max(1, Math.round((canvas.width + canvas.height) / 1000));
  context.strokeStyle = '#009e73';
  for (const { box: [x1, y1, x2, y2] } of found) context.strokeRect(x1, y1, x2 - x1, y2 - y1);
  $('words').replaceChildren(...found.map((word) => listItem(word, names)));
  $('download').disabled = false;
  const count = `${found.length} ${found.length === 1 ? 'word' : 'words'}`;
  say(`${count} in ${state.name}, ${state.picture.width} × ${state.picture.height} pixels; the network took ${Math.round(state.result.milliseconds)} ms.`);
}

function listItem({ box: [x1, y1, x2, y2], score, category }, names) {
  const crop = document.createElement('canvas');
  [crop.width, crop.height] = [Math.max(1, Math.round(x2 - x1)), Math.max(1, Math.round(y2 - y1))];
  crop.getContext('2d').drawImage(state.bitmap, x1, y1, x2 - x1, y2 - y1, 0, 0, crop.width, crop.height);
  const item = document.createElement('li');
  const label = Object.keys(names).length > 1 ? `${names[category]} ` : '';
  item.append(crop, `${label}${score.toFixed(2)}`);
  return item;
}

// The form of detect.py's detections.json, without the lines.
function download() {
  const { names } = state.detector.about;
  const detections = words().map(({ box, score, category }) => ({ box, score, class: category, name: names[category] }));
  const entry = { image: state.name, width: state.picture.width, height: state.picture.height, detections };
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([JSON.stringify([entry], null, 1)], { type: 'application/json' }));
  link.download = 'detections.json';
  link.click();
  URL.revokeObjectURL(link.href);
}

async function fetchModel() {
  try {
    const answer = await fetch('model.onnx');
    if (!answer.ok) throw new Error(`${answer.status}`);
    await useModel(new Uint8Array(await answer.arrayBuffer()), 'model.onnx');
  } catch {
    say('There is no model.onnx beside this page. Choose an ONNX file of export.py as model.', true);
  }
}

async function takeFile(file) {
  if (!file) return;
  if (file.name?.endsWith('.onnx')) await useModel(new Uint8Array(await file.arrayBuffer()), file.name);
  else await usePicture(file);
}

$('picture').addEventListener('change', (event) => takeFile(event.target.files[0]));
$('model').addEventListener('change', (event) => takeFile(event.target.files[0]));
$('download').addEventListener('click', download);
$('confidence').addEventListener('input', () => {
  $('shown').textContent = Number($('confidence').value).toFixed(2);
  if (state.result) show();
});
document.addEventListener('paste', (event) => takeFile(event.clipboardData.files[0]));
for (const kind of ['dragover', 'dragleave', 'drop']) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    $('drop').classList.toggle('over', kind === 'dragover');
    if (kind === 'drop') takeFile(event.dataTransfer.files[0]);
  });
}
fetchModel();
