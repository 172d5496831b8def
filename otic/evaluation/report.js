"use strict";
// Hover (or touch) shows what a point or a cell is; a click in a map's legend singles out one class.
const tip = document.body.appendChild(Object.assign(document.createElement("div"), { id: "tip" }));

function show(event) {
  const what = event.target.closest("[data-tip]");
  tip.style.opacity = what ? 1 : 0;
  if (!what) return;
  const [head, ...rest] = what.dataset.tip.split("\n");
  tip.replaceChildren(Object.assign(document.createElement("b"), { textContent: head }), rest.join(" "));
  const { offsetWidth: w, offsetHeight: h } = tip;
  tip.style.left = Math.max(6, Math.min(event.clientX + 14, innerWidth - w - 8)) + "px";
  tip.style.top = (event.clientY + h + 24 > innerHeight ? event.clientY - h - 10 : event.clientY + 16) + "px";
}
document.addEventListener("pointermove", show);
document.addEventListener("pointerdown", show);
document.addEventListener("scroll", () => (tip.style.opacity = 0), { passive: true });

for (const map of document.querySelectorAll(".map")) {
  for (const button of map.querySelectorAll(".legend button")) {
    button.addEventListener("click", () => {
      const group = map.querySelector(`g[data-class="${button.dataset.class}"]`);
      const on = group.classList.toggle("on");
      for (const other of map.querySelectorAll("g.on")) if (other !== group) other.classList.remove("on");
      for (const other of map.querySelectorAll(".legend button")) other.setAttribute("aria-pressed", on && other === button);
      map.classList.toggle("focus", on);
    });
  }
}
