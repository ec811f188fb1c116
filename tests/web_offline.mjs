// Opens examples/web once more after its server has gone: node web_offline.mjs CHROMIUM URL OUT
// OUT holds the profile of the browser that web_page.mjs used, and picture.png; prints the number of words found.
import { createRequire } from 'node:module';
import { join } from 'node:path';

const [chromium, url, out] = process.argv.slice(2);
const require = createRequire(new URL('../examples/web/package.json', import.meta.url));
const puppeteer = (await import(require.resolve('puppeteer-core'))).default;
const browser = await puppeteer.launch({
  executablePath: chromium,
  userDataDir: join(out, 'profile'),
  args: ['--no-sandbox', '--disable-gpu'],
});
try {
  const page = await browser.newPage();
  await page.goto(url);
  const until = (part) =>
    page.waitForFunction((part) => document.getElementById('status').textContent.includes(part), { timeout: 60000 }, part);
  await until('Ready');
  await (await page.$('#picture')).uploadFile(join(out, 'picture.png'));
  await until('the network took');
  console.log(await page.$$eval('#words li', (items) => items.length));
} finally {
  await browser.close();
}
