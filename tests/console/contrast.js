// Every visible text whose colour has less than 4.5:1 (3:1 where large) to the colour behind it.
const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
const rgba = (colour) => {
  canvas.clearRect(0, 0, 1, 1);
  canvas.fillStyle = colour;
  canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data];
};
const over = ([r, g, b, a], [x, y, z]) => [r, g, b].map((one, at) => (one * a + [x, y, z][at] * (255 - a)) / 255);
const behind = (node) => {
  const layers = [];
  for (let one = node; one; one = one.parentElement) layers.unshift(rgba(getComputedStyle(one).backgroundColor));
  return layers.reduce((below, layer) => over(layer, below), [255, 255, 255]);
};
const light = (colour) => {
  const [r, g, b] = colour.map((one) => (one / 255 <= 0.04045 ? one / 255 / 12.92 : ((one / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const found = [];
for (const node of document.querySelectorAll("body *")) {
  const text = [...node.childNodes].filter((one) => one.nodeType === 3).map((one) => one.data.trim()).join("");
  if (!text || node.disabled || !node.checkVisibility({ opacityProperty: true }) || node.closest(".off, .skip")) continue;
  const style = getComputedStyle(node);
  const ground = behind(node);
  const colour = rgba(style.color);
  colour[3] *= Number(style.opacity);
  const [one, other] = [light(over(colour, ground)), light(ground)].sort((a, b) => b - a);
  const ratio = (one + 0.05) / (other + 0.05);
  const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && style.fontWeight >= 700);
  if (ratio < (large ? 3 : 4.5)) found.push(`${ratio.toFixed(2)} ${node.localName}.${node.className}: ${text.slice(0, 40)}`);
}
return found;
