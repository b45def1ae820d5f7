/** Choosing files, seeing how they will be read, and sending them. */

import { Problem, get } from "./api.js";
import { announce, fill, h, say } from "./dom.js";
import {
  DELIMITERS, FIELDS, columnNames, columnsOption, decode, findColumns, findHeader, guess, sample, split,
} from "./guess.js";
import { bytes, plural } from "./text.js";
import { send } from "./upload.js";

const PREVIEW_ROWS = 8;

const DELIMITER_NAMES = { ",": "Comma", ";": "Semicolon", "\t": "Tab", "|": "Vertical bar" };

const ENCODINGS = {
  "utf-8": "UTF-8",
  "windows-1252": "Western (Windows-1252)",
  "utf-16le": "UTF-16, little-endian",
  "utf-16be": "UTF-16, big-endian",
  "windows-1250": "Central European (Windows-1250)",
  "windows-1251": "Cyrillic (Windows-1251)",
  shift_jis: "Japanese (Shift JIS)",
  gbk: "Chinese (GBK)",
};

const FIELD_NAMES = {
  campaign_id: "Campaign",
  date: "Date",
  impressions: "Impressions",
  clicks: "Clicks",
  spend: "Spend",
  conversions: "Conversions",
};

/**
 * What was chosen and set last, so that a job that failed can be sent again with other settings.
 *
 * @type {{files: File[], settings: Settings} | null}
 */
let draft = null;

/**
 * @typedef {import("./guess.js").Guess & {name: string, top: string, columns: Record<string, string>}} Settings
 */

/** True when the files of the last job are still at hand. */
export const hasDraft = () => draft !== null;

/**
 * @param {HTMLElement} place
 * @param {AbortSignal} signal
 */
export async function showSend(place, signal) {
  // It may be that a token is needed, which is said before anybody has chosen files.
  const [{ formats }, waiting] = await Promise.all([get("/v1/formats", { signal }), waitingJobs(signal)]);
  const settingsPlace = h("div");
  const choose = (files) => {
    if (files.length > 0) {
      prepare(settingsPlace, [...files], formats, null);
    }
  };
  const input = h("input", {
    id: "files", type: "file", hidden: true, multiple: true, accept: ".csv,.tsv,.txt,.gz,.zst", onchange: () => choose(input.files),
  });
  const zone = h("div.drop", {},
    h("p.invitation", {}, "Drop your ad data here"),
    h("p.hint", {}, "CSV files of any size, also several that belong together, also as gzip or Zstandard"),
    input,
    h("div.actions", {},
      h("button.primary", { type: "button", onclick: () => input.click() }, "Choose files"),
      h("button", { type: "button", onclick: () => paste() }, "Paste rows"),
    ),
  );
  const paste = () => {
    const area = h("textarea", { id: "pasted", rows: 8, spellcheck: "false", placeholder: FIELDS.join(",") });
    const form = h("form.panel", {
      onsubmit: (event) => {
        event.preventDefault();
        if (area.value.trim()) {
          choose([new File([area.value], "pasted.csv", { type: "text/csv" })]);
        }
      },
    },
      h("label", { for: "pasted" }, "Rows, with the names of the columns first"),
      area,
      h("button.primary", { type: "submit" }, "Look at them"),
    );
    fill(settingsPlace, form);
    area.focus();
  };
  takeDrops(zone, signal, choose);
  fill(place,
    h("h1", { tabindex: -1 }, "Which campaigns work?"),
    h("p.lead", {}, "Exact totals for each campaign, and the best ten by click-through rate and by cost per acquisition."),
    waiting,
    zone,
    settingsPlace,
  );
  if (draft) {
    prepare(settingsPlace, draft.files, formats, draft.settings);
  }
}

/** Files may be dropped anywhere on the page. */
function takeDrops(zone, signal, choose) {
  const over = (event) => {
    if (event.dataTransfer?.types.includes("Files")) {
      event.preventDefault();
      zone.classList.add("over");
    }
  };
  const leave = (event) => {
    if (!event.relatedTarget) {
      zone.classList.remove("over");
    }
  };
  const drop = (event) => {
    zone.classList.remove("over");
    if (event.dataTransfer?.files.length) {
      event.preventDefault();
      choose(event.dataTransfer.files);
    }
  };
  addEventListener("dragover", over, { signal });
  addEventListener("dragleave", leave, { signal });
  addEventListener("drop", drop, { signal });
}

/** Uploads that broke off, with the way to go on. */
async function waitingJobs(signal) {
  const { jobs } = await get("/v1/jobs?state=interrupted&limit=5", { signal });
  return jobs.length > 0 && h("section.panel.notice", { "aria-label": "Unfinished uploads" },
    h("h2", {}, "Unfinished"),
    h("ul.plain", {}, jobs.map((job) => h("li", {},
      h("a", { href: `#/jobs/${job.id}` }, job.name), ` stopped at ${bytes(job.progress.bytes_received)}. `,
    ))),
  );
}

/**
 * Shows how the files will be read, and what can be changed about it.
 *
 * @param {HTMLElement} place
 * @param {File[]} files
 * @param {import("./guess.js").Format[]} formats
 * @param {Settings | null} before  what was set for the same files before
 */
async function prepare(place, files, formats, before) {
  const begun = await sample(files[0]);
  /** @type {Settings} */
  const settings = before ?? {
    ...guess(begun, formats),
    name: files.length === 1 ? files[0].name : `${files[0].name} and ${plural(files.length - 1, "other")}`,
    top: "10",
    columns: {},
  };
  draft = { files, settings };
  const preview = h("div");
  const failure = h("p.error", { role: "alert", hidden: true });
  const redraw = () => showPreview(preview, begun, settings, formats, redraw);
  const field = (label, control) => h("label.field", {}, h("span", {}, label), control);
  const select = (key, choices) => {
    const options = Object.entries(choices).map(([value, label]) => h("option", { value, selected: value === settings[key] }, label));
    return h("select", { name: key, onchange: (event) => { settings[key] = event.target.value; settings.columns = {}; redraw(); } }, options);
  };
  const delimiters = Object.fromEntries([...new Set([...DELIMITERS, settings.delimiter])].map((mark) => [mark, DELIMITER_NAMES[mark] ?? mark]));
  const kinds = { "": "Plain columns" };
  for (const { name, title, status } of formats) {
    kinds[name] = status === "experimental" ? `${title} (experimental)` : title;
  }
  const header = h("input", {
    type: "checkbox", name: "has_header", checked: settings.hasHeader,
    onchange: () => { settings.hasHeader = header.checked; settings.columns = {}; redraw(); },
  });
  const name = h("input", { type: "text", name: "name", value: settings.name, maxlength: 200, oninput: () => { settings.name = name.value; } });
  const top = h("input", { type: "number", name: "top", min: 1, max: 1000, value: settings.top, oninput: () => { settings.top = top.value; } });
  const submit = h("button.primary", { type: "submit" }, files.length === 1 ? "Send it" : `Send ${files.length} files`);
  const form = h("form.panel.settings", {
    onsubmit: async (event) => {
      event.preventDefault();
      submit.disabled = true;
      failure.hidden = true;
      try {
        const id = await send(files, settings.name.trim() || files[0].name, options(settings));
        location.hash = `#/jobs/${id}`;
      } catch (error) {
        failure.hidden = false;
        say(failure, error instanceof Problem ? error.message : "The service cannot be reached. Try again in a moment.");
        submit.disabled = false;
      }
    },
  },
    h("h2", { tabindex: -1 }, files.length === 1 ? files[0].name : plural(files.length, "file")),
    h("p.hint", {}, files.length === 1 ? bytes(files[0].size) : files.map((file) => `${file.name}, ${bytes(file.size)}`).join(" · ")),
    h("div.fields", {},
      field("Kind of report", select("format", kinds)),
      field("Between columns", select("delimiter", delimiters)),
      field("Encoding", select("encoding", ENCODINGS)),
      field("Decimal mark", select("decimal", { ".": "Point: 1.50", ",": "Comma: 1,50" })),
      field("Name", name),
      field("Length of the lists", top),
      h("label.check", {}, header, h("span", {}, "The first row names the columns")),
    ),
    preview,
    failure,
    h("div.actions", {}, submit, h("button", { type: "button", onclick: () => { draft = null; fill(place); } }, "Discard")),
  );
  fill(place, form);
  redraw();
  form.querySelector("h2").focus();
}

/** The options of the interface that the settings stand for. */
function options({ format, delimiter, encoding, hasHeader, decimal, top, columns }) {
  const values = { encoding, top };
  if (format) {
    // A format finds out the rest by itself.
    return { ...values, format };
  }
  values.delimiter = delimiter === "\t" ? "tab" : delimiter;
  if (!hasHeader) {
    values.has_header = "false";
  }
  if (decimal === ",") {
    values.decimal = ",";
    values.thousands = "any";
  }
  if (Object.keys(columns).length > 0) {
    values.columns = columnsOption(columns);
  }
  return values;
}

/** The first rows, and which column is taken for what. */
function showPreview(place, begun, settings, formats, redraw) {
  if (begun.hidden) {
    fill(place, h("p.hint", {}, begun.hidden));
    return;
  }
  const text = decode(begun.bytes, settings.encoding);
  const { records } = split(text, settings.delimiter, { max: 100, isWhole: begun.isWhole });
  const format = formats.find(({ name }) => name === settings.format);
  const names = columnNames(format?.options.columns);
  for (const [field, name] of Object.entries(settings.columns)) {
    names[field] = [name];
  }
  const found = format ? findHeader(records, names) : 0;
  const headerPlace = settings.hasHeader || format ? Math.max(found, 0) : -1;
  const header = records[headerPlace] ?? [];
  const rows = records.slice(headerPlace + 1, headerPlace + 1 + PREVIEW_ROWS);
  const isNamed = headerPlace >= 0;
  const columns = isNamed ? findColumns(header, names) : Object.fromEntries(FIELDS.map((field, index) => [field, index]));
  const width = Math.min(Math.max(header.length, ...rows.map((row) => row.length), 0), 60);
  const missing = FIELDS.filter((field) => !(field in columns) || columns[field] >= width).filter((field) => !format || field !== "date");
  const heads = Array.from({ length: width }, (_, index) => {
    const taken = FIELDS.find((field) => columns[field] === index);
    if (!isNamed || format) {
      return h("th", { scope: "col" }, taken ? h("b.taken", {}, FIELD_NAMES[taken]) : h("span.ignored", {}, "not used"));
    }
    const choices = [h("option", { value: "", selected: !taken }, "not used"),
      ...FIELDS.map((field) => h("option", { value: field, selected: field === taken }, FIELD_NAMES[field]))];
    const choose = (event) => {
      settings.columns = assign(columns, header, index, event.target.value);
      redraw();
      /** @type {HTMLElement | null} */ (place.querySelector(`select[data-column="${index}"]`))?.focus();
    };
    const label = `Column ${index + 1}, ${header[index] ?? ""}`;
    return h("th", { scope: "col" }, h(taken ? "select.taken" : "select", { "aria-label": label, "data-column": index, onchange: choose }, choices));
  });
  const cells = (row, tag, attributes = {}) =>
    h("tr", {}, Array.from({ length: width }, (_, index) => {
      const isTaken = FIELDS.some((field) => columns[field] === index);
      return h(isTaken ? tag : `${tag}.ignored`, attributes, (row[index] ?? "").slice(0, 80));
    }));
  const told = missing.length > 0
    ? h("p.warning", {}, `Not found: ${missing.map((field) => FIELD_NAMES[field].toLowerCase()).join(", ")}. ` +
        (isNamed && !format ? "Say above the columns which they are, or choose another delimiter." : "Choose another kind of report or delimiter."))
    : h("p.hint", {}, format && headerPlace > 0 ? `The header is row ${headerPlace + 1}; what is before it is passed over.` : "All columns are found.");
  const table = h("table.preview", {},
    h("caption.unseen", {}, "The first rows"),
    h("thead", {}, h("tr", {}, heads), isNamed && cells(header, "td")),
    h("tbody", {}, rows.map((row) => cells(row, "td"))),
  );
  fill(place, told, h("div.scrolls", { tabindex: 0, role: "group", "aria-label": "The first rows" }, table));
  announce(told.textContent);
}

/** The names of columns after one of them was given another field. */
function assign(columns, header, index, field) {
  const places = { ...columns };
  for (const [other, place] of Object.entries(places)) {
    if (place === index) {
      delete places[other];
    }
  }
  if (field) {
    places[field] = index;
  }
  const chosen = {};
  for (const [name, place] of Object.entries(places)) {
    // What the service finds by itself need not be said.
    if (header[place] !== undefined && header[place].trim().toLowerCase() !== name) {
      chosen[name] = header[place].trim();
    }
  }
  return chosen;
}
