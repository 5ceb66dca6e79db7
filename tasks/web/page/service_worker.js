// Keeps the files of the page, so that it runs without a connection. files.js names them and their version.

importScripts("files.js");
const CACHE = `affwild2-${VERSION}`;
// An isolated page may use several threads. It loads nothing from elsewhere, so isolation excludes nothing.
const ISOLATION = { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp" };

self.addEventListener("install", (event) => {
  const requests = FILES.map((path) => new Request(path, { cache: "no-cache" }));
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(requests)).then(() => self.skipWaiting()));
});

self.addEventListener("activate", (event) => {
  event.waitUntil(removeOtherVersions().then(() => self.clients.claim()));
});

self.addEventListener("fetch", (event) => {
  if (event.request.method === "GET") event.respondWith(answer(event.request));
});

async function removeOtherVersions() {
  const scope = new URL(self.registration.scope).pathname;
  for (const name of await caches.keys()) {
    const kept = await (await caches.open(name)).keys();
    const isOurs = name.startsWith("affwild2-") && kept.every(({ url }) => new URL(url).pathname.startsWith(scope));
    if (isOurs && name !== CACHE) await caches.delete(name);
  }
}

async function answer(request) {
  const path = request.mode === "navigate" ? "index.html" : request;
  const cached = await (await caches.open(CACHE)).match(path, { ignoreSearch: true });
  const response = cached ?? (await fetch(request));
  if (response.type === "opaque" || !response.ok) return response;
  const headers = new Headers(response.headers);
  for (const [name, value] of Object.entries(ISOLATION)) headers.set(name, value);
  return new Response(response.body, { status: response.status, statusText: response.statusText, headers });
}
