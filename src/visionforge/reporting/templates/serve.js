"use strict";
const facts = JSON.parse(document.getElementById("facts").textContent);
const drop = document.getElementById("drop"), files = document.getElementById("files");
const results = document.getElementById("results"), status = document.getElementById("status");
const SHOWN = 5, AT_ONCE = 4, KEPT = 200;
const waiting = [];
let working = 0, done = 0, asked = 0;
document.getElementById("address").textContent = new URL("predict", location.href).href;

function made(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

function percent(share) {
  const text = (100 * share).toFixed(1);
  return share > 0 && share < 0.0005 ? "below 0.1 %" : share < 1 && text === "100.0" ? "above 99.9 %" : `${text} %`;
}

function bars(rows, chosen) {
  const list = made("ul", { className: "bars" });
  for (const [name, share] of rows) {
    const bar = made("span", { className: "bar" });
    bar.style.width = `${100 * share}%`;
    const item = made("li", { className: chosen.includes(name) ? "chosen" : "" },
      made("span", { className: "name", textContent: name }), made("span", { textContent: percent(share) }),
      made("span", { className: "track" }, bar));
    list.append(item);
  }
  return list;
}

function further(title, content) {
  return made("details", {}, made("summary", { textContent: title }), content);
}

function classes(answer) {
  const chosen = [answer.prediction].flat();
  const rows = Object.entries(answer.probabilities).sort((one, other) => other[1] - one[1]);
  const parts = [made("p", { className: "said", textContent: answer.abstain ? "I don't know" : chosen.join(", ") || "none of them" })];
  parts.push(bars(rows.slice(0, SHOWN), chosen));
  if (rows.length > SHOWN) parts.push(further(`${rows.length - SHOWN} more`, bars(rows.slice(SHOWN), chosen)));
  if (answer.set) parts.push(note(`Set of classes: ${answer.set.join(", ") || "none"}.`));
  if (answer.abstain) parts.push(note(`The most probable is ${chosen.join(", ")}.`));
  if ("ood_score" in answer) {
    const far = facts.ood_threshold !== null && answer.ood_score > facts.ood_threshold;
    const score = Number(answer.ood_score.toPrecision(4));
    parts.push(note(`${far ? "Unlike the training images" : "Like the training images"}: score ${score}.`, far));
  }
  return parts;
}

function note(text, bad = false) {
  return made("p", { className: bad ? "note bad" : "note", textContent: text });
}

function mask(answer, picture) {
  const image = made("img", { className: "over mask", alt: "", src: `data:image/png;base64,${answer.mask}` });
  picture.append(image);
  const total = answer.width * answer.height;
  const rows = Object.entries(answer.predicted_pixels).map(([name, count]) => [name, count / total]);
  const shown = made("input", { type: "checkbox", checked: true, onchange: () => { image.hidden = !shown.checked; } });
  const link = made("a", { href: image.src, download: "mask.png", textContent: "Mask as PNG" });
  return [made("p", { className: "said", textContent: "Share of the pixels" }), bars(rows, []),
    made("p", { className: "note" }, made("label", {}, shown, " show the mask")), made("p", { className: "note" }, link)];
}

function boxes(answer, picture) {
  const frame = document.getElementById("frame").content.firstElementChild.cloneNode(true);
  const outline = frame.firstElementChild;
  frame.setAttribute("viewBox", `0 0 ${answer.width} ${answer.height}`);
  outline.remove();
  const list = made("ul", { className: "bars boxes", tabIndex: 0 });
  for (const box of answer.boxes) {
    const rect = outline.cloneNode();
    const sides = { x: box.x1, y: box.y1, width: box.x2 - box.x1, height: box.y2 - box.y1 };
    for (const [name, value] of Object.entries(sides)) rect.setAttribute(name, value);
    frame.append(rect);
    const place = [box.x1, box.y1, box.x2, box.y2].map(Math.round).join(", ");
    list.append(made("li", {}, made("span", { textContent: `${box.class} (${place})` }), made("span", { textContent: percent(box.score) })));
  }
  picture.append(frame);
  const count = answer.boxes.length;
  return [made("p", { className: "said", textContent: count === 1 ? "1 box" : `${count} boxes` }), list];
}

function begun(file) {
  const picture = made("div", { className: "picture" }), said = made("div", {}, made("p", { className: "faint", textContent: "waits …" }));
  if (!facts.volumes) {
    const image = made("img", { alt: "" });
    image.onload = () => {
      if (image.naturalWidth < 128) image.className = "small";
    };
    image.onerror = () => image.remove();
    image.src = URL.createObjectURL(file);
    picture.append(image);
  }
  const entry = made("article", { className: "result" }, made("h2", { textContent: file.name }), picture, said);
  entry.setAttribute("aria-label", file.name);
  results.prepend(entry);
  while (results.children.length > KEPT) {
    const old = results.lastChild.querySelector("img");
    if (old) URL.revokeObjectURL(old.src);
    results.lastChild.remove();
  }
  return { file, picture, said };
}

async function ask(file) {
  if (file.size > facts.max_bytes) throw new Error(`The file has more than ${facts.max_bytes.toLocaleString("en")} bytes.`);
  const body = new FormData();
  body.append("files", file);
  for (;;) {
    const response = await fetch("predict", { method: "POST", body });
    if (response.status === 503) {
      await new Promise((wake) => setTimeout(wake, 1000 * (Number(response.headers.get("Retry-After")) || 1)));
      continue;
    }
    const content = await response.json();
    if (content.error) throw new Error(content.error);
    const [answer] = content.predictions;
    if (answer.error) throw new Error(`The file ${answer.error}.`);
    return answer;
  }
}

async function work() {
  while (waiting.length) {
    const { file, picture, said } = waiting.shift();
    try {
      const answer = await ask(file);
      if (answer.mask || answer.boxes) picture.parentElement.classList.add("places");
      said.replaceChildren(...(answer.mask ? mask : answer.boxes ? boxes : classes)(answer, picture));
    } catch (error) {
      const lost = error instanceof TypeError ? "The service does not answer." : error.message;
      said.replaceChildren(made("p", { className: "bad", textContent: lost }));
    }
    done += 1;
    status.textContent = done < asked ? `${done} of ${asked} pictures` : asked === 1 ? "1 picture answered" : `${asked} pictures answered`;
  }
}

function take(list) {
  const given = [...list];
  asked += given.length;
  waiting.push(...given.map(begun));
  while (working < AT_ONCE && waiting.length) {
    working += 1;
    work().finally(() => { working -= 1; });
  }
}

files.addEventListener("change", () => { take(files.files); files.value = ""; });
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", name === "dragover");
    if (name === "drop") take(event.dataTransfer.files);
  });
}
