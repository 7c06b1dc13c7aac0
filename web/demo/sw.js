// Works offline after the first visit: the newest from the network, or what was kept of it.
const KEPT = "rillet-1";
const SHELL = [
  ".", "style.css", "page.js", "engine.js", "memory.js", "suggest.js", "waves.js", "notes.js", "icon.svg",
  "app.webmanifest", "models.json", "notes.txt", "rillet/index.js", "rillet/model.js", "rillet/session.js",
  "rillet/engine.js", "rillet/bundle.js", "rillet/options.js",
];

self.addEventListener("install", (event) => {
  self.skipWaiting();
  event.waitUntil(caches.open(KEPT).then((cache) => cache.addAll(SHELL)));
});

self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));

async function answer(request) {
  const cache = await caches.open(KEPT);
  try {
    const response = await fetch(request);
    if (response.ok) await cache.put(request, response.clone());
    return response;
  } catch (error) {
    const kept = await cache.match(request);
    if (kept) return kept;
    throw error;
  }
}

self.addEventListener("fetch", (event) => {
  const { method, url } = event.request;
  if (method === "GET" && url.startsWith(self.registration.scope)) {
    event.respondWith(answer(event.request));
  }
});
