"use strict";

// ---- The cut: counts from histograms, exact at the edges of their bins ----

const data = JSON.parse(document.getElementById("data").textContent);
const { edges, thresholds, counts, repeats, images } = data;
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
  for (const role of roles) kept[role] = counts[role].slice(at[role]).reduce((sum, n) => sum + n, 0);
  for (const [own, synthetic, n] of repeats) {
    if (own >= at.own && synthetic >= at.synthetic) kept.synthetic -= n;
  }
  kept.images = 0;
  for (const [own, synthetic, n] of images) {
    if (own >= (at.own ?? Infinity) || synthetic >= (at.synthetic ?? Infinity)) kept.images += n;
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

/** Show which texts of a card the thresholds keep. At the policy's own, what it really decided, mix included. */
function judge(card) {
  const seen = new Set();
  for (const text of card.querySelectorAll(".text")) {
    const { source, itm, admitted, same } = text.dataset;
    const over = admitted === "1" && Math.fround(itm) >= Math.fround(edges[at[source]]);
    const repeat = over && data.dropDuplicates && seen.has(same);
    if (over) seen.add(same);
    const was = text.dataset.kept === "1";
    const reason = isPolicy() || admitted === "0" ? text.dataset.reason : repeat ? "duplicate" : over ? "" : "low_itm";
    decide(text, isPolicy() ? was : over && !repeat, reason);
    text.classList.toggle("changed", text.classList.contains("kept") !== was);
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
