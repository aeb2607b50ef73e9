// Talking to the service: the key, waiting while it is busy, errors in words.

const KEY = "winspect-key";
const PATIENCE_MS = 10 * 60 * 1000; // a large model may load for minutes
const CHUNK_BYTES = 8 * 2 ** 20; // well below any upload limit; a refused chunk is halved anyway
const CHUNK_PICTURES = 8;

/** What the service, or the way to it, said no with. `status` is 0 where no answer came. */
export class ServiceError extends Error {
  constructor(message, { status = 0, type = "" } = {}) {
    super(message);
    this.status = status;
    this.type = type;
  }
}

let askForKey = async () => null;

/** `ask(wasWrong)` is called when the service wants a key, and resolves to one. */
export function onKeyWanted(ask) {
  askForKey = ask;
}

function headers() {
  const key = sessionStorage.getItem(KEY);
  return key ? { Authorization: `Bearer ${key}` } : {};
}

let asking = null; // one question, however many requests wait for its answer

async function newKey(usedKey) {
  if (sessionStorage.getItem(KEY) !== usedKey) return; // another request has got one meanwhile
  asking ??= askForKey(usedKey !== null).then((key) => {
    sessionStorage.setItem(KEY, key);
    asking = null;
  });
  await asking;
}

function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}

// A service may close the connection on an upload that is too large before its answer is read.
const CUT = "The connection was cut: the service is gone, or the upload is larger than it allows.";

function isLarge(body) {
  const sizes = body instanceof FormData ? [...body.values()].map((value) => value.size ?? 0) : [];
  return sizes.reduce((sum, size) => sum + size, 0) > CHUNK_BYTES;
}

async function errorOf(response) {
  const body = await response.json().catch(() => null);
  const error = body?.error;
  const message = (typeof error === "string" ? error : error?.message) || `The service answered ${response.status}.`;
  return new ServiceError(message, { status: response.status, type: error?.type ?? "" });
}

/**
 * Ask the service. A service that is busy (429) or loading (503) is asked again when it says so, and one that wants a
 * key (401) when the user has given one.
 *
 * @param {(seconds: number, error: ServiceError) => void} [onWait] told before each wait
 * @throws {ServiceError}
 */
export async function ask(path, { method = "GET", body, signal, onWait } = {}) {
  const until = Date.now() + PATIENCE_MS;
  for (;;) {
    const usedKey = sessionStorage.getItem(KEY);
    let response;
    try {
      response = await fetch(path, { method, body, signal, headers: headers() });
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new ServiceError(isLarge(body) ? CUT : "The service does not answer. Is it still running?");
    }
    if (response.ok) return response;
    if (response.status === 401) {
      await newKey(usedKey);
      continue;
    }
    const error = await errorOf(response);
    if (![429, 503].includes(error.status) || Date.now() > until) throw error;
    const seconds = Math.max(Number(response.headers.get("Retry-After")) || 1, 0.2);
    onWait?.(seconds, error);
    await pause(seconds * 1000, signal);
  }
}

/** Ask, and read the answer as JSON. */
export async function askJson(path, options) {
  const response = await ask(path, options);
  return response.status === 204 ? null : response.json();
}

/** The name that a file is sent under, and that the service tells it by: no quotes or slashes, not too long. */
export function sentName({ name }) {
  return [...name.replace(/["\\/\r\n]/g, "_")].slice(-100).join("");
}

export function form(fields, files = []) {
  const body = new FormData();
  for (const [name, value] of Object.entries(fields)) body.append(name, String(value));
  for (const file of files) body.append("pictures", file, sentName(file));
  return body;
}

/**
 * Send pictures in chunks. A chunk that is refused for its size or for one picture is halved until that picture is
 * alone, which is then left out and put into `refused` (`{name, message}`); the others go.
 */
export async function sendPictures(path, fields, files, { refused, signal, onWait, onProgress }) {
  const isOfPictures = ({ status, type }) => status === 413 || ["PictureError", "ReferencesError"].includes(type);
  let done = 0;
  const send = async (chunk) => {
    try {
      await ask(path, { method: "POST", body: form(fields, chunk), signal, onWait });
    } catch (error) {
      if (!isOfPictures(error)) throw error;
      if (chunk.length > 1) {
        const half = Math.ceil(chunk.length / 2);
        await send(chunk.slice(0, half));
        await send(chunk.slice(half));
        return;
      }
      refused.push({ name: sentName(chunk[0]), message: error.message });
    }
    done += chunk.length;
    onProgress(done, files.length);
  };
  for (const chunk of chunks(files)) await send(chunk);
}

function* chunks(files) {
  let chunk = [];
  let bytes = 0;
  for (const file of files) {
    if (chunk.length && (chunk.length === CHUNK_PICTURES || bytes + file.size > CHUNK_BYTES)) {
      yield chunk;
      [chunk, bytes] = [[], 0];
    }
    chunk.push(file);
    bytes += file.size;
  }
  if (chunk.length) yield chunk;
}
