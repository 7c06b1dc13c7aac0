// rillet in a page or a Worker: text from a bundle.
import { folderUrl, httpReader, loadWith } from "./model.js";

/**
 * Loads the bundle in a folder, and checks its version and its files' hashes.
 *
 * @param {string | URL} url The folder's address, which may be relative to the page.
 * @param {import("./model.js").LoadOptions} [options]
 */
export async function load(url, options = {}) {
  return loadWith(folderUrl(url, location.href), options, httpReader, (file) => fetch(file));
}

export { Model } from "./model.js";
export { Session } from "./session.js";
