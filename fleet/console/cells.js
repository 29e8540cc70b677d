// Devices as cells: one canvas for all of them, drawn from one letter a device.
(() => {
  const TONES = { g: "--good", b: "--bad", w: "--warn", u: "--busy", i: "--line" };
  const GAP = 1;

  const draw = (canvas) => {
    const { codes } = canvas.cells;
    const width = canvas.parentElement.clientWidth;
    const size = Math.max(4, Math.min(16, Math.floor(Math.sqrt((width * 280) / codes.length))));
    const columns = Math.max(1, Math.floor(width / size));
    const height = Math.ceil(codes.length / columns) * size;
    const scale = window.devicePixelRatio || 1;
    Object.assign(canvas.cells, { size, columns });
    canvas.width = width * scale;
    canvas.height = height * scale;
    canvas.style.height = `${height}px`;
    const pen = canvas.getContext("2d");
    pen.scale(scale, scale);
    const style = getComputedStyle(document.body);
    for (const [tone, variable] of Object.entries(TONES)) {
      pen.fillStyle = style.getPropertyValue(variable);
      for (let index = codes.indexOf(tone); index >= 0; index = codes.indexOf(tone, index + 1)) {
        const row = Math.floor(index / columns);
        pen.fillRect((index % columns) * size, row * size, size - GAP, size - GAP);
      }
    }
  };

  const at = (canvas, event) => {
    const { size, columns, names } = canvas.cells;
    const column = Math.floor(event.offsetX / size);
    const index = Math.floor(event.offsetY / size) * columns + column;
    return column < columns && index < names.length ? index : -1;
  };

  const begin = (canvas) => {
    canvas.addEventListener("mousemove", (event) => {
      const { names, codes, words } = canvas.cells;
      const index = at(canvas, event);
      canvas.title = index < 0 ? "" : `${names[index]}: ${words[codes[index]]}`;
    });
    canvas.addEventListener("click", (event) => {
      const index = at(canvas, event);
      if (index >= 0) location = canvas.dataset.base + encodeURIComponent(canvas.cells.names[index]);
    });
    new ResizeObserver(() => draw(canvas)).observe(canvas.parentElement);
    new MutationObserver(() => draw(canvas)).observe(document.body, { attributeFilter: ["class"] });
  };

  // `names` come once, `codes` with each change: a letter of TONES for each name.
  window.showCells = (id, codes, names, words) => {
    const canvas = document.getElementById(id);
    if (!canvas) return;
    const isNew = !canvas.cells;
    canvas.cells = { ...canvas.cells, codes };
    if (names) Object.assign(canvas.cells, { names, words });
    if (isNew) begin(canvas);
    draw(canvas);
  };
})();
