/** docs/protocol.md is what both halves are written from; the tables of it are compared here. */

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { before, it } from "node:test";

import * as protocol from "../../app/chat/static/chat/protocol.js";

let tables;

before(async () => {
  const text = await readFile(new URL("../../docs/protocol.md", import.meta.url), "utf8");
  tables = new Map();
  let rows = null;
  for (const line of text.split("\n")) {
    const cells = line.split("|").map((cell) => cell.trim().replaceAll("`", ""));
    if (cells.length < 4) {
      rows = null;
    } else if (rows === null) {
      // Two tables have the heading "type": the room's comes first.
      const heading = tables.has(cells[1]) ? `${cells[1]}, second` : cells[1];
      rows = [];
      tables.set(heading, rows);
    } else if (!cells[1].startsWith("---")) {
      rows.push(cells.slice(1));
    }
  }
});

/** The names in a table's first column. */
function names(heading) {
  assert.ok(tables.get(heading)?.length > 0, `docs/protocol.md has no table "${heading}"`);
  return tables.get(heading).flatMap(([name]) => name.split(", ")).sort();
}

it("has the document's actions and frames", () => {
  assert.deepEqual(Object.values(protocol.Action).sort(), names("action"));
  assert.deepEqual(Object.values(protocol.FrameType).sort(), names("type"));
  assert.deepEqual(Object.values(protocol.NotificationType).sort(), names("type, second"));
});

it("has errors that the document has", () => {
  for (const code of Object.values(protocol.ErrorCode)) {
    assert.ok(names("error code").includes(code), code);
  }
});

it("stops on the document's final close codes", () => {
  const final = tables.get("close code").filter(([, , then]) => then.startsWith("stops"));
  assert.deepEqual(
    [...protocol.FINAL_CLOSE_CODES.keys()].sort(),
    final.map(([code]) => Number(code)).sort(),
  );
});
