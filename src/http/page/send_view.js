/** Choosing files, seeing how they will be read, and sending them. */

import { Problem, get } from "./api.js";
import { arrive, fill, h, say } from "./dom.js";
import { DELIMITERS, FIELDS, encodingOfMark, guess, sample } from "./guess.js";
import { optionsOf, read, showRows } from "./preview.js";
import { bytes, plural } from "./text.js";
import { send } from "./upload.js";

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

/**
 * Files and how they are to be read.
 *
 * @typedef {{files: File[], settings: import("./preview.js").Settings | null}} Draft
 */

/** @type {Draft | null} what has been chosen and not been sent */
let draft = null;

/** @type {(Draft & {id: string}) | null} what has been sent last, with the id of its job, so that it can be sent in another way */
let sent = null;

/**
 * Offers files, as if they had been chosen.
 *
 * @param {File[]} files
 */
export function offer(files) {
  draft = { files, settings: null };
}

/**
 * True when the files of a job are still at hand.
 *
 * @param {string} id
 */
export const canResend = (id) => sent?.id === id;

/** Takes what was sent last for the next draft. */
export function resend() {
  draft = sent;
}

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
      offer([...files]);
      prepare(settingsPlace, formats, chooseButton);
    }
  };
  const input = h("input", {
    id: "files", type: "file", hidden: true, multiple: true, accept: ".csv,.tsv,.txt,.gz,.zst", onchange: () => {
      choose(input.files);
      // The same file can be chosen again.
      input.value = "";
    },
  });
  const chooseButton = h("button.primary", { type: "button", onclick: () => input.click() }, "Choose files");
  const paste = () => {
    const area = h("textarea", { id: "pasted", rows: 8, spellcheck: "false", placeholder: FIELDS.join(",") });
    fill(settingsPlace, h("form.panel", {
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
    ));
    area.focus();
  };
  const heading = h("h1", { tabindex: -1 }, "Which campaigns work?");
  fill(place,
    heading,
    h("p.lead", {}, "Exact totals for each campaign, and the best ten by click-through rate and by cost per acquisition."),
    waiting,
    h("div.drop", {},
      h("p.invitation", {}, "Drop your ad data here"),
      h("p.hint", {}, "CSV files of any size, also several that belong together, also as gzip or Zstandard"),
      input,
      h("div.actions", {}, chooseButton, h("button", { type: "button", onclick: paste }, "Paste rows")),
    ),
    settingsPlace,
  );
  arrive(heading);
  if (draft) {
    await prepare(settingsPlace, formats, chooseButton);
  }
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
 * Shows how the files of the draft will be read, and what can be changed about it.
 *
 * @param {HTMLElement} place
 * @param {import("./guess.js").Format[]} formats
 * @param {HTMLElement} back  what has the focus when they are discarded
 */
async function prepare(place, formats, back) {
  const preparing = /** @type {Draft} */ (draft);
  const { files } = preparing;
  let begun;
  try {
    begun = await sample(files[0]);
  } catch {
    fill(place, h("p.error", { role: "alert" }, `${files[0].name} cannot be read. Is it a folder, or has it changed? Choose it again.`));
    return;
  }
  if (draft !== preparing) {
    // Others have been chosen meanwhile.
    return;
  }
  preparing.settings ??= {
    ...guess(begun, formats),
    name: files.length === 1 ? files[0].name : `${files[0].name} and ${plural(files.length - 1, "other")}`,
    top: "10",
    columns: {},
  };
  const { settings } = preparing;
  const formatOf = () => formats.find(({ name }) => name === settings.format);
  const preview = h("div");
  const failure = h("p.error", { role: "alert", hidden: true });
  const submit = h("button.primary", { type: "submit", disabled: begun.isRefused }, files.length === 1 ? "Send it" : `Send ${files.length} files`);
  const { fields, plainFields } = controls(settings, formats, begun, () => redraw());
  const redraw = () => {
    // A format finds these out by itself.
    plainFields.forEach((field) => { field.hidden = Boolean(settings.format); });
    if (begun.hidden) {
      fill(preview, h(begun.isRefused ? "p.warning" : "p.hint", { role: "status" }, begun.hidden));
      return;
    }
    const focused = /** @type {HTMLElement | null} */ (document.activeElement)?.dataset.column;
    showRows(preview, read(begun, settings, formatOf()), !settings.format && settings.hasHeader, (columns) => {
      settings.columns = columns;
      redraw();
    });
    if (focused !== undefined) {
      /** @type {HTMLElement | null} */ (preview.querySelector(`[data-column="${focused}"]`))?.focus();
    }
  };
  const discard = () => {
    draft = null;
    fill(place);
    back.focus();
  };
  const title = h("h2", { tabindex: -1 }, files.length === 1 ? files[0].name : plural(files.length, "file"));
  fill(place, h("form.panel.settings", {
    onsubmit: async (event) => {
      event.preventDefault();
      submit.disabled = true;
      failure.hidden = true;
      try {
        const id = await send(files, settings.name.trim() || files[0].name, optionsOf(settings, begun, formatOf()));
        sent = { ...preparing, id };
        draft = null;
        location.hash = `#/jobs/${id}`;
      } catch (error) {
        failure.hidden = false;
        say(failure, error instanceof Problem ? error.message : "The service cannot be reached. Try again in a moment.");
        submit.disabled = false;
      }
    },
  },
    title,
    h("p.hint", {}, files.length === 1 ? bytes(files[0].size) : files.map((file) => `${file.name}, ${bytes(file.size)}`).join(" · ")),
    h("div.fields", {}, fields),
    preview,
    failure,
    h("div.actions", {}, submit, h("button", { type: "button", onclick: discard }, "Discard")),
  ));
  redraw();
  title.focus();
}

/** The controls of the form, and those of them that are for files without a format. */
function controls(settings, formats, begun, redraw) {
  const field = (label, control) => h("label.field", {}, h("span", {}, label), control);
  const select = (key, choices, attributes = {}) => {
    const options = Object.entries(choices).map(([value, label]) => h("option", { value, selected: value === settings[key] }, label));
    const change = (event) => {
      settings[key] = event.target.value;
      settings.columns = {};
      redraw();
    };
    return h("select", { name: key, onchange: change, ...attributes }, options);
  };
  const check = (label, isChecked, change) => {
    const box = h("input", { type: "checkbox", checked: isChecked, onchange: () => { change(box.checked); settings.columns = {}; redraw(); } });
    return h("label.check", {}, box, h("span", {}, label));
  };
  const text = (key, attributes) => {
    const control = h("input", { name: key, value: settings[key], required: true, ...attributes, oninput: () => { settings[key] = control.value; } });
    return control;
  };
  const kinds = { "": "Plain columns" };
  for (const { name, title, status } of formats) {
    kinds[name] = status === "experimental" ? `${title} (experimental)` : title;
  }
  const marks = [...new Set([...DELIMITERS, settings.delimiter])];
  const delimiters = Object.fromEntries(marks.map((mark) => [mark, DELIMITER_NAMES[mark] ?? mark]));
  const plainFields = [
    !begun.hidden && field("Between columns", select("delimiter", delimiters)),
    field("Decimal mark", select("decimal", { ".": "Point: 1.50", ",": "Comma: 1,50" })),
    field("Digits", select("thousands", { none: "As they are: 1000", any: "In groups: 1,000 or 1.000" })),
    check("The first row names the columns", settings.hasHeader, (isChecked) => { settings.hasHeader = isChecked; }),
    check("Conversions may have decimals", settings.conversions === "decimal", (isChecked) => { settings.conversions = isChecked ? "decimal" : "whole"; }),
  ].filter(Boolean);
  // A byte-order mark wins over whatever is said.
  const isMarked = encodingOfMark(begun.bytes) !== null;
  const encodingOptions = isMarked ? { disabled: true, title: "The file's first bytes tell it" } : {};
  const fields = [
    field("Kind of report", select("format", kinds)),
    field("Encoding", select("encoding", ENCODINGS, encodingOptions)),
    ...plainFields,
    field("Name", text("name", { type: "text", maxlength: 200 })),
    field("Length of the lists", text("top", { type: "number", min: 1, max: 1000, step: 1 })),
  ];
  return { fields, plainFields };
}
