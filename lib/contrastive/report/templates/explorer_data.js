// What a map is told, taken apart: numbers, thumbnails, words and tables. Names are only ever text.
const NONE = 65535; // in place of an index

// Little-endian numbers in base64, as in all machines that browsers run on.
function unpack(text, Kind) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  return new Kind(bytes.buffer);
}

// The numbers of a map, each image's in typed arrays; -1 where an image has no label, prediction or group.
function readMap(text) {
  const told = JSON.parse(text), n = told.n, none = new Int16Array(n).fill(-1);
  const near = told.neighbours && unpack(told.neighbours.at, Uint16Array);
  return {
    n, classes: told.classes, colours: told.colours, greys: told.greys, ramp: told.ramp, names: told.names,
    spaces: told.spaces.map(({ name, at }) => ({ name, at: Float32Array.from(unpack(at, Uint16Array), (v) => v / 65535) })),
    label: told.label ? unpack(told.label, Int16Array) : none,
    predicted: told.predicted ? unpack(told.predicted, Int16Array) : none,
    sure: told.sure ? unpack(told.sure, Uint8Array) : new Uint8Array(n),
    groups: told.groups && { names: told.groups.names, colours: told.groups.colours },
    group: told.groups ? Int32Array.from(unpack(told.groups.of, Uint16Array), (g) => g === NONE ? -1 : g) : none,
    neighbours: (i) => near ? [...near.subarray(i * told.neighbours.of_each, (i + 1) * told.neighbours.of_each)]
      .filter((j) => j !== NONE) : [],
    hasNeighbours: Boolean(near),
    hasLabels: Boolean(told.label), hasPredictions: Boolean(told.predicted),
    sheets: makeSheets(told.sheets),
  };
}

// Thumbnails on sheets, of which each is decoded when one of its images is first asked for.
function makeSheets({ src, columns, rows, width, height, cell }) {
  const opened = new Map();
  const open = (s) => {
    if (!opened.has(s)) {
      const image = new Image(), sheet = { image, ready: false };
      image.src = `data:image/webp;base64,${src[s]}`;
      sheet.decoded = image.decode().then(() => { sheet.ready = true; });
      opened.set(s, sheet);
    }
    return opened.get(s);
  };
  // Draws an image into a rectangle; if its sheet is not decoded yet, calls `later` when it is.
  const draw = (context, i, x, y, w, h, later) => {
    const sheet = open(Math.floor(i / (columns * rows))), place = i % (columns * rows);
    if (!sheet.ready) { sheet.decoded.then(later); return false; }
    const left = (place % columns) * cell[0], top = Math.floor(place / columns) * cell[1];
    context.drawImage(sheet.image, left, top, width, height, x, y, w, h);
    return true;
  };
  // A picture of an image, its longer side of so many pixels of the page.
  const thumbnail = (i, pixels) => {
    const canvas = document.createElement("canvas"), times = pixels / Math.max(width, height);
    Object.assign(canvas, { width, height, className: "thumbnail" });
    canvas.setAttribute("aria-hidden", "true");
    canvas.style.width = `${width * times}px`;
    canvas.style.height = `${height * times}px`;
    const paint = () => draw(canvas.getContext("2d"), i, 0, 0, width, height, paint);
    paint();
    return canvas;
  };
  return { width, height, draw, thumbnail };
}

// What is said of an image.
function makeWords(map) {
  const file = (i) => map.names ? map.names[i] : `Image ${i}`;
  const isWrong = (i) => map.label[i] >= 0 && map.predicted[i] >= 0 && map.label[i] !== map.predicted[i];
  const says = (i) => {
    const label = map.label[i] >= 0 ? `label ${map.classes[map.label[i]]}` : "no label";
    const sure = `${map.sure[i]} % sure`, group = map.group[i] >= 0 ? `, group ${map.groups.names[map.group[i]]}` : "";
    if (map.predicted[i] < 0) return label + group;
    if (map.label[i] >= 0 && !isWrong(i)) return `${label}, the probe agrees, ${sure}${group}`;
    return `${label}, the probe says ${map.classes[map.predicted[i]]}, ${sure}${isWrong(i) ? ": a mistake" : ""}${group}`;
  };
  // Beneath a thumbnail: the label, and the prediction where that differs.
  const short = (i) => {
    const label = map.label[i] >= 0 ? map.classes[map.label[i]] : "–";
    return map.predicted[i] < 0 || map.predicted[i] === map.label[i] ? label : `${label} → ${map.classes[map.predicted[i]]}`;
  };
  return { file, isWrong, says, short };
}

// A table cell that spreadsheets do not take for a formula: names and classes come from anywhere.
function cell(text, before = "'") {
  const inert = /^[=+\-@\t\r\n＝＋－＠]/.test(text) ? before + text : text;
  return /[",\r\n]/.test(inert) ? `"${inert.replaceAll('"', '""')}"` : inert;
}

function asTable(map, chosen) {
  const rows = chosen.map((i) => [
    map.names ? cell(map.names[i], "./") : String(i),
    map.label[i] >= 0 ? cell(map.classes[map.label[i]]) : "",
    map.predicted[i] >= 0 ? cell(map.classes[map.predicted[i]]) : "",
    map.predicted[i] >= 0 ? (map.sure[i] / 100).toFixed(2) : "",
    map.group[i] >= 0 ? cell(map.groups.names[map.group[i]]) : "",
  ].join(","));
  return ["file,label,prediction,certainty,group", ...rows, ""].join("\n");
}

// One name a line; what would end a line, or steer a terminal, is replaced.
function asNames(map, chosen) {
  return chosen.map((i) => map.names ? map.names[i].replace(/[\u0000-\u001f\u007f]/g, "\ufffd") : String(i)).join("\n");
}

// The colours that images can have. Each way: what it is called, an image's number of a colour (-1 is grey), the colours
// in both themes, and what the legend shows: [number, name, images].
function waysToColour(map) {
  const counted = (of, names) => {
    const n = new Map();
    for (let i = 0; i < map.n; i++) n.set(of(i), (n.get(of(i)) ?? 0) + 1);
    return [...n].sort(([a], [b]) => (a < 0) - (b < 0) || a - b).map(([key, times]) => [key, names(key), times]);
  };
  const ways = [], byClass = (of, none) => counted(of, (c) => c < 0 ? none : map.classes[c]);
  if (map.hasLabels) {
    const of = (i) => map.label[i];
    ways.push({ key: "label", of, colours: map.colours, legend: byClass(of, "no label"), named: true });
  }
  if (map.hasPredictions) {
    const of = (i) => map.predicted[i], steps = 20;
    ways.push({ key: "prediction", of, colours: map.colours, legend: byClass(of, "not judged"), named: true });
    const ramps = map.ramp.map(([unsure, sure]) => d3.quantize(d3.interpolateLab(unsure, sure), steps + 1));
    const least = 100 / Math.max(map.classes.length, 2), share = (i) => (map.sure[i] - least) / (100 - least);
    const step = (i) => map.predicted[i] < 0 ? -1 : Math.round(steps * Math.min(Math.max(share(i), 0), 1));
    ways.push({ key: "certainty", of: step, colours: ramps, legend: [], least: Math.round(least) });
  }
  if (map.groups) {
    const few = map.groups.colours[0].length, of = (i) => map.group[i] < few ? map.group[i] : -1;
    const others = map.groups.names.length > few ? `${map.groups.names.length - few} other groups` : "no group";
    const legend = counted(of, (g) => g < 0 ? others : map.groups.names[g]);
    ways.push({ key: "group", of, colours: map.groups.colours, legend });
  }
  if (!ways.length) ways.push({ key: "", of: () => -1, colours: map.colours, legend: [] });
  return ways;
}
