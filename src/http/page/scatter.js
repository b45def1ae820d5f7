/** All campaigns as points: spend against conversions, coloured by click-through rate. */

import { request } from "./api.js";
import { announce, fill, h, say, svg } from "./dom.js";
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
const POINTS_AT_ONCE = 500;
/** Smaller changes of the width only scale the drawing. */
const REDRAW_PIXELS = 40;

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
      if (campaigns.length > 0) {
        keepDrawn(place, campaigns, seen, signal);
      } else {
        fill(place, h("p.empty", {}, "There are no campaigns."));
      }
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

/** Draws anew when there is another width for it. */
function keepDrawn(place, campaigns, seen, signal) {
  let drawn = 0;
  const observer = new ResizeObserver(() => {
    const width = Math.min(Math.max(place.clientWidth, MIN_WIDTH), MAX_WIDTH);
    if (Math.abs(width - drawn) > REDRAW_PIXELS) {
      drawn = width;
      fill(place, draw(campaigns, seen, width));
    }
  });
  observer.observe(place);
  signal.addEventListener("abort", () => observer.disconnect());
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

/**
 * An axis for these values: linear when they lie close together, else one on which each power of ten has the same length. Zero has a
 * place of its own there.
 *
 * @param {number[]} values
 * @param {number} from  where it begins in the drawing
 * @param {number} to
 */
function axis(values, from, to) {
  const most = Math.max(2, Math.floor(Math.abs(to - from) / 70));
  const largest = values.reduce((a, b) => Math.max(a, b), 0);
  const least = values.reduce((a, b) => (b > 0 ? Math.min(a, b) : a), Infinity);
  const smallest = values.reduce((a, b) => Math.min(a, b), Infinity);
  if (largest <= 0 || (smallest > 0 && largest / smallest < 20)) {
    return linearAxis(largest > 0 ? smallest : 0, Math.max(largest, 1), most, from, to);
  }
  const first = Math.floor(Math.log10(least));
  const last = Math.max(Math.ceil(Math.log10(largest)), first + 1);
  const hasZero = smallest <= 0;
  const begin = hasZero ? from + Math.sign(to - from) * 36 : from;
  const scale = (value) => (value > 0 ? begin + ((to - begin) * (Math.log10(value) - first)) / (last - first) : from);
  const ticks = hasZero ? [0] : [];
  for (let power = first; power <= last; power += Math.ceil((last - first) / most)) {
    ticks.push(10 ** power);
  }
  return { scale, ticks, isLogarithmic: true };
}

function linearAxis(smallest, largest, most, from, to) {
  const rough = Math.max(largest - smallest, largest / 100) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5, 10].find((factor) => factor * power >= rough) ?? 10);
  const first = Math.floor(smallest / step);
  const last = Math.max(Math.ceil(largest / step), first + 1);
  const scale = (value) => from + ((to - from) * (value / step - first)) / (last - first);
  const ticks = Array.from({ length: last - first + 1 }, (_, index) => (first + index) * step);
  return { scale, ticks, isLogarithmic: false };
}

/** The limits between at most five classes with about as many campaigns each. */
function classLimits(campaigns) {
  const sorted = campaigns.map(({ ctr }) => ctr).sort((a, b) => a - b);
  const limits = Array.from({ length: CLASSES - 1 }, (_, index) => sorted[Math.floor(((index + 1) * sorted.length) / CLASSES)]);
  return [...new Set(limits)].filter((limit) => limit > sorted[0]);
}

/**
 * @param {Campaign[]} campaigns
 * @param {number} seen  how many there are
 * @param {number} width
 */
function draw(campaigns, seen, width) {
  const spends = axis(campaigns.map(({ spend }) => spend), LEFT, width - RIGHT);
  const conversions = axis(campaigns.map(({ conversions }) => conversions), HEIGHT - BOTTOM, TOP);
  const limits = classLimits(campaigns);
  const classOf = (ctr) => limits.filter((limit) => ctr >= limit).length;
  const placed = campaigns
    .map((campaign) => ({ campaign, x: spends.scale(campaign.spend), y: conversions.scale(campaign.conversions) }))
    .sort((a, b) => a.campaign.spend - b.campaign.spend);
  const summary =
    `${plural(campaigns.length, "campaign")} by spend and conversions. ` +
    "Arrow keys go from one to the next by spend; the tables and downloads have every figure.";
  const mark = svg("circle", { class: "mark", r: 7, visibility: "hidden" });
  const told = h("p.told", {}, "Point at a campaign, or use the arrow keys.");
  const points = svg("g");
  addPoints(points, placed.map(({ campaign, x, y }) => ({ x, y, name: `point class${classOf(campaign.ctr)}` })));
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
    points,
    mark,
  );
  let current = -1;
  const choose = (index) => {
    current = index;
    const { campaign, x, y } = placed[index];
    mark.setAttribute("cx", x);
    mark.setAttribute("cy", y);
    mark.setAttribute("visibility", "visible");
    say(told, describe(campaign));
  };
  drawing.addEventListener("pointerleave", () => mark.setAttribute("visibility", "hidden"));
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
      announce(told.textContent ?? "");
    }
  });
  const sampled = seen > campaigns.length && `A random sample: ${number(campaigns.length)} of ${number(seen)} campaigns. `;
  return h("figure.scatter", {},
    h("figcaption.hint", {}, sampled, scales(spends, conversions)),
    drawing,
    told,
    limits.length > 0 && h("ul.legend", { "aria-label": "Click-through rate by colour" },
      Array.from({ length: limits.length + 1 }, (_, index) => h("li", {}, h(`i.class${index}`), legendText(limits, index)))),
  );
}

/** Adds the points in parts, so that the page stays usable meanwhile. */
async function addPoints(group, points) {
  for (let begin = 0; begin < points.length; begin += POINTS_AT_ONCE) {
    const part = points.slice(begin, begin + POINTS_AT_ONCE);
    group.append(...part.map(({ x, y, name }) => svg("circle", { class: name, cx: x.toFixed(1), cy: y.toFixed(1), r: 3.5 })));
    await new Promise((resolve) => setTimeout(resolve));
  }
}

function scales(spends, conversions) {
  const both = { true: "both axes logarithmic", false: "both axes linear" };
  const told = spends.isLogarithmic === conversions.isLogarithmic
    ? both[spends.isLogarithmic]
    : `the axis of ${spends.isLogarithmic ? "spend" : "conversions"} logarithmic`;
  return `Spend against conversions, ${told}.`;
}

function legendText(limits, index) {
  if (index === 0) {
    return `CTR below ${percent(String(limits[0]))}`;
  }
  return index === limits.length
    ? `from ${percent(String(limits[index - 1]))}`
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
