// The map of images: drawn and zoomed by d3; what is here chooses, names and walks.
"use strict";
(() => {
  const SIDE = 640, EDGE = 16, REACH = 28; // of the drawing; how near a pointer has to be
  const MANY = 24; // classes, above which they get a list in place of buttons

  for (const root of document.querySelectorAll(".explorer:not([data-ready])")) start(root);

  function start(root) {
    const data = JSON.parse(root.querySelector('script[type="application/json"]').textContent);
    const points = data.x.map((x, i) => ({
      i, x, y: data.y[i], label: data.label[i], wrong: data.label[i] !== data.predicted[i],
    }));
    const paint = (selection, of) => selection.style("--light", (d) => data.colours[0][of(d)])
      .style("--dark", (d) => data.colours[1][of(d)]);
    const says = (i) => {
      const truth = data.classes[data.label[i]], guess = data.classes[data.predicted[i]];
      const sure = `${data.sure[i]} % sure`;
      return points[i].wrong ? `label ${truth}, the probe says ${guess}, ${sure}: a mistake`
        : `label ${truth}, the probe agrees, ${sure}`;
    };
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;

    let transform = d3.zoomIdentity, shown = points, delaunay = null;
    let current = -1, chosen = -1;
    const only = { classes: new Set(), wrong: false };

    const live = d3.select(root).append("div").attr("class", "live");
    const controls = live.append("div").attr("class", "controls").attr("role", "group").attr("aria-label", "Images shown");
    const stage = live.append("div").attr("class", "stage");
    const frame = stage.append("div").attr("class", "frame");
    const panel = stage.append("div").attr("class", "panel");
    const count = live.append("p").attr("class", "count").attr("role", "status");
    live.append("p").attr("class", "help").text(
      "Hover or tap to see an image, click for its nearest neighbours. By keyboard: Tab to the map, arrow keys to walk, " +
      "Enter for neighbours, Escape to let go, + and − to zoom, 0 for all. Drag to move; Ctrl and wheel, or two fingers, zoom.");
    const spoken = live.append("p").attr("class", "spoken").attr("aria-live", "polite");

    // --- which images are shown

    const toggle = (text, isOn, flip) => {
      const button = controls.append("button").attr("type", "button").attr("aria-pressed", "false").text(text);
      return button.on("click", () => {
        flip();
        button.attr("aria-pressed", String(isOn()));
        refilter();
      });
    };
    toggle(`Mistakes only (${points.filter((p) => p.wrong).length})`, () => only.wrong, () => { only.wrong = !only.wrong; });
    if (data.classes.length <= MANY) {
      controls.append("span").attr("class", "only").text("Only");
      data.classes.forEach((name, c) => {
        const flip = () => only.classes.has(c) ? only.classes.delete(c) : only.classes.add(c);
        paint(toggle(name, () => only.classes.has(c), flip).attr("class", "class"), () => c);
      });
    } else {
      const list = controls.append("label").attr("class", "only").text("Only ").append("select");
      list.selectAll("option").data(["all classes", ...data.classes]).join("option").attr("value", (_, i) => i - 1).text((n) => n);
      list.on("change", (e) => { only.classes = new Set(e.target.value < 0 ? [] : [Number(e.target.value)]); refilter(); });
    }

    function refilter() {
      shown = points.filter((p) => (!only.wrong || p.wrong) && (!only.classes.size || only.classes.has(p.label)));
      const visible = new Set(shown.map((p) => p.i));
      names.style("display", (n) => !only.classes.size || only.classes.has(n.c) ? null : "none");
      count.text(`${shown.length.toLocaleString("en")} of ${points.length.toLocaleString("en")} images shown, ` +
        `${shown.filter((p) => p.wrong).length} of them mistakes of the probe (crosses).`);
      if (current >= 0 && !visible.has(current)) point(-1);
      if (chosen >= 0 && !visible.has(chosen)) choose(-1);
      delaunay = null;
      reveal();
    }

    // What is filtered away is seen all the same while it is chosen, or a neighbour of what is.
    function reveal() {
      const seen = new Set([...shown.map((p) => p.i), ...(chosen < 0 ? [] : [chosen, ...data.neighbours[chosen]])]);
      marks.style("display", (p) => seen.has(p.i) ? null : "none");
    }

    // --- the drawing

    const svg = frame.append("svg").attr("viewBox", `0 0 ${SIDE} ${SIDE}`).attr("tabindex", 0)
      .attr("role", "application").attr("aria-roledescription", "map of images")
      .attr("aria-label", `Map of ${points.length} images. Arrow keys walk from image to image.`);
    const inside = svg.append("g").attr("aria-hidden", "true");
    const links = inside.append("g").attr("class", "links");
    const dot = d3.symbol(d3.symbolCircle, 34)(), cross = d3.symbol(d3.symbolTimes, 60)();
    const marks = inside.append("g").selectAll("path").data(points).join("path")
      .attr("d", (p) => p.wrong ? cross : dot).attr("class", (p) => p.wrong ? "wrong" : "right");
    paint(marks, (p) => p.label);
    const ring = inside.append("circle").attr("class", "ring").attr("r", 9);
    const middles = data.classes.map((name, c) => {
      const own = points.filter((p) => p.label === c);
      return { c, name, n: own.length, x: d3.median(own, (p) => p.x), y: d3.median(own, (p) => p.y) };
    }).filter((n) => n.n);
    const names = inside.append("g").selectAll("text").data(middles).join("text").text((n) => n.name);
    const scale = d3.scaleLinear([0, 1000], [EDGE, SIDE - EDGE]);
    const at = (p) => [transform.applyX(scale(p.x)), transform.applyY(scale(p.y))];

    const tip = frame.append("div").attr("class", "tip").attr("aria-hidden", "true").style("display", "none");
    const zoom = d3.zoom().scaleExtent([1, 24]).extent([[0, 0], [SIDE, SIDE]]).translateExtent([[0, 0], [SIDE, SIDE]])
      .filter((e) => e.type === "wheel" ? e.ctrlKey || e.metaKey : e.touches ? e.touches.length > 1 : !e.button)
      .on("zoom", (e) => { transform = e.transform; delaunay = null; draw(); });
    svg.call(zoom).on("dblclick.zoom", null);
    const zoomBy = (factor) => { // around the image that is pointed at, if one is
      const around = current >= 0 ? at(points[current]) : undefined;
      (still ? svg : svg.transition().duration(200)).call(zoom.scaleBy, factor, around);
    };
    const zoomOut = () => (still ? svg : svg.transition().duration(200)).call(zoom.transform, d3.zoomIdentity);
    const buttons = frame.append("div").attr("class", "zoom");
    for (const [sign, name, act] of [["+", "Zoom in", () => zoomBy(2)], ["−", "Zoom out", () => zoomBy(0.5)],
      ["⤢", "Show all", zoomOut]]) {
      buttons.append("button").attr("type", "button").attr("aria-label", name).attr("title", name).text(sign).on("click", act);
    }

    function draw() {
      marks.attr("transform", (p) => `translate(${at(p)})`);
      names.attr("transform", (n) => `translate(${at(n)})`);
      const near = chosen < 0 ? [] : data.neighbours[chosen];
      links.selectAll("line").data(near).join("line")
        .attr("x1", chosen < 0 ? 0 : at(points[chosen])[0]).attr("y1", chosen < 0 ? 0 : at(points[chosen])[1])
        .attr("x2", (i) => at(points[i])[0]).attr("y2", (i) => at(points[i])[1]);
      const marked = current >= 0 ? current : chosen;
      ring.style("display", marked < 0 ? "none" : null);
      if (marked >= 0) ring.attr("transform", `translate(${at(points[marked])})`);
      if (current < 0) { tip.style("display", "none"); return; }
      const [x, y] = at(points[current]).map((v) => 100 * v / SIDE);
      tip.style("display", null).style("left", `${x}%`).style("top", `${y}%`)
        .classed("left", x > 55).classed("up", y > 60);
    }

    function thumbnail(into, i, pixels) {
      const { src, columns, width, height } = data.sheet;
      const times = pixels / Math.max(width, height), row = Math.floor(i / columns), column = i % columns;
      return into.append("span").attr("class", "thumbnail").style("width", `${width * times}px`)
        .style("height", `${height * times}px`).style("background-image", `url(${src})`)
        .style("background-size", `${columns * width * times}px auto`)
        .style("background-position", `${-column * width * times}px ${-row * height * times}px`);
    }

    // --- the image that is pointed at, and the one that is chosen

    function point(i, speak) {
      if (i === current) return;
      current = i;
      if (i >= 0) {
        tip.html("");
        thumbnail(tip, i, 84);
        tip.append("span").text(`Test image ${i}: ${says(i)}`);
        if (speak) spoken.text(`Test image ${i}: ${says(i)}`);
      }
      draw();
    }

    function choose(i, speak) {
      chosen = i;
      panel.html("");
      if (i < 0) {
        panel.append("p").attr("class", "empty").text("No image chosen.");
      } else {
        const figure = panel.append("div").attr("class", "chosen");
        thumbnail(figure, i, 112);
        figure.append("p").text(`Test image ${i}: ${says(i)}.`);
        const same = data.neighbours[i].filter((j) => data.label[j] === data.label[i]).length;
        const told = `${same} of its ${data.neighbours[i].length} nearest neighbours share its label.`;
        panel.append("p").text(told);
        const list = panel.append("ul").attr("aria-label", "Nearest neighbours, nearest first");
        for (const j of data.neighbours[i]) {
          const button = list.append("li").append("button").attr("type", "button")
            .attr("aria-label", `Image ${j}: ${says(j)}`).on("click", () => {
              point(j);
              choose(j, true);
              panel.select("button").node().focus(); // the one that had the focus is gone
            });
          thumbnail(button, j, 56);
          button.append("span").text(data.classes[data.label[j]]);
        }
        if (speak) spoken.text(`Test image ${i}: ${says(i)}. ${told}`);
      }
      reveal();
      draw();
    }

    function nearest(event) {
      const [x, y] = d3.pointer(event, svg.node());
      if (!shown.length) return -1;
      delaunay ??= d3.Delaunay.from(shown.map(at));
      const found = shown[delaunay.find(x, y)], [fx, fy] = at(found);
      return Math.hypot(fx - x, fy - y) < REACH ? found.i : -1;
    }

    svg.on("pointermove", (e) => { if (e.pointerType === "mouse") point(nearest(e)); })
      .on("pointerleave", () => point(-1))
      .on("click", (e) => { const i = nearest(e); point(i); choose(i, true); })
      .on("blur", () => point(-1))
      .on("keydown", (e) => {
        if (e.ctrlKey || e.metaKey || e.altKey) return; // the browser's own
        const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[e.key];
        if (way) {
          point(walk(way), true);
          if (current >= 0 && at(points[current]).some((v) => v < 0 || v > SIDE)) { // bring it into view
            svg.call(zoom.translateTo, scale(points[current].x), scale(points[current].y));
          }
        }
        else if ((e.key === "Enter" || e.key === " ") && current >= 0) choose(current, true);
        else if (e.key === "Escape") { point(-1); choose(-1); }
        else if (e.key === "+" || e.key === "=") zoomBy(2);
        else if (e.key === "-") zoomBy(0.5);
        else if (e.key === "0") zoomOut();
        else return;
        e.preventDefault();
      });

    // The shown image that lies best in that direction: what is aside counts double.
    function walk([dx, dy]) {
      const from = current >= 0 ? current : chosen;
      if (from < 0) return shown.length ? shown[0].i : -1;
      let best = from, least = Infinity;
      for (const p of shown) {
        const ahead = (p.x - points[from].x) * dx + (p.y - points[from].y) * dy;
        const aside = Math.abs((p.x - points[from].x) * dy) + Math.abs((p.y - points[from].y) * dx);
        const cost = ahead + 2 * aside;
        if (p.i !== from && ahead > 0 && aside <= 2 * ahead && cost < least) { best = p.i; least = cost; }
      }
      return best;
    }

    refilter();
    choose(-1);
    root.dataset.ready = "";
  }
})();
