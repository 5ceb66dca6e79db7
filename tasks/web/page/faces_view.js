// Boxes over the picture, and a card with all predictions of each face.

// A displayed box that is narrower than this has room for its number only.
const NARROW_PX = 100;
const percent = (share) => `${Math.round(share * 100)} %`;
const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(2)}`;

function make(tag, className = "", ...children) {
  const made = document.createElement(tag);
  made.className = className;
  made.append(...children);
  return made;
}

export class FacesView {
  #cards = [];
  #boxes = [];

  /** `expressions`: [{name, colour}] in the order of the probabilities; none for a backbone without them. */
  constructor({ boxes, list, expressions }) {
    this.layer = boxes;
    this.list = list;
    this.expressions = expressions;
    this.summary = "";
  }

  clear() {
    this.show([], { width: 1, height: 1 });
  }

  /** Show faces of a picture of that size, from left to right as displayed. */
  show(faces, { width, height }, isMirrored = false) {
    const placed = faces.map((face) => {
      const [x1, y1, x2, y2] = face.box;
      const left = (isMirrored ? width - x2 : x1) / width;
      return { ...face, left, top: y1 / height, wide: (x2 - x1) / width, high: (y2 - y1) / height };
    });
    placed.sort((a, b) => a.left + a.wide / 2 - b.left - b.wide / 2);
    while (this.#cards.length < placed.length) this.#add();
    placed.forEach((face, i) => {
      const best = face.probabilities ? face.probabilities.indexOf(Math.max(...face.probabilities)) : -1;
      this.#drawBox(this.#boxes[i], face, best, i + 1);
      this.#cards[i].update(face, best);
    });
    this.#boxes.forEach((box, i) => (box.hidden = i >= placed.length));
    this.#cards.forEach((card, i) => (card.element.hidden = i >= placed.length));
    this.summary = this.#summarise(placed);
  }

  #summarise(faces) {
    if (!faces.length) return "No face was found.";
    const named = faces.map((face) => this.#decision(face)).filter(Boolean);
    return `${faces.length === 1 ? "One face" : `${faces.length} faces`}${named.length ? `: ${named.join(", ")}` : ""}.`;
  }

  #decision({ probabilities }) {
    return probabilities && this.expressions[probabilities.indexOf(Math.max(...probabilities))].name;
  }

  #add() {
    const box = make("div", "", make("span"));
    this.layer.append(box);
    this.#boxes.push(box);
    const card = new Card(this.#cards.length + 1, this.expressions);
    this.list.append(card.element);
    this.#cards.push(card);
  }

  #drawBox(box, face, best, number) {
    const { left, top, wide, high, probabilities } = face;
    Object.assign(box.style, { left: `${left * 100}%`, top: `${top * 100}%`, width: `${wide * 100}%`, height: `${high * 100}%` });
    box.style.setProperty("--colour", best < 0 ? "#fff" : this.expressions[best].colour);
    box.classList.toggle("below", top < 0.08);
    box.classList.toggle("right", left + wide / 2 > 0.6);
    const isNamed = best >= 0 && wide * this.layer.clientWidth >= NARROW_PX;
    box.firstChild.textContent = isNamed ? `${number} ${this.expressions[best].name} ${percent(probabilities[best])}` : number;
  }
}

class Card {
  #bars;

  constructor(number, expressions) {
    this.expressions = expressions;
    this.title = make("h3");
    this.number = number;
    this.#bars = expressions.map(({ name, colour }) => {
      const bar = make("span", "bar", make("span"));
      bar.style.setProperty("--colour", colour);
      const value = make("span", "value");
      return { bar, value, row: make("li", "", make("span", "", name), bar, value) };
    });
    this.probabilities = make("ul", "probabilities", ...this.#bars.map(({ row }) => row));
    this.point = make("span", "point");
    this.affectText = make("p");
    const plot = make("div", "plot", make("span", "x", "valence"), make("span", "y", "arousal"), this.point);
    plot.setAttribute("aria-hidden", "true");
    this.affect = make("div", "affect", plot, this.affectText);
    this.element = make("li", "card", this.title, this.probabilities, this.affect);
  }

  update({ probabilities, valence, arousal }, best) {
    const decision = best < 0 ? "" : `: ${this.expressions[best].name}`;
    this.title.textContent = `Face ${this.number}${decision}`;
    this.probabilities.hidden = !probabilities;
    this.#bars.forEach(({ bar, value, row }, i) => {
      if (!probabilities) return;
      bar.style.setProperty("--share", probabilities[i]);
      value.textContent = percent(probabilities[i]);
      row.classList.toggle("best", i === best);
    });
    this.affect.hidden = valence === null;
    if (valence === null) return;
    this.point.style.left = `${50 + 50 * valence}%`;
    this.point.style.top = `${50 - 50 * arousal}%`;
    this.affectText.replaceChildren("valence ", make("strong", "", signed(valence)), make("br"), "arousal ", make("strong", "", signed(arousal)));
  }
}
