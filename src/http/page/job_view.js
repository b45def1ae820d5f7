/** A job: its progress, its two lists, and what came out. */

import { Problem, download, request, token } from "./api.js";
import { announce, copyButton, fill, h, say } from "./dom.js";
import { CPA, CTR, LeaderList, plainTable } from "./leaders.js";
import { scatter } from "./scatter.js";
import { hasDraft } from "./send_view.js";
import { ago, bytes, compact, duration, number, plural, time } from "./text.js";
import { goOn, isFinal, isSending, sendingOf, watch } from "./upload.js";
import { split } from "./guess.js";

const STATES = {
  open: "Waiting for files",
  receiving: "Receiving",
  interrupted: "Interrupted",
  succeeded: "Done",
  failed: "Failed",
  cancelled: "Cancelled",
};

const TABLES = {
  "top10_ctr.csv": "Highest click-through rate",
  "top10_cpa.csv": "Lowest cost per acquisition",
  "campaigns.csv": "All campaigns",
  "rejects.csv": "Skipped rows",
  "stats.json": "Statistics",
};

/** Words for the reasons why rows are skipped; others are shown as the service names them. */
const reasonText = (reason) => reason.replaceAll("_", " ");

/**
 * @param {HTMLElement} place
 * @param {AbortSignal} signal
 * @param {string} id
 */
export async function showJob(place, signal, id) {
  const view = new JobView(place, signal, id);
  for await (const job of watch(id, signal, (isConnected) => view.showConnection(isConnected))) {
    view.update(job);
  }
}

class JobView {
  constructor(place, signal, id) {
    this.place = place;
    this.signal = signal;
    this.id = id;
    this.state = "";
    /** @type {any} */
    this.job = null;
    this.heading = h("h1", { tabindex: -1 });
    this.badge = h("span.badge");
    this.since = h("p.hint");
    this.actions = h("div.actions");
    this.notice = h("div");
    this.meter = h("progress", { max: 1, "aria-label": "Received" });
    this.received = h("p");
    this.connection = h("p.warning", { role: "status", hidden: true });
    this.progress = h("section.panel.progress", { "aria-label": "Progress" }, this.meter, this.received, this.connection);
    this.figures = h("dl.figures");
    this.lists = [new LeaderList(CTR), new LeaderList(CPA)];
    this.outcome = h("div.outcome");
    fill(place,
      h("header.title", {}, this.heading, this.badge, this.actions),
      this.since,
      this.notice,
      this.progress,
      this.figures,
      h("div.lists", {}, this.lists.map((list) => list.element)),
      this.outcome,
    );
    sendingOf(id)?.addEventListener("change", () => this.job && this.update(this.job), { signal });
  }

  showConnection(isConnected) {
    this.connection.hidden = isConnected;
    say(this.connection, isConnected ? "" : "The connection to the service is gone. Trying again…");
  }

  update(job) {
    this.job = job;
    const isNew = this.state !== job.state;
    this.state = job.state;
    if (isNew) {
      document.title = `${job.name} · adtally`;
      say(this.heading, job.name);
      say(this.badge, STATES[job.state] ?? job.state);
      this.badge.dataset.state = job.state;
      this.since.title = time(job.created_at);
      this.showActions();
      announce(`${job.name}: ${STATES[job.state] ?? job.state}`);
    }
    say(this.since, `Begun ${ago(job.created_at)}, ${time(job.created_at)}${kept(job)}`);
    this.showNotice();
    this.showProgress();
    this.showFigures();
    const ifEmpty = isFinal(job) ? "There is none." : "No campaign yet.";
    this.lists[0].update(job.top_ctr ?? [], ifEmpty);
    this.lists[1].update(job.top_cpa ?? [], isFinal(job) ? "No campaign has conversions." : ifEmpty);
    const hasLists = job.state !== "failed" && job.state !== "cancelled";
    this.lists.forEach((list) => { list.element.hidden = !hasLists; });
    if (isNew) {
      fill(this.outcome, job.state === "succeeded" && outcome(job, this.signal));
    }
  }

  showActions() {
    const { job } = this;
    const cancel = !isFinal(job) && h("button", { type: "button", onclick: () => this.act("POST", "/cancel", "Cancelled") }, "Cancel");
    const finished = job.files.length > 0 && job.files.every((file) => file.state === "complete");
    const complete = job.state === "open" && finished && !isSending() &&
      h("button.primary", { type: "button", onclick: () => this.act("POST", "/complete", "Completed") }, "Finish it");
    const again = job.state !== "succeeded" && isFinal(job) && hasDraft() &&
      h("a.button.primary", { href: "#/" }, "Change the settings and send again");
    const link = copyButton("Copy link", () => location.href);
    fill(this.actions, again, complete, cancel, link);
  }

  async act(method, path, told) {
    try {
      await request(method, `/v1/jobs/${this.id}${path}`);
      sendingOf(this.id)?.stop();
      announce(told);
    } catch (error) {
      fill(this.notice, h("p.error", { role: "alert" }, error instanceof Problem ? error.message : "The service cannot be reached."));
    }
  }

  /** What is wrong, and what can be done about it. */
  showNotice() {
    const { job } = this;
    const sending = sendingOf(this.id);
    const waiting = sending?.isRunning ? [] : job.files.filter((file) => ["interrupted", "waiting"].includes(file.state));
    const key = JSON.stringify([job.state, job.error, waiting.map((file) => [file.name, file.offset]), sending?.waits, sending?.error?.message]);
    if (this.noticeKey === key) {
      return;
    }
    this.noticeKey = key;
    const error = job.error ?? (sending?.error instanceof Problem && !isFinal(job) ? sending.error.document : null);
    const stopped = (job.state === "interrupted" || job.state === "open") && waiting.map((file) => this.chooserFor(file));
    fill(this.notice,
      error && h("section.panel.refusal", { role: "alert" }, h("h2", {}, error.title), h("p", {}, error.detail)),
      sending?.waits && h("p.warning", { role: "status" }, sending.waits),
      stopped,
    );
  }

  chooserFor(file) {
    const told = h("p.error", { role: "alert", hidden: true });
    const input = h("input", {
      type: "file", hidden: true, onchange: () => {
        const [chosen] = input.files;
        if (!chosen) {
          return;
        }
        if (file.length !== null && chosen.size !== file.length) {
          told.hidden = false;
          say(told, `This is another file: it has ${number(chosen.size)} bytes, and ${file.name} has ${number(file.length)}.`);
          return;
        }
        goOn(this.job, file, chosen);
        sendingOf(this.id)?.addEventListener("change", () => this.update(this.job), { signal: this.signal });
        this.update(this.job);
      },
    });
    const of = file.length === null ? "" : ` of ${bytes(file.length)}`;
    return h("section.panel.notice", { "aria-label": `Go on with ${file.name}` },
      h("h2", {}, `${file.name} is not complete`),
      h("p", {}, `${bytes(file.offset)}${of} are stored. Choose the same file again, and it goes on from there.`),
      input,
      h("button.primary", { type: "button", onclick: () => input.click() }, `Choose ${file.name}`),
      told,
    );
  }

  showProgress() {
    const { state, progress } = this.job;
    this.progress.hidden = isFinal(this.job);
    const expected = progress.bytes_expected;
    if (expected) {
      this.meter.value = progress.bytes_received / expected;
    } else {
      this.meter.removeAttribute("value");
    }
    const parts = [expected ? `${bytes(progress.bytes_received)} of ${bytes(expected)}` : bytes(progress.bytes_received)];
    if (state === "receiving") {
      parts.push(`${bytes(progress.bytes_per_second)} per second`);
      if (progress.eta_seconds !== null) {
        parts.push(`${duration(progress.eta_seconds)} left`);
      }
    }
    say(this.received, parts.join(" · "));
  }

  showFigures() {
    const { progress, stats, files } = this.job;
    const figures = [
      ["Rows read", progress.rows_read],
      ["Rows skipped", progress.rows_skipped],
      ["Campaigns", progress.unique_campaigns],
    ];
    if (!this.figureCells) {
      this.figureCells = figures.map(([name]) => {
        // The exact number is a hover or a focus away.
        const value = h("dd", { tabindex: 0 });
        this.figures.append(h("div", {}, h("dt", {}, name), value));
        return value;
      });
      this.sizeCell = h("dd", { tabindex: 0 });
      this.figures.append(h("div", {}, h("dt", {}, "Size"), this.sizeCell));
    }
    figures.forEach(([, value], index) => showExact(this.figureCells[index], compact(value), number(value)));
    const size = files.reduce((sum, file) => sum + file.offset, 0) || progress.bytes_received;
    const rate = stats ? `, read in ${duration(stats.elapsed_seconds)}` : "";
    showExact(this.sizeCell, bytes(size), `${plural(size, "byte")}${rate}`);
  }
}

function showExact(element, short, exact) {
  say(element, short);
  element.dataset.exact = exact;
  element.setAttribute("aria-label", exact);
}

const kept = (job) => (isFinal(job) && job.expires_at ? ` · kept until ${time(job.expires_at)}` : "");

/** What a job that has succeeded leaves. */
function outcome(job, signal) {
  const { stats } = job;
  return [
    (stats.warnings ?? []).map((warning) => h("p.warning", {}, warning)),
    scatter(job, signal),
    Number(stats.rows_skipped) > 0 && skippedRows(job, signal),
    downloads(job),
    share(job),
  ];
}

function skippedRows(job, signal) {
  const reasons = Object.entries(job.stats.skipped).sort((a, b) => Number(b[1]) - Number(a[1]));
  const rows = h("div", {}, h("p.empty", {}, "Reading the rows…"));
  readRejects(job, rows, signal);
  return h("section.panel", { "aria-labelledby": "skipped-title" },
    h("h2", { id: "skipped-title" }, `${plural(job.stats.rows_skipped, "row was", "rows were")} skipped`),
    h("ul.reasons", {}, reasons.map(([reason, count]) => h("li", {}, h("b", {}, number(/** @type {any} */ (count))), ` ${reasonText(reason)}`))),
    rows,
  );
}

async function readRejects(job, place, signal) {
  try {
    const response = await request("GET", job.links.results["rejects.csv"], { headers: { Accept: "text/csv", Range: "bytes=0-262143" }, signal });
    const isWhole = response.status === 200;
    const { records } = split(await response.text(), ",", { isWhole, max: 101 });
    const [columns, ...rows] = records;
    fill(place, plainTable("Skipped rows", columns.map(reasonText), rows.map((row) => row.map((cell) => cell.slice(0, 200)))));
  } catch (error) {
    if (!signal.aborted) {
      fill(place, h("p.error", {}, /** @type {Error} */ (error).message));
    }
  }
}

function downloads(job) {
  const { results } = job.links;
  const link = (path, name, label, about) => {
    const attributes = { href: path, download: name, "aria-label": `${label}: ${about}` };
    if (token()) {
      attributes.onclick = (event) => { event.preventDefault(); download(path, name).catch((error) => announce(error.message)); };
    }
    return h("a", attributes, label);
  };
  const entries = Object.entries(TABLES).filter(([name]) => name in results);
  return h("section.panel", { "aria-labelledby": "downloads-title" },
    h("h2", { id: "downloads-title" }, "Downloads"),
    h("ul.downloads", {}, entries.map(([name, title]) => h("li", {},
      h("span", {}, title),
      link(results[name], name, name, title),
      name.endsWith(".csv") &&
        link(`${results[name]}?spreadsheet=safe`, name.replace(".csv", ".spreadsheet.csv"), "for spreadsheets", title),
    ))),
    h("p.hint", {}, "“For spreadsheets” is the same table, but ids that begin like a formula cannot run as one. Take it for Excel, Sheets and the like."),
  );
}

function share(job) {
  const authorization = token() ? " -H \"Authorization: Bearer $ADTALLY_TOKEN\"" : "";
  const command = `curl -O${authorization} ${location.origin}${job.links.results["top10_ctr.csv"]}`;
  return h("section.panel", { "aria-labelledby": "share-title" },
    h("h2", { id: "share-title" }, "As curl"),
    h("pre", { tabindex: 0 }, h("code", {}, command)),
    copyButton("Copy the command", () => command),
  );
}
