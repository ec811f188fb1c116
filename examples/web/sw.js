// Lets the page work without a network once it has been loaded: what is fetched is kept, and taken where the network has
// no answer. Other files of this address are not its business. Browsers run service workers on this machine (localhost)
// and over HTTPS, not on http://192.168...
const STORE = 'ocrdistill';
const RUNTIME = './node_modules/onnxruntime-web/dist/';
const PAGE = ['./', './index.html', './page.js', './detector.js', './example.jpg'];
const LIBRARY = ['ort.wasm.min.mjs', 'ort-wasm-simd-threaded.mjs', 'ort-wasm-simd-threaded.wasm'].map((name) => RUNTIME + name);

// The first load comes before this worker, so all is fetched here: the browser has it at hand. But for the network, which
// page.js keeps: it is too large to be fetched twice.
const KEPT = [...PAGE, ...LIBRARY, './model.onnx'].map((name) => new URL(name, self.registration.scope).href);

self.addEventListener('install', (event) => event.waitUntil(keepAll().then(() => self.skipWaiting())));
self.addEventListener('activate', (event) => event.waitUntil(self.clients.claim()));
self.addEventListener('fetch', (event) => {
  const file = event.request.url.split(/[?#]/)[0];
  if (event.request.method === 'GET' && KEPT.includes(file)) event.respondWith(fresh(event.request));
});

async function keepAll() {
  const store = await caches.open(STORE);
  await store.addAll([...PAGE, ...LIBRARY]);
}

async function fresh(request) {
  const store = await caches.open(STORE);
  try {
    const answer = await fetch(request);
    if (answer.ok) store.put(request, answer.clone());
    return answer;
  } catch (error) {
    const kept = await store.match(request, { ignoreSearch: true });
    if (kept) return kept;
    throw error;
  }
}
