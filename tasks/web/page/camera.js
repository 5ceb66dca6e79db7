// The camera of the device, and messages for people where there is none.

const MESSAGES = {
  NotAllowedError: "The camera is blocked. Allow this page to use it in the settings of the browser, then start it again.",
  SecurityError: "The camera is blocked. Allow this page to use it in the settings of the browser, then start it again.",
  NotFoundError: "No camera was found on this device. Choose a photo instead.",
  OverconstrainedError: "No camera was found on this device. Choose a photo instead.",
  NotReadableError: "The camera does not start. Close other programs that use it, then start it again.",
  AbortError: "The camera does not start. Close other programs that use it, then start it again.",
};

export class Camera {
  #stream = null;

  constructor(video) {
    this.video = video;
  }

  get isOpen() {
    return this.#stream !== null;
  }

  /**
   * Start the camera that faces the `user` or the `environment` and show it in the video element.
   * `onEnd` is called if it is disconnected. An Error has a message for people.
   */
  async open(facing, onEnd) {
    if (!navigator.mediaDevices?.getUserMedia) {
      throw new Error("Browsers allow the camera only to pages with an https address. Choose a photo instead.");
    }
    let stream;
    try {
      const video = { facingMode: facing, width: { ideal: 640 }, height: { ideal: 480 } };
      stream = await navigator.mediaDevices.getUserMedia({ video, audio: false });
      this.video.srcObject = this.#stream = stream;
      await this.video.play();
    } catch (error) {
      this.close();
      throw new Error(MESSAGES[error.name] ?? `The camera does not start: ${error.message}`);
    }
    const [track] = stream.getVideoTracks();
    track.addEventListener("ended", onEnd);
    // A camera of a computer has no direction: it faces the user.
    this.facing = track.getSettings().facingMode ?? facing;
    const devices = await navigator.mediaDevices.enumerateDevices();
    this.hasSeveral = devices.filter(({ kind }) => kind === "videoinput").length > 1;
  }

  /** Whether the picture is displayed like in a mirror, as people expect of a camera that faces them. */
  get isMirrored() {
    return this.facing !== "environment";
  }

  close() {
    for (const track of this.#stream?.getTracks() ?? []) track.stop();
    this.#stream = null;
    this.video.srcObject = null;
  }
}
