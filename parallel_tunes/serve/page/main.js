// The page: it asks the server what is served, and shows a tab for each.

import { byId } from "./elements.js";
import { RowsTab } from "./rows_tab.js";
import { describe } from "./server.js";
import { TrackTab } from "./track_tab.js";

const TASKS = ["genre", "relisten", "popularity"];

/** Tabs as people with a keyboard know them: arrows move between them, Tab goes on into the panel. */
function open(tasks) {
  const tabs = tasks.map(task => byId(`tab-${task}`));
  const select = (at, byKey) => {
    tabs.forEach((tab, k) => {
      tab.setAttribute("aria-selected", String(k === at));
      tab.tabIndex = k === at ? 0 : -1;
      byId(tasks[k]).hidden = k !== at;
    });
    if (byKey) tabs[at].focus();
  };
  tabs.forEach((tab, k) => {
    const moves = { ArrowLeft: k - 1, ArrowRight: k + 1, Home: 0, End: -1 };
    tab.hidden = false;
    tab.addEventListener("click", () => select(k, false));
    tab.addEventListener("keydown", event => {
      if (!(event.key in moves)) return;
      event.preventDefault();
      select((moves[event.key] + tabs.length) % tabs.length, true);
    });
    byId(tasks[k]).setAttribute("role", "tabpanel");
  });
  byId("tabs").hidden = tabs.length < 2;
  select(0, false);
}

function tell({ version, models }) {
  const says = {
    genre: ({ classes }) => `labels tracks (${classes.length} labels)`,
    relisten: () => "foretells repeated listens",
    popularity: () => "foretells popularity",
  };
  const served = Object.entries(models).map(([task, model]) => says[task](model));
  byId("served").textContent = `Version ${version}, which ${served.join(", ")}.`;
}

async function begin() {
  // what is dropped beside the zone would else replace the page
  for (const name of ["dragover", "drop"]) window.addEventListener(name, event => event.preventDefault());
  try {
    const served = await describe(), tasks = TASKS.filter(task => task in served.models);
    tell(served);
    open(tasks); // first, so that the tabs' pictures know how wide they are
    for (const task of tasks) {
      if (task === "genre") new TrackTab(served);
      else new RowsTab(task, served);
    }
  } catch (error) {
    byId("served").className = "bad";
    byId("served").textContent = error.message;
  }
}

begin();
