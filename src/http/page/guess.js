/** What a file is like, guessed from its beginning: encoding, delimiter, header, and the kind of report. */

/** How much of a file is looked at. */
const SAMPLE_BYTES = 64 * 1024;
const MAX_RECORDS = 100;

/** The fields that a row needs, in the order that files without a header have. */
export const FIELDS = ["campaign_id", "date", "impressions", "clicks", "spend", "conversions"];

export const DELIMITERS = [",", ";", "\t", "|"];

/**
 * @typedef {object} Sample
 * @property {Uint8Array} bytes  the beginning of the text, decompressed
 * @property {boolean} isWhole  true when that is all of it
 * @property {string | null} hidden  why the beginning cannot be shown
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
    return { bytes: await inflated(bytes), isWhole: false, hidden: null };
  }
  if (bytes[0] === 0x28 && bytes[1] === 0xb5 && bytes[2] === 0x2f && bytes[3] === 0xfd) {
    const hidden = "This file is compressed with Zstandard. Browsers cannot look into it; the service can.";
    return { bytes: new Uint8Array(), isWhole: false, hidden };
  }
  if (bytes[0] === 0x50 && bytes[1] === 0x4b && bytes[2] <= 8 && bytes[3] <= 8) {
    const hidden = "This is a ZIP archive or an Excel workbook, not CSV. Unpack it, or save it as CSV, first.";
    return { bytes: new Uint8Array(), isWhole: false, hidden };
  }
  return { bytes, isWhole, hidden: null };
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
 * @param {Uint8Array} bytes
 * @returns {string} a label of the Encoding standard
 */
export function guessEncoding(bytes) {
  const begins = (...mark) => mark.every((byte, index) => bytes[index] === byte);
  if (begins(0xff, 0xfe)) {
    return "utf-16le";
  }
  if (begins(0xfe, 0xff)) {
    return "utf-16be";
  }
  if (begins(0xef, 0xbb, 0xbf)) {
    return "utf-8";
  }
  // Text in Latin letters has a zero in every other byte.
  const zeros = [0, 0];
  bytes.subarray(0, 1000).forEach((byte, index) => { zeros[index % 2] += byte === 0 ? 1 : 0; });
  if (zeros[0] + zeros[1] > 100) {
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
 * The place of the header among records.
 *
 * @param {string[][]} records
 * @param {Record<string, string[]>} names
 */
export function findHeader(records, names) {
  const needed = FIELDS.filter((field) => field !== "date" || names.date);
  const found = records.findIndex((record) => {
    const columns = findColumns(record, names);
    return needed.every((field) => field in columns);
  });
  return found;
}

/**
 * @param {Sample} sample
 * @param {Format[]} formats
 * @returns {Guess}
 */
export function guess(sample, formats) {
  const encoding = guessEncoding(sample.bytes);
  const text = decode(sample.bytes, encoding);
  const delimiter = guessDelimiter(text, sample.isWhole);
  const { records } = split(text, delimiter, { max: MAX_RECORDS, isWhole: sample.isWhole });
  const first = records[0] ?? [];
  const isPlain = Object.keys(findColumns(first, {})).length === FIELDS.length;
  // A kind of report is told by its names alone, wherever its header is.
  const format = isPlain ? undefined : formats.find((format) => findHeader(records, columnNames(format.options.columns)) >= 0);
  const numbers = /^[\s\d.,'-]*\d[\s\d.,'-]*$/;
  const looksLikeData = first.length === FIELDS.length && first.slice(2).every((cell) => numbers.test(cell));
  return {
    encoding,
    delimiter,
    hasHeader: isPlain || Boolean(format) || !looksLikeData,
    format: format?.name ?? "",
    decimal: guessDecimal(records, delimiter),
  };
}

/** A comma is the decimal mark when numbers have one behind digits and one or two digits behind it, and none has a point like that. */
function guessDecimal(records, delimiter) {
  const cells = records.slice(1).flat();
  const commas = cells.filter((cell) => /^-?[\d.]*\d,\d{1,2}$/.test(cell.trim())).length;
  const points = cells.filter((cell) => /^-?[\d,]*\d\.\d{1,2}$/.test(cell.trim())).length;
  return commas > points && (delimiter !== "," || points === 0) ? "," : ".";
}
