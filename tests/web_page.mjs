// Drives examples/web in a headless Chromium: node web_page.mjs CHROMIUM URL PLAIN_URL OUT
// OUT keeps the browser's profile, for web_offline.mjs, holds picture.png, turned.jpg, broken.png, model.onnx and model.onnx.txt.onnx, and gets what is seen.
// PLAIN_URL serves the page without the headers that threads need.
import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';

const [chromium, url, plainUrl, out] = process.argv.slice(2);
const [picture, turned, broken, model] = ['picture.png', 'turned.jpg', 'broken.png', 'model.onnx'].map((name) => join(out, name));
const require = createRequire(new URL('../examples/web/package.json', import.meta.url));
const puppeteer = (await import(require.resolve('puppeteer-core'))).default;
const browser = await puppeteer.launch({
  executablePath: chromium,
  userDataDir: join(out, 'profile'),
  args: ['--no-sandbox', '--disable-gpu'],
});
const page = await browser.newPage();
const errors = [];
page.on('pageerror', (error) => errors.push(String(error)));
await page.setViewport({ width: 1000, height: 900 });

const status = () => page.$eval('#status', (element) => element.textContent);
const until = (part) =>
  page.waitForFunction((part) => document.getElementById('status').textContent.includes(part), { timeout: 60000 }, part);
const upload = async (id, file) => (await page.$(id)).uploadFile(file);
const words = () => page.$$eval('#words li', (items) => items.length);

// Drops a file on the page, as a hand would.
async function drop(file) {
  const content = readFileSync(file).toString('base64');
  await page.evaluate(async (content, name) => {
    const bytes = Uint8Array.from(atob(content), (character) => character.charCodeAt(0));
    const transfer = new DataTransfer();
    transfer.items.add(new File([bytes], name));
    document.getElementById('drop').dispatchEvent(new DragEvent('drop', { dataTransfer: transfer, bubbles: true }));
  }, content, file.split('/').pop());
}

const result = {};
try {
  await page.goto(url);
  await until('Ready');
  result.isolated = await page.evaluate(() => crossOriginIsolated);
  result.size = await page.$eval('#size', (element) => element.textContent);
  await page.waitForFunction(() => document.getElementById('offline').textContent, { timeout: 60000 });
  await page.click('#example');
  await until('example.jpg');
  result.example = await words();
  result.confidence = Number(await page.$eval('#confidence', (slider) => slider.value));
  await drop(picture);
  await until('picture.png'); // the example's status is like this one but for the name
  result.status = await status();
  result.crops = await words();
  await page.screenshot({ path: join(out, 'page.png'), fullPage: true });

  const session = await browser.target().createCDPSession();
  await session.send('Browser.setDownloadBehavior', { behavior: 'allow', downloadPath: out, eventsEnabled: true });
  const done = new Promise((resolve) => session.on('Browser.downloadProgress', (event) => event.state === 'completed' && resolve()));
  await page.click('#download');
  await done;

  await page.focus('#confidence');
  await page.keyboard.press('End'); // the slider's highest, by keyboard
  result.confident = await words();
  await Promise.all([drop(picture), drop(turned)]); // two at once: one after the other
  await until('turned.jpg');
  result.turned = await status();

  await upload('#picture', broken);
  await until('is no picture');
  result.broken = await status();
  await upload('#model', model + '.txt.onnx');
  await until('cannot be used');
  result.noModel = await status();
  await page.focus('#confidence');
  await page.keyboard.press('Home'); // works on what is shown, without a model
  result.unsure = await words();

  await page.setBypassServiceWorker(true); // it would answer in place of what is intercepted
  await page.setRequestInterception(true);
  let absent = 'model.onnx';
  page.on('request', (request) => (request.url().endsWith(absent) ? request.respond({ status: 404 }) : request.continue()));
  result.runtime = [];
  for (absent of ['ort.wasm.min.mjs', 'threaded.mjs', '.wasm']) {
    await page.goto(url);
    await until('npm ci');
    result.runtime.push(await status());
  }
  absent = 'model.onnx';
  await page.goto(plainUrl);
  await until('Choose an ONNX file');
  result.missing = await status();
  result.plain = await page.evaluate(() => crossOriginIsolated);
  await upload('#model', model);
  await until('Ready');
  await upload('#picture', picture);
  await until('the network took');
  result.again = await words();
} finally {
  result.errors = errors;
  result.last = await status().catch(() => '');
  writeFileSync(join(out, 'result.json'), JSON.stringify(result));
  await browser.close();
}
