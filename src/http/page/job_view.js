/** A job: its progress, its two lists, and what came out. */

import { Problem, download, request, token } from "./api.js";
import { announce, arrive, copyButton, fill, h, say, toast } from "./dom.js";
import { CPA, CTR, LeaderList, plainTable } from "./leaders.js";
import { scatter } from "./scatter.js";
import { split } from "./guess.js";
import { canResend, resend } from "./send_view.js";
import { STATES, ago, bytes, compact, duration, number, plural, time } from "./text.js";
import { isFinal, jobPath, sendFile, sendingOf, watch } from "./upload.js";

/** The age of a job is told anew this often. */
const AGE_MILLISECONDS = 20_000;

/**
 * What the results are called; the names of lists tell how long they are.
 *
 * @type {[RegExp, string][]}
 */
const RESULTS = [
  [/^top\d+_ctr\.csv$/, "Highest click-through rate"],
  [/^top\d+_cpa\.csv$/, "Lowest cost per acquisition"],
  [/^campaigns\.csv$/, "All campaigns"],
  [/^rejects\.csv$/, "Skipped rows"],
  [/^stats\.json$/, "Statistics"],
];

/** Words for the reasons why rows are skipped; others are shown as the service names them. */
const REASONS = {
  malformed_record: "too long, or with a quote that does not end",
  column_count: "another number of columns than the header",
  campaign_id: "without a usable campaign",
  impressions: "impressions that are no whole number",
  clicks: "clicks that are no whole number",
  spend: "a spend that is no amount",
  conversions: "conversions that are no whole number",
};

const reasonText = (reason) => REASONS[reason] ?? reason.replaceAll("_", " ");

/** From this share of skipped rows on, the settings are likely to be wrong. */
const MANY_SKIPPED = 0.1;

/**
 * @param {HTMLElement} place
 * @param {AbortSignal} signal
 * @param {string} id
 */
export async function showJob(place, signal, id) {
  const view = new JobView(place, signal, id);
  const age = setInterval(() => view.showAge(), AGE_MILLISECONDS);
  signal.addEventListener("abort", () => clearInterval(age));
  for await (const job of watch(id, signal, (isConnected) => view.showConnection(isConnected))) {
    view.update(job);
  }
}

class JobView {
  constructor(place, signal, id) {
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
    this.files = h("div.outcome");
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
      this.files,
      this.progress,
      this.figures,
      h("div.lists", {}, this.lists.map((list) => list.element)),
      this.outcome,
    );
    this.isConnected = true;
    this.follow();
  }

  /** Shows what the sending of this page tells. */
  follow() {
    sendingOf(this.id)?.addEventListener("change", () => this.job && this.update(this.job), { signal: this.signal });
  }

  showConnection(isConnected) {
    if (this.isConnected !== isConnected) {
      this.isConnected = isConnected;
      this.connection.hidden = isConnected;
      say(this.connection, isConnected ? "" : "The connection to the service is gone. Trying again…");
      if (this.job) {
        this.showProgress();
        this.showNotice();
      }
    }
  }

  showAge() {
    if (this.job) {
      say(this.since, `Begun ${ago(this.job.created_at)}, ${time(this.job.created_at)}${kept(this.job)}`);
    }
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
      announce(`${job.name}: ${STATES[job.state] ?? job.state}`);
    }
    arrive(this.heading);
    this.showAge();
    this.showActions();
    this.showNotice();
    this.showFiles();
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
    const isSending = sendingOf(this.id)?.isRunning ?? false;
    const isWhole = job.state === "open" && job.files.length > 0 && job.files.every((file) => file.state === "complete");
    const canAgain = isFinal(job) && canResend(job.id) && (job.state !== "succeeded" || areManySkipped(job));
    const key = JSON.stringify([job.state, isSending, isWhole, canAgain]);
    if (this.actionsKey === key) {
      return;
    }
    this.actionsKey = key;
    fill(this.actions,
      canAgain && h("a.button.primary", { href: "#/", onclick: resend }, "Change the settings and send again"),
      isWhole && !isSending && h("button.primary", { type: "button", onclick: () => this.act("POST", "/complete") }, "Finish it"),
      !isFinal(job) && h("button", { type: "button", onclick: () => this.act("POST", "/cancel") }, "Cancel"),
      copyButton("Copy link", () => location.href),
    );
  }

  async act(method, path) {
    try {
      await request(method, `${jobPath(this.id)}${path}`);
      if (path === "/cancel") {
        sendingOf(this.id)?.stop();
      }
    } catch (error) {
      toast(error instanceof Problem ? error.message : "The service cannot be reached. Try again in a moment.");
    }
  }

  /** What is wrong with the job as a whole. */
  showNotice() {
    const { job } = this;
    const sending = sendingOf(this.id);
    // What is wrong with the contents of a file is told with the file.
    const isTold = sending?.error instanceof Problem && !job.files.some((file) => ["waiting", "interrupted"].includes(file.state));
    const error = job.error ?? (sending?.error && !sending.isRunning && !isTold ? { detail: sending.error.message } : null);
    const waits = this.isConnected ? sending?.waits : null;
    const isDoubtful = job.state === "succeeded" && areManySkipped(job);
    const key = JSON.stringify([error, waits, isDoubtful]);
    if (this.noticeKey === key) {
      return;
    }
    this.noticeKey = key;
    const { rows_skipped: skipped, rows_read: read } = job.progress;
    fill(this.notice,
      error && h("section.panel.refusal", { role: "alert" }, error.title && h("h2", {}, error.title), h("p", {}, error.detail)),
      waits && h("p.warning", { role: "status" }, waits),
      isDoubtful && h("p.warning", { role: "status" },
        `${number(skipped)} of ${plural(read, "row")} were skipped. Probably the file is written in another way than it was read.`),
    );
  }

  /** The files that are not there yet, and what can be done about each. */
  showFiles() {
    const { job } = this;
    const isSending = sendingOf(this.id)?.isRunning ?? false;
    const open = isFinal(job) ? [] : job.files.filter((file) => ["waiting", "interrupted", "failed"].includes(file.state));
    const key = JSON.stringify([isSending, open.map((file) => [file.name, file.state, isSending ? 0 : file.offset])]);
    if (this.filesKey !== key) {
      this.filesKey = key;
      fill(this.files, open.filter((file) => file.state === "failed" || !isSending).map((file) => this.missingFile(file)));
    }
  }

  missingFile(file) {
    const told = h("p.error", { role: "alert", hidden: true });
    const hasFailed = file.state === "failed";
    const tell = (text) => {
      told.hidden = false;
      say(told, text);
    };
    const input = h("input", {
      type: "file", hidden: true, onchange: async () => {
        const [chosen] = input.files;
        input.value = "";
        if (!chosen) {
          return;
        }
        if (!hasFailed && file.length !== null && chosen.size !== file.length) {
          tell(`This is another file: it has ${number(chosen.size)} bytes, and ${file.name} has ${number(file.length)}.`);
          return;
        }
        try {
          await sendFile(this.job, file, chosen);
          this.follow();
          this.update(this.job);
        } catch (error) {
          tell(/** @type {Error} */ (error).message);
        }
      },
    });
    const leaveOut = () => this.act("DELETE", file.links.self.slice(jobPath(this.job.id).length));
    const of = file.length === null ? "" : ` of ${bytes(file.length)}`;
    return h("section.panel.notice", { "aria-label": hasFailed ? `${file.name} cannot be used` : `Go on with ${file.name}` },
      h("h2", {}, hasFailed ? `${file.name} cannot be used` : `${file.name} is not complete`),
      h("p", {}, hasFailed
        ? (file.error?.detail ?? "Send it again.")
        : `${bytes(file.offset)}${of} are stored. Choose the same file again, and it goes on from there.`),
      input,
      h("div.actions", {},
        h("button.primary", { type: "button", onclick: () => input.click() }, hasFailed ? "Choose another one in its place" : `Choose ${file.name}`),
        this.job.files.length > 1 && h("button", { type: "button", onclick: leaveOut }, "Leave it out"),
      ),
      told,
    );
  }

  showProgress() {
    const { state, progress } = this.job;
    this.progress.hidden = isFinal(this.job) || this.job.files.every((file) => ["complete", "failed"].includes(file.state));
    const expected = progress.bytes_expected;
    const isStalled = !this.isConnected || Boolean(sendingOf(this.id)?.waits);
    if (expected) {
      this.meter.value = progress.bytes_received / expected;
    } else {
      this.meter.removeAttribute("value");
    }
    const parts = [expected ? `${bytes(progress.bytes_received)} of ${bytes(expected)}` : bytes(progress.bytes_received)];
    if (state === "receiving" && !isStalled) {
      parts.push(`${bytes(progress.bytes_per_second)} per second`);
      if (expected && progress.eta_seconds !== null) {
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

/** True when so many rows were skipped that the settings are likely to be wrong. */
const areManySkipped = ({ progress }) => Number(progress.rows_skipped) > MANY_SKIPPED * Number(progress.rows_read);

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
    fill(place, plainTable("Skipped rows", columns.map((column) => column.replaceAll("_", " ")), rows.map((row) => row.map((cell, index) =>
      (columns[index] === "reason" ? reasonText(cell) : cell.slice(0, 200))))));
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
      attributes.onclick = (event) => { event.preventDefault(); download(path, name).catch((error) => toast(error.message)); };
    }
    return h("a", attributes, label);
  };
  const names = Object.keys(results);
  const entries = RESULTS.flatMap(([pattern, title]) => names.filter((name) => pattern.test(name)).map((name) => [name, title]));
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
  const command = `curl -O${authorization} ${location.origin}${job.links.results[`top${job.options.top}_ctr.csv`]}`;
  return h("section.panel", { "aria-labelledby": "share-title" },
    h("h2", { id: "share-title" }, "As curl"),
    h("pre", { tabindex: 0 }, h("code", {}, command)),
    copyButton("Copy the command", () => command),
  );
}
