// Shows the frames of gradient descent on the embeddings of one batch; frames are made with the site.
(function () {
  const choice = document.getElementById("player-loss");
  const step = document.getElementById("player-step");
  const image = document.getElementById("player-image");
  const text = document.getElementById("player-text");
  for (const name of Object.keys(DESCENT)) {
    choice.add(new Option(name, name));
  }
  function show() {
    const frames = DESCENT[choice.value];
    step.max = frames.length - 1;
    const frame = frames[step.value];
    image.src = frame.image;
    text.textContent = "step " + frame.step + ", loss " + frame.loss;
  }
  choice.addEventListener("change", show);
  step.addEventListener("input", show);
  show();
})();
