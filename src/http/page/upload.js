/** Sending files so that nothing is lost: tus 1.0 on the resources of files (https://tus.io). */

import { Problem, events, get, pause, request } from "./api.js";

const FINAL_STATES = ["succeeded", "failed", "cancelled"];
const MAX_PAUSE_MILLISECONDS = 15_000;
const IDLE_PAUSE_MILLISECONDS = 2_000;
const MAX_NAME_BYTES = 255;

/** @param {{state: string}} job */
export const isFinal = (job) => FINAL_STATES.includes(job.state);

/** The file on this machine cannot be read any more. */
class FileGone extends Error {}

/**
 * The path of a job, whatever characters its id or name has.
 *
 * @param {string} id
 */
export const jobPath = (id) => `/v1/jobs/${encodeURIComponent(id)}`;

/**
 * A job's documents, from now until it has ended. A connection that breaks is made anew.
 *
 * @param {string} id
 * @param {AbortSignal} signal
 * @param {(isConnected: boolean) => void} [onconnection]
 * @returns {AsyncGenerator<any>}
 */
export async function* watch(id, signal, onconnection = () => {}) {
  for (let failures = 0; !signal.aborted; ) {
    try {
      for await (const job of events(`${jobPath(id)}/events`, signal)) {
        failures = 0;
        onconnection(true);
        yield job;
        if (isFinal(job)) {
          return;
        }
      }
      // Of a job that nobody sends to there is one event.
      await pause(IDLE_PAUSE_MILLISECONDS, signal);
    } catch (error) {
      if (signal.aborted) {
        return;
      }
      if (error instanceof Problem && !error.mayPass) {
        throw error;
      }
      onconnection(false);
      await pause(pauseAfter(failures), signal);
      failures += 1;
    }
  }
}

const pauseAfter = (failures) => Math.min(500 * 2 ** failures, MAX_PAUSE_MILLISECONDS);

/**
 * The uploads that this page sends, by the id of their job.
 *
 * @type {Map<string, Sending>}
 */
const sendings = new Map();

/** @param {string} id */
export const sendingOf = (id) => sendings.get(id);

const isSending = () => [...sendings.values()].some((sending) => sending.isRunning);

addEventListener("beforeunload", (event) => {
  if (isSending()) {
    event.preventDefault();
  }
});

/**
 * Creates a job of these files and begins to send them.
 *
 * @param {File[]} files
 * @param {string} name
 * @param {Record<string, string>} options  the options of the job
 * @returns {Promise<string>} the id of the job
 */
export async function send(files, name, options) {
  const sending = files.length === 1 ? await createForOne(files[0], name, options) : await createForSeveral(files, name, options);
  sendings.set(sending.id, sending);
  sending.run();
  return sending.id;
}

/** The job of a file ends with its last byte, whether this page is still there or not. */
async function createForOne(file, name, options) {
  const address = await createFile(file, { filename: usableName(name), ...options });
  const id = address.split("/")[3];
  return new Sending(id, [{ file, address }]);
}

/** All files are made known before the first byte is sent: after a reload the job still tells which ones are missing. */
async function createForSeveral(files, name, options) {
  const members = { ...options };
  for (const [key, value] of Object.entries(members)) {
    members[key] = key === "top" ? Number(value) : key === "has_header" ? value === "true" : value;
  }
  const headers = { "Content-Type": "application/json" };
  const response = await request("POST", "/v1/jobs", { headers, body: JSON.stringify({ name, options: members }) });
  const { id } = await response.json();
  try {
    const names = distinctNames(files);
    const parts = [];
    for (const [index, file] of files.entries()) {
      parts.push({ file, address: await createFile(file, { filename: names[index], job: id }) });
    }
    return new Sending(id, parts);
  } catch (error) {
    // Nobody knows of the job yet.
    await request("DELETE", jobPath(id)).catch(() => {});
    throw error;
  }
}

/** Files from different folders may have the same name; in a job they may not. */
function distinctNames(files) {
  const taken = new Set();
  return files.map(({ name }) => {
    let distinct = usableName(name);
    for (let number = 2; taken.has(distinct); number += 1) {
      distinct = usableName(name, ` (${number})`);
    }
    taken.add(distinct);
    return distinct;
  });
}

/** A name that the service takes: nothing invisible, no path, at most 255 bytes of UTF-8. `mark` is put before its ending. */
function usableName(name, mark = "") {
  const [, stem, ending] = /** @type {string[]} */ (/^(.*?)(\.[^.]{1,8})?$/su.exec(name.replace(/[\p{Cc}\p{Cf}/]/gu, "").trim()));
  const bytesOf = (text) => new TextEncoder().encode(text).length;
  const room = MAX_NAME_BYTES - bytesOf(mark + (ending ?? ""));
  let kept = "";
  for (const character of stem) {
    if (bytesOf(kept + character) > room) {
      break;
    }
    kept += character;
  }
  return `${kept || "file"}${mark}${ending ?? ""}`;
}

/**
 * Sends a file that waits for its sender, or that replaces one that could not be used.
 *
 * @param {any} job
 * @param {any} entry  the file, as the job's document has it
 * @param {File} file
 */
export async function sendFile(job, entry, file) {
  let address = entry.links.self.replace(/^\/v1\/jobs\/([^/]+)\/files\//, "/v1/tus/$1/");
  if (entry.state === "failed") {
    address = await createFile(file, { filename: entry.name, job: job.id });
  }
  const running = sendings.get(job.id);
  if (running?.isRunning) {
    running.parts.push({ file, address });
    return;
  }
  const sending = new Sending(job.id, [{ file, address }]);
  sendings.set(job.id, sending);
  sending.run();
}

/**
 * @param {File} file
 * @param {Record<string, string>} metadata
 * @param {AbortSignal} [signal]
 * @returns {Promise<string>} the address of the upload
 */
async function createFile(file, metadata, signal) {
  const encoded = Object.entries(metadata).map(([key, value]) => `${key} ${base64(value)}`);
  const headers = { "Tus-Resumable": "1.0.0", "Upload-Length": String(file.size), "Upload-Metadata": encoded.join(",") };
  const response = await request("POST", "/v1/tus", { headers, signal });
  return new URL(response.headers.get("location") ?? "", location.href).pathname;
}

/** Browsers say the same of a connection that broke and of a file that has changed on the disk. */
async function explain(error, file, offset) {
  if (error instanceof TypeError) {
    await file.slice(offset, offset + 1).arrayBuffer().catch(() => {
      throw new FileGone(`${file.name} has changed on this machine, or is gone. Choose it again.`);
    });
  }
  throw error;
}

const base64 = (text) => btoa(String.fromCharCode(...new TextEncoder().encode(text)));

/** Files of a job on their way, one behind the other. Listeners of `change` are told whenever something is other than before. */
export class Sending extends EventTarget {
  /**
   * @param {string} id  of the job
   * @param {{file: File, address: string}[]} parts
   */
  constructor(id, parts) {
    super();
    this.id = id;
    this.parts = parts;
    this.aborting = new AbortController();
    this.isRunning = true;
    /** Failures one behind the other, without a byte more in between. */
    this.failures = 0;
    /** @type {string | null} why nothing is being sent just now */
    this.waits = null;
    /** @type {Error | null} why something could not be sent */
    this.error = null;
  }

  async run() {
    this.watchForEnd();
    for (const part of this.parts) {
      try {
        await this.sendFile(part);
      } catch (error) {
        // The others are of use all the same.
        this.fail(error);
      }
    }
    if (!this.error) {
      await this.complete().catch((error) => this.fail(error));
    }
    this.isRunning = false;
    this.change(null);
  }

  fail(error) {
    if (!this.aborting.signal.aborted) {
      this.error = /** @type {Error} */ (error);
    }
  }

  /** Ends a job of several files when all of them are there. One of a single file ends by itself. */
  async complete() {
    await this.persistently(async () => {
      const { signal } = this.aborting;
      const job = await get(jobPath(this.id), { signal });
      if (!isFinal(job) && job.files.every((file) => file.state === "complete")) {
        await request("POST", `${jobPath(this.id)}/complete`, { signal });
      }
    });
  }

  /** Stops sending. What has been received stays. */
  stop() {
    this.aborting.abort();
  }

  /**
   * A job that fails says so long before the browser has sent everything. It is asked for from time to time: browsers have few connections to
   * a server, and a stream of events would keep one of them.
   */
  async watchForEnd() {
    const { signal } = this.aborting;
    while (this.isRunning && !signal.aborted) {
      await pause(IDLE_PAUSE_MILLISECONDS, signal);
      // When it cannot be asked for, the requests of the upload tell why.
      const job = await get(jobPath(this.id), { signal }).catch(() => null);
      if (job && isFinal(job) && job.state !== "succeeded") {
        this.stop();
      }
    }
  }

  async sendFile({ file, address }) {
    let offset = 0;
    await this.persistently(async () => {
      const { signal } = this.aborting;
      const response = await request("HEAD", address, { headers: { "Tus-Resumable": "1.0.0" }, signal });
      const stored = Number(response.headers.get("upload-offset"));
      if (stored > offset) {
        this.failures = 0;
      }
      offset = stored;
      this.change(null);
      if (offset < file.size) {
        const headers = {
          "Tus-Resumable": "1.0.0",
          "Upload-Offset": String(offset),
          "Content-Type": "application/offset+octet-stream",
        };
        await request("PATCH", address, { headers, body: file.slice(offset), signal }).catch((error) => explain(error, file, offset));
      }
    });
  }

  /** Does it again until it succeeds, or is refused for good. */
  async persistently(act) {
    this.failures = 0;
    for (;;) {
      try {
        return await act();
      } catch (error) {
        const isRefused = error instanceof FileGone || (error instanceof Problem && !error.mayPass);
        if (this.aborting.signal.aborted || isRefused || !(await this.isStillThere())) {
          throw error;
        }
        const told = error instanceof Problem ? error : null;
        this.change(told ? told.message : "The connection is gone. Trying again…");
        const milliseconds = Math.max(pauseAfter(this.failures), 1000 * (told?.retryAfterSeconds ?? 0));
        this.failures += 1;
        await pause(milliseconds, this.aborting.signal);
      }
    }
  }

  /** False when the job has ended, so that no further try makes sense. */
  async isStillThere() {
    try {
      return !isFinal(await get(jobPath(this.id), { signal: this.aborting.signal }));
    } catch (error) {
      return !(error instanceof Problem && error.status === 404);
    }
  }

  change(waits) {
    this.waits = waits;
    this.dispatchEvent(new Event("change"));
  }
}
