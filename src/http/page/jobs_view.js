/** All jobs: finding one, and deleting. */

import { Problem, get, pause, request } from "./api.js";
import { announce, arrive, fill, h, say, toast } from "./dom.js";
import { STATES, ago, bytes, number, plural, time } from "./text.js";
import { jobPath, sendingOf } from "./upload.js";

const PAGE = 50;
const REFRESH_MILLISECONDS = 3000;
const UNDO_MILLISECONDS = 8000;
/** Typing pauses this long before the search begins. */
const TYPING_MILLISECONDS = 250;

/**
 * Jobs whose deletion can still be undone.
 *
 * @type {Set<string>}
 */
const leaving = new Set();

/** Tells the view that is shown, which may be another one than the job was deleted on. */
const changes = new EventTarget();

/** Deletes at once what could still be undone. */
export function deleteNow() {
  for (const id of leaving) {
    leaving.delete(id);
    request("DELETE", jobPath(id), { keepalive: true }).catch(() => {});
  }
}

// Who closes the page has let the time for undoing pass.
addEventListener("pagehide", deleteNow);

/**
 * @param {HTMLElement} place
 * @param {AbortSignal} signal
 */
export async function showJobs(place, signal) {
  const body = h("tbody");
  const empty = h("p.empty", { role: "status" });
  const more = h("button", { type: "button", hidden: true, onclick: () => load() }, "Show older ones");
  const field = h("input", { type: "search", id: "search", placeholder: "Part of a name", oninput: () => searchSoon() });
  const table = h("table.jobs", {},
    h("caption.unseen", {}, "Jobs"),
    h("thead", {}, h("tr", {}, ["Name", "State", "Size", "Rows", "Age", ""].map((name) =>
      h(["Size", "Rows"].includes(name) ? "th.figure.wide" : "th", { scope: "col" }, name || h("span.unseen", {}, "Delete"))))),
    body,
  );
  const heading = h("h1", { tabindex: -1 }, "Jobs");
  fill(place,
    h("header.title", {}, heading,
      h("label.search", { for: "search" }, h("span.unseen", {}, "Search by name"), field)),
    h("section.panel", { "aria-label": "Jobs" },
      h("div.scrolls", { tabindex: 0, role: "group", "aria-label": "Jobs, table" }, table), empty, more),
  );
  /** @type {any[]} */
  let jobs = [];
  /** @type {string | null} */
  let cursor = null;
  let wanted = "";

  const showRows = () => {
    const shown = jobs.filter((job) => !leaving.has(job.id));
    const focused = document.activeElement?.closest("tr")?.dataset.id;
    fill(body, shown.map((job) => row(job, () => remove(job))));
    if (focused) {
      /** @type {HTMLElement | null} */ (body.querySelector(`tr[data-id="${focused}"] a`))?.focus();
    }
    table.hidden = shown.length === 0;
    more.hidden = cursor === null;
    say(empty, shown.length > 0 ? "" : wanted ? "No job has such a name." : "There are no jobs yet.");
  };

  const pageAfter = (after) =>
    get(`/v1/jobs?limit=${PAGE}&search=${encodeURIComponent(wanted)}${after ? `&cursor=${after}` : ""}`, { signal });

  const load = async () => {
    const page = await pageAfter(cursor);
    jobs = [...jobs, ...page.jobs];
    cursor = page.next_cursor;
    showRows();
  };

  let typing = 0;
  const searchSoon = () => {
    clearTimeout(typing);
    typing = setTimeout(async () => {
      const looked = field.value.trim();
      wanted = looked;
      const page = await pageAfter(null).catch(() => null);
      // Answers may come in another order than they were asked for.
      if (page && wanted === looked) {
        jobs = page.jobs;
        cursor = page.next_cursor;
        showRows();
      }
    }, TYPING_MILLISECONDS);
  };

  const remove = async (job) => {
    leaving.add(job.id);
    showRows();
    const undo = () => {
      leaving.delete(job.id);
      changes.dispatchEvent(new CustomEvent("undone", { detail: job.id }));
      announce(`${job.name} is not deleted`);
    };
    const passed = await toast(`${job.name} is deleted.`, { label: "Undo", act: undo }, UNDO_MILLISECONDS);
    if (!passed || !leaving.has(job.id)) {
      return;
    }
    try {
      sendingOf(job.id)?.stop();
      await request("DELETE", jobPath(job.id));
    } catch (error) {
      const reason = error instanceof Problem ? error.message : "the service cannot be reached";
      toast(`${job.name} could not be deleted: ${reason}`);
    }
    leaving.delete(job.id);
    changes.dispatchEvent(new CustomEvent("deleted", { detail: job.id }));
  };

  changes.addEventListener("undone", (event) => {
    showRows();
    const id = /** @type {CustomEvent} */ (event).detail;
    /** @type {HTMLElement | null} */ (body.querySelector(`tr[data-id="${id}"] button`))?.focus();
  }, { signal });
  changes.addEventListener("deleted", (event) => {
    jobs = jobs.filter((job) => job.id !== /** @type {CustomEvent} */ (event).detail);
    showRows();
  }, { signal });

  await load();
  arrive(heading);
  refresh();

  /** The newest jobs change while they run, and others are added. */
  async function refresh() {
    while (!signal.aborted) {
      await pause(REFRESH_MILLISECONDS, signal);
      if (signal.aborted || document.hidden) {
        continue;
      }
      const looked = wanted;
      const page = await pageAfter(null).catch(() => null);
      if (page && wanted === looked && JSON.stringify(page.jobs, asText) !== JSON.stringify(jobs.slice(0, page.jobs.length), asText)) {
        // Ids grow with time, so what is older than the page stays as it is.
        const older = page.next_cursor ? jobs.filter((job) => job.id < page.next_cursor) : [];
        cursor = older.length > 0 ? cursor : page.next_cursor;
        jobs = [...page.jobs, ...older];
        showRows();
      }
    }
  }
}

const asText = (_, value) => (typeof value === "bigint" ? String(value) : value);

function row(job, remove) {
  const size = job.progress.bytes_received;
  return h("tr", { "data-id": job.id },
    h("th", { scope: "row" }, h("a", { href: `#/jobs/${job.id}` }, job.name)),
    h("td", {}, h("span.badge", { "data-state": job.state }, STATES[job.state] ?? job.state)),
    h("td.figure.wide", { title: plural(size, "byte") }, bytes(size)),
    h("td.figure.wide", {}, number(job.progress.rows_read)),
    h("td.age", {}, h("time", { datetime: job.created_at, title: time(job.created_at) }, ago(job.created_at))),
    h("td.act", {}, h("button.link", { type: "button", "aria-label": `Delete ${job.name}`, onclick: remove }, "Delete")),
  );
}
