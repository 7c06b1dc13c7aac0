// Draws the waves: a picture of the last steps' features.

/** Draws a session's wave buffer. */
export function drawWaves(canvas, session) {
  const waves = session.state("wave_buffer");
  canvas.hidden = !waves;
  if (!waves) return;
  const [steps, features] = waves.shape;
  const style = getComputedStyle(canvas);
  const [r, g, b] = style.getPropertyValue("--memory").split(",").map(Number);
  canvas.width = steps;
  canvas.height = features;
  const context = canvas.getContext("2d");
  const picture = context.createImageData(steps, features);
  for (let step = 0; step < steps; step++) {
    for (let feature = 0; feature < features; feature++) {
      const value = waves.values[step * features + feature];
      const color = value > 0 ? [r, g, b] : [40, 130, 155];
      const strength = Math.min(255, Math.abs(value) * 130);
      picture.data.set([...color, strength], 4 * (feature * steps + step));
    }
  }
  context.putImageData(picture, 0, 0);
}
