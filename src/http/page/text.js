/** Numbers, money and times as the reader's locale writes them. */

const whole = new Intl.NumberFormat();
const compactNumber = new Intl.NumberFormat(undefined, { notation: "compact", maximumFractionDigits: 2 });
const twoDecimals = new Intl.NumberFormat(undefined, { minimumFractionDigits: 2, maximumFractionDigits: 2 });
const manyDecimals = new Intl.NumberFormat(undefined, { maximumFractionDigits: 12 });
const twoPercentDecimals = new Intl.NumberFormat(undefined, {
  style: "percent",
  minimumFractionDigits: 2,
  maximumFractionDigits: 2,
});
const absolute = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const relative = new Intl.RelativeTimeFormat(undefined, { numeric: "auto" });

/** @param {number | bigint | string} value  a whole number, or one with decimals as text */
export const number = (value) => (typeof value === "string" ? manyDecimals : whole).format(/** @type {any} */ (value));

/** @param {number | bigint} value */
export const compact = (value) => compactNumber.format(value);

/** @param {string} value  a decimal number; texts keep every digit */
export const money = (value) => twoDecimals.format(/** @type {any} */ (value));

/** @param {string} value  a share of 1 */
export const percent = (value) => twoPercentDecimals.format(/** @type {any} */ (value));

const BYTE_UNITS = ["byte", "kilobyte", "megabyte", "gigabyte", "terabyte"];

/** @param {number} value */
export function bytes(value) {
  const power = Math.min(Math.floor(Math.log10(Math.max(value, 1)) / 3), BYTE_UNITS.length - 1);
  const unit = BYTE_UNITS[power];
  const scaled = value / 1000 ** power;
  const maximumFractionDigits = power === 0 || scaled >= 100 ? 0 : 1;
  return new Intl.NumberFormat(undefined, {
    style: "unit",
    unit,
    unitDisplay: power === 0 ? "long" : "short",
    maximumFractionDigits,
  }).format(scaled);
}

const SECONDS = { second: 1, minute: 60, hour: 3600, day: 86_400, week: 604_800, month: 2_629_800, year: 31_557_600 };

/** @param {number} seconds */
export function duration(seconds) {
  const part = (value, unit) =>
    new Intl.NumberFormat(undefined, { style: "unit", unit, unitDisplay: "short" }).format(value);
  const rounded = Math.max(0, Math.round(seconds));
  if (rounded < 60) {
    return part(rounded, "second");
  }
  if (rounded < 3600) {
    return `${part(Math.floor(rounded / 60), "minute")} ${part(rounded % 60, "second")}`;
  }
  return `${part(Math.floor(rounded / 3600), "hour")} ${part(Math.floor((rounded % 3600) / 60), "minute")}`;
}

/** @param {string} text  a time as RFC 3339 writes it */
export const time = (text) => absolute.format(new Date(text));

/** @param {string} text  a time as RFC 3339 writes it */
export function ago(text) {
  const seconds = (Date.parse(text) - Date.now()) / 1000;
  const units = Object.entries(SECONDS).reverse();
  const [unit, size] = units.find(([, size]) => Math.abs(seconds) >= size) ?? ["second", 1];
  return relative.format(Math.trunc(seconds / size), /** @type {Intl.RelativeTimeFormatUnit} */ (unit));
}

/** Words for the states of jobs and files. */
export const STATES = {
  open: "Waiting for files",
  waiting: "Waiting",
  receiving: "Receiving",
  interrupted: "Interrupted",
  complete: "Complete",
  succeeded: "Done",
  failed: "Failed",
  cancelled: "Cancelled",
};

/**
 * "1 row", "2 rows"
 *
 * @param {number | bigint} value
 * @param {string} one
 * @param {string} [several]
 */
export const plural = (value, one, several = `${one}s`) => `${number(value)} ${Number(value) === 1 ? one : several}`;
