// The map of images: what is shown and chosen, by mouse, finger and keyboard.
const HELP = "Hover or tap to see an image, click for its nearest neighbours. Drag to move; Ctrl and wheel, or two fingers, " +
  "zoom. With the lasso on, draw around images to select them. By keyboard: Tab to the map, arrow keys to walk, Enter for " +
  "neighbours, Space to select, R and R again at the opposite corner for all in a rectangle, Escape to let go, + and − to " +
  "zoom, 0 for all.";

function start(root) {
  const map = readMap(root.querySelector('script[type="application/json"]').textContent), words = makeWords(map);
  const ways = waysToColour(map), everything = d3.range(map.n), wrong = everything.filter(words.isWrong);
  const s = {
    map, words, places: map.spaces[0].at.slice(), shown: everything, current: -1, chosen: -1, corner: -1,
    selected: new Set(), only: new Set(), onlyWrong: false, way: ways[0], lasso: false, pictures: false, moved: () => placeTip(),
  };

  const live = d3.select(root).append("div").attr("class", "live");
  const controls = live.append("div").attr("class", "controls").attr("role", "group").attr("aria-label", "Images shown");
  const legend = live.append("div").attr("class", "controls legend").attr("role", "group").attr("aria-label", "Legend");
  const stage = live.append("div").attr("class", "stage"), left = stage.append("div").attr("class", "frame");
  const frame = left.append("div").attr("class", "map").attr("tabindex", 0).attr("role", "application")
    .attr("aria-roledescription", "map of images")
    .attr("aria-label", `Map of ${map.n} images. Arrow keys walk from image to image, Space selects.`);
  const tip = left.append("div").attr("class", "tip").attr("aria-hidden", "true").style("display", "none");
  const panel = stage.append("div").attr("class", "panel");
  const spoken = live.append("p").attr("class", "spoken").attr("aria-live", "polite"), speak = (text) => spoken.text(text);
  const canvas = makeCanvas(frame, s);
  const selection = makeSelection(live, s, {
    act: (i) => { point(-1); choose(i, true); canvas.bringIntoView(i); },
    changed: () => {
      frame.classed("lasso", s.lasso);
      panel.select(".select-one").attr("aria-pressed", String(s.selected.has(s.chosen)));
      canvas.draw();
    },
    speak,
  });
  const count = live.append("p").attr("class", "count").attr("role", "status");
  live.append("p").attr("class", "help").text(HELP);

  // --- which images are shown, how coloured, and where

  function select(text, names, act) {
    const list = controls.append("label").attr("class", "only").text(`${text} `).append("select");
    list.selectAll("option").data(names).join("option").attr("value", (_, k) => k).text((name) => name);
    list.on("change", (e) => act(Number(e.target.value)));
  }
  if (map.spaces.length > 1) {
    const spaces = controls.append("span").attr("class", "spaces").attr("role", "group").attr("aria-label", "Features");
    spaces.append("span").attr("class", "only").text("Features");
    map.spaces.forEach(({ name, at }, k) => button(spaces, name, () => {
      spaces.selectAll("button").attr("aria-pressed", (_, other, all) => String(all[other] === all[k]));
      canvas.moveTo(at);
      speak(`Placed by the features: ${name}.`);
    }).attr("aria-pressed", String(k === 0)));
  }
  if (ways.length > 1) {
    select("Colour by", ways.map(({ key }) => key), (k) => {
      s.way = ways[k];
      s.only.clear(); // of other colours
      showLegend(legend, s, refilter);
      refilter();
    });
  }
  if (map.hasLabels && map.hasPredictions) {
    switchButton(controls, `Mistakes only (${wrong.length})`, () => s.onlyWrong, () => { s.onlyWrong = !s.onlyWrong; refilter(); });
  }
  switchButton(controls, "Pictures", () => s.pictures, () => { s.pictures = !s.pictures; canvas.draw(); })
    .attr("title", "Show pictures on the map");
  const buttons = left.append("div").attr("class", "zoom");
  for (const [sign, name, act] of [["+", "Zoom in", () => canvas.zoomBy(2)], ["−", "Zoom out", () => canvas.zoomBy(0.5)],
    ["⤢", "Show all", canvas.zoomOut]]) {
    button(buttons, sign, act).attr("aria-label", name).attr("title", name);
  }

  function refilter() {
    s.shown = (s.onlyWrong ? wrong : everything).filter((i) => !s.only.size || s.only.has(s.way.of(i)));
    const mistakes = s.shown.filter(words.isWrong).length;
    count.text(`${s.shown.length.toLocaleString("en")} of ${map.n.toLocaleString("en")} images shown` +
      (map.hasLabels && map.hasPredictions ? `, ${mistakes} of them mistakes of the probe (crosses).` : "."));
    const visible = new Set(s.shown);
    s.corner = -1;
    if (s.current >= 0 && !visible.has(s.current)) point(-1);
    if (s.chosen >= 0 && !visible.has(s.chosen)) choose(-1);
    canvas.changed();
  }

  // --- the image that is pointed at, and the one that is chosen

  function placeTip() {
    if (s.current < 0) { tip.style("display", "none"); return; }
    const [x, y] = canvas.at(s.current).map((v) => 100 * v / canvas.side());
    tip.style("display", null).style("left", `${x}%`).style("top", `${y}%`).classed("left", x > 55).classed("up", y > 60);
  }

  function point(i, aloud) {
    if (i === s.current) return;
    s.current = i;
    if (i >= 0) {
      tip.html("").node().append(map.sheets.thumbnail(i, 84));
      tip.append("span").append("bdi").text(`${words.file(i)}: ${words.says(i)}`);
      if (aloud) speak(`${words.file(i)}: ${words.says(i)}${s.selected.has(i) ? ", selected" : ""}`);
    }
    placeTip();
    canvas.draw();
  }

  function choose(i, aloud) {
    s.chosen = i;
    const told = showChosen(panel, s, (j) => {
      point(j);
      choose(j, true);
      panel.select("button").node().focus(); // the one that had the focus is gone
    }, selection.toggle);
    if (i >= 0 && aloud) speak(`${words.file(i)}: ${words.says(i)}.${told}`);
    canvas.changed();
  }

  // R begins a rectangle at the image that is pointed at; R again selects all between the two.
  function rectangle() {
    if (s.corner < 0) {
      s.corner = s.current;
      speak("A corner of the rectangle is here. Walk to the opposite one, and press R again.");
    } else {
      selection.add(canvas.between(s.corner, s.current));
      s.corner = -1;
    }
    canvas.draw();
  }

  function letGo() {
    if (s.corner >= 0) { s.corner = -1; canvas.draw(); return; }
    point(-1);
    choose(-1);
  }

  const WAYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  function press(e) {
    if (e.ctrlKey || e.metaKey || e.altKey) return; // the browser's own
    if (WAYS[e.key]) {
      point(canvas.walk(WAYS[e.key], s.current >= 0 ? s.current : s.chosen), true);
      if (s.current >= 0) canvas.bringIntoView(s.current);
    }
    else if (e.key === "Enter" && s.current >= 0) choose(s.current, true);
    else if (e.key === " " && s.current >= 0) selection.toggle(s.current);
    else if (e.key.toLowerCase() === "r" && s.current >= 0) rectangle();
    else if (e.key === "Escape") letGo();
    else if (e.key === "+" || e.key === "=") canvas.zoomBy(2);
    else if (e.key === "-") canvas.zoomBy(0.5);
    else if (e.key === "0") canvas.zoomOut();
    else return;
    e.preventDefault();
  }

  const under = (e) => canvas.nearest(d3.pointer(e, frame.node()));
  frame.on("pointermove", (e) => { if (e.pointerType === "mouse" && !e.buttons) point(under(e)); })
    .on("pointerleave", () => point(-1))
    .on("click", (e) => { if (!s.justDrawn) { const i = under(e); point(i); choose(i, true); } })
    .on("blur", () => { s.corner = -1; point(-1); })
    .on("keydown", press);
  canvas.onLasso((images) => selection.add(images));

  showLegend(legend, s, refilter);
  choose(-1);
  refilter();
  root.dataset.ready = "";
  canvas.measure(); // draws
  performance.mark("map-drawn");
}

for (const root of document.querySelectorAll(".explorer:not([data-ready])")) start(root);
