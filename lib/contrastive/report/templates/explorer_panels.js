// What is beside and below the drawing: the image that is chosen, the legend, and the images that are selected.
const AT_ONCE = 60; // thumbnails of selected images, until more are asked for

const button = (into, text, act) => into.append("button").attr("type", "button").text(text).on("click", act);
const switchButton = (into, text, isOn, flip) => {
  const made = button(into, text, () => { flip(); made.attr("aria-pressed", String(isOn())); });
  return made.attr("aria-pressed", String(isOn()));
};

// A list of images as buttons, each with what is said of it.
function listImages(list, s, images, pixels, act) {
  for (const i of images) {
    const made = button(list.append("li"), "", () => act(i));
    made.attr("aria-label", `${s.words.file(i)}: ${s.words.says(i)}`).attr("title", s.words.file(i));
    made.node().append(s.map.sheets.thumbnail(i, pixels));
    if (s.map.hasLabels || s.map.hasPredictions) made.append("span").text(s.words.short(i));
  }
}

// Shows the chosen image and those nearest to it. act: what a click on a neighbour does; toggle: selects the image.
function showChosen(panel, s, act, toggle) {
  const { map, words, chosen: i } = s;
  panel.html("");
  if (i < 0) {
    panel.append("p").attr("class", "empty").text("No image chosen.");
    return "";
  }
  const figure = panel.append("div").attr("class", "chosen");
  figure.node().append(map.sheets.thumbnail(i, 112));
  figure.append("p").append("bdi").text(`${words.file(i)}: ${words.says(i)}.`);
  const make = switchButton(panel, "Select this image", () => s.selected.has(i), () => toggle(i));
  make.attr("class", "select-one");
  if (!map.hasNeighbours) return "";
  const near = map.neighbours(i), known = near.filter((j) => map.label[j] >= 0);
  const same = known.filter((j) => map.label[j] === map.label[i]).length, labelled = known.length < near.length ? " with a label" : "";
  const told = map.label[i] >= 0 && known.length
    ? `${same} of its ${known.length} nearest neighbours${labelled} share its label.` : "Its nearest neighbours:";
  panel.append("p").text(told);
  listImages(panel.append("ul").attr("aria-label", "Nearest neighbours, nearest first"), s, near, 56, act);
  return ` ${told}`;
}

// The legend of a way to colour; its entries are switches that leave only their images on the map.
function showLegend(into, s, refilter) {
  const { way } = s;
  into.html("").style("display", null);
  const paint = (selection, key) => selection
    .style("--light", key < 0 ? s.map.greys[0] : way.colours[0][key]).style("--dark", key < 0 ? s.map.greys[1] : way.colours[1][key]);
  if (way.key === "certainty") {
    into.append("span").attr("class", "only").text(`${way.least} % sure, or less`);
    const bar = into.append("span").attr("class", "ramp").attr("aria-hidden", "true");
    way.colours[0].forEach((_, step) => paint(bar.append("span"), step));
    into.append("span").attr("class", "only").text("100 % sure");
  } else if (way.legend.length) {
    into.append("span").attr("class", "only").text("Only");
    for (const [key, name, n] of way.legend) {
      const flip = () => { s.only.has(key) ? s.only.delete(key) : s.only.add(key); refilter(); };
      paint(switchButton(into, name, () => s.only.has(key), flip), key).attr("class", "class")
        .append("span").attr("class", "n").text(` ${n.toLocaleString("en")}`);
    }
  } else into.style("display", "none");
}

// The selected images. parts.act: what a click on one does; parts.changed: called when others are selected.
function makeSelection(live, s, { act, changed, speak }) {
  const { map } = s, box = live.append("div").attr("class", "selection");
  const bar = box.append("div").attr("class", "controls").attr("role", "group").attr("aria-label", "Selection");
  const lasso = switchButton(bar, "Select by lasso", () => s.lasso, () => { s.lasso = !s.lasso; changed(); });
  button(bar, "Select all shown", () => add(s.shown));
  const count = bar.append("span").attr("class", "only");
  const clear = button(bar, "Clear", () => { s.selected.clear(); update("Nothing is selected."); lasso.node().focus(); });
  const copy = button(bar, "Copy file names", copyNames), save = button(bar, "Save as CSV", saveTable);
  const list = box.append("ul").attr("aria-label", "Selected images");
  const more = button(box, "Show more", () => grow(true));
  const names = box.append("textarea").attr("readonly", "").attr("aria-label", "Names of the selected images").attr("rows", 4);
  let listed = 0;

  const chosen = () => [...s.selected];
  const told = () => `${s.selected.size.toLocaleString("en")} selected`;

  function grow(byHand) {
    const next = chosen().slice(listed, listed + AT_ONCE);
    listImages(list, s, next, 56, act);
    if (byHand) list.select(`li:nth-child(${listed + 1}) button`).node()?.focus();
    listed += next.length;
    more.style("display", listed < s.selected.size ? null : "none");
  }

  function update(said) {
    list.html("");
    names.style("display", "none");
    listed = 0;
    grow(false);
    count.text(told());
    for (const one of [clear, copy, save]) one.attr("disabled", s.selected.size ? null : "");
    if (said) speak(said);
    changed();
  }

  function add(images) {
    const before = s.selected.size;
    for (const i of images) s.selected.add(i);
    update(`${s.selected.size - before} images added, ${told()}.`);
  }

  function toggle(i) {
    const had = s.selected.delete(i);
    if (!had) s.selected.add(i);
    update(`${s.words.file(i)} ${had ? "taken out" : "added"}, ${told()}.`);
  }

  async function copyNames() {
    const text = asNames(map, chosen());
    try {
      await navigator.clipboard.writeText(text);
      speak(`${s.selected.size} names copied.`);
      copy.text("Copied");
      setTimeout(() => copy.text("Copy file names"), 2000);
    } catch { // not allowed here: they are shown, to be copied by hand
      names.style("display", null).property("value", text);
      names.node().select();
    }
  }

  function saveTable() {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([asTable(map, chosen())], { type: "text/csv" }));
    link.download = "selected_images.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    speak(`${s.selected.size} rows saved.`);
  }

  update("");
  return { add, toggle };
}
