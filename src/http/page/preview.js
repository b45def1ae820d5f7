/** The first rows of a file as the service will read them, and what of them it will not take. */

import { announce, fill, h } from "./dom.js";
import { FIELDS, NEEDED_FIELDS, columnNames, columnsOption, findColumns, findHeader, findReport, isNumber, recordsOf } from "./guess.js";
import { number, plural } from "./text.js";

const PREVIEW_ROWS = 8;
/** Columns that are shown; more can be there. */
const MAX_SHOWN_COLUMNS = 60;
const MAX_SHOWN_CHARACTERS = 80;

export const FIELD_NAMES = {
  campaign_id: "Campaign",
  date: "Date",
  impressions: "Impressions",
  clicks: "Clicks",
  spend: "Spend",
  conversions: "Conversions",
};

/**
 * How a file is read.
 *
 * @typedef {import("./guess.js").Guess & {name: string, top: string, columns: Record<string, string>}} Settings
 *
 * @typedef {object} Reading
 * @property {string[]} header  the names of columns; empty without a header
 * @property {string[][]} rows
 * @property {number} place  the header's place among the records; -1 without one
 * @property {Record<string, number>} columns  the column of each field that is found
 * @property {string} told  what is to be known about it
 * @property {boolean} isGood
 */

/**
 * @param {import("./guess.js").Sample} begun
 * @param {Settings} settings
 * @param {import("./guess.js").Format | undefined} format
 * @returns {Reading}
 */
export function read(begun, settings, format) {
  const names = columnNames(format?.options.columns);
  for (const [field, name] of Object.entries(settings.columns)) {
    names[field] = [name];
  }
  const plain = format ? null : recordsOf(begun, settings.encoding, settings.delimiter);
  const report = format ? findReport(begun, settings.encoding, names) : null;
  const records = plain ?? report?.records ?? [];
  const isNamed = Boolean(format) || settings.hasHeader;
  // Where no header is found, the first row is shown as one: it tells what is wrong.
  const place = isNamed ? Math.max(report ? report.place : findHeader(records, names), 0) : -1;
  const header = isNamed ? (records[place] ?? []) : [];
  const rows = records.slice(place + 1);
  const columns = isNamed ? findColumns(header, names) : Object.fromEntries(FIELDS.map((field, index) => [field, index]));
  const reading = { header, rows, place, columns };
  const trouble = troubleWith(reading, begun, settings, format);
  const found = place > 0 ? `The header is row ${place + 1}; what is before it is passed over.` : "All columns are found.";
  return { ...reading, told: trouble ?? found, isGood: trouble === null };
}

/** What the service will not take, as far as the beginning shows; null when nothing. */
function troubleWith({ header, rows, place, columns }, begun, settings, format) {
  if (header.length === 0 && rows.length === 0) {
    return begun.isWhole ? "There are no rows." : "The first row does not end within 64 kB, so it cannot be shown.";
  }
  const missing = NEEDED_FIELDS.filter((field) => !(field in columns));
  if (missing.length > 0) {
    const names = missing.map((field) => FIELD_NAMES[field].toLowerCase()).join(", ");
    return `Not found: ${names}. ` + (format
      ? "Choose another kind of report or encoding."
      : "Say above the columns which they are, or choose another delimiter.");
  }
  const cells = header.map((cell) => cell.trim().toLowerCase());
  const twice = NEEDED_FIELDS.find((field) => place >= 0 && cells.filter((cell) => cell === cells[columns[field]]).length > 1);
  if (twice) {
    return `Two columns have the name “${header[columns[twice]]}”. Rename one of them in the file.`;
  }
  if (place < 0 && rows.some((row) => row.length !== FIELDS.length)) {
    return "Without a header, rows must have exactly these six columns in this order.";
  }
  return format ? null : skippedOf(rows, header.length || FIELDS.length, columns, settings);
}

/** Which of the first rows will be skipped, and why the first one. */
function skippedOf(rows, width, columns, settings) {
  const reasonOf = (row) => {
    if (row.length !== width) {
      return `it has ${plural(row.length, "column")}, not ${width}`;
    }
    if ((row[columns.campaign_id] ?? "").trim() === "") {
      return "it has no campaign";
    }
    const wrong = ["impressions", "clicks", "spend", "conversions"].find((field) =>
      !isNumber(row[columns[field]] ?? "", settings, field === "spend" || (field === "conversions" && settings.conversions === "decimal")));
    return wrong && `its ${FIELD_NAMES[wrong].toLowerCase()} are “${row[columns[wrong]]}”`;
  };
  const reasons = rows.map(reasonOf);
  const first = reasons.findIndex(Boolean);
  if (first < 0) {
    return null;
  }
  const count = reasons.filter(Boolean).length;
  return `${number(count)} of the first ${plural(rows.length, "row")} will be skipped, such as row ${first + 1}: ${reasons[first]}.`;
}

/**
 * The options of the interface that the settings stand for.
 *
 * @param {Settings} settings
 * @param {import("./guess.js").Sample} begun
 * @param {import("./guess.js").Format | undefined} format
 * @returns {Record<string, string>}
 */
export function optionsOf(settings, begun, format) {
  const { delimiter, encoding, hasHeader, decimal, thousands, conversions, top, columns } = settings;
  const values = { encoding, top: String(Number(top)) };
  if (format) {
    // It finds out the rest by itself.
    return { ...values, format: format.name };
  }
  if (begun.hidden && hasHeader) {
    return { ...values, delimiter: "auto" };
  }
  values.delimiter = delimiter === "\t" ? "tab" : delimiter;
  if (!hasHeader) {
    values.has_header = "false";
  } else if (!begun.hidden && read(begun, settings, format).place > 0) {
    values.header = "find";
  }
  if (decimal !== ".") {
    values.decimal = decimal;
  }
  if (thousands !== "none") {
    values.thousands = thousands;
  }
  if (conversions !== "whole") {
    values.conversions = conversions;
  }
  if (hasHeader && Object.keys(columns).length > 0) {
    values.columns = columnsOption(columns);
  }
  return values;
}

/**
 * Shows the first rows, and which column is taken for what.
 *
 * @param {Element} place
 * @param {Reading} reading
 * @param {boolean} canChoose  whether columns can be given to fields by hand
 * @param {(columns: Record<string, string>) => void} choose  is told the names of columns that were chosen
 */
export function showRows(place, { header, rows, columns, told, isGood }, canChoose, choose) {
  const shown = rows.slice(0, PREVIEW_ROWS);
  const width = Math.max(header.length, ...shown.map((row) => row.length), 0);
  const shownWidth = Math.min(width, MAX_SHOWN_COLUMNS);
  const takenFor = (index) => FIELDS.find((field) => columns[field] === index);
  const heads = Array.from({ length: shownWidth }, (_, index) => {
    const taken = takenFor(index);
    const name = (header[index] ?? "").trim();
    if (!canChoose || name === "") {
      return h("th", { scope: "col" }, taken ? h("b.taken", {}, FIELD_NAMES[taken]) : h("span.ignored", {}, "not used"));
    }
    // What the service finds by its name cannot be taken from it.
    const isByName = taken !== undefined && name.toLowerCase() === taken;
    const options = [
      !isByName && h("option", { value: "", selected: !taken }, "not used"),
      ...FIELDS.map((field) => h("option", { value: field, selected: field === taken }, FIELD_NAMES[field])),
    ];
    return h("th", { scope: "col" }, h(taken ? "select.taken" : "select", {
      "aria-label": `Column ${index + 1}, ${name}`,
      "data-column": index,
      onchange: (event) => choose(assigned(columns, header, index, event.target.value)),
    }, options));
  });
  const cells = (row) => h("tr", {}, Array.from({ length: shownWidth }, (_, index) =>
    h(takenFor(index) ? "td" : "td.ignored", {}, (row[index] ?? "").slice(0, MAX_SHOWN_CHARACTERS))));
  const table = h("table.preview", {},
    h("caption.unseen", {}, "The first rows"),
    h("thead", {}, h("tr", {}, heads), header.length > 0 && cells(header)),
    h("tbody", {}, shown.map(cells)),
  );
  fill(place,
    h(isGood ? "p.hint" : "p.warning", {}, told),
    h("div.scrolls", { tabindex: 0, role: "group", "aria-label": "The first rows" }, table),
    width > shownWidth && h("p.hint", {}, `${number(width - shownWidth)} more columns are not shown.`),
  );
  announce(told);
}

/** The names of columns after one of them was given to another field. */
function assigned(columns, header, index, field) {
  const places = Object.fromEntries(Object.entries(columns).filter(([, place]) => place !== index));
  if (field) {
    places[field] = index;
  }
  // What the service finds by itself need not be said.
  const isSaid = ([name, place]) => header[place] !== undefined && header[place].trim().toLowerCase() !== name;
  return Object.fromEntries(Object.entries(places).filter(isSaid).map(([name, place]) => [name, header[place].trim()]));
}
