/** Sending files so that nothing is lost: tus 1.0 on the resources of files (https://tus.io). */

import { Problem, events, get, pause, request } from "./api.js";

const FINAL_STATES = ["succeeded", "failed", "cancelled"];
const MAX_PAUSE_MILLISECONDS = 15_000;
const IDLE_PAUSE_MILLISECONDS = 2_000;

/** @param {{state: string}} job */
export const isFinal = (job) => FINAL_STATES.includes(job.state);

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
      for await (const job of events(`/v1/jobs/${id}/events`, signal)) {
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

export const isSending = () => [...sendings.values()].some((sending) => sending.isRunning);

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
  const address = await createFile(file, { filename: name, ...options });
  const id = address.split("/")[3];
  return new Sending(id, [{ file, address }], false);
}

async function createForSeveral(files, name, options) {
  const members = { ...options };
  for (const [key, value] of Object.entries(members)) {
    members[key] = key === "top" ? Number(value) : key === "has_header" ? value === "true" : value;
  }
  const headers = { "Content-Type": "application/json" };
  const response = await request("POST", "/v1/jobs", { headers, body: JSON.stringify({ name, options: members }) });
  const { id } = await response.json();
  const names = distinctNames(files);
  const parts = files.map((file, index) => ({ file, address: null, create: { filename: names[index], job: id } }));
  return new Sending(id, parts, true);
}

/** Files from different folders may have the same name; in a job they may not. */
function distinctNames(files) {
  const taken = new Set();
  return files.map(({ name }) => {
    let distinct = name;
    for (let number = 2; taken.has(distinct); number += 1) {
      distinct = name.replace(/(\.[^.]*)?$/, ` (${number})$1`);
    }
    taken.add(distinct);
    return distinct;
  });
}

/**
 * Goes on with a file that waits for its sender.
 *
 * @param {any} job
 * @param {any} waiting  the file, as the job's document has it
 * @param {File} file
 */
export function goOn(job, waiting, file) {
  const address = waiting.links.self.replace(/^\/v1\/jobs\/([^/]+)\/files\//, "/v1/tus/$1/");
  const others = job.files.filter((other) => other.name !== waiting.name);
  // A job of several files is completed when this was the last one.
  const completes = others.length > 0 && others.every((other) => other.state === "complete");
  const sending = new Sending(job.id, [{ file, address }], completes);
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

const base64 = (text) => btoa(String.fromCharCode(...new TextEncoder().encode(text)));

/** The files of a job on their way, one behind the other. Listeners of `change` are told whenever something is other than before. */
export class Sending extends EventTarget {
  /**
   * @param {string} id  of the job
   * @param {{file: File, address: string | null, create?: Record<string, string>}[]} parts
   * @param {boolean} completes  whether the job is to be completed behind them
   */
  constructor(id, parts, completes) {
    super();
    this.id = id;
    this.parts = parts;
    this.completes = completes;
    this.aborting = new AbortController();
    this.isRunning = true;
    /** Failures one behind the other, without a byte more in between. */
    this.failures = 0;
    /** @type {string | null} why nothing is being sent just now */
    this.waits = null;
    /** @type {Error | null} why it has ended before its time */
    this.error = null;
  }

  async run() {
    this.watchForEnd();
    try {
      for (const part of this.parts) {
        part.address ??= await this.persistently(() => createFile(part.file, part.create ?? {}, this.aborting.signal));
        await this.sendFile(part);
      }
      if (this.completes) {
        await this.persistently(() => request("POST", `/v1/jobs/${this.id}/complete`, { signal: this.aborting.signal }));
      }
    } catch (error) {
      if (!this.aborting.signal.aborted) {
        this.error = /** @type {Error} */ (error);
      }
    }
    this.isRunning = false;
    this.change(null);
  }

  /** Stops sending. What has been received stays. */
  stop() {
    this.aborting.abort();
  }

  /** A job that fails says so long before the browser has sent everything. */
  async watchForEnd() {
    const { signal } = this.aborting;
    try {
      for await (const job of watch(this.id, signal)) {
        if (isFinal(job) && job.state !== "succeeded") {
          this.stop();
        }
      }
    } catch {
      // The requests of the upload tell why.
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
        await request("PATCH", address, { headers, body: file.slice(offset), signal });
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
        const isRefused = error instanceof Problem && !error.mayPass;
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
      return !isFinal(await get(`/v1/jobs/${this.id}`, { signal: this.aborting.signal }));
    } catch (error) {
      return !(error instanceof Problem && error.status === 404);
    }
  }

  change(waits) {
    this.waits = waits;
    this.dispatchEvent(new Event("change"));
  }
}
