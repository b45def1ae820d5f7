/** Requests to the service that this page comes from. */

const TOKEN_KEY = "adtally-token";

/** What the service says when it refuses: a problem document (RFC 9457). */
export class Problem extends Error {
  /**
   * @param {number} status
   * @param {any} document
   * @param {number} [retryAfterSeconds]
   */
  constructor(status, document, retryAfterSeconds) {
    super(document?.detail || document?.title || `The service answered ${status}.`);
    this.status = status;
    this.document = document ?? {};
    this.retryAfterSeconds = retryAfterSeconds;
  }

  /** True when the same request may succeed later. */
  get mayPass() {
    return [408, 409, 423, 429].includes(this.status) || this.status >= 500;
  }
}

/** The token that this tab has signed in with, if any. */
export const token = () => sessionStorage.getItem(TOKEN_KEY);

/** @param {string | null} value */
export function setToken(value) {
  if (value) {
    sessionStorage.setItem(TOKEN_KEY, value);
  } else {
    sessionStorage.removeItem(TOKEN_KEY);
  }
}

/**
 * Sends a request and gives the answer.
 *
 * @param {string} method
 * @param {string} path
 * @param {RequestInit & {headers?: Record<string, string>}} [options]
 * @returns {Promise<Response>}
 * @throws {Problem} when the service refuses
 */
export async function request(method, path, options = {}) {
  const headers = { ...options.headers };
  const held = token();
  if (held) {
    headers.Authorization = `Bearer ${held}`;
  }
  // Without credentials of the browser's own, it does not ask for a password when the service answers 401.
  const response = await fetch(path, { ...options, method, headers, credentials: "omit" });
  if (response.ok) {
    return response;
  }
  const seconds = Number(response.headers.get("retry-after")) || undefined;
  const problem = new Problem(response.status, await response.json().catch(() => null), seconds);
  if (response.status === 401) {
    dispatchEvent(new CustomEvent("signinneeded", { detail: problem }));
  }
  throw problem;
}

/**
 * Reads JSON. Whole numbers that a `Number` would round are given as `BigInt`.
 *
 * @param {string} text
 * @returns {any}
 */
export function parse(text) {
  return JSON.parse(text, (_, value, /** @type {any} */ context) => {
    const isRounded = typeof value === "number" && Number.isInteger(value) && !Number.isSafeInteger(value);
    return isRounded && /^-?\d+$/.test(context?.source ?? "") ? BigInt(context.source) : value;
  });
}

/**
 * Asks for a JSON document.
 *
 * @param {string} path
 * @param {RequestInit} [options]
 * @returns {Promise<any>}
 */
export async function get(path, options) {
  const response = await request("GET", path, /** @type {any} */ (options));
  return parse(await response.text());
}

/**
 * The documents that server-sent events carry (HTML standard, 9.2). `EventSource` could not send a token.
 *
 * @param {string} path
 * @param {AbortSignal} signal
 * @returns {AsyncGenerator<any>}
 */
export async function* events(path, signal) {
  const response = await request("GET", path, { headers: { Accept: "text/event-stream" }, signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let pending = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) {
      return;
    }
    const blocks = (pending + value).split("\n\n");
    pending = blocks.pop() ?? "";
    for (const block of blocks) {
      const data = block.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trimStart());
      if (data.length) {
        yield parse(data.join("\n"));
      }
    }
  }
}

/**
 * Resolves after a time, earlier when the network comes back.
 *
 * @param {number} milliseconds
 * @param {AbortSignal} signal
 */
export function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      removeEventListener("online", end);
      signal.removeEventListener("abort", end);
      resolve(undefined);
    };
    const timer = setTimeout(end, milliseconds);
    addEventListener("online", end);
    signal.addEventListener("abort", end);
  });
}

/**
 * Saves an answer as a file: links cannot send a token.
 *
 * @param {string} path
 * @param {string} name
 */
export async function download(path, name) {
  const response = await request("GET", path);
  const address = URL.createObjectURL(await response.blob());
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}
