/** The two lists as tables with bars, whose rows move when ranks change. */

import { fill, h, say } from "./dom.js";
import { money, number, percent } from "./text.js";

/**
 * What a list ranks by.
 *
 * @typedef {{title: string, column: string, hint: string, made: string[], value: (row: any) => string | null, show: (value: string) => string}} Metric
 *
 * `made`: the figures that it is made of. The others are left out where there is no room for them.
 */

/** @type {Metric} */
export const CTR = {
  title: "Highest click-through rate",
  column: "CTR",
  hint: "Clicks per impression",
  made: ["Impressions", "Clicks"],
  value: (row) => row.ctr,
  show: percent,
};

/** @type {Metric} */
export const CPA = {
  title: "Lowest cost per acquisition",
  column: "CPA",
  hint: "Spend per conversion; shorter is better",
  made: ["Spend", "Conversions"],
  value: (row) => row.cpa,
  show: money,
};

const FIGURES = [
  ["Impressions", (row) => number(row.total_impressions)],
  ["Clicks", (row) => number(row.total_clicks)],
  ["Spend", (row) => money(row.total_spend)],
  ["Conversions", (row) => number(row.total_conversions)],
];

/** Of longer lists, the first ones are shown until somebody asks for all. Longer ones are not animated: nobody could follow them. */
const MAX_ROWS = 50;
const MOVE_MILLISECONDS = 450;

const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");

/** One of the two lists. */
export class LeaderList {
  /** @param {Metric} metric */
  constructor(metric) {
    this.metric = metric;
    this.body = h("tbody");
    this.empty = h("p.empty", {}, "No campaign yet.");
    this.showsAll = false;
    this.more = h("button", { type: "button", hidden: true, onclick: () => { this.showsAll = true; this.update(...this.latest); } });
    /** @type {Map<string, any>} the row of each campaign, with its parts */
    this.rows = new Map();
    this.classes = FIGURES.map(([name]) => (metric.made.includes(name) ? "figure" : "figure.other"));
    const headings = [
      h("th", { scope: "col" }, h("span.unseen", {}, "Rank")),
      h("th", { scope: "col" }, "Campaign"),
      h("th", { scope: "col" }, metric.column),
      ...FIGURES.map(([name], index) => h(`th.${this.classes[index]}`, { scope: "col" }, name)),
    ];
    this.table = h("table.leaders", { hidden: true },
      h("caption.unseen", {}, metric.title),
      h("thead", {}, h("tr", {}, headings)),
      this.body,
    );
    this.element = h("section.panel.list", { "aria-label": metric.title },
      h("h2", {}, metric.title),
      h("p.hint", {}, metric.hint),
      h("div.scrolls", { tabindex: 0, role: "group", "aria-label": `${metric.title}, table` }, this.table),
      this.empty,
      this.more,
    );
  }

  /**
   * Shows these campaigns, best first.
   *
   * @param {any[]} all
   * @param {string} ifEmpty  what is said when there are none
   */
  update(all, ifEmpty) {
    this.latest = [all, ifEmpty];
    const leaders = this.showsAll ? all : all.slice(0, MAX_ROWS);
    this.more.hidden = leaders.length === all.length;
    say(this.more, `Show all ${number(all.length)}`);
    const animates = !reducedMotion.matches && leaders.length <= MAX_ROWS && !document.hidden;
    const before = new Map();
    if (animates) {
      this.rows.forEach((row, id) => before.set(id, row.element.offsetTop));
    }
    const values = leaders.map((leader) => Number(this.metric.value(leader) ?? 0));
    const largest = Math.max(...values, 0);
    const rows = new Map();
    leaders.forEach((leader, index) => {
      const row = this.rows.get(leader.campaign_id) ?? this.makeRow(leader.campaign_id);
      rows.set(leader.campaign_id, row);
      this.write(row, leader, index + 1, largest > 0 ? values[index] / largest : 0);
      if (this.body.children[index] !== row.element) {
        this.body.insertBefore(row.element, this.body.children[index] ?? null);
      }
    });
    while (this.body.children.length > leaders.length) {
      this.body.lastElementChild?.remove();
    }
    this.rows = rows;
    // All bars begin behind the longest value.
    const longest = leaders.reduce((most, leader) => Math.max(most, this.metric.show(this.metric.value(leader) ?? "0").length), 0);
    this.table.style.setProperty("--value-width", `${Math.max(longest, 5) + 1}ch`);
    this.table.hidden = leaders.length === 0;
    this.empty.hidden = leaders.length > 0;
    this.empty.textContent = ifEmpty;
    if (animates) {
      rows.forEach((row, id) => move(row.element, before.get(id)));
    }
  }

  write(row, leader, rank, share) {
    const texts = [String(rank), this.metric.show(this.metric.value(leader) ?? "0"), ...FIGURES.map(([, show]) => show(leader))];
    row.texts.forEach((cell, index) => {
      if (cell.textContent !== texts[index]) {
        cell.textContent = texts[index];
      }
    });
    row.bar.style.setProperty("--share", String(share));
  }

  makeRow(id) {
    const rank = h("td.rank");
    const value = h("span.value");
    const bar = h("span.bar", { "aria-hidden": "true" });
    const figures = this.classes.map((names) => h(`td.${names}`));
    const element = h("tr", {},
      rank,
      h("th.campaign", { scope: "row", title: id }, h("span", {}, id)),
      h("td.measure", {}, h("div", {}, value, bar)),
      figures,
    );
    return { element, bar, texts: [rank, value, ...figures] };
  }
}

/** Lets a row go from where it was to where it is; a new one comes up. */
function move(element, from) {
  const timing = { duration: MOVE_MILLISECONDS, easing: "cubic-bezier(.2, .8, .2, 1)" };
  if (from === undefined) {
    element.animate([{ opacity: 0 }, { opacity: 1 }], timing);
  } else if (from !== element.offsetTop) {
    element.animate([{ transform: `translateY(${from - element.offsetTop}px)` }, { transform: "none" }], timing);
  }
}

/**
 * A table of texts.
 *
 * @param {string} caption
 * @param {string[]} columns
 * @param {any[][]} rows
 */
export function plainTable(caption, columns, rows) {
  const table = h("table", {},
    h("caption.unseen", {}, caption),
    h("thead", {}, h("tr", {}, columns.map((column) => h("th", { scope: "col" }, column)))),
    h("tbody"),
  );
  fill(table.tBodies[0], rows.map((row) => h("tr", {}, row.map((cell) => h("td", {}, cell)))));
  return h("div.scrolls", { tabindex: 0, role: "group", "aria-label": caption }, table);
}
