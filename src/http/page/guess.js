/** What a file is like, guessed from its beginning: encoding, delimiter, header, and the kind of report. */

/** How much of a file is looked at. */
const SAMPLE_BYTES = 64 * 1024;
const MAX_RECORDS = 100;

/** The fields that a row needs, in the order that files without a header have. */
export const FIELDS = ["campaign_id", "date", "impressions", "clicks", "spend", "conversions"];

/** Those without which a file is refused. */
export const NEEDED_FIELDS = FIELDS.filter((field) => field !== "date");

export const DELIMITERS = [",", ";", "\t", "|"];

/**
 * @typedef {object} Sample
 * @property {Uint8Array} bytes  the beginning of the text, decompressed
 * @property {boolean} isWhole  true when that is all of it
 * @property {string | null} hidden  why the beginning cannot be shown
 * @property {boolean} isRefused  true for what the service does not take either
 *
 * @typedef {object} Format  a kind of report, as the service lists it
 * @property {string} name
 * @property {string} title
 * @property {string} status
 * @property {Record<string, string>} options
 *
 * @typedef {object} Guess
 * @property {string} encoding
 * @property {string} delimiter
 * @property {boolean} hasHeader
 * @property {string} format  the name of a kind of report, or nothing
 * @property {string} decimal  the decimal mark
 * @property {string} thousands  `none`, or `any`: digits are in groups of three
 * @property {string} conversions  `whole` or `decimal`
 */

/**
 * Reads the beginning of a file.
 *
 * @param {Blob} file
 * @returns {Promise<Sample>}
 */
export async function sample(file) {
  const bytes = new Uint8Array(await file.slice(0, SAMPLE_BYTES).arrayBuffer());
  const isWhole = file.size <= bytes.length;
  if (bytes[0] === 0x1f && bytes[1] === 0x8b) {
    return { bytes: await inflated(bytes), isWhole: false, hidden: null, isRefused: false };
  }
  if (bytes[0] === 0x28 && bytes[1] === 0xb5 && bytes[2] === 0x2f && bytes[3] === 0xfd) {
    const hidden = "This file is compressed with Zstandard. Browsers cannot look into it; the service can.";
    return { bytes: new Uint8Array(), isWhole: false, hidden, isRefused: false };
  }
  if (bytes[0] === 0x50 && bytes[1] === 0x4b && bytes[2] <= 8 && bytes[3] <= 8) {
    const hidden = "This is a ZIP archive or an Excel workbook, not CSV. Unpack it, or save it as CSV, first.";
    return { bytes: new Uint8Array(), isWhole: false, hidden, isRefused: true };
  }
  if (bytes.length === 0) {
    return { bytes, isWhole, hidden: "This file is empty.", isRefused: true };
  }
  return { bytes, isWhole, hidden: null, isRefused: false };
}

/** What comes out of the beginning of a gzip file. */
async function inflated(bytes) {
  const reader = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip")).getReader();
  const pieces = [];
  let length = 0;
  try {
    while (length < SAMPLE_BYTES) {
      const { done, value } = await reader.read();
      if (done) {
        break;
      }
      pieces.push(value);
      length += value.length;
    }
  } catch {
    // The beginning ends within a block: what came out of it so far is enough.
  }
  reader.cancel().catch(() => {});
  return new Uint8Array(await new Blob(pieces).arrayBuffer()).slice(0, SAMPLE_BYTES);
}

/**
 * The encoding that a byte-order mark tells; it wins over what anybody says.
 *
 * @param {Uint8Array} bytes
 * @returns {string | null} a label of the Encoding standard
 */
export function encodingOfMark(bytes) {
  const begins = (...mark) => mark.every((byte, index) => bytes[index] === byte);
  if (begins(0xef, 0xbb, 0xbf)) {
    return "utf-8";
  }
  return begins(0xff, 0xfe) ? "utf-16le" : begins(0xfe, 0xff) ? "utf-16be" : null;
}

/**
 * @param {Uint8Array} bytes
 * @returns {string} a label of the Encoding standard
 */
export function guessEncoding(bytes) {
  const told = encodingOfMark(bytes);
  if (told) {
    return told;
  }
  // Text in Latin letters has a zero in every other byte.
  const looked = bytes.subarray(0, 1000);
  const zeros = [0, 0];
  looked.forEach((byte, index) => { zeros[index % 2] += byte === 0 ? 1 : 0; });
  if (zeros[0] + zeros[1] > looked.length / 4) {
    return zeros[0] > zeros[1] ? "utf-16be" : "utf-16le";
  }
  try {
    new TextDecoder("utf-8", { fatal: true }).decode(bytes, { stream: true });
    return "utf-8";
  } catch {
    return "windows-1252";
  }
}

/**
 * @param {Uint8Array} bytes
 * @param {string} encoding
 */
export const decode = (bytes, encoding) => new TextDecoder(encoding).decode(bytes, { stream: true });

/**
 * Splits text into records of fields (RFC 4180); LF, CRLF and CR end a record. Blank lines are left out.
 *
 * @param {string} text
 * @param {string} delimiter
 * @param {{max?: number, isWhole?: boolean}} [options]  `isWhole`: the last record counts, though no line end is behind it
 * @returns {{records: string[][], rest: string}} `rest`: what is behind the last record
 */
export function split(text, delimiter, { max = Infinity, isWhole = true } = {}) {
  const records = [];
  let position = 0;
  let begin = 0;
  let fields = [];
  while (position <= text.length && records.length < max) {
    let field;
    if (text[position] === '"') {
      let end = text.indexOf('"', position + 1);
      while (end >= 0 && text[end + 1] === '"') {
        end = text.indexOf('"', end + 2);
      }
      if (end < 0) {
        break;
      }
      field = text.slice(position + 1, end).replaceAll('""', '"');
      position = end + 1;
    } else {
      field = "";
    }
    const from = position;
    while (position < text.length && text[position] !== delimiter && text[position] !== "\n" && text[position] !== "\r") {
      position += 1;
    }
    field += text.slice(from, position);
    if (position >= text.length && !isWhole) {
      break;
    }
    fields.push(field);
    const ends = text[position] !== delimiter;
    position += text[position] === "\r" && text[position + 1] === "\n" ? 2 : 1;
    if (ends) {
      if (fields.length > 1 || fields[0].trim() !== "") {
        records.push(fields);
      }
      fields = [];
      begin = position;
    }
  }
  return { records, rest: text.slice(begin) };
}

/**
 * The one with which most of the first records have as many fields, and more than one.
 *
 * @param {string} text
 * @param {boolean} isWhole
 */
export function guessDelimiter(text, isWhole) {
  let best = { delimiter: ",", score: 0 };
  for (const delimiter of DELIMITERS) {
    const widths = split(text, delimiter, { max: MAX_RECORDS, isWhole }).records.map((record) => record.length);
    const counts = new Map();
    for (const width of widths.filter((width) => width > 1)) {
      counts.set(width, (counts.get(width) ?? 0) + 1);
    }
    for (const [width, times] of counts) {
      const score = (times / widths.length) * Math.min(width, FIELDS.length);
      best = score > best.score ? { delimiter, score } : best;
    }
  }
  return best.delimiter;
}

const canonical = (name) => name.replace(/\u00a0/g, " ").trim().toLowerCase();

/**
 * The columns that the fields are in.
 *
 * @param {string[]} record  the names of columns
 * @param {Record<string, string[]>} names  the names that each field may have
 * @returns {Record<string, number>} the column's place for each field that is found
 */
export function findColumns(record, names) {
  const columns = {};
  for (const field of FIELDS) {
    const patterns = (names[field] ?? [field]).map(canonical);
    const cells = record.map(canonical);
    for (const pattern of patterns) {
      const place = cells.findIndex((cell) => cell === pattern || isInAnyCurrency(cell, pattern));
      if (place >= 0) {
        columns[field] = place;
        break;
      }
    }
  }
  return columns;
}

/** In names, `(*)` stands for any currency in parentheses. */
function isInAnyCurrency(cell, pattern) {
  const [begin, end] = pattern.split("(*)");
  return end !== undefined && cell.startsWith(`${begin}(`) && cell.endsWith(`)${end}`);
}

/**
 * The names of columns, as the option `columns` lists them.
 *
 * @param {string | undefined} option  `FIELD:NAME|NAME;FIELD:NAME`, a backslash before what is meant as it is
 * @returns {Record<string, string[]>}
 */
export function columnNames(option) {
  const names = {};
  const separated = (text, mark) => text.match(new RegExp(`(?:\\\\.|[^\\\\${mark}])+`, "g")) ?? [];
  for (const part of separated(option ?? "", ";")) {
    const place = part.indexOf(":");
    const list = separated(part.slice(place + 1), "|");
    names[part.slice(0, place).trim()] = list.map((name) => name.replace(/\\(.)/g, "$1"));
  }
  return names;
}

/**
 * A text for the option `columns`.
 *
 * @param {Record<string, string>} columns  the column's name for each field
 */
export const columnsOption = (columns) =>
  Object.entries(columns).map(([field, name]) => `${field}:${name.replace(/[\\|;,]/g, "\\$&")}`).join(";");

/**
 * The place of the header among records, or -1.
 *
 * @param {string[][]} records
 * @param {Record<string, string[]>} names
 */
export function findHeader(records, names) {
  return records.findIndex((record) => {
    const columns = findColumns(record, names);
    return NEEDED_FIELDS.every((field) => field in columns);
  });
}

/**
 * The beginning of the text as records.
 *
 * @param {Sample} sample
 * @param {string} encoding
 * @param {string} delimiter
 */
export const recordsOf = (sample, encoding, delimiter) =>
  split(decode(sample.bytes, encoding), delimiter, { max: MAX_RECORDS, isWhole: sample.isWhole }).records;

/**
 * How the report of a format is separated, and where its header is; -1 when there is none.
 *
 * @param {Sample} sample
 * @param {string} encoding
 * @param {Record<string, string[]>} names
 */
export function findReport(sample, encoding, names) {
  for (const delimiter of ["\t", ",", ";"]) {
    const records = recordsOf(sample, encoding, delimiter);
    const place = findHeader(records, names);
    if (place >= 0) {
      return { delimiter, records, place };
    }
  }
  return { delimiter: ",", records: recordsOf(sample, encoding, ","), place: -1 };
}

/**
 * @param {Sample} sample
 * @param {Format[]} formats
 * @returns {Guess}
 */
export function guess(sample, formats) {
  const encoding = guessEncoding(sample.bytes);
  const delimiter = guessDelimiter(decode(sample.bytes, encoding), sample.isWhole);
  const records = recordsOf(sample, encoding, delimiter);
  const headerPlace = findHeader(records, {});
  // A kind of report is told by its names alone, wherever its header is.
  const format = headerPlace >= 0
    ? undefined
    : formats.find(({ options }) => findReport(sample, encoding, columnNames(options.columns)).place >= 0);
  const first = records[0] ?? [];
  const looksLikeData = first.length === FIELDS.length && first.slice(2).every((cell) => /^[\s\d.,'-]*\d[\s\d.,'-]*$/.test(cell));
  const hasHeader = headerPlace >= 0 || Boolean(format) || !looksLikeData;
  const columns = hasHeader ? findColumns(records[Math.max(headerPlace, 0)] ?? [], {}) : Object.fromEntries(FIELDS.map((field, index) => [field, index]));
  return { encoding, delimiter, hasHeader, format: format?.name ?? "", ...guessNumbers(records, columns) };
}

/** How numbers are written, by those in the columns that are known, or else by all. */
function guessNumbers(records, columns) {
  const rows = records.slice(1);
  const known = ["impressions", "clicks", "spend", "conversions"].filter((field) => field in columns);
  const cells = known.length > 0 ? rows.flatMap((row) => known.map((field) => row[columns[field]] ?? "")) : rows.flat();
  const has = (pattern) => cells.some((cell) => pattern.test(cell.trim()));
  // Three digits behind a mark may be a group.
  const hasComma = has(/^[+-]?[\d.'\s]*\d,(\d{1,2}|\d{4,})$/);
  const hasPoint = has(/^[+-]?[\d,'\s]*\d\.(\d{1,2}|\d{4,})$/);
  const decimal = hasComma && !hasPoint ? "," : ".";
  const thousands = has(decimal === "," ? /^[+-]?\d{1,3}([.'\s]\d{3})+(,\d+)?$/ : /^[+-]?\d{1,3}([,'\s]\d{3})+(\.\d+)?$/) ? "any" : "none";
  const numbers = { decimal, thousands };
  const conversions = rows.map((row) => row[columns.conversions] ?? "").filter((cell) => isNumber(cell, numbers, true));
  return { ...numbers, conversions: conversions.every((cell) => isNumber(cell, numbers, false)) ? "whole" : "decimal" };
}

/**
 * True for a text that the service takes for a number.
 *
 * @param {string} text
 * @param {{decimal: string, thousands: string}} written  how numbers are written
 * @param {boolean} mayHaveDecimals
 */
export function isNumber(text, { decimal, thousands }, mayHaveDecimals) {
  let plain = text.trim();
  if (thousands === "any") {
    plain = plain.replace(decimal === "," ? /(?<=\d)[.'\s](?=\d{3}(?!\d))/g : /(?<=\d)[,'\s](?=\d{3}(?!\d))/g, "");
  }
  plain = decimal === "," ? plain.replace(",", ".") : plain;
  return (mayHaveDecimals ? /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i : /^\+?\d+(\.0*)?(e\+?\d+)?$/i).test(plain);
}
