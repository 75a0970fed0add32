// Config and summary documents as rows of a table: nested names joined by dots, values as text.
//
// A document holds what JSON can, and typed markers for what it cannot (section 1 of docs/http-api.md). Text is all that
// leaves here, so a value that looks like markup is shown as what was logged.

import { compareNames } from "./groups";
import { formatValue } from "./numbers";

export type Json = null | boolean | number | string | readonly Json[] | { readonly [name: string]: Json };

export interface DocumentRow {
  readonly name: string;
  readonly text: string;
  /** The value in full, for the tooltip; the text may be rounded. */
  readonly exact: string;
}

export function documentRows(document: { readonly [name: string]: Json }): DocumentRow[] {
  return flatten("", document).toSorted((a, b) => compareNames(a.name, b.name));
}

function flatten(prefix: string, document: { readonly [name: string]: Json }): DocumentRow[] {
  return Object.entries(document).flatMap(([key, value]) => {
    const name = prefix === "" ? key : `${prefix}.${key}`;
    if (isObject(value) && typeof value["_type"] !== "string" && Object.keys(value).length > 0) return flatten(name, value);
    return [{ name, text: valueText(value), exact: exactText(value) }];
  });
}

function isObject(value: Json): value is { readonly [name: string]: Json } {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A value in a table cell: numbers rounded, markers resolved, the rest as JSON. */
export function valueText(value: Json | undefined): string {
  if (value === undefined) return "–";
  if (typeof value === "number") return formatValue(value);
  if (typeof value === "string") return value;
  if (isObject(value) && value["_type"] === "float") return formatValue(Number(value["value"]));
  if (isObject(value) && value["_type"] === "bytes") return `${base64Bytes(String(value["value"] ?? ""))} bytes`;
  if (isObject(value) && typeof value["_type"] === "string") return value["_type"];
  return JSON.stringify(value);
}

function exactText(value: Json): string {
  return typeof value === "string" ? value : JSON.stringify(value);
}

function base64Bytes(base64: string): number {
  const padding = base64.endsWith("==") ? 2 : base64.endsWith("=") ? 1 : 0;
  return Math.max(0, (base64.length / 4) * 3 - padding);
}

/** A summary value as a number to sort by; null for what has none. */
export function sortableNumber(value: Json | undefined): number | null {
  if (typeof value === "number") return value;
  if (value !== undefined && isObject(value) && value["_type"] === "float") return Number(value["value"]);
  return null;
}
