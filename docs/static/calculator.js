// Memory and arithmetic of info_nce, value and gradient, in float32; docs/memory.md has the formulas.
function estimate(rows, width, devices) {
  const b = Math.ceil(rows / devices);
  const R = 4 * b * width; // this device's rows
  const C = 4 * rows * width; // the columns of all devices
  const vectors = 56 * b; // sums of rows, ids, ...
  const tile = (side) => 4 * Math.min(side, b) * Math.min(side, rows) + 20 * Math.min(side, b) * width;
  const product = 2 * b * rows * width; // of rows and columns
  return {
    dense: { bytes: 4 * b * rows + C + 4 * R + vectors, flops: 3 * product },
    streamed: { bytes: 2 * C + 4 * R + tile(1024) + vectors, flops: 4 * product },
    ring: { bytes: (devices > 1 ? 9 : 6) * R + tile(512) + vectors, flops: 4 * product },
  };
}

function readable(value, units, step) {
  let at = 0;
  while (value >= step && at < units.length - 1) {
    value /= step;
    at += 1;
  }
  return `${value >= 100 ? Math.round(value).toLocaleString("en-US") : value.toPrecision(2)} ${units[at]}`;
}

if (typeof document !== "undefined") {
  const form = document.getElementById("calculator");
  const show = () => {
    const [rows, width, devices] = ["rows", "width", "devices"].map((name) => Number(form.elements[name].value));
    const table = document.getElementById("calculator-table");
    if (!(rows >= 1 && width >= 1 && devices >= 1)) {
      table.innerHTML = "<tr><td>Enter whole numbers of at least 1.</td></tr>";
      return;
    }
    const lines = Object.entries(estimate(rows, width, devices)).map(([name, { bytes, flops }]) => {
      const memory = readable(bytes, ["B", "KiB", "MiB", "GiB", "TiB", "PiB"], 1024);
      const work = readable(flops, ["FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP"], 1000);
      return `<tr><td>${name}</td><td>${memory}</td><td>${work}</td></tr>`;
    });
    table.innerHTML = `<tr><th></th><th>memory on a device</th><th>operations of a device</th></tr>${lines.join("")}`;
  };
  form.addEventListener("input", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  show();
}
