// Pictures over time, one below the other with the same margins, so that a moment is at the same place in each.

import { draw, make } from "./elements.js";

const TOP = 7, BOTTOM = 36, RIGHT = 46;
const STOPS = ["440154", "482878", "3e4989", "31688e", "26828e", "1f9e89", "35b779", "6ece58", "b5de2b", "fde725"]; // viridis
const COLOURS = Array.from({ length: 256 }, (_, level) => {
  const at = (level / 255) * (STOPS.length - 1), k = Math.min(Math.floor(at), STOPS.length - 2);
  const part = (stop, channel) => parseInt(STOPS[stop].slice(2 * channel, 2 * channel + 2), 16);
  return [0, 1, 2].map(channel => part(k, channel) + (at - k) * (part(k + 1, channel) - part(k, channel)));
});
const RANGE_DB = 80;
const TICKS_HZ = [0, 250, 500, 1000, 2000, 4000, 8000, 16000];

export const tellPercent = share => (share > 0 && share < 0.005 ? "< 1 %" : `${Math.round(100 * share)} %`);

/** Round numbers from `low` to `high`, about `most` of them. */
export function findTicks(low, high, most) {
  const rough = (high - low) / Math.max(most, 1), power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find(factor => factor * power >= rough * 0.999);
  const ticks = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) ticks.push(k * step);
  return ticks;
}

/** The colours of levels, from the lowest to the highest. */
export function paintLegend(place) {
  const canvas = make("canvas", { width: 256, height: 1, role: "img", "aria-label": "dark to bright" });
  const context = canvas.getContext("2d");
  COLOURS.forEach((colour, level) => {
    context.fillStyle = `rgb(${colour.join(" ")})`;
    context.fillRect(level, 0, 1, 1);
  });
  place.replaceChildren(`−${RANGE_DB}`, canvas, "0");
}

/** One picture, redrawn whenever its width or the colours of the page change. */
export class Panel {
  constructor(place, seek) {
    Object.assign(this, { place, shown: null, at_s: null });
    new ResizeObserver(() => this.redraw()).observe(place);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.redraw());
    if (seek) place.addEventListener("click", event => this.#seek(event, seek));
  }

  /** `paint(group, context, box, style)` draws between span.from_s and span.to_s; `label` tells it in words. */
  show(span, height, label, paint) {
    this.shown = { span, height, label, paint };
    this.redraw();
  }

  clear() {
    Object.assign(this, { shown: null, at_s: null });
    this.place.replaceChildren();
  }

  redraw() {
    const width = this.place.clientWidth;
    if (!this.shown || !width) return;
    const { span, height, label, paint } = this.shown, left = width < 560 ? 96 : 124;
    const box = (this.box = { left, top: TOP, width: Math.max(width - left - RIGHT, 40), height });
    box.x = s => left + ((s - span.from_s) / (span.to_s - span.from_s)) * box.width;
    const canvas = make("canvas"), ratio = devicePixelRatio;
    Object.assign(canvas, { width: Math.round(box.width * ratio), height: Math.round(height * ratio) });
    Object.assign(canvas.style, { left: `${left}px`, top: `${TOP}px`, width: `${box.width}px`, height: `${height}px` });
    const group = draw("g");
    this.ahead = draw("rect", { class: "ahead", y: TOP, height, width: 0 });
    this.head = draw("line", { class: "head", y1: TOP - 4, y2: TOP + height });
    const total = TOP + height + BOTTOM;
    const svg = draw("svg", { width, height: total, viewBox: `0 0 ${width} ${total}`, role: "img", "aria-label": label },
      group, this.#axis(span, box), this.ahead, this.head);
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    paint(group, context, box, getComputedStyle(document.documentElement));
    this.place.replaceChildren(canvas, svg);
    this.follow(this.at_s);
  }

  #axis(span, box) {
    const bottom = TOP + box.height, group = draw("g");
    group.append(draw("line", { class: "axis", x1: box.left, x2: box.left + box.width, y1: bottom, y2: bottom }));
    for (const s of findTicks(span.from_s, span.to_s, box.width / 70)) {
      group.append(
        draw("line", { class: "axis", x1: box.x(s), x2: box.x(s), y1: bottom, y2: bottom + 4 }),
        draw("text", { class: "strong", x: box.x(s), y: bottom + 17, "text-anchor": "middle" }, String(+s.toFixed(2))),
      );
    }
    group.append(draw("text", { x: box.left + box.width / 2, y: bottom + 33, "text-anchor": "middle" }, "time, s"));
    return group;
  }

  /** What is still ahead of the player steps back; null: nothing is played. */
  follow(at_s) {
    this.at_s = at_s;
    if (!this.shown) return;
    const { span } = this.shown, { box } = this, is_shown = at_s !== null && at_s <= span.to_s;
    const x = is_shown ? box.x(at_s) : box.left + box.width;
    this.ahead.setAttribute("x", x);
    this.ahead.setAttribute("width", box.left + box.width - x);
    this.head.setAttribute("x1", x);
    this.head.setAttribute("x2", x);
    this.head.setAttribute("visibility", is_shown ? "visible" : "hidden");
  }

  #seek(event, seek) {
    if (!this.shown) return;
    const { span } = this.shown, share = (event.clientX - this.place.getBoundingClientRect().left - this.box.left) / this.box.width;
    if (share >= 0 && share <= 1) seek(span.from_s + share * (span.to_s - span.from_s));
  }
}

function tickLevel(group, box, share, text) {
  const y = box.top + (1 - share) * box.height;
  group.append(
    draw("line", { class: "axis", x1: box.left - 4, x2: box.left, y1: y, y2: y }),
    draw("text", { class: "strong", x: box.left - 8, y: y + 4, "text-anchor": "end" }, text),
  );
}

/** Lowest and highest sample of each column. */
export function paintWaveform({ columns, columnS, first }) {
  return (group, context, box, style) => {
    const peak = columns.reduce((most, { low, high }) => Math.max(most, high, -low), 1e-4);
    const text = peak >= 0.995 ? "1" : peak.toPrecision(2);
    for (const [share, word] of [[1, `+${text}`], [0.5, "0"], [0, `−${text}`]]) tickLevel(group, box, share, word);
    context.fillStyle = style.getPropertyValue("--accent");
    const width = Math.max(box.x(columnS) - box.x(0), 1), y = value => ((1 - value / peak) / 2) * box.height;
    columns.forEach(({ low, high }, k) => {
      const x = box.x((first + k) * columnS) - box.left;
      context.fillRect(x, y(high), width, Math.max(y(low) - y(high), 1));
    });
  };
}

/** The levels of an answer as an image, bright where loud, within RANGE_DB of the loudest; and the time that they are of. */
export function imageLevels({ num_columns, num_bands, low_db, high_db, data }, from_s, to_s) {
  const image = new ImageData(num_columns, num_bands);
  [...atob(data)].forEach((letter, k) => {
    const below_db = (high_db - low_db) * (1 - letter.charCodeAt(0) / 255);
    const colour = COLOURS[Math.max(Math.round(255 * (1 - below_db / RANGE_DB)), 0)];
    const at = 4 * ((num_bands - 1 - (k % num_bands)) * num_columns + Math.floor(k / num_bands));
    image.data.set(colour, at);
    image.data[at + 3] = 255;
  });
  const canvas = make("canvas", { width: num_columns, height: num_bands });
  canvas.getContext("2d").putImageData(image, 0, 0);
  return { from_s, to_s, canvas };
}

/** Images of levels; `edges` are the frequencies between which the bands lie, null where they are not known. */
export function paintSpectrogram(images, edges) {
  return (group, context, box) => {
    let last = -Infinity;
    for (const hz of edges ? TICKS_HZ : []) {
      const share = place(edges, hz);
      if (share === null || (share - last) * box.height < 16) continue; // they would touch
      tickLevel(group, box, share, hz.toLocaleString("en").replace(",", "\u2009"));
      last = share;
    }
    for (const { from_s, to_s, canvas } of images) {
      context.drawImage(canvas, box.x(from_s) - box.left, 0, box.x(to_s) - box.x(from_s), box.height);
    }
  };
}

/** Where a frequency lies between the first edge (0) and the last (1). */
function place(edges, hz) {
  const above = edges.findIndex(edge => edge >= hz);
  if (above <= 0) return hz === edges[0] ? 0 : null;
  return (above - (edges[above] - hz) / (edges[above] - edges[above - 1])) / (edges.length - 1);
}
