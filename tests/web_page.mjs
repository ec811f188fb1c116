// Drives examples/web in a headless Chromium: node web_page.mjs CHROMIUM URL PICTURE BROKEN MODEL OUT
import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';

const [chromium, url, picture, broken, model, out] = process.argv.slice(2);
const require = createRequire(new URL('../examples/web/package.json', import.meta.url));
const puppeteer = (await import(require.resolve('puppeteer-core'))).default;
const browser = await puppeteer.launch({ executablePath: chromium, args: ['--no-sandbox', '--disable-gpu'] });
const page = await browser.newPage();
const errors = [];
page.on('pageerror', (error) => errors.push(String(error)));
await page.setViewport({ width: 1000, height: 900 });

const status = () => page.$eval('#status', (element) => element.textContent);
const until = (part) =>
  page.waitForFunction((part) => document.getElementById('status').textContent.includes(part), { timeout: 60000 }, part);
const upload = async (id, file) => (await page.$(id)).uploadFile(file);
const setConfidence = (value) =>
  page.$eval('#confidence', (slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input')); }, value);

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
  result.confidence = Number(await page.$eval('#confidence', (slider) => slider.value));
  await drop(picture);
  await until('the network took');
  result.status = await status();
  result.crops = await page.$$eval('#words li', (items) => items.length);
  await page.screenshot({ path: join(out, 'page.png') });

  const session = await browser.target().createCDPSession();
  await session.send('Browser.setDownloadBehavior', { behavior: 'allow', downloadPath: out, eventsEnabled: true });
  const done = new Promise((resolve) => session.on('Browser.downloadProgress', (event) => event.state === 'completed' && resolve()));
  await page.click('#download');
  await done;

  await setConfidence('0.95');
  result.confident = await page.$$eval('#words li', (items) => items.length);
  await upload('#picture', broken);
  await until('is no picture');
  result.broken = await status();
  await upload('#model', model + '.txt.onnx');
  await until('cannot be used');
  result.noModel = await status();

  await page.setRequestInterception(true);
  page.on('request', (request) => (request.url().endsWith('model.onnx') ? request.respond({ status: 404 }) : request.continue()));
  await page.reload();
  await until('Choose an ONNX file');
  result.missing = await status();
  await upload('#model', model);
  await until('Ready');
  await upload('#picture', picture);
  await until('the network took');
  result.again = await page.$$eval('#words li', (items) => items.length);
} finally {
  result.errors = errors;
  result.last = await status().catch(() => '');
  writeFileSync(join(out, 'result.json'), JSON.stringify(result));
  await browser.close();
}
