// The status page in a real browser. Arguments: the page's address, the folder for screenshots. Then, on standard input, one line
// for each thing that is to become visible without a reload: its text. Prints one line of JSON for each, and one for the start.
import { createInterface } from "node:readline";
import puppeteer from "puppeteer-core";

const [url, folder] = process.argv.slice(2);
const PATIENCE = 20_000;
const SIZES = [[400, 900], [1400, 900]];

const browser = await puppeteer.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
});
const troubles = [];
try {
  const page = await browser.newPage();
  page.on("console", (said) => { if (["error", "warn"].includes(said.type())) troubles.push(said.text()); });
  page.on("pageerror", (error) => troubles.push(String(error)));
  page.on("requestfailed", (request) => troubles.push(`${request.url()}: ${request.failure()?.errorText}`));
  page.on("request", (request) => {
    if (!request.url().startsWith(url) && !request.url().startsWith("data:")) troubles.push(`asked elsewhere: ${request.url()}`);
  });
  await page.goto(url, { timeout: PATIENCE });
  const shots = async (name) => {
    const wide = [];
    for (const scheme of ["light", "dark"]) {
      await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
      for (const [width, height] of SIZES) {
        await page.setViewport({ width, height });
        await page.screenshot({ path: `${folder}/${name}-${width}-${scheme}.png`, fullPage: true });
        const over = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
        if (over > 0) wide.push(`${over} px too wide at ${width}`);
      }
    }
    return wide;
  };
  const tell = (what) => console.log(JSON.stringify(what));
  const headline = () => page.evaluate(() => document.querySelector("h1").textContent);
  tell({ headline: await headline(), wide: await shots("start"), troubles });

  let n = 0;
  for await (const line of createInterface({ input: process.stdin })) {
    const seen = (text) => document.querySelector("main").textContent.includes(text);
    await page.waitForFunction(seen, { timeout: PATIENCE }, line);
    n += 1;
    tell({ headline: await headline(), wide: await shots(`after-${n}`), troubles });
  }

  // Without a script there is the same page, and it asks to be loaded again by itself.
  const plain = await browser.newPage();
  await plain.setJavaScriptEnabled(false);
  const answer = await plain.goto(url, { timeout: PATIENCE });
  const text = await answer.text();
  tell({ plain: /<h1>.+<\/h1>/s.test(text) && text.includes('http-equiv="refresh"') });
} finally {
  await browser.close();
}
