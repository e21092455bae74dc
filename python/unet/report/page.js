"use strict";

// Two layers over a slice, one on each side of a line that moves.
for (const viewer of document.querySelectorAll(".viewer")) {
  const stage = viewer.querySelector(".stage");
  const range = stage.querySelector("input");
  const names = JSON.parse(viewer.dataset.layers);
  const chosen = (group) => viewer.querySelector(`input[name="${group}"]:checked`).value;

  const move = () => {
    stage.style.setProperty("--x", `${range.value}%`);
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
    move();
  };

  range.addEventListener("input", move);
  viewer.addEventListener("change", (event) => event.target !== range && show());
  show();
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
