// node web/bench/node.js [BUNDLE]: in node.
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import * as ort from "onnxruntime-web";

import { load } from "rillet";
import { compare } from "./compare.js";

const bundle = process.argv[2] ?? fileURLToPath(new URL("../../models/shakespeare-nano", import.meta.url));
console.log(JSON.stringify(await compare(ort, load, bundle, await readFile(`${bundle}/decode.onnx`))));
