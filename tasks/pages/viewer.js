"use strict";
// The viewer of a video: charts, thumbnails and video show the same frame. Charts get only as many points as they have
// pixels, for the visible frames and their neighbours, so that long videos stay fast.
(() => {
  const source = document.getElementById("timeline-data");
  if (!source) return;
  const data = JSON.parse(source.textContent);
  const $ = (id) => document.getElementById(id);
  const NONE = { 1: 255, 2: -32768, bits: 0xffff };
  const MOST_SAMPLES = 64; // per column of a picture: only views of more than 100,000 frames leave frames out
  const last = data.frames;
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

  const decode = (text, Kind) => {
    const raw = atob(text), bytes = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
    return new Kind(bytes.buffer);
  };
  const decodeValues = (values) => values && {
    valence: values.va && decode(values.va[0], Int16Array),
    arousal: values.va && decode(values.va[1], Int16Array),
    expression: values.expr && decode(values.expr.decided, Uint8Array),
    pExpression: values.expr?.p && decode(values.expr.p, Uint8Array),
    units: values.au && decode(values.au.decided, Uint16Array),
    pUnits: values.au?.p && decode(values.au.p, Uint8Array),
  };
  const load = (person) => (person.values ??= {
    seen: decode(person.seen, Uint8Array),
    boxes: decode(person.boxes, Int16Array),
    smoothed: decodeValues(person.smoothed),
    raw: decodeValues(person.raw),
    labels: decodeValues(person.labels) ?? {},
  });

  // -- time ----------------------------------------------------------------------------------------------------------
  const ticks = data.seconds && decode(data.seconds, Uint32Array); // ten thousandths of a second
  const secondsOf = (frame) => (ticks ? ticks[frame - 1] / 1e4 : (frame - 1) / data.fps);
  const middleOf = (frame) => {
    const start = secondsOf(frame);
    const step = frame < last ? secondsOf(frame + 1) - start : frame > 1 ? start - secondsOf(frame - 1) : 0;
    return start + Math.min(step / 2, 0.5);
  };
  const frameDuring = (seconds) => {
    let low = 1, high = last;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (secondsOf(middle) <= seconds) low = middle;
      else high = middle - 1;
    }
    return low;
  };
  const frameAtSeconds = (seconds) => {
    const frame = frameDuring(seconds);
    return frame < last && secondsOf(frame + 1) - seconds < seconds - secondsOf(frame) ? frame + 1 : frame;
  };
  const formatSeconds = (seconds) => {
    const minutes = Math.floor(seconds / 60);
    return `${minutes}:${(seconds - 60 * minutes).toFixed(2).padStart(5, "0")}`;
  };

  // -- state ---------------------------------------------------------------------------------------------------------
  let now = 1, chosen = 0, smoothed = true, hovered = null;
  let plots = {}, range = null, area = { left: 0, width: 1 }, sampled = null;
  let isTimed = false; // whether the time of the first frame on the player's clock is known
  const timeline = $("timeline"), video = $("video"), strip = $("strip");
  const person = () => data.persons[chosen];
  const valuesOf = (one) => { const values = load(one); return (smoothed ? values.smoothed : values.raw) ?? values.smoothed; };

  // -- pictures and lines of the charts ------------------------------------------------------------------------------
  const toPixel = (hex, alpha) => {
    const [red, green, blue] = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
    return ((Math.round(255 * clamp(alpha, 0, 1)) << 24) | (blue << 16) | (green << 8) | red) >>> 0;
  };
  // Pixels of a colour by opacity, in 64 steps.
  const STEPS = 64;
  const shadesOf = (hex) => Uint32Array.from({ length: STEPS + 1 }, (_, step) => toPixel(hex, step / STEPS));
  const shades = {
    gap: shadesOf(data.colours.gap), label: shadesOf(data.colours.label), active: shadesOf(data.colours.active),
    inactive: shadesOf(data.colours.inactive), expressions: data.colours.expressions.map(shadesOf),
  };
  const shade = (table, alpha) => table[Math.round(STEPS * (alpha > 1 ? 1 : alpha))];

  // Call visit(column, from, to, step) for each column of a picture with frames of the person: indexes from..to of its arrays.
  const eachColumn = (one, count, { from, to, columns }, visit) => {
    const width = (to - from) / columns;
    for (let column = 0; column < columns; column++) {
      const start = from + column * width;
      const first = width > 1 ? Math.ceil(start) : Math.round(start + width / 2);
      const end = width > 1 ? Math.max(first, Math.ceil(start + width) - 1) : first;
      const a = Math.max(first - one.first, 0), b = Math.min(end - one.first, count - 1);
      if (a <= b) visit(column, a, b, Math.ceil((b - a + 1) / MOST_SAMPLES));
    }
  };
  const setPicture = (name, pixels, rows, window) => {
    const held = plots[name].picture;
    const Pixels = held.data.image[0].constructor;
    const image = new Pixels(pixels.buffer, [rows, window.columns]);
    held.data = { image: [image], x: [window.from], y: [plots[name].low], dw: [window.to - window.from], dh: [plots[name].height] };
  };
  // Each row of a chart is 6 pixels high: prediction, then label if there are labels, and a gap.
  const ROW = 6;
  const fillRow = (pixels, columns, rows, row, column, predicted, label, hasLabels) => {
    const bottom = (rows - 1 - row) * ROW;
    for (let y = 1; y < ROW; y++) {
      const pixel = hasLabels && y < 3 ? label : predicted;
      if (pixel) pixels[(bottom + y) * columns + column] = pixel;
    }
  };
  // Shades of the columns in which the person is not seen.
  const shadeGaps = (window) => {
    const one = person(), { seen } = load(one), pixels = new Uint32Array(window.columns).fill(shade(shades.gap, 0.22));
    eachColumn(one, seen.length, window, (column, a, b, step) => {
      let count = 0, all = 0;
      for (let i = a; i <= b; i += step, all++) count += seen[i];
      pixels[column] = count === all ? 0 : shade(shades.gap, 0.22 * (1 - count / all));
    });
    return pixels;
  };
  const newPixels = (gaps, rows) => {
    const pixels = new Uint32Array(gaps.length * rows);
    for (let row = 0; row < rows; row++) pixels.set(gaps, row * gaps.length);
    return pixels;
  };
  const drawExpressions = (window, gaps) => {
    const one = person(), values = valuesOf(one), labels = load(one).labels.expression, { columns } = window;
    const rows = data.expressions.length, pixels = newPixels(gaps, rows * ROW);
    const count = values.expression.length, shares = new Float32Array(rows), most = new Float32Array(rows), labelled = new Float32Array(rows);
    eachColumn(one, count, window, (column, a, b, step) => {
      shares.fill(0), most.fill(0), labelled.fill(0);
      let all = 0;
      for (let i = a; i <= b; i += step, all++) {
        if (values.expression[i] !== NONE[1]) {
          shares[values.expression[i]]++;
          if (values.pExpression) for (let row = 0; row < rows; row++) most[row] = Math.max(most[row], values.pExpression[row * count + i]);
        }
        if (labels && labels[i] !== NONE[1]) labelled[labels[i]]++;
      }
      for (let row = 0; row < rows; row++) {
        const share = shares[row] / all, label = labelled[row] / all, colour = shades.expressions[row];
        const alpha = Math.max(share && 0.25 + 0.75 * share, (0.35 * most[row]) / 255);
        fillRow(pixels, columns, rows, row, column, shade(colour, alpha), label ? shade(shades.label, 0.3 + 0.7 * label) : 0, labels);
      }
    });
    setPicture("expression", pixels, rows * ROW, window);
  };
  const drawUnits = (window, gaps) => {
    const one = person(), values = valuesOf(one), labels = load(one).labels.units, { columns } = window;
    const rows = data.units.length, pixels = newPixels(gaps, rows * ROW), count = values.units.length;
    eachColumn(one, count, window, (column, a, b, step) => {
      for (let row = 0; row < rows; row++) {
        let active = 0, most = 0, known = 0, labelled = 0, all = 0;
        for (let i = a; i <= b; i += step, all++) {
          if (values.units[i] !== NONE.bits) {
            known++;
            active += (values.units[i] >> row) & 1;
            most = Math.max(most, values.pUnits[row * count + i]);
          }
          if (labels && labels[i] !== NONE.bits) labelled += (labels[i] >> row) & 1;
        }
        if (!known && !labelled) continue;
        const colour = active ? shades.active : shades.inactive;
        const alpha = active ? 0.35 + (0.65 * most) / 255 : (0.6 * most) / 255;
        fillRow(pixels, columns, rows, row, column, shade(colour, alpha), labelled ? shade(shades.label, 0.3 + (0.7 * labelled) / all) : 0, labels);
      }
    });
    setPicture("units", pixels, rows * ROW, window);
  };
  const drawPeople = (window) => {
    const rows = data.persons.length, { columns } = window, pixels = new Uint32Array(columns * rows);
    data.persons.forEach((one, row) => {
      const values = valuesOf(one), { seen } = load(one), kinds = values.expression;
      eachColumn(one, seen.length, window, (column, a, b, step) => {
        let shown = -1, count = 0;
        for (let i = a; i <= b; i += step) {
          count += seen[i];
          if (seen[i] && kinds && kinds[i] !== NONE[1]) shown = kinds[i];
        }
        if (!count) return;
        const colour = shown < 0 ? shades.label : shades.expressions[shown];
        pixels[(rows - 1 - row) * columns + column] = shade(colour, row === chosen ? 1 : 0.5);
      });
    });
    setPicture("people", pixels, rows, window);
  };
  const linePoints = (values, first, { from, to, columns }) => {
    const a = Math.max(0, Math.floor(from) - first), b = Math.min(values.length - 1, Math.ceil(to) - first);
    const step = Math.max(1, Math.floor((2 * (to - from)) / columns)), x = [], y = [];
    const push = (i) => { x.push(first + i); y.push(values[i] === NONE[2] ? NaN : values[i] / 32767); };
    if (step === 1) for (let i = a; i <= b; i++) push(i);
    else for (let start = a - (a % step); start <= b; start += step) {
      let low = -1, high = -1, gap = -1;
      for (let i = Math.max(start, a); i < start + step && i <= b; i++) {
        if (values[i] === NONE[2]) { gap = i; continue; }
        if (low < 0 || values[i] < values[low]) low = i;
        if (high < 0 || values[i] > values[high]) high = i;
      }
      if (low >= 0) { push(Math.min(low, high)); if (low !== high) push(Math.max(low, high)); }
      else if (gap >= 0) push(gap);
    }
    return { x: Float64Array.from(x), y: Float64Array.from(y) };
  };
  const drawLine = (name, window, gaps) => {
    const one = person(), labels = load(one).labels[name];
    setPicture(name, gaps.slice(), 1, window);
    plots[name].lines.data = linePoints(valuesOf(one)[name], one.first, window);
    plots[name].labels.data = labels ? linePoints(labels, one.first, window) : { x: new Float64Array(), y: new Float64Array() };
  };

  const sample = () => {
    const span = range.end - range.start;
    const from = Math.max(0.5, range.start - span), to = Math.min(last + 0.5, range.end + span);
    const columns = clamp(Math.ceil((area.width * (to - from)) / span), 64, 6000);
    sampled = { from, to, columns, span };
    const values = valuesOf(person());
    const has = { valence: values.valence, arousal: values.arousal, expression: values.expression, units: values.units };
    const gaps = shadeGaps(sampled);
    if (plots.people) drawPeople(sampled);
    for (const name of ["valence", "arousal"]) if (plots[name] && has[name]) drawLine(name, sampled, gaps);
    if (plots.expression && has.expression) drawExpressions(sampled, gaps);
    if (plots.units && has.units) drawUnits(sampled, gaps);
  };
  const isSampled = () => {
    const span = range.end - range.start;
    return sampled && range.start >= sampled.from - 1e-6 && range.end <= sampled.to + 1e-6 && span > 0.4 * sampled.span;
  };

  // -- what a frame shows --------------------------------------------------------------------------------------------
  const element = (name, text, attributes = {}) => Object.assign(document.createElement(name), { textContent: text }, attributes);
  const formatValue = (value) => (value === undefined || value === NONE[2] ? "–" : (value / 32767).toFixed(2));
  const formatUnits = (bits) => bits === undefined || bits === NONE.bits ? "–" : data.units.filter((_, row) => (bits >> row) & 1).join(" ") || "none";
  const rowsOf = (one, frame) => {
    const at = frame - one.first, loaded = load(one), values = valuesOf(one), { labels } = loaded, rows = [];
    if (at < 0 || at >= loaded.seen.length) return [["", "not in this frame"]];
    if (!loaded.seen[at]) rows.push(["face", "not seen"]);
    if (values.expression || labels.expression) {
      const kind = values.expression?.[at], label = labels.expression?.[at], known = kind !== undefined && kind !== NONE[1];
      const p = known && values.pExpression ? ` ${(values.pExpression[kind * loaded.seen.length + at] / 255).toFixed(2)}` : "";
      rows.push(["expression", known ? data.expressions[kind] + p : "–", labels.expression && (label === NONE[1] ? "–" : data.expressions[label])]);
    }
    for (const name of ["valence", "arousal"]) if (values[name] || labels[name]) rows.push([name, formatValue(values[name]?.[at]), labels[name] && formatValue(labels[name][at])]);
    if (values.units || labels.units) rows.push(["active units", formatUnits(values.units?.[at]), labels.units && formatUnits(labels.units[at])]);
    return rows;
  };
  const fillTable = (table, rows) => {
    const hasLabels = rows.some((row) => row[2] !== undefined);
    const heads = ["", smoothed || !person().raw ? "prediction" : "before smoothing", ...(hasLabels ? ["label"] : [])];
    table.tHead.replaceChildren(element("tr", ""));
    table.tHead.rows[0].append(...heads.map((text) => (text ? element("th", text, { scope: "col" }) : element("td", ""))));
    table.tBodies[0].replaceChildren(...rows.map(([name, ...cells]) => {
      const row = element("tr", "");
      row.append(element("th", name, { scope: "row" }), ...cells.slice(0, hasLabels ? 2 : 1).map((text) => element("td", text ?? "–")));
      return row;
    }));
  };
  const describe = (frame) => `frame ${frame} · ${formatSeconds(secondsOf(frame))}`;

  const drawBoxes = () => {
    const holder = $("boxes");
    if (!holder || !video.videoWidth || !data.width) return;
    const scale = Math.min(video.clientWidth / data.width, video.clientHeight / data.height);
    const left = (video.clientWidth - scale * data.width) / 2, top = (video.clientHeight - scale * data.height) / 2;
    const spans = [];
    data.persons.forEach((one, number) => {
      const at = now - one.first, { boxes } = load(one);
      if (at < 0 || 4 * at >= boxes.length || boxes[4 * at] === NONE[2]) return;
      const [x1, y1, x2, y2] = boxes.subarray(4 * at, 4 * at + 4);
      const span = element("span", data.persons.length > 1 ? one.number : "", { className: number === chosen ? "chosen" : "" });
      Object.assign(span.style, { left: `${left + scale * x1}px`, top: `${top + scale * y1}px`, width: `${scale * (x2 - x1)}px`, height: `${scale * (y2 - y1)}px` });
      spans.push(span);
    });
    holder.replaceChildren(...spans);
  };
  const toX = (frame) => area.left + ((frame - range.start) / (range.end - range.start)) * area.width;
  const placeLine = (line, frame) => {
    const x = toX(frame);
    line.hidden = frame === null || x < area.left - 1 || x > area.left + area.width + 1;
    line.style.transform = `translateX(${x.toFixed(1)}px)`;
  };
  const show = (frame) => {
    now = frame;
    $("position").textContent = `${describe(frame)} of ${last}`;
    timeline.setAttribute("aria-valuenow", frame);
    timeline.setAttribute("aria-valuetext", describe(frame));
    fillTable($("values"), rowsOf(person(), frame));
    drawBoxes();
    if (range) placeLine($("cursor"), frame);
  };
  const setRange = (start, end) => {
    const span = clamp(end - start, Math.min(10, last), last);
    const from = clamp(start, 0.5, last + 0.5 - span);
    range.setv({ start: from, end: from + span });
  };
  const reveal = (frame) => {
    if (!range || (frame >= range.start && frame <= range.end)) return;
    const span = range.end - range.start;
    setRange(frame - 0.1 * span, frame + 0.9 * span);
  };
  const goTo = (frame) => {
    frame = clamp(Math.round(frame), 1, last);
    show(frame);
    reveal(frame);
    if (video && isTimed) video.currentTime = data.offset + middleOf(frame);
  };
  const zoom = (factor) => {
    const middle = now >= range.start && now <= range.end ? now : (range.start + range.end) / 2;
    const share = (middle - range.start) / (range.end - range.start), span = factor * (range.end - range.start);
    setRange(middle - share * span, middle + (1 - share) * span);
  };

  // -- thumbnails ----------------------------------------------------------------------------------------------------
  let buttons = [];
  const makeStrip = () => {
    if (!strip) return;
    buttons = (person().strip?.frames ?? []).map((frame, place) => {
      const button = element("button", "", { type: "button", tabIndex: -1, title: describe(frame) });
      button.setAttribute("aria-label", `Face in frame ${frame}`);
      button.style.backgroundPosition = `${-data.tile * place}px 0`;
      button.addEventListener("click", () => goTo(frame));
      return { frame, button };
    });
    // Buttons inherit the picture, which is then parsed once.
    strip.style.backgroundImage = person().strip ? `url(${person().strip.image})` : "none";
    strip.replaceChildren(...buttons.map((one) => one.button));
  };
  const placeStrip = () => {
    if (!buttons.length) return;
    // Every second, fourth, ... thumbnail, so that the same ones stay while the chart moves.
    const visible = buttons.filter((one) => one.frame >= range.start && one.frame <= range.end).length;
    let every = 1;
    while (every < visible && (visible / every) * (data.tile + 4) > area.width) every *= 2;
    let end = -Infinity;
    buttons.forEach(({ frame, button }, place) => {
      const x = toX(frame) - data.tile / 2;
      const fits = place % every === 0 && x >= end && x >= area.left - data.tile / 2 && x <= area.left + area.width - data.tile / 2;
      button.hidden = !fits;
      if (fits) {
        end = x + data.tile + 2;
        button.style.transform = `translateX(${x.toFixed(1)}px)`;
      }
    });
  };

  // -- the charts ----------------------------------------------------------------------------------------------------
  const refresh = () => {
    if (!isSampled()) sample();
    placeLine($("cursor"), now);
    placeLine($("hovered"), hovered);
    placeStrip();
  };
  let waiting = false;
  const refreshSoon = () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; refresh(); });
  };
  const measure = () => {
    const view = Object.values(plots)[0].view, outer = timeline.getBoundingClientRect(), inner = view.el.getBoundingClientRect();
    area = { left: inner.left - outer.left + view.frame.bbox.left, width: Math.max(1, view.frame.bbox.width) };
    sampled = null;
    refreshSoon();
    drawBoxes();
  };
  const redraw = () => { sampled = null; show(now); refreshSoon(); };
  const choose = (number) => {
    chosen = clamp(number, 0, data.persons.length - 1);
    $("person").value = chosen;
    $("previous").disabled = chosen === 0;
    $("next").disabled = chosen === data.persons.length - 1;
    const hasRaw = Boolean(person().raw);
    $("smoothing").disabled = !hasRaw;
    $("smoothing-label").title = hasRaw ? "Values after smoothing, or before (s)" : "These values were not smoothed, or the store has no values before smoothing";
    makeStrip();
    redraw();
  };
  const connect = (document_) => {
    for (const name of ["people", "valence", "arousal", "expression", "units"]) {
      const plot = document_.get_model_by_name(name);
      if (!plot) continue;
      const part = (kind) => document_.get_model_by_name(`${name}-${kind}`);
      plots[name] = {
        plot, view: Bokeh.index.find_one(plot), low: plot.y_range.start, height: plot.y_range.end - plot.y_range.start,
        picture: part("picture"), lines: part("lines"), labels: part("labels"),
      };
    }
    const plot = Object.values(plots)[0].plot;
    range = plot.x_range;
    // At once, so that the charts are painted once, with the new range and the data for it.
    for (const end of ["start", "end"]) range.properties[end].change.connect(refresh);
    plot.properties.inner_width.change.connect(measure);
    choose(chosen);
    measure();
    timeline.dataset.ready = "";
  };

  // -- pointer and keys ----------------------------------------------------------------------------------------------
  const frameAt = (event) => {
    const x = event.clientX - timeline.getBoundingClientRect().left - area.left;
    return clamp(Math.round(range.start + (x / area.width) * (range.end - range.start)), 1, last);
  };
  const isInside = (event) => {
    const x = event.clientX - timeline.getBoundingClientRect().left;
    return range && x >= area.left && x <= area.left + area.width;
  };
  const personAt = (event) => {
    const view = plots.people?.view;
    if (!view) return null;
    const share = (event.clientY - view.el.getBoundingClientRect().top - view.frame.bbox.top) / view.frame.bbox.height;
    return share >= 0 && share < 1 ? Math.floor(share * data.persons.length) : null;
  };
  const hover = (event) => {
    hovered = event && isInside(event) ? frameAt(event) : null;
    const tip = $("tip");
    tip.hidden = hovered === null;
    if (range) placeLine($("hovered"), hovered);
    if (hovered === null) return;
    const one = data.persons[personAt(event) ?? chosen], table = document.createElement("table");
    table.createTHead(), table.createTBody();
    fillTable(table, rowsOf(one, hovered));
    tip.replaceChildren(element("p", (data.persons.length > 1 ? `${one.name} · ` : "") + describe(hovered)), table);
    const outer = timeline.getBoundingClientRect(), x = event.clientX - outer.left, y = event.clientY - outer.top;
    const left = x + 16 + tip.offsetWidth > outer.width ? Math.max(0, x - 16 - tip.offsetWidth) : x + 16;
    tip.style.transform = `translate(${left}px, ${Math.max(0, y - tip.offsetHeight - 12)}px)`;
  };
  let pressed = null;
  timeline.addEventListener("pointerdown", (event) => { pressed = [event.clientX, event.clientY]; }, true);
  timeline.addEventListener("pointerup", (event) => {
    const moved = pressed && Math.hypot(event.clientX - pressed[0], event.clientY - pressed[1]);
    if (moved !== null && moved < 5 && isInside(event)) {
      const number = personAt(event);
      if (number !== null) choose(number);
      goTo(frameAt(event));
    }
    pressed = null;
  }, true);
  timeline.addEventListener("pointermove", hover, true);
  timeline.addEventListener("pointerleave", () => hover(null));
  const playOrPause = () => { if (video) video.paused ? video.play() : video.pause(); };
  const moveSeconds = (seconds) => frameAtSeconds(secondsOf(now) + seconds);
  const setSmoothing = (value) => { if (!$("smoothing").disabled) { smoothed = $("smoothing").checked = value; redraw(); } };
  const KEYS = {
    ArrowLeft: (event) => goTo(event.shiftKey ? Math.min(moveSeconds(-1), now - 1) : now - 1),
    ArrowRight: (event) => goTo(event.shiftKey ? Math.max(moveSeconds(1), now + 1) : now + 1),
    Home: () => goTo(1), End: () => goTo(last), " ": playOrPause,
    "[": () => choose(chosen - 1), "]": () => choose(chosen + 1),
    "+": () => zoom(0.5), "=": () => zoom(0.5), "-": () => zoom(2), 0: () => setRange(0.5, last + 0.5), s: () => setSmoothing(!smoothed),
  };
  window.addEventListener("keydown", (event) => {
    const target = event.target, act = KEYS[event.key];
    const isTyping = target.matches?.("select, input, summary") || (event.key === " " && target.matches?.("button"));
    if (!act || !range || isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    act(event);
  }, true);
  $("previous").addEventListener("click", () => choose(chosen - 1));
  $("next").addEventListener("click", () => choose(chosen + 1));
  $("closer").addEventListener("click", () => zoom(0.5));
  $("further").addEventListener("click", () => zoom(2));
  $("all").addEventListener("click", () => setRange(0.5, last + 0.5));
  $("person").addEventListener("change", (event) => choose(Number(event.target.value)));
  $("smoothing").addEventListener("change", (event) => setSmoothing(event.target.checked));
  $("person").append(...data.persons.map((one, number) => element("option", one.title, { value: number })));

  // -- video ---------------------------------------------------------------------------------------------------------
  if (video) {
    const setTimed = () => { isTimed = true; if (now > 1) goTo(now); };
    // A frame that was shown before this script ran is not reported: show it again. Without any report, trust the page's data.
    let tries = 0;
    const remind = setInterval(() => {
      if (isTimed || video.error) clearInterval(remind);
      else if (video.readyState >= 2 && ++tries > 12) setTimed();
      else if (video.readyState >= 2 && !video.seeking) video.currentTime = 0;
    }, 250);
    const follow = (frame) => {
      timeline.dataset.presented = frame;
      if (!video.seeking && frame !== now && range) { show(frame); reveal(frame); }
    };
    const present = (_, shown) => {
      // Browsers differ in where their clock starts: the first frame that is shown is frame 1.
      if (!isTimed) { data.offset = shown.mediaTime; setTimed(); }
      follow(frameAtSeconds(shown.mediaTime - data.offset));
      video.requestVideoFrameCallback(present);
    };
    if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(present);
    else {
      video.addEventListener("loadeddata", setTimed);
      video.addEventListener("timeupdate", () => follow(frameDuring(video.currentTime - data.offset)));
    }
    // Reports of frames can be missed.
    video.addEventListener("seeked", () => { if (isTimed && video.paused) follow(frameDuring(video.currentTime - data.offset)); });
    video.addEventListener("loadedmetadata", drawBoxes);
    const explainError = () => {
      $("media-note").textContent = `The video cannot be played: ${data.place} is gone, was moved, or is not served with this page. Everything else works without it.`;
      $("media-note").hidden = false;
      video.closest(".screen").hidden = true;
    };
    video.addEventListener("error", explainError);
    // It may have happened before this script ran.
    if (video.error) explainError();
    new ResizeObserver(drawBoxes).observe(video);
    // Browsers do not print videos.
    window.addEventListener("beforeprint", () => {
      if (video.readyState < 2) return;
      const still = element("canvas", "", { className: "still", width: video.videoWidth, height: video.videoHeight });
      still.style.width = `${video.clientWidth}px`;
      still.getContext("2d").drawImage(video, 0, 0);
      video.after(still);
    });
    window.addEventListener("afterprint", () => { for (const one of document.querySelectorAll(".still")) one.remove(); });
  }
  const start = () => {
    const frame = Number(new URLSearchParams(location.hash.slice(1)).get("frame"));
    connect(Bokeh.documents[0]);
    if (frame) goTo(frame);
  };
  // page.js shows the charts.
  const chart = timeline.querySelector(".chart");
  const observer = new MutationObserver(() => { observer.disconnect(); start(); });
  if ("shown" in chart.dataset) start();
  else observer.observe(chart, { attributeFilter: ["data-shown"] });
})();
