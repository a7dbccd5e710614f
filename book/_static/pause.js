// A pause button on every animated GIF; paused at the start for readers who asked for less motion.
// Pausing covers the image with a canvas that holds its still picture.
document.addEventListener("DOMContentLoaded", () => {
  const calm = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
  for (const image of document.querySelectorAll('.bd-article img[src$=".gif"]')) {
    const frame = document.createElement("span");
    frame.className = "gif-frame";
    const still = document.createElement("canvas");
    const button = document.createElement("button");
    button.type = "button";
    still.setAttribute("role", "img");
    still.setAttribute("aria-label", image.alt);
    image.replaceWith(frame);
    frame.append(image, still, button);
    const play = (playing) => {
      if (!playing && image.naturalWidth) {
        const shown = image.getBoundingClientRect().width;
        still.width = image.naturalWidth;
        still.height = image.naturalHeight;
        if (shown) still.style.width = `${shown}px`;
        still.getContext("2d").drawImage(image, 0, 0);
      }
      image.hidden = !playing;
      still.hidden = playing;
      button.textContent = playing ? "Pause" : "Play";
      button.setAttribute("aria-label", `${playing ? "Pause" : "Play"} the animation`);
    };
    button.addEventListener("click", () => play(image.hidden));
    play(true);
    if (calm) {
      if (image.complete) play(false);
      else image.addEventListener("load", () => play(false), { once: true });
    }
  }
});
