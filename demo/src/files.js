// The files of the site: fetched once, compared with their checksums, kept for the next time and for times without a network.

const CACHE = "distillery-files";

/** What went wrong with a file, in words for its reader. */
export class FileProblem extends Error {}

/** Whether anything can be kept: browsers allow it on https:// and on the machine itself. */
export const canKeep = typeof caches !== "undefined";

/**
 * The bytes of a file {path, url, bytes, sha256, type} of site.json. `onBytes` hears how many have come.
 * Errors: FileProblem for one that is missing, or is not what was built.
 */
export async function readFile(file, onBytes = () => {}) {
  const kept = await keptResponse(file);
  if (kept) {
    const bytes = new Uint8Array(await kept.arrayBuffer());
    if (await isWhatWasBuilt(file, bytes)) return bytes;
    await (await caches.open(CACHE)).delete(file.url); // damaged since: fetched anew
  }
  const bytes = await fetched(file, onBytes);
  if (!(await isWhatWasBuilt(file, bytes))) {
    throw new FileProblem(
      `${file.path} is damaged: its checksum is not that of the file that was built (${bytes.length} bytes came, ` +
        `${file.bytes} were built). Reload the page; if it says so again, build the site again.`,
    );
  }
  await keep(file, bytes);
  return bytes;
}

async function fetched(file, onBytes) {
  let response;
  try {
    response = await fetch(file.url, { cache: file.mayChange ? "no-cache" : "default" });
  } catch {
    throw new FileProblem(`${file.path} could not be fetched: is there a network? Reload the page to try again.`);
  }
  if (!response.ok) {
    throw new FileProblem(
      `${file.path} is missing on the server (it answers ${response.status}). Build the site again, and copy all of it.`,
    );
  }
  const parts = [];
  let length = 0;
  const reader = response.body.getReader();
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    parts.push(part.value);
    length += part.value.length;
    onBytes(length);
  }
  const bytes = new Uint8Array(length);
  parts.reduce((at, part) => (bytes.set(part, at), at + part.length), 0);
  return bytes;
}

async function isWhatWasBuilt(file, bytes) {
  if (bytes.length !== file.bytes) return false;
  if (!globalThis.crypto?.subtle) return true; // not on http:// of another machine: the recorded answers still judge
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("") === file.sha256;
}

async function keptResponse(file) {
  return canKeep ? (await caches.open(CACHE)).match(file.url) : undefined;
}

async function keep(file, bytes) {
  if (!canKeep) return;
  try {
    const headers = { "Content-Type": file.type, "Content-Length": String(bytes.length) };
    await (await caches.open(CACHE)).put(file.url, new Response(bytes, { headers }));
  } catch {
    // The disk is full, or the browser keeps nothing in this window: it works all the same, as long as there is a network.
  }
}

/**
 * Keeps the files that are not kept yet and drops those that are no longer the site's; whether all are kept now.
 * `index`: the address of site.json, which names them. Errors: FileProblem.
 */
export async function keepAll(files, index) {
  const cache = await caches.open(CACHE);
  await cache.put(index, await fetch(index));
  const known = new Set([index, ...files.map((file) => file.url)]);
  for (const request of await cache.keys()) if (!known.has(request.url)) await cache.delete(request);
  const needed = files.filter((file) => !file.optional);
  for (const file of needed) if (file.mayChange || !(await keptResponse(file))) await readFile(file);
  return (await Promise.all(needed.map(keptResponse))).every(Boolean);
}

/** What was remembered under a key, or nothing. */
export async function remembered(key) {
  if (!canKeep) return undefined;
  return (await (await caches.open(`${CACHE}-verdicts`)).match(noteUrl(key)))?.json();
}

export async function remember(key, value) {
  if (!canKeep) return;
  const note = new Response(JSON.stringify(value), { headers: { "Content-Type": "application/json" } });
  await (await caches.open(`${CACHE}-verdicts`)).put(noteUrl(key), note).catch(() => {});
}

function noteUrl(key) {
  return new URL(`verdict?${encodeURIComponent(key)}`, location.href).href;
}
