"use strict";

// ---- The cut: counts that were made for every edge, the policy's mix included ----

const data = JSON.parse(document.getElementById("data").textContent);
const { edges, thresholds, corners } = data;
const roles = Object.keys(thresholds); // "own" and "synthetic"; a run may lack one
const number = new Intl.NumberFormat("en");
const percent = (part, whole) => (whole ? `${((100 * part) / whole).toFixed(1)}\u00a0%` : "0\u00a0%");
const signed = (n) => (n > 0 ? "+" : n < 0 ? "−" : "") + (n ? number.format(Math.abs(n)) : "");

/** The last edge that is not over a value; the slider's values are decimal fractions, and so are the edges. */
function edgeOf(value) {
  let at = 0;
  while (at + 1 < edges.length && edges[at + 1] <= value + 1e-9) at += 1;
  return at;
}

/** What is kept under thresholds edges[at.own] and edges[at.synthetic]: texts by role, and images. */
function outcome(at) {
  const kept = {};
  for (const [name, list] of Object.entries(corners)) {
    kept[name] = 0;
    for (const [own, synthetic, n] of list) {
      if (own >= (at.own ?? 0) && synthetic >= (at.synthetic ?? 0)) kept[name] += n;
    }
  }
  return kept;
}

const start = Object.fromEntries(roles.map((role) => [role, edges.indexOf(thresholds[role])]));
const before = outcome(start);
let at = { ...start };

function isPolicy() {
  return roles.every((role) => at[role] === start[role]);
}

function show() {
  const kept = outcome(at);
  for (const role of roles) showCut(role, kept[role]);
  document.getElementById("images").textContent = number.format(kept.images);
  document.getElementById("images-share").textContent = percent(kept.images, data.scored);
  document.getElementById("images-change").textContent = signed(kept.images - before.images);
  document.getElementById("settings").textContent = roles.map((role) => `${data.keys[role]}: ${edges[at[role]]}`).join("\n");
  document.getElementById("reset").disabled = isPolicy();
  document.querySelectorAll(".gallery .card, #closeup .card").forEach(judge);
}

function showCut(role, kept) {
  const box = document.querySelector(`.whatif [data-source="${role}"]`);
  const cut = edges[at[role]];
  const share = percent(kept, data.candidates[role]);
  box.querySelector(".threshold").textContent = cut;
  box.querySelector(".count").textContent = number.format(kept);
  box.querySelector(".share").textContent = share;
  box.querySelector(".change").textContent = signed(kept - before[role]);
  box.querySelector("input").setAttribute("aria-valuetext", `${cut}: ${number.format(kept)} kept, ${share}`);
  box.querySelectorAll("rect").forEach((bar) => bar.classList.toggle("out", Number(bar.dataset.from) < cut - 1e-9));
  for (const end of ["x1", "x2"]) box.querySelector("line").setAttribute(end, 100 * cut);
}

/** Show which texts of a card the thresholds keep: those over them, without repetitions, as the mix takes them. */
function judge(card) {
  const texts = [...card.querySelectorAll(".text")];
  const reaches = ({ dataset }) => score(dataset) >= Math.fround(edges[at[dataset.source]]);
  const over = texts.filter((text) => text.dataset.admitted === "1" && reaches(text));
  if (data.mix === "synthetic_only") over.sort((a, b) => isOwn(a) - isOwn(b)); // of equal texts it may take the caption
  const first = (text, n) => !data.dropDuplicates || over.findIndex((other) => other.dataset.same === text.dataset.same) === n;
  const distinct = over.filter(first);
  const kept = new Set(mixed(distinct, card.dataset.drawn === "own"));
  for (const text of texts) {
    const failed = over.includes(text) ? "duplicate" : reaches(text) ? "low_itc" : "low_itm";
    const found = kept.has(text) ? "" : distinct.includes(text) ? "mix" : failed;
    decide(text, kept.has(text), unmoved.includes(text.dataset.reason) ? text.dataset.reason : found);
    text.classList.toggle("changed", kept.has(text) !== (text.dataset.kept === "1"));
  }
}

const unmoved = ["not_scored", "too_short", "too_long"]; // the rules before the thresholds, whatever these are
const score = (dataset) => Math.fround(dataset.itm);
const isOwn = (text) => text.dataset.source === "own";

/** Those of an image's texts, own ones first, that the policy's mix takes. */
function mixed(texts, ownDrawn) {
  const own = texts.filter(isOwn);
  const captions = texts.filter((text) => !isOwn(text));
  switch (data.mix) {
    case "web_only": return own;
    case "synthetic_only": return captions;
    case "web_else_synthetic": return own.length ? own : captions;
    case "weighted": return own.length && (ownDrawn || !captions.length) ? own : captions;
    case "both": return texts;
    default: return [...texts].sort((a, b) => score(b.dataset) - score(a.dataset)).slice(0, data.most); // best, top_k
  }
}

function decide(text, kept, reason) {
  const mark = text.querySelector(".mark");
  text.classList.toggle("kept", kept);
  text.classList.toggle("rejected", !kept);
  mark.textContent = kept ? "✓" : "✗";
  mark.setAttribute("aria-label", kept ? "kept" : "rejected");
  text.querySelector(".reason").textContent = reason === "low_itm" ? "" : reason.replaceAll("_", " ");
}

for (const role of roles) {
  document.getElementById(`cut-${role}`).addEventListener("input", (event) => {
    at[role] = edgeOf(Number(event.target.value));
    show();
  });
}
document.getElementById("reset").addEventListener("click", () => {
  at = { ...start };
  for (const role of roles) document.getElementById(`cut-${role}`).value = edges[at[role]];
  show();
});

// ---- Galleries by keyboard, and one sample close up ----

const dialog = document.getElementById("closeup");
let shown = null; // the card that the dialog shows

const cardsOf = (card) => [...card.closest(".cards").querySelectorAll(".card")];

function neighbour(card, step) {
  const cards = cardsOf(card);
  return cards[Math.min(Math.max(cards.indexOf(card) + step, 0), cards.length - 1)];
}

/** How many cards stand in a row: those that begin at the height of the first. */
function rowLength(card) {
  const tops = cardsOf(card).map((other) => other.getBoundingClientRect().top);
  const next = tops.findIndex((top) => top > tops[0] + 1);
  return next < 0 ? tops.length : next;
}

/** Give the keyboard one way into each gallery: its current card. */
function enter(card) {
  cardsOf(card).forEach((other) => (other.tabIndex = other === card ? 0 : -1));
  card.focus();
}

function closeUp(card) {
  shown = card;
  const copy = card.cloneNode(true);
  copy.removeAttribute("tabindex");
  copy.querySelectorAll("details").forEach((details) => (details.open = true));
  dialog.querySelector(".content").replaceChildren(copy);
  document.getElementById("previous").disabled = neighbour(card, -1) === card;
  document.getElementById("next").disabled = neighbour(card, 1) === card;
  if (!dialog.open) dialog.showModal();
}

document.querySelectorAll(".cards").forEach((cards) => (cards.querySelector(".card").tabIndex = 0));

document.addEventListener("keydown", (event) => {
  const card = event.target.closest?.(".cards .card");
  if (!card || event.target !== card) return;
  const all = cardsOf(card);
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -rowLength(card), ArrowDown: rowLength(card), Home: -all.length, End: all.length };
  if (event.key in steps) enter(neighbour(card, steps[event.key]));
  else if (event.key === "Enter" || event.key === " ") closeUp(card);
  else return;
  event.preventDefault();
});
document.addEventListener("click", (event) => {
  const card = event.target.closest(".cards .card");
  if (card && !event.target.closest("details")) closeUp(card);
});
dialog.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (step) closeUp(neighbour(shown, step));
});
dialog.addEventListener("close", () => enter(shown));
document.getElementById("previous").addEventListener("click", () => closeUp(neighbour(shown, -1)));
document.getElementById("next").addEventListener("click", () => closeUp(neighbour(shown, 1)));

show();
