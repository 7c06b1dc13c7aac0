// Bundles for tests: those that are shipped, damaged copies of them, and a server.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readdirSync, existsSync } from "node:fs";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { extname, join } from "node:path";
import { fileURLToPath } from "node:url";

export const MODELS = fileURLToPath(new URL("../../models", import.meta.url));
export const NANO = join(MODELS, "shakespeare-nano");
export const BUNDLES = readdirSync(MODELS).filter((name) =>
  existsSync(join(MODELS, name, "bundle.json"))
);

const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");

function sorted(value) {
  if (Array.isArray(value)) return `[${value.map(sorted).join(",")}]`;
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  const names = Object.keys(value).sort();
  return `{${names.map((name) => `${JSON.stringify(name)}:${sorted(value[name])}`).join(",")}}`;
}

/** A copy of a bundle without graphs, which a test may damage. */
export async function copyBundle(test, from = NANO) {
  const folder = await mkdtemp(join(tmpdir(), "rillet-"));
  test.after(() => rm(folder, { recursive: true }));
  await cp(from, folder, { recursive: true, filter: (path) => extname(path) !== ".onnx" });
  return folder;
}

/** Replaces a file, and makes its hash and the manifest's checksum fit. */
export async function plant(folder, name, content) {
  await writeFile(join(folder, name), content);
  const path = join(folder, "bundle.json");
  // Numbers are kept as Python wrote them: 1.0 stays 1.0.
  const text = (await readFile(path, "utf8")).replace(
    /:\s*(-?\d[\d.eE+-]*)|([[,]\s*)(-?\d[\d.eE+-]*)(?=\s*[,\]])/g,
    (whole, value, before, item) => (value ? `:"#${value}#"` : `${before}"#${item}#"`)
  );
  const manifest = JSON.parse(text);
  manifest.files[name] = sha256(content);
  delete manifest.checksum;
  const plain = (json) => json.replace(/"#([^"#]*)#"/g, "$1");
  const checksum = sha256(plain(sorted(manifest)));
  await writeFile(path, plain(JSON.stringify({ ...manifest, checksum })));
}

const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
  ".css": "text/css",
  ".svg": "image/svg+xml",
  ".webmanifest": "application/manifest+json",
  ".json": "application/json",
  ".mjs": "text/javascript",
  ".wasm": "application/wasm",
};

/** Serves folders, each at a path; returns the address. */
export async function serve(folders) {
  const server = createServer(async (request, response) => {
    const { pathname } = new URL(request.url, "http://localhost");
    const prefix = Object.keys(folders).find((one) => pathname.startsWith(one));
    const rest = decodeURIComponent(pathname.slice(prefix?.length));
    try {
      if (prefix === undefined || rest.includes("..")) throw new Error("nothing there");
      const name = rest === "" || rest.endsWith("/") ? `${rest}index.html` : rest;
      const content = await readFile(join(folders[prefix], name));
      const type = TYPES[extname(name)] ?? "application/octet-stream";
      response.writeHead(200, { "content-type": type, "content-length": content.length });
      response.end(content);
    } catch {
      response.writeHead(404).end();
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    address: `http://127.0.0.1:${server.address().port}/`,
    close: () => {
      server.closeAllConnections();
      return new Promise((resolve) => server.close(resolve));
    },
  };
}

/**
 * Writes greedily after a bundle's golden prompt, and compares each token with the recorded one. In
 * int8, where engines round differently, one whose likelihood is as good may stand for it; what
 * follows is then another text. Returns what the module wrote.
 */
export async function goldenText(one) {
  const { prompt, greedy } = one.manifest.golden;
  const session = one.session();
  await session.feedTokens(prompt);
  const check = session.fork();
  const near = one.manifest.precision === "fp32" ? 0 : 0.1;
  for (const token of greedy) {
    const logits = check.logits;
    const likeliest = logits.indexOf(Math.max(...logits));
    if (likeliest !== token) {
      assert.ok(logits[likeliest] - logits[token] <= near, `${likeliest} instead of ${token}`);
      break;
    }
    await check.generate({ temperature: 0, maxNewTokens: 1 });
  }
  return await session.generate({ temperature: 0, maxNewTokens: greedy.length });
}
