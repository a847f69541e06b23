// The drawing: a canvas that is zoomed and moved by d3, and what lies where on it.
const EDGE = 16, REACH = 28; // pixels around the map; how near a pointer has to be
const MOVE = 700; // milliseconds from one feature space to another
const PICTURE = 30; // pixels of a thumbnail's longer side on the map

// s: what is to be seen, which others change and then call `changed` (which images are shown, or how coloured) or `draw`.
function makeCanvas(frame, s) {
  const { map, words } = s, still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const canvas = frame.append("canvas").attr("aria-hidden", "true").node(), context = canvas.getContext("2d");
  let side = 0, transform = d3.zoomIdentity, waiting = 0, delaunay = null, moving = null, buckets = [], middles = [];
  let lasso = null;
  const radius = map.n > 5000 ? 2.2 : map.n > 1500 ? 2.8 : 3.5;

  const flat = (v) => EDGE + v * (side - 2 * EDGE);
  const at = (i) => [transform.applyX(flat(s.places[2 * i])), transform.applyY(flat(s.places[2 * i + 1]))];
  const inside = ([x, y], more = 0) => x >= -more && y >= -more && x <= side + more && y <= side + more;

  // --- what is drawn

  // Images by colour, so that each colour is drawn in one go; what is filtered away is seen while it is chosen or near.
  function changed() {
    const seen = new Set(s.shown);
    if (s.chosen >= 0) for (const i of [s.chosen, ...map.neighbours(s.chosen)]) seen.add(i);
    const of = new Map();
    for (const i of seen) {
      const key = s.way.of(i);
      if (!of.has(key)) of.set(key, { key, dots: [], crosses: [] });
      of.get(key)[words.isWrong(i) ? "crosses" : "dots"].push(i);
    }
    buckets = [...of.values()].sort((a, b) => a.key - b.key);
    delaunay = null;
    nameClasses();
    draw();
  }

  // Classes are named at the medians of their images.
  function nameClasses() {
    middles = [];
    if (!s.way.named || map.classes.length > 24) return;
    for (const { key, dots, crosses } of buckets) {
      const own = [...dots, ...crosses];
      if (key < 0) continue;
      const [x, y] = [0, 1].map((axis) => d3.median(own, (i) => s.places[2 * i + axis]));
      middles.push({ name: map.classes[key], x, y });
    }
  }

  function draw() {
    waiting ||= requestAnimationFrame(() => { waiting = 0; paint(); });
  }

  function paint() {
    if (!side) return;
    const ratio = devicePixelRatio || 1, pixels = Math.round(side * ratio);
    if (canvas.width !== pixels) canvas.width = canvas.height = pixels;
    const style = getComputedStyle(frame.node()), paper = d3.lab(style.backgroundColor), ink = style.color;
    const dark = paper.l < 50 ? 1 : 0, colour = (key) => key < 0 ? map.greys[dark] : s.way.colours[dark][key];
    context.setTransform(pixels / side, 0, 0, pixels / side, 0, 0);
    context.clearRect(0, 0, side, side);
    paintLinks(ink);
    paintPoints(colour);
    if (s.pictures) paintPictures(colour, ink);
    else ring(s.selected, radius + (s.selected.size > 300 ? 0.7 : 2.5), ink, s.selected.size > 300 ? 0.8 : 1.6);
    if (!moving) paintNames(ink, style.backgroundColor);
    ring([s.current >= 0 ? s.current : s.chosen].filter((i) => i >= 0), 9, ink, 2.5);
    paintRegion(ink);
  }

  function paintLinks(ink) {
    if (s.chosen < 0) return;
    context.strokeStyle = ink;
    context.lineWidth = 1;
    context.globalAlpha = 0.6;
    context.beginPath();
    for (const j of map.neighbours(s.chosen)) { context.moveTo(...at(s.chosen)); context.lineTo(...at(j)); }
    context.stroke();
    context.globalAlpha = 1;
  }

  function paintPoints(colour) {
    const r = radius * Math.min(transform.k ** 0.3, 2), arm = 1.25 * r;
    context.lineWidth = Math.max(1.4, 0.6 * r);
    for (const { key, dots } of buckets) {
      context.fillStyle = colour(key);
      context.globalAlpha = 0.75;
      context.beginPath();
      for (const i of dots) {
        const [x, y] = at(i);
        if (inside([x, y], r)) { context.moveTo(x + r, y); context.arc(x, y, r, 0, 2 * Math.PI); }
      }
      context.fill();
    }
    context.globalAlpha = 1;
    for (const { key, crosses } of buckets) { // over all dots, since they are what is looked for
      context.strokeStyle = colour(key);
      context.beginPath();
      for (const i of crosses) {
        const [x, y] = at(i);
        if (!inside([x, y], r)) continue;
        context.moveTo(x - arm, y - arm); context.lineTo(x + arm, y + arm);
        context.moveTo(x - arm, y + arm); context.lineTo(x + arm, y - arm);
      }
      context.stroke();
    }
  }

  // In each square of a grid the picture of one image, if it has one; dashed are those that are selected.
  function paintPictures(colour, ink) {
    const { width, height } = map.sheets, times = PICTURE / Math.max(width, height), step = PICTURE + 6, taken = new Set();
    const [w, h] = [width * times, height * times];
    context.imageSmoothingEnabled = true;
    context.lineWidth = 2;
    for (const { key, dots, crosses } of buckets) {
      for (const i of [...crosses, ...dots]) {
        const [x, y] = at(i), column = Math.floor(x / step), row = Math.floor(y / step), place = `${column},${row}`;
        if (!inside([x, y]) || taken.has(place)) continue;
        taken.add(place);
        const left = column * step + (step - w) / 2, top = row * step + (step - h) / 2;
        if (!map.sheets.draw(context, i, left, top, w, h, draw)) continue;
        context.strokeStyle = colour(key);
        context.strokeRect(left - 1, top - 1, w + 2, h + 2);
        if (!s.selected.has(i)) continue;
        context.strokeStyle = ink;
        context.setLineDash([4, 4]);
        context.strokeRect(left - 1, top - 1, w + 2, h + 2);
        context.setLineDash([]);
      }
    }
  }

  function paintNames(ink, paper) {
    Object.assign(context, { font: "700 18px system-ui, sans-serif", textAlign: "center", textBaseline: "middle" });
    Object.assign(context, { lineWidth: 5, lineJoin: "round", strokeStyle: paper, fillStyle: ink });
    const written = []; // a name that would lie on another is left to the legend
    for (const { name, x, y } of middles) {
      const [left, top] = [transform.applyX(flat(x)), transform.applyY(flat(y))], half = context.measureText(name).width / 2;
      if (written.some((w) => Math.abs(w.left - left) < w.half + half && Math.abs(w.top - top) < 16)) continue;
      written.push({ left, top, half });
      context.strokeText(name, left, top);
      context.fillText(name, left, top);
    }
  }

  function ring(images, r, ink, width) {
    Object.assign(context, { strokeStyle: ink, lineWidth: width });
    context.beginPath();
    for (const i of images) {
      const [x, y] = at(i);
      if (inside([x, y], r)) { context.moveTo(x + r, y); context.arc(x, y, r, 0, 2 * Math.PI); }
    }
    context.stroke();
  }

  function paintRegion(ink) {
    const from = s.corner >= 0 && s.current >= 0 ? [at(s.corner), at(s.current)] : null;
    const corners = from ? [from[0], [from[1][0], from[0][1]], from[1], [from[0][0], from[1][1]]] : lasso;
    if (!corners || corners.length < 2) return;
    Object.assign(context, { strokeStyle: ink, fillStyle: ink, lineWidth: 1.5 });
    context.setLineDash([5, 4]);
    context.beginPath();
    for (const [x, y] of corners) context.lineTo(x, y);
    context.closePath();
    context.stroke();
    context.setLineDash([]);
    context.globalAlpha = 0.08;
    context.fill();
    context.globalAlpha = 1;
  }

  // --- zoom

  const zoom = d3.zoom().scaleExtent([1, 40]).clickDistance(4)
    .extent(() => [[0, 0], [side, side]])
    .filter((e) => e.type === "wheel" ? e.ctrlKey || e.metaKey
      : e.touches ? e.touches.length > 1 : !e.button && !s.lasso && e.target === canvas)
    .on("zoom", (e) => { transform = e.transform; draw(); s.moved(); })
    .on("end", () => { if (s.current >= 0) bringIntoView(s.current); }); // it may have walked on meanwhile
  frame.call(zoom).on("dblclick.zoom", null);
  const smoothly = () => still ? frame : frame.transition().duration(200);
  const zoomBy = (factor) => smoothly().call(zoom.scaleBy, factor, s.current >= 0 ? at(s.current) : undefined);
  const zoomOut = () => smoothly().call(zoom.transform, d3.zoomIdentity);
  const bringIntoView = (i) => {
    if (!inside(at(i))) frame.call(zoom.translateTo, flat(s.places[2 * i]), flat(s.places[2 * i + 1]));
  };

  // The map keeps what it shows when its size changes.
  function measure() {
    const now = frame.node().clientWidth;
    if (!now || now === side) return;
    const times = side ? now / side : 1;
    side = now;
    zoom.translateExtent([[0, 0], [side, side]]);
    frame.call(zoom.transform, d3.zoomIdentity.translate(transform.x * times, transform.y * times).scale(transform.k));
    paint();
  }
  new ResizeObserver(measure).observe(frame.node());
  new MutationObserver(draw).observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);

  // --- from one feature space to another

  function moveTo(goal) {
    moving?.stop();
    const start = s.places.slice();
    const arrive = () => { s.places.set(goal); moving = null; changed(); s.moved(); };
    delaunay = null;
    if (still) { arrive(); return; }
    moving = d3.timer((elapsed) => {
      if (elapsed >= MOVE) { moving.stop(); arrive(); return; }
      const t = d3.easeCubicInOut(elapsed / MOVE);
      for (let k = 0; k < goal.length; k++) s.places[k] = start[k] + t * (goal[k] - start[k]);
      paint();
      s.moved();
    });
  }

  // --- what lies where

  function nearest([x, y]) {
    if (!s.shown.length || moving) return -1;
    delaunay ??= d3.Delaunay.from(s.shown, (i) => s.places[2 * i], (i) => s.places[2 * i + 1]);
    const unit = (v) => (v - EDGE) / (side - 2 * EDGE);
    const found = s.shown[delaunay.find(unit(transform.invertX(x)), unit(transform.invertY(y)))], [fx, fy] = at(found);
    return Math.hypot(fx - x, fy - y) < REACH ? found : -1;
  }

  // The shown image that lies best in that direction: what is aside counts double.
  function walk([dx, dy], from) {
    if (from < 0) return s.shown.length ? s.shown[0] : -1;
    let best = from, least = Infinity;
    for (const i of s.shown) {
      const x = s.places[2 * i] - s.places[2 * from], y = s.places[2 * i + 1] - s.places[2 * from + 1];
      const ahead = x * dx + y * dy, aside = Math.abs(x * dy) + Math.abs(y * dx), cost = ahead + 2 * aside;
      if (i !== from && ahead > 0 && aside <= 2 * ahead && cost < least) { best = i; least = cost; }
    }
    return best;
  }

  const within = (polygon) => s.shown.filter((i) => d3.polygonContains(polygon, at(i)));
  function between(a, b) {
    const [x, y] = [0, 1].map((axis) => d3.extent([s.places[2 * a + axis], s.places[2 * b + axis]]));
    return s.shown.filter((i) => s.places[2 * i] >= x[0] && s.places[2 * i] <= x[1]
      && s.places[2 * i + 1] >= y[0] && s.places[2 * i + 1] <= y[1]);
  }

  // A line around images by mouse, pen or one finger; `done` gets what is inside of it.
  function onLasso(done) {
    const place = (e) => d3.pointer(e, frame.node());
    frame.on("pointerdown.lasso", (e) => {
      if (lasso) { lasso = null; draw(); return; } // a second finger: it zooms
      if (!s.lasso || e.button || e.target !== canvas) return;
      lasso = [place(e)];
      frame.node().setPointerCapture(e.pointerId);
    });
    frame.on("pointermove.lasso", (e) => { if (lasso) { lasso.push(place(e)); draw(); } });
    frame.on("pointercancel.lasso", () => { lasso = null; draw(); });
    frame.on("pointerup.lasso", () => {
      const polygon = lasso;
      lasso = null;
      draw();
      if (!polygon || d3.polygonLength(polygon) <= 20) return; // a click
      s.justDrawn = true; // and so the click that follows is none
      setTimeout(() => { s.justDrawn = false; });
      done(within(polygon));
    });
  }

  return { changed, draw, measure, at, side: () => side, moveTo, nearest, walk, between, onLasso, zoomBy, zoomOut, bringIntoView };
}
