"use strict";
// Values under the pointer of each chart; another axis for all charts; searching and filtering the answers.

const tip = document.getElementById("tip");

for (const chart of document.querySelectorAll("svg.chart")) {
  const data = JSON.parse(chart.dataset.points);
  const cursor = chart.querySelector(".cursor");
  const nearest = (points, x) =>
    points.reduce((best, point) => (Math.abs(point[0] - x) < Math.abs(best[0] - x) ? point : best), points[0]);

  chart.addEventListener("pointermove", (event) => {
    const box = chart.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * chart.viewBox.baseVal.width;
    const near = data.series.map((series) => nearest(series.points, x));
    const main = nearest(near, x);
    cursor.setAttribute("x1", main[0]);
    cursor.setAttribute("x2", main[0]);
    cursor.style.visibility = "visible";
    const lines = [`${data.x} ${main[2]}`];
    for (const series of data.series) {
      const point = nearest(series.points, main[0]);
      const at = point[2] === main[2] ? "" : ` (${point[2]})`;
      lines.push(`${series.label}: ${point[3]}${at}`);
    }
    tip.replaceChildren(...lines.flatMap((line) => [document.createTextNode(line), document.createElement("br")]));
    tip.hidden = false;
    const left = event.pageX + 14;
    tip.style.left = `${Math.min(left, document.documentElement.clientWidth - tip.offsetWidth - 8)}px`;
    tip.style.top = `${event.pageY + 14}px`;
  });
  chart.addEventListener("pointerleave", () => {
    cursor.style.visibility = "hidden";
    tip.hidden = true;
  });
}

const axes = [...document.querySelectorAll("[data-axis]")];
for (const button of axes) {
  button.addEventListener("click", () => {
    for (const other of axes) other.setAttribute("aria-pressed", String(other === button));
    for (const shown of document.querySelectorAll("[data-by]")) {
      shown.hidden = shown.dataset.by !== button.dataset.axis;
    }
  });
}

const answers = [...document.querySelectorAll(".answer")];
if (answers.length) {
  const SHOWN_AT_FIRST = 8;
  const search = document.querySelector(".toolbar input");
  const buttons = [...document.querySelectorAll("[data-show]")];
  const more = document.getElementById("more");
  const texts = answers.map((answer) => answer.textContent.toLowerCase());
  let change = buttons.find((button) => button.getAttribute("aria-pressed") === "true").dataset.show;
  let all = answers.length <= SHOWN_AT_FIRST + 2;

  const update = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let found = 0;
    answers.forEach((answer, index) => {
      const wanted = !change || answer.dataset.change.split(" ").includes(change);
      const fits = wanted && words.every((word) => texts[index].includes(word));
      found += fits ? 1 : 0;
      answer.hidden = !fits || (!all && found > SHOWN_AT_FIRST);
    });
    more.hidden = all || found <= SHOWN_AT_FIRST;
    more.textContent = `Show all ${found}`;
    document.getElementById("none").hidden = found > 0;
  };
  for (const button of buttons) {
    button.addEventListener("click", () => {
      change = button.dataset.show;
      for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
      update();
    });
  }
  search.addEventListener("input", update);
  more.addEventListener("click", () => {
    all = true;
    update();
  });
  update();
}
