/** Heat values to colours, as service/heatmap.py does it: cold places stay clear, half heat is in full colour. */

// The anchors of service/colormaps.py, joined by straight lines.
const ANCHORS = {
  turbo:
    "30123b 4040a2 466be3 4294ff 28bceb 18ddc2 32f298 6dfe62 a4fc3c " +
    "cdec34 eecf3a fdac34 fb7e21 eb500e d02f05 a91601 7a0403",
  inferno:
    "000004 0b0724 210c4a 3d0965 57106e 71196e 8a226a a32c61 bc3754 " +
    "d24644 e45a31 f1731d f98e09 fcac11 f9cb35 f2ea69 fcffa4",
  viridis:
    "440154 48186a 472d7b 424086 3b528b 33638d 2c728e 26828e 21918c " +
    "1fa088 28ae80 3fbc73 5ec962 84d44b addc30 d8e219 fde725",
};
const LONGEST_SIDE = 1024; // pixels of the painted layer; the browser scales it on

/** 256 colours from cold to hot, as [r, g, b]. */
export function colorTable(name) {
  const toColor = (hex) => [0, 2, 4].map((at) => Number.parseInt(hex.slice(at, at + 2), 16));
  const anchors = ANCHORS[name].split(" ").map(toColor);
  return Array.from({ length: 256 }, (_, index) => {
    const position = (index / 255) * (anchors.length - 1);
    const low = Math.min(Math.floor(position), anchors.length - 2);
    const share = position - low;
    return anchors[low].map((value, channel) => Math.round(value * (1 - share) + anchors[low + 1][channel] * share));
  });
}

/**
 * Paint a layer of GET /heatmap?format=json on a canvas that covers exactly its cells.
 * Values are interpolated between the centres of cells, before they become colours.
 */
export function paintHeat({ values, top }, table) {
  const rows = values.length;
  const columns = values[0].length;
  const perCell = Math.max(1, Math.min(16, Math.floor(LONGEST_SIDE / Math.max(rows, columns))));
  const canvas = document.createElement("canvas");
  canvas.width = columns * perCell;
  canvas.height = rows * perCell;
  const across = neighbours(canvas.width, columns, perCell);
  const down = neighbours(canvas.height, rows, perCell);
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  let at = 0;
  for (const vertical of down) {
    const upper = values[vertical.first];
    const lower = values[vertical.second];
    for (const horizontal of across) {
      const above = mix(upper[horizontal.first], upper[horizontal.second], horizontal.share);
      const below = mix(lower[horizontal.first], lower[horizontal.second], horizontal.share);
      const heat = Math.max(0, Math.min(1, mix(above, below, vertical.share) / top));
      image.data.set(table[Math.round(heat * 255)], at);
      image.data[at + 3] = 255 * Math.min(1, 2 * heat);
      at += 4;
    }
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

/** For each pixel the two cells whose centres it lies between, and how near it is to the second one. */
function neighbours(pixels, cells, perCell) {
  return Array.from({ length: pixels }, (_, pixel) => {
    const position = Math.max(0, Math.min(cells - 1, (pixel + 0.5) / perCell - 0.5));
    const first = Math.floor(position);
    return { first, second: Math.min(first + 1, cells - 1), share: position - first };
  });
}

function mix(first, second, share) {
  return first + (second - first) * share;
}

/** Draw a painted layer where its cells lie on the picture; `affine` is that of the answer, without rotation. */
export function drawHeat(context, { canvas, affine, columns, rows }, picture, opacity) {
  const [a, , c, , e, f] = affine;
  context.save();
  context.beginPath();
  context.rect(0, 0, picture.width, picture.height); // the last cells may reach beyond the picture
  context.clip();
  context.globalAlpha = opacity;
  context.imageSmoothingEnabled = true;
  context.imageSmoothingQuality = "high";
  context.drawImage(canvas, c, f, a * columns, e * rows);
  context.restore();
}

/** Fill the heat bar, one pixel for each colour. */
export function paintBar(canvas, table) {
  const context = canvas.getContext("2d");
  const image = context.createImageData(256, 1);
  table.forEach((color, index) => image.data.set([...color, 255], index * 4));
  context.putImageData(image, 0, 0);
}
