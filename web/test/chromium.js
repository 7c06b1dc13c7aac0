// Debian's Chromium, driven by playwright-core.
import { existsSync } from "node:fs";

export const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";

/** Why there is no browser; false if there is one. */
export async function obstacle() {
  if (!existsSync(CHROMIUM)) return `there is no ${CHROMIUM}: apt-get install chromium`;
  try {
    await import("playwright-core");
  } catch {
    return "playwright-core is not installed: make web-packages";
  }
  return false;
}

export async function launch() {
  const { chromium } = await import("playwright-core");
  return chromium.launch({
    executablePath: CHROMIUM,
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });
}
