// rillet in node: the same, and folders of the disk.
import { readFile } from "node:fs/promises";
import { pathToFileURL } from "node:url";

import { folderUrl, httpReader, loadWith } from "./model.js";

const readFromDisk = async (/** @type {URL} */ url) => {
  const content = await readFile(url);
  return new Response(new Uint8Array(content), {
    headers: { "content-length": String(content.length) },
  });
};

function diskReader(/** @type {URL} */ folder) {
  return async (/** @type {string} */ name) => {
    const url = new URL(name, folder);
    try {
      return await readFromDisk(url);
    } catch (error) {
      const reason = error instanceof Error ? error.message : error;
      throw new Error(
        `${url} cannot be read (${reason}); give the folder that \`rillet export\` wrote`
      );
    }
  };
}

/**
 * Loads the bundle in a folder, and checks its version and its files' hashes.
 *
 * @param {string | URL} url A folder of the disk, or the address of one.
 * @param {import("./model.js").LoadOptions} [options]
 */
export async function load(url, options = {}) {
  const isAddress = url instanceof URL || /^(https?|file):/.test(url);
  const folder = folderUrl(isAddress ? url : pathToFileURL(/** @type {string} */ (url)), "file:///");
  const readerOf = folder.protocol === "file:" ? diskReader : httpReader;
  return loadWith(folder, options, readerOf, readFromDisk);
}

export { Model } from "./model.js";
export { Session } from "./session.js";
