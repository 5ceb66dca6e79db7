// The page's end of the worker that runs the networks.

export class NetworksClient {
  #worker = new Worker("networks_worker.js", { type: "module" });
  #waiting = new Map();
  #next = 1;

  constructor() {
    this.#worker.onmessage = ({ data }) => this.#receive(data);
    this.#worker.onerror = (event) => this.#failAll(event.message || "the networks' worker did not start");
  }

  /** Load the networks; `advance` receives the loaded share, 0 to 1. */
  load(settings, advance) {
    this.advance = advance;
    return this.#ask({ type: "load", settings });
  }

  /** Return {faces, milliseconds} of ImageData. Its pixels are moved to the worker. */
  analyse({ data, width, height }) {
    return this.#ask({ type: "analyse", pixels: data.buffer, width, height }, [data.buffer]);
  }

  #ask(message, moved = []) {
    const id = this.#next++;
    this.#worker.postMessage({ ...message, id }, moved);
    return new Promise((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
  }

  #receive(answer) {
    if (answer.type === "loading") {
      this.advance(answer.share);
      return;
    }
    const { resolve, reject } = this.#waiting.get(answer.id);
    this.#waiting.delete(answer.id);
    if (answer.type === "failed") reject(new Error(answer.message));
    else resolve(answer);
  }

  #failAll(message) {
    for (const { reject } of this.#waiting.values()) reject(new Error(message));
    this.#waiting.clear();
  }
}
