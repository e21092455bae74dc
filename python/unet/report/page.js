"use strict";

// Two layers over a slice, one on each side of a line that moves.
for (const viewer of document.querySelectorAll(".viewer")) {
  const stage = viewer.querySelector(".stage");
  const range = stage.querySelector("input");
  const names = JSON.parse(viewer.dataset.layers);
  const chosen = (group) => viewer.querySelector(`input[name="${group}"]:checked`).value;

  const move = (percent) => {
    stage.style.setProperty("--x", `${percent}%`);
    range.setAttribute(
      "aria-valuetext",
      `${names[chosen("left")]} on ${range.value} % of the width, then ${names[chosen("right")]}`
    );
  };

  const show = () => {
    const slice = viewer.querySelector(`.store[data-slice="${chosen("slice")}"]`);
    const picture = (layer) => slice.querySelector(`[data-layer="${layer}"]`).src;
    stage.querySelector(".raw").src = picture("raw");
    for (const side of ["left", "right"]) {
      const layer = chosen(side);
      const image = stage.querySelector(`.${side}`);
      image.hidden = layer === "raw";
      if (layer !== "raw") image.src = picture(layer);
      stage.querySelector(`.tag.${side[0]}`).textContent = names[layer];
    }
    for (const words of viewer.querySelectorAll(".of-slice")) {
      words.hidden = words.dataset.slice !== chosen("slice");
    }
    move(range.value);
  };

  // Keys move the range; fingers and mice the line itself, which a range does not let them
  // everywhere: on some telephones only its thumb can be drawn.
  range.addEventListener("input", () => move(range.value));
  const drag = (event) => {
    const box = stage.getBoundingClientRect();
    const percent = Math.min(100, Math.max(0, (100 * (event.clientX - box.left)) / box.width));
    range.value = percent;
    move(percent);
  };
  stage.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    event.preventDefault();
    range.focus({ preventScroll: true });
    stage.setPointerCapture(event.pointerId);
    drag(event);
  });
  stage.addEventListener("pointermove", (event) => {
    if (stage.hasPointerCapture(event.pointerId)) drag(event);
  });
  viewer.addEventListener("change", (event) => event.target !== range && show());
  show();
}

// The values of all lines of a chart at the place that is pointed at.
for (const chart of document.querySelectorAll("svg.chart")) {
  const [x0, x1, left, wide] = chart.dataset.x.split(" ").map(Number);
  const [y0, y1, top, high] = chart.dataset.y.split(" ").map(Number);
  const make = (name, attributes) => {
    const made = document.createElementNS(chart.namespaceURI, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return chart.appendChild(made);
  };
  const cursor = make("line", { class: "cursor", y1: top, y2: top + high });
  const said = make("text", { class: "said", x: left + wide, y: 11, "text-anchor": "end" });
  const lines = [...chart.querySelectorAll("path")].map((path) => ({
    name: path.dataset.name.replace(/ [\d.]+$/, ""),
    points: path.getAttribute("d").slice(1).split("L").map((point) => point.split(" ").map(Number)),
  }));

  const point = (event) => {
    const box = chart.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * chart.viewBox.baseVal.width;
    const near = (points) => points.reduce((a, b) => (Math.abs(b[0] - at) < Math.abs(a[0] - at) ? b : a));
    // The line with fewest points, that of the tests, is the one whose places count.
    const sparse = lines.reduce((a, b) => (b.points.length < a.points.length ? b : a));
    const x = near(sparse.points)[0];
    cursor.setAttribute("x1", x);
    cursor.setAttribute("x2", x);
    const values = lines.map(({ name, points }) => {
      const y = points.reduce((a, b) => (Math.abs(b[0] - x) < Math.abs(a[0] - x) ? b : a))[1];
      return `${lines.length > 1 ? `${name} ` : ""}${(y0 + (1 - (y - top) / high) * (y1 - y0)).toPrecision(3)}`;
    });
    const where = Number((x0 + ((x - left) / wide) * (x1 - x0)).toPrecision(4));
    said.textContent = `${chart.dataset.label.split(",")[0]} ${where}: ${values.join(", ")}`;
    chart.classList.add("pointed");
  };
  chart.addEventListener("pointermove", point);
  chart.addEventListener("pointerdown", point);
  chart.addEventListener("pointerleave", () => chart.classList.remove("pointed"));
}

// A place leads to its slice.
for (const button of document.querySelectorAll("[data-show]")) {
  button.addEventListener("click", () => {
    const radio = document.querySelector(`.viewer input[name="slice"][value="${button.dataset.show}"]`);
    radio.checked = true;
    radio.dispatchEvent(new Event("change", { bubbles: true }));
  });
}

for (const button of document.querySelectorAll(".command button")) {
  button.addEventListener("click", async () => {
    const text = button.parentElement.querySelector("pre");
    const range = document.createRange();
    range.selectNodeContents(text);
    const selection = getSelection();
    selection.removeAllRanges();
    selection.addRange(range);
    try {
      await navigator.clipboard.writeText(text.textContent);
      button.textContent = "Copied";
    } catch {
      // A page from a file may not write to the clipboard everywhere; the text is selected.
      button.textContent = "Selected";
    }
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
}
