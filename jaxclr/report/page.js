"use strict";
for (const button of document.querySelectorAll(".legend button")) {
  button.addEventListener("click", () => {
    const shown = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", shown);
    for (const part of document.querySelectorAll("main ." + button.dataset.run)) part.classList.toggle("off", !shown);
  });
}
const lens = document.getElementById("lens");
for (const map of document.querySelectorAll(".map")) {
  const sheet = document.getElementById(map.dataset.sheet);
  const {columns, width, height, names} = JSON.parse(sheet.dataset.points);
  const svg = map.querySelector("svg"), said = map.querySelector(".shown");
  const points = [...map.querySelectorAll(".points use")];
  const pictured = sheet.matches("img");
  const scale = 96 / Math.max(width, height);
  let at = -1;
  const choose = index => {
    if (at >= 0) points[at].classList.remove("chosen");
    at = index;
    lens.hidden = at < 0 || !pictured;
    if (at < 0) return;
    const point = points[at], box = point.getBoundingClientRect();
    point.classList.add("chosen");
    said.textContent = (pictured ? "Image " : "Example ") + (at + 1) + " of " + points.length + (names.length ? ", class " + names[at] : "");
    if (!pictured) return;
    lens.style.width = width * scale + "px";
    lens.style.height = height * scale + "px";
    lens.style.backgroundImage = 'url("' + sheet.src + '")';
    lens.style.backgroundSize = columns * width * scale + "px auto";
    lens.style.backgroundPosition = -(at % columns) * width * scale + "px " + -Math.floor(at / columns) * height * scale + "px";
    lens.style.left = Math.min(box.right + 8, innerWidth - width * scale - 8) + "px";
    lens.style.top = Math.min(Math.max(box.top - height * scale / 2, 8), innerHeight - height * scale - 8) + "px";
  };
  const center = index => {
    const box = points[index].getBoundingClientRect();
    return [box.x + box.width / 2, box.y + box.height / 2];
  };
  const directions = {ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1]};
  points.forEach((point, index) => point.addEventListener("pointerenter", () => choose(index)));
  svg.addEventListener("pointerleave", () => choose(-1));
  svg.addEventListener("focus", () => { if (at < 0 && svg.matches(":focus-visible")) choose(0); });
  svg.addEventListener("blur", () => choose(-1));
  svg.addEventListener("keydown", event => {
    if (event.key === "Escape") return choose(-1);
    const way = directions[event.key];
    if (!way) return;
    event.preventDefault();
    if (at < 0) return choose(0);
    // The nearest point that lies more in that direction than aside.
    const [x, y] = center(at);
    let best = -1, least = Infinity;
    points.forEach((_, index) => {
      const [u, v] = center(index), along = (u - x) * way[0] + (v - y) * way[1], aside = Math.abs((u - x) * way[1]) + Math.abs((v - y) * way[0]);
      if (along > 0 && along >= aside && along + aside < least) [best, least] = [index, along + aside];
    });
    if (best >= 0) choose(best);
  });
}
