// The module and the page in Chromium. RILLET_SCREENSHOTS=FOLDER keeps pictures of it.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";

import { load } from "rillet";
import { BUNDLES, MODELS, goldenText, serve } from "./bundles.js";
import { launch, obstacle } from "./chromium.js";

const DEMO = fileURLToPath(new URL("../../build/demo", import.meta.url));
const PICTURES = process.env.RILLET_SCREENSHOTS;
const PHONE = { viewport: { width: 360, height: 740 }, deviceScaleFactor: 1.5, hasTouch: true };
const skip = await obstacle();

let browser, server;
before(async () => {
  if (skip) return;
  server = await serve({ "/all/": MODELS, "/": DEMO });
  browser = await launch();
});
after(async () => {
  await browser?.close();
  await server?.close();
});

/** A page whose every complaint fails the test. */
async function open(t, options = {}, path = "") {
  const context = await browser.newContext(options);
  t.after(() => context.close());
  const page = await context.newPage();
  const complaints = [];
  page.on("console", (message) => {
    const isIcon = message.location().url.endsWith("/favicon.ico"); // of documents without one
    if (["error", "warning"].includes(message.type()) && !isIcon) complaints.push(message.text());
  });
  page.on("pageerror", (error) => complaints.push(error.message));
  await page.goto(server.address + path);
  return { page, complaints };
}

async function ready(page) {
  await page.waitForSelector("html[data-ready]", { timeout: 60_000 });
}

async function overflow(page) {
  return page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
}

async function picture(page, name) {
  if (PICTURES) await page.screenshot({ path: join(PICTURES, `${name}.png`) });
}

describe("in Chromium", { skip, concurrency: false }, () => {
  test("the tokens that PyTorch chose, with SIMD and without", async (t) => {
    const { page, complaints } = await open(t, {}, "style.css");
    for (const name of BUNDLES) {
      for (const simd of [true, false]) {
        const text = await page.evaluate(
          async ([address, name, simd]) => {
            const { load } = await import(`${address}rillet/index.js`);
            const model = await load(`${address}all/${name}`, { simd });
            const { prompt, greedy } = model.manifest.golden;
            const session = model.session();
            await session.feedTokens(prompt);
            return await session.generate({ temperature: 0, maxNewTokens: greedy.length });
          },
          [server.address, name, simd]
        );
        // Node's is held to the record in module.test.js.
        const expected = await goldenText(await load(join(MODELS, name), { simd }));
        assert.equal(text, expected, `${name}, SIMD: ${simd}`);
      }
    }
    assert.deepEqual(complaints, []);
  });

  test("in a Worker", async (t) => {
    const { page } = await open(t, {}, "style.css");
    const text = await page.evaluate(
      (address) =>
        new Promise((resolve, reject) => {
          const source = `
            import { load } from "${address}rillet/index.js";
            const model = await load("${address}models/shakespeare-nano");
            postMessage(await model.generate("ROMEO:", { temperature: 0, maxNewTokens: 30 }));`;
          const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
          const worker = new Worker(url, { type: "module" });
          worker.onmessage = ({ data }) => resolve(data);
          worker.onerror = (event) => reject(new Error(event.message));
        }),
      server.address
    );
    assert.equal(text.length, 30);
  });

  const saved = process.env.RILLET_STATE;
  test("a stream that Python saved", { skip: !saved && "no RILLET_STATE" }, async (t) => {
    const { page } = await open(t, {}, "style.css");
    const text = await page.evaluate(
      async ([address, bytes]) => {
        const { load } = await import(`${address}rillet/index.js`);
        const model = await load(`${address}models/shakespeare-nano`);
        let text = "";
        for await (const piece of model.restore(Uint8Array.from(bytes)).resume()) text += piece;
        return text;
      },
      [server.address, [...(await readFile(saved))]]
    );
    assert.equal(text, process.env.RILLET_TEXT);
  });

  test("the page on a phone, light", async (t) => {
    const { page, complaints } = await open(t, { ...PHONE, colorScheme: "light" });
    await ready(page);
    assert.equal(await page.locator("#suggestions button").count(), 3);
    await page.fill("#text", "JULIET:\nO Rome");
    await page.locator("#suggestions button").first().click();
    assert.match(await page.inputValue("#text"), /^JULIET:\nO Rome.+/s);
    await page.click("#learn");
    await page.waitForFunction(() => document.querySelector("#learnt").textContent, null, {
      timeout: 60_000,
    });
    await page.fill("#text", "Friday. Mirabelle slept on the ");
    await page.click("#go");
    await page.waitForFunction(() => document.querySelector("#written").textContent);
    const spans = await page.locator("#output span").count();
    assert.equal(spans, 400);
    const weights = await page.$$eval("#output span", (all) =>
      all.map((span) => Number(span.style.getPropertyValue("--weight")))
    );
    assert.ok(Math.max(...weights) > 0.7);
    await page.locator("#output").press("ArrowRight");
    assert.match(await page.textContent("#found"), /had \d+\s%, of which the memory gave \d+\s%/);
    assert.equal(await overflow(page), 0);
    await page.evaluate(() => document.querySelector("#output-title").scrollIntoView());
    await picture(page, "browser-phone");
    assert.deepEqual(complaints, []);
  });

  test("the page on a desk, dark, reads notes", async (t) => {
    const { page, complaints } = await open(t, {
      viewport: { width: 1100, height: 860 },
      colorScheme: "dark",
    });
    await ready(page);
    await page.click("#learn");
    await page.waitForFunction(() => document.querySelector("#learnt").textContent, null, {
      timeout: 60_000,
    });
    const [, own, other] = /([\d.]+) with the memory, ([\d.]+) without/.exec(
      await page.textContent("#learnt")
    );
    assert.ok(Number(own) < Number(other) - 0.3, `${own}, ${other}`);
    await page.fill("#text", "Friday. Mirabelle slept on the ");
    await page.click("#go");
    await page.waitForFunction(() => document.querySelector("#written").textContent);
    assert.equal(await overflow(page), 0);
    await picture(page, "browser-desk");
    await page.click("#forget");
    assert.deepEqual(complaints, []);
  });

  test("a stream is stopped by its button", async (t) => {
    const { page } = await open(t);
    await ready(page);
    await page.click("#go");
    await page.click("#stop");
    await page.waitForFunction(() => !document.querySelector("#go").disabled);
    assert.match(await page.textContent("#written"), /^Stopped after /);
    assert.ok((await page.locator("#output span").count()) < 400);
  });

  test("notes that are stopped are not learnt", async (t) => {
    const { page, complaints } = await open(t);
    await ready(page);
    const notes = await page.inputValue("#notes");
    await page.fill("#notes", notes.repeat(20));
    await page.click("#learn");
    await page.waitForSelector("#loss .with");
    await page.click("#stop");
    await page.waitForFunction(() => document.querySelector("#learnt").textContent);
    assert.match(await page.textContent("#learnt"), /^Stopped; nothing was learnt/);
    assert.ok(await page.isDisabled("#forget"));
    assert.ok(await page.isEnabled("#learn"));
    assert.deepEqual(complaints, []);
  });

  test("a seed gives the module's text", async (t) => {
    const { page } = await open(t);
    await ready(page);
    await page.fill("#text", "ROMEO:\n");
    await page.fill("#tokens", "60");
    await page.fill("#seed", "5");
    await page.click("#go");
    await page.waitForFunction(() => document.querySelector("#written").textContent);
    const model = await load(join(MODELS, "shakespeare-nano"));
    const options = { maxNewTokens: 60, seed: 5, temperature: 0.7 };
    assert.equal(await page.textContent("#output"), await model.generate("ROMEO:\n", options));
    assert.match(await page.textContent("#written"), /^60 tokens in /);
  });

  test("all is named, and reached by keyboard", async (t) => {
    const { page } = await open(t);
    await ready(page);
    const nameless = await page.$$eval("button, input, textarea, select, canvas, svg, progress", (all) =>
      all
        .filter((one) => !one.labels?.length && !one.textContent.trim() && !one.ariaLabel)
        .map((one) => one.id)
    );
    assert.deepEqual(nameless, []);
    const reached = new Set();
    for (let i = 0; i < 20; i++) {
      await page.keyboard.press("Tab");
      reached.add(await page.evaluate(() => document.activeElement.id));
    }
    for (const id of ["model", "text", "go", "temperature", "output", "notes", "learn"]) {
      assert.ok(reached.has(id), id);
    }
  });

  test("offline, after the first load", async (t) => {
    const { page, complaints } = await open(t);
    await ready(page);
    await page.waitForFunction(() => document.querySelector("#footer").textContent);
    await page.context().setOffline(true);
    const { close, address } = server;
    await close();
    await page.reload();
    await ready(page);
    await page.click("#go");
    await page.waitForFunction(() => document.querySelector("#written").textContent);
    assert.deepEqual(complaints, []);
    server = undefined;
    assert.ok(address);
  });
});
