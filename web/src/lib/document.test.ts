import { expect, it } from "vitest";
import { documentRows, sortableNumber, valueText } from "./document";

it("flattens nested names with dots, in the order people count", () => {
  const rows = documentRows({ model: { "layer10": 1, "layer2": 2 }, batch: 256, tags: ["a", "b"], nothing: {} });

  expect(rows.map(({ name, text }) => [name, text])).toEqual([
    ["batch", "256"],
    ["model.layer2", "2"],
    ["model.layer10", "1"],
    ["nothing", "{}"],
    ["tags", '["a","b"]'],
  ]);
});

it.each([
  [{ _type: "float", value: "NaN" }, "NaN"],
  [{ _type: "float", value: "-Infinity" }, "−∞"],
  [{ _type: "bytes", value: "aGVsbG8=" }, "5 bytes"],
  [{ _type: "histogram" }, "histogram"],
  ["<b>bold</b>", "<b>bold</b>"],
  [null, "null"],
  [true, "true"],
  [0.1 + 0.2, "0.3"],
])("shows %j as %s", (value, text) => {
  expect(valueText(value)).toBe(text);
});

it("keeps the exact value beside the rounded one", () => {
  expect(documentRows({ lr: 0.123456789 })).toEqual([{ name: "lr", text: "0.12346", exact: "0.123456789" }]);
});

it("sorts by numbers and by nothing else", () => {
  expect([3, { _type: "float", value: "Infinity" }, "3", null, undefined].map(sortableNumber)).toEqual([3, Number.POSITIVE_INFINITY, null, null, null]);
});
