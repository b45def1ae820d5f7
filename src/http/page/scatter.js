/** All campaigns as points: spend against conversions, coloured by click-through rate. */

import { request } from "./api.js";
import { fill, h, svg } from "./dom.js";
import { split } from "./guess.js";
import { compact, money, number, percent, plural } from "./text.js";

const MAX_POINTS = 5000;
/** More campaigns than this are read only when somebody asks for it. */
const MAX_UNASKED_CAMPAIGNS = 1_000_000;
/** In CSS pixels, so that texts have their size on a phone, too. */
const MIN_WIDTH = 300;
const MAX_WIDTH = 1280;
const HEIGHT = 400;
const LEFT = 64;
const BOTTOM = 48;
const TOP = 12;
const RIGHT = 16;
const CLASSES = 5;

/**
 * @typedef {{id: string, spend: number, conversions: number, ctr: number, cells: string[]}} Campaign
 */

/**
 * Shows the campaigns of a job.
 *
 * @param {any} job  one that has succeeded
 * @param {AbortSignal} signal
 * @returns {HTMLElement}
 */
export function scatter(job, signal) {
  const place = h("div", { "aria-busy": "true" }, h("p.empty", {}, "Reading the campaigns…"));
  const section = h("section.panel", { "aria-labelledby": "scatter-title" },
    h("h2", { id: "scatter-title" }, "All campaigns"),
    place,
  );
  const path = job.links.results["campaigns.csv"];
  const begin = async () => {
    try {
      const { campaigns, seen } = await readSample(path, signal);
      fill(place, campaigns.length ? draw(campaigns, seen, Math.min(Math.max(place.clientWidth, MIN_WIDTH), MAX_WIDTH)) : h("p.empty", {}, "There are no campaigns."));
    } catch (error) {
      if (!signal.aborted) {
        fill(place, h("p.error", {}, /** @type {Error} */ (error).message));
      }
    }
    place.removeAttribute("aria-busy");
  };
  const count = Number(job.progress.unique_campaigns);
  if (count > MAX_UNASKED_CAMPAIGNS) {
    const ask = h("button", { type: "button", onclick: () => { fill(place, h("p.empty", {}, "Reading the campaigns…")); begin(); } },
      `Read all ${plural(count, "campaign")}`);
    fill(place, h("p.hint", {}, "To draw them, the whole table has to be read."), ask);
  } else {
    begin();
  }
  return section;
}

/**
 * Reads a table piece by piece and keeps a sample in which every row is equally likely (reservoir sampling, Vitter's algorithm R).
 *
 * @param {string} path
 * @param {AbortSignal} signal
 * @returns {Promise<{campaigns: Campaign[], seen: number}>}
 */
async function readSample(path, signal) {
  const response = await request("GET", path, { headers: { Accept: "text/csv" }, signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  /** @type {string[][]} */
  const kept = [];
  const random = generator();
  let seen = -1;
  let pending = "";
  for (let done = false; !done; ) {
    const piece = await reader.read();
    done = piece.done;
    pending += piece.value ?? "";
    const { records, rest } = split(pending, ",", { isWhole: done });
    pending = rest;
    for (const record of records) {
      // The first one has the names of the columns.
      if (seen >= 0) {
        const place = kept.length < MAX_POINTS ? kept.length : Math.floor(random() * (seen + 1));
        if (place < MAX_POINTS) {
          kept[place] = record;
        }
      }
      seen += 1;
    }
  }
  const campaigns = kept.map((cells) => ({
    id: cells[0],
    spend: Number(cells[3]),
    conversions: Number(cells[4]),
    ctr: Number(cells[5]),
    cells,
  }));
  return { campaigns, seen: Math.max(seen, 0) };
}

/** Random numbers that are the same each time, so that the same job looks the same (mulberry32). */
function generator() {
  let state = 0x9e3779b9;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** An axis on which each power of ten has the same length, and zero has a place. */
function axis(largest, from, to) {
  const most = Math.max(2, Math.abs(to - from) / 70);
  const powers = Math.max(1, Math.ceil(Math.log10(Math.max(largest, 1) + 1)));
  const scale = (value) => from + ((to - from) * Math.log10(Math.max(value, 0) + 1)) / Math.log10(10 ** powers + 1);
  const step = Math.ceil(powers / most);
  const ticks = [0];
  for (let power = 0; power <= powers; power += step) {
    ticks.push(10 ** power);
  }
  return { scale, ticks };
}

/** The limits between five classes with as many campaigns each. */
function classLimits(campaigns) {
  const sorted = campaigns.map(({ ctr }) => ctr).sort((a, b) => a - b);
  return Array.from({ length: CLASSES - 1 }, (_, index) => sorted[Math.floor(((index + 1) * sorted.length) / CLASSES)]);
}

/**
 * @param {Campaign[]} campaigns
 * @param {number} seen  how many there are
 * @param {number} width
 */
function draw(campaigns, seen, width) {
  const spends = axis(Math.max(...campaigns.map(({ spend }) => spend)), LEFT, width - RIGHT);
  const conversions = axis(Math.max(...campaigns.map(({ conversions }) => conversions)), HEIGHT - BOTTOM, TOP);
  const limits = classLimits(campaigns);
  const classOf = (ctr) => limits.filter((limit) => ctr >= limit).length;
  const placed = campaigns
    .map((campaign) => ({ campaign, x: spends.scale(campaign.spend), y: conversions.scale(campaign.conversions) }))
    .sort((a, b) => a.campaign.spend - b.campaign.spend);
  const summary =
    `${plural(campaigns.length, "campaign")} by spend and conversions. ` +
    "Arrow keys go from one to the next by spend; the tables and downloads have every figure.";
  const mark = svg("circle", { class: "mark", r: 7, visibility: "hidden" });
  const told = h("p.told", { role: "status" }, "Point at a campaign, or use the arrow keys.");
  const drawing = svg("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, role: "application", tabindex: 0, "aria-label": summary },
    spends.ticks.map((tick) => [
      svg("line", { class: "grid", x1: spends.scale(tick), x2: spends.scale(tick), y1: TOP, y2: HEIGHT - BOTTOM }),
      svg("text", { x: spends.scale(tick), y: HEIGHT - BOTTOM + 18, "text-anchor": "middle" }, compact(tick)),
    ]),
    conversions.ticks.map((tick) => [
      svg("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: conversions.scale(tick), y2: conversions.scale(tick) }),
      svg("text", { x: LEFT - 8, y: conversions.scale(tick) + 4, "text-anchor": "end" }, compact(tick)),
    ]),
    svg("text", { class: "axis", x: (LEFT + width - RIGHT) / 2, y: HEIGHT - 6, "text-anchor": "middle" }, "Spend"),
    svg("text", { class: "axis", transform: `translate(16 ${(HEIGHT - BOTTOM) / 2}) rotate(-90)`, "text-anchor": "middle" }, "Conversions"),
    placed.map(({ campaign, x, y }) =>
      svg("circle", { class: `point class${classOf(campaign.ctr)}`, cx: x.toFixed(1), cy: y.toFixed(1), r: 3.5 })),
    mark,
  );
  let current = -1;
  const choose = (index) => {
    current = index;
    const { campaign, x, y } = placed[index];
    mark.setAttribute("cx", x);
    mark.setAttribute("cy", y);
    mark.setAttribute("visibility", "visible");
    told.textContent = describe(campaign);
  };
  drawing.addEventListener("pointermove", (event) => {
    const box = drawing.getBoundingClientRect();
    const x = ((event.clientX - box.left) * width) / box.width;
    const y = ((event.clientY - box.top) * HEIGHT) / box.height;
    choose(nearest(placed, x, y));
  });
  drawing.addEventListener("keydown", (event) => {
    const steps = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, Home: -Infinity, End: Infinity };
    if (event.key in steps) {
      event.preventDefault();
      choose(Math.min(Math.max(current + steps[event.key], 0), placed.length - 1));
    }
  });
  const sampled = seen > campaigns.length && `A random sample: ${number(campaigns.length)} of ${number(seen)} campaigns. `;
  return h("figure.scatter", {},
    h("figcaption.hint", {}, sampled, "Spend against conversions, both axes logarithmic."),
    drawing,
    told,
    h("ul.legend", { "aria-label": "Click-through rate by colour" },
      Array.from({ length: CLASSES }, (_, index) => h("li", {}, h(`i.class${index}`), legendText(limits, index)))),
  );
}

function legendText(limits, index) {
  if (index === 0) {
    return `CTR below ${percent(String(limits[0]))}`;
  }
  return index === CLASSES - 1
    ? `from ${percent(String(limits[CLASSES - 2]))}`
    : `${percent(String(limits[index - 1]))} to ${percent(String(limits[index]))}`;
}

function nearest(placed, x, y) {
  let best = 0;
  let least = Infinity;
  placed.forEach((point, index) => {
    const distance = (point.x - x) ** 2 + (point.y - y) ** 2;
    if (distance < least) {
      least = distance;
      best = index;
    }
  });
  return best;
}

function describe({ cells: [id, , clicks, spend, conversions, ctr, cpa] }) {
  const cost = cpa ? `, CPA ${money(cpa)}` : "";
  return `${id}: spend ${money(spend)}, ${plural(conversions, "conversion")}, ${plural(clicks, "click")}, CTR ${percent(ctr)}${cost}`;
}
