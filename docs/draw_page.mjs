// Takes the picture of the page of examples/web with its example, for docs/web.png; serve.py must be running:
//     node docs/draw_page.mjs chromium http://127.0.0.1:8000/
import { createRequire } from 'node:module';

const [chromium, url] = process.argv.slice(2);
const require = createRequire(new URL('../examples/web/package.json', import.meta.url));
const puppeteer = (await import(require.resolve('puppeteer-core'))).default;
const executablePath = chromium.startsWith('/') ? chromium : `/usr/bin/${chromium}`;
const browser = await puppeteer.launch({ executablePath, args: ['--no-sandbox', '--disable-gpu'] });
try {
  const page = await browser.newPage();
  await page.setViewport({ width: 1000, height: 900 });
  await page.goto(url);
  const until = (part) =>
    page.waitForFunction((part) => document.getElementById('status').textContent.includes(part), { timeout: 60000 }, part);
  await until('Ready');
  await page.click('#example');
  await until('the network took');
  await page.screenshot({ path: new URL('web.png', import.meta.url).pathname, fullPage: true });
} finally {
  await browser.close();
}
