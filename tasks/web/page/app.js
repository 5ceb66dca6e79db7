// The page: photo or camera in, boxes and predictions out. The networks run in a worker.

import { Camera } from "./camera.js";
import { FacesView } from "./faces_view.js";
import { NetworksClient } from "./networks_client.js";

// Safari on phones draws no larger canvas.
const MOST_PIXELS = 16_777_216;
const RATE_OVER_FRAMES = 15;
const element = (id) => document.getElementById(id);
const say = (text, isFault = false) => {
  element("message").textContent = text;
  element("message").classList.toggle("bad", isFault);
};

const camera = new Camera(element("video"));
// Frames and photos are read back from canvases; the photo is also shown on one.
const frame = document.createElement("canvas");
const photo = element("photo");
let networks;
let view;
// Increases whenever another picture or the camera replaces what is shown: late results are then dropped.
let showing = 0;

async function start() {
  const settings = await (await fetch("settings.json")).json();
  describe(settings);
  view = new FacesView({ boxes: element("boxes"), list: element("faces"), expressions: settings.backbone.expressions });
  networks = new NetworksClient();
  say("Loading the networks.");
  await networks.load(settings, (share) => {
    element("progress").value = share;
    say(`Loading the networks: ${Math.round(share * 100)} % of ${(settings.total_bytes / 1e6).toFixed(0)} MB.`);
  });
  element("loading").hidden = true;
  element("choose").disabled = element("camera").disabled = false;
  say("Ready.");
  document.documentElement.dataset.ready = "";
}

function describe({ backbone, licences, notes, detector }) {
  element("about").textContent =
    `Backbone: ${backbone.name}, for faces of ${backbone.input_px} x ${backbone.input_px} px. ` +
    `Faces are found by MTCNN from ${detector.min_face_px} px on.`;
  for (const row of licences) {
    const line = element("licences").tBodies[0].insertRow();
    for (const text of row) line.insertCell().textContent = text;
  }
  for (const note of notes) element("notes").append(Object.assign(document.createElement("p"), { textContent: note }));
}

async function showPhoto(file) {
  stopCamera();
  const now = ++showing;
  say("Reading the photo.");
  let picture;
  try {
    picture = await createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  } catch {
    say(`${file.name} is no picture that this browser can read. Choose a JPEG, PNG or WebP file.`, true);
    return;
  }
  if (now !== showing) return;
  const by = Math.min(1, Math.sqrt(MOST_PIXELS / (picture.width * picture.height)));
  photo.width = Math.floor(picture.width * by);
  photo.height = Math.floor(picture.height * by);
  const context = photo.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, photo.width, photo.height);
  context.drawImage(picture, 0, 0, photo.width, photo.height);
  picture.close();
  view.clear();
  element("stage").hidden = photo.hidden = element("speed").hidden = false;
  element("speed").hidden = true;
  element("video").hidden = true;
  say("Looking for faces.");
  const found = await networks.analyse(context.getImageData(0, 0, photo.width, photo.height));
  if (now !== showing) return;
  view.show(found.faces, photo);
  showTimes(found, null);
  const shrunk = by < 1 ? ` The photo was shrunk to ${photo.width} x ${photo.height} px, the most that all phones can show.` : "";
  say(view.summary + shrunk);
}

async function startCamera(facing) {
  const now = ++showing;
  say("Starting the camera. Allow this page to use it.");
  try {
    await camera.open(facing, () => { stopCamera(); say("The camera was disconnected.", true); });
  } catch (error) {
    stopCamera();
    say(error.message, true);
    return;
  }
  if (now !== showing) {
    camera.close();
    return;
  }
  view.clear();
  element("stage").hidden = element("video").hidden = false;
  photo.hidden = true;
  element("speed").hidden = false;
  element("video").classList.toggle("mirrored", camera.isMirrored);
  element("camera").textContent = "Stop the camera";
  element("turn").hidden = !camera.hasSeveral;
  element("turn").textContent = camera.facing === "user" ? "Use the back camera" : "Use the front camera";
  say("The camera is on.");
  await followCamera(now).catch((error) => { stopCamera(); say(error.message, true); });
}

function stopCamera() {
  showing++;
  if (!camera.isOpen) return;
  camera.close();
  element("camera").textContent = "Start the camera";
  element("turn").hidden = true;
  element("stage").hidden = element("video").hidden = true;
  view.clear();
  element("faces-title").hidden = true;
  say("The camera is off.");
}

/** Analyse frame after frame; each analysis takes the newest frame. */
async function followCamera(now) {
  const { video } = camera;
  const context = frame.getContext("2d", { willReadFrequently: true });
  const ends = [];
  while (now === showing) {
    await nextFrame();
    if (video.readyState < video.HAVE_CURRENT_DATA) continue;
    if (frame.width !== video.videoWidth || frame.height !== video.videoHeight) {
      frame.width = video.videoWidth;
      frame.height = video.videoHeight;
    }
    context.drawImage(video, 0, 0);
    const found = await networks.analyse(context.getImageData(0, 0, frame.width, frame.height));
    if (now !== showing) return;
    // Only the display is mirrored: the networks get the picture as it is.
    view.show(found.faces, frame, camera.isMirrored);
    ends.push(performance.now());
    if (ends.length > RATE_OVER_FRAMES) ends.shift();
    const rate = ends.length > 1 ? (1000 * (ends.length - 1)) / (ends.at(-1) - ends[0]) : null;
    showTimes(found, rate);
  }
}

// Browsers call this only while the page is visible: a hidden page analyses nothing.
const nextFrame = () => new Promise((resolve) => requestAnimationFrame(resolve));

function showTimes({ faces, milliseconds }, rate) {
  element("speed").hidden = false;
  element("faces-title").hidden = !faces.length;
  element("rate").hidden = rate === null;
  const write = (id, value) => (element(id).querySelector("dd").textContent = value === null ? "–" : value.toFixed(value < 10 ? 1 : 0));
  if (rate !== null) write("rate", rate);
  write("detection", milliseconds.detection);
  write("per-face", faces.length ? milliseconds.backbone / faces.length : null);
}

async function keepOffline() {
  const state = element("offline");
  if (!navigator.serviceWorker) {
    state.textContent = "This browser cannot keep the page for use without a connection.";
    return;
  }
  try {
    await navigator.serviceWorker.register("service_worker.js", { updateViaCache: "none" });
    await navigator.serviceWorker.ready;
    state.textContent = "This page now also works without a connection.";
    document.documentElement.dataset.offline = "";
  } catch {
    state.textContent = "The browser did not keep the page for use without a connection, for example for lack of space.";
  }
}

element("choose").addEventListener("click", () => element("file").click());
element("file").addEventListener("change", ({ target }) => {
  if (target.files.length) run(showPhoto(target.files[0]));
  target.value = "";
});
element("camera").addEventListener("click", () => (camera.isOpen ? stopCamera() : run(startCamera("user"))));
element("turn").addEventListener("click", () => {
  const facing = camera.facing === "user" ? "environment" : "user";
  stopCamera();
  run(startCamera(facing));
});
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  const [file] = event.dataTransfer.files;
  if (file && document.documentElement.dataset.ready === "") run(showPhoto(file));
});

const run = (work) => work.catch((error) => say(`This did not work: ${error.message}`, true));
run(start()).then(keepOffline);
