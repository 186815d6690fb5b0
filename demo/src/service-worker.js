// Makes the page work without a network, and isolated on servers that cannot say so in their headers.
//
// It downloads nothing of its own: the page keeps its files, compared with their checksums (files.js); here they are served.

const CACHE = "distillery-files";

self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));
self.addEventListener("fetch", (event) => {
  const { request } = event;
  if (request.method === "GET" && request.url.startsWith(self.registration.scope)) event.respondWith(respond(request));
});

async function respond(request) {
  const isPage = request.mode === "navigate";
  const url = isPage ? new URL("index.html", self.registration.scope).href : request.url;
  const kept = await (await caches.open(CACHE)).match(url);
  // These two have no checksum in their names: a new site is seen where there is a network.
  const mayChange = isPage || url.endsWith("/site.json");
  if (kept && !mayChange) return isolated(request, kept);
  try {
    return isolated(request, await fetch(request));
  } catch (error) {
    if (!kept) throw error;
    return isolated(request, kept);
  }
}

/** Shared memory, and with it threads, needs these two headers on the page and on its workers. */
function isolated(request, response) {
  if (!response.ok || !(request.mode === "navigate" || request.destination === "worker")) return response;
  const headers = new Headers(response.headers);
  headers.set("Cross-Origin-Opener-Policy", "same-origin");
  headers.set("Cross-Origin-Embedder-Policy", "require-corp");
  return new Response(response.body, { status: response.status, statusText: response.statusText, headers });
}
