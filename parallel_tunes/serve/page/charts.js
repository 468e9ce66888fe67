// Charts of probabilities. What a mark is stands beside it in words; colour only repeats it.

import { draw } from "./elements.js";
import { findTicks, tellPercent } from "./panels.js";

export const MOST_ROWS = 6; // labels over time
const MOST_BARS = 12;
const ROW = 48, GAP = 16; // height of a label's row, and what of it is left free

const LETTER = 7.4; // width of one, generously

export const rowsHeight = num => num * ROW;

/** Labels often differ at their ends alone: what is too long lacks its middle. */
function label(text, most, attributes) {
  const head = Math.ceil((most - 1) / 2), short = text.length > most ? `${text.slice(0, head)}…${text.slice(head + 1 - most)}` : text;
  return draw("text", attributes, draw("title", {}, text), short);
}

/** A row for each of the labels of `rows`: its probability in each moment, dark where it is the most probable of all. */
export function paintTimeline(classes, moments, rows, means) {
  return (group, _context, box) => {
    const most = Math.floor((box.left - 12) / LETTER);
    const highest = Math.max(...moments.flatMap(({ probabilities }) => rows.map(row => probabilities[row])), 0);
    const ceiling = [0.25, 0.5, 1].find(share => highest <= share) ?? 1; // of all rows, which can so be compared
    rows.forEach((row, place) => {
      const bottom = box.top + (place + 1) * ROW, height = ROW - GAP, top = bottom - height;
      for (const share of [0, 0.5, 1]) {
        const y = bottom - share * height;
        group.append(draw("line", { class: share ? "grid" : "axis", x1: box.left, x2: box.left + box.width, y1: y, y2: y }));
      }
      group.append(
        label(classes[row], most, { class: place ? "strong" : "best", x: box.left - 8, y: top + 12, "text-anchor": "end" }),
        draw("text", { x: box.left - 8, y: top + 28, "text-anchor": "end" }, `mean ${tellPercent(means[row])}`),
        draw("text", { x: box.left + box.width + 6, y: top + 4 }, tellPercent(ceiling)),
        draw("text", { x: box.left + box.width + 6, y: bottom + 4 }, "0"),
      );
      for (const { from_s, to_s, probabilities } of moments) {
        const height_px = (probabilities[row] / ceiling) * height, isBest = probabilities[row] >= Math.max(...probabilities);
        const x = Math.max(box.x(from_s), box.left), width = Math.max(box.x(to_s) - x, 0);
        if (width) {
          group.append(draw("rect", { class: isBest ? "value best" : "value", x, width, y: bottom - height_px, height: height_px }));
        }
      }
    });
  };
}

/** Horizontal bars of a share each; `entries` are {label, probability, threshold?, isBest}, the best first. */
export function drawBars(place, entries, name, axis = "probability, %") {
  const width = place.clientWidth;
  if (!width) return;
  const shown = entries.slice(0, MOST_BARS), step = 26, right = 52, top = 6;
  const longest = Math.max(...shown.map(({ label: text }) => text.length)), left = Math.min(LETTER * longest + 20, 0.42 * width);
  const inner = width - left - right, bottom = top + shown.length * step, x = share => left + share * inner;
  const svg = draw("svg", { width, height: bottom + 40, viewBox: `0 0 ${width} ${bottom + 40}`, role: "img", "aria-label": name });
  for (const share of inner > 150 ? [0, 0.25, 0.5, 0.75, 1] : [0, 0.5, 1]) {
    svg.append(
      draw("line", { class: share ? "grid" : "axis", x1: x(share), x2: x(share), y1: top, y2: bottom + 4 }),
      draw("text", { class: "strong", x: x(share), y: bottom + 18, "text-anchor": "middle" }, String(100 * share)),
    );
  }
  svg.append(draw("text", { x: left + inner / 2, y: bottom + 35, "text-anchor": "middle" }, axis));
  shown.forEach(({ label: text, probability, threshold, isBest }, k) => {
    const y = top + k * step;
    svg.append(
      label(text, Math.floor((left - 12) / LETTER), { class: isBest ? "best" : "strong", x: left - 8, y: y + 17, "text-anchor": "end" }),
      draw("rect", { class: isBest ? "value best" : "value", x: left, y: y + 4, width: Math.max(probability * inner, 1), height: step - 8 }),
      draw("text", { class: isBest ? "best" : "strong", x: x(probability) + 6, y: y + 17 }, tellPercent(probability)),
    );
    if (threshold !== undefined) {
      svg.append(draw("line", { class: "threshold", x1: x(threshold), x2: x(threshold), y1: y + 1, y2: y + step - 1 }));
    }
  });
  place.replaceChildren(svg);
}

/** How many of the numbers lie in each twentieth of the range from `low` to `high`. */
export function drawHistogram(place, numbers, low, high, axis) {
  const width = place.clientWidth;
  if (!width) return;
  const num = 20, counts = new Array(num).fill(0), left = 52, right = 14, top = 10, height = 170, bottom = top + height;
  for (const number of numbers) counts[Math.min(Math.max(Math.floor(((number - low) / (high - low)) * num), 0), num - 1)]++;
  const ticks = findTicks(0, Math.max(...counts, 1), 4).filter(Number.isInteger);
  const most = Math.max(...counts, 1), inner = width - left - right;
  const y = count => bottom - (count / most) * height, x = number => left + ((number - low) / (high - low)) * inner;
  const svg = draw("svg", {
    width, height: bottom + 40, viewBox: `0 0 ${width} ${bottom + 40}`, role: "img", "aria-label": `Histogram of ${numbers.length} rows: ${axis}`,
  });
  for (const count of ticks) {
    svg.append(
      draw("line", { class: count ? "grid" : "axis", x1: left, x2: left + inner, y1: y(count), y2: y(count) }),
      draw("text", { class: "strong", x: left - 6, y: y(count) + 4, "text-anchor": "end" }, String(count)),
    );
  }
  counts.forEach((count, k) => {
    svg.append(draw("rect", { class: "value best", x: left + (k * inner) / num + 1, width: inner / num - 2, y: y(count), height: bottom - y(count) }));
  });
  for (const number of findTicks(low, high, 5)) {
    svg.append(draw("text", { class: "strong", x: x(number), y: bottom + 18, "text-anchor": "middle" }, String(+number.toFixed(2))));
  }
  svg.append(
    draw("text", { x: left + inner / 2, y: bottom + 35, "text-anchor": "middle" }, axis),
    draw("text", { x: 12, y: top + height / 2, "text-anchor": "middle", transform: `rotate(-90 12 ${top + height / 2})` }, "rows"),
  );
  place.replaceChildren(svg);
}
