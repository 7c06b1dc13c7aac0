// What the module makes of a request, as JSON, for tests in Python: node say.js < REQUEST
import { readFileSync } from "node:fs";

import { load } from "rillet";

const { bundle, simd, state, learn, text, options, resume, save, score } = JSON.parse(
  readFileSync(0, "utf8")
);
const model = await load(bundle, { simd, onNote: () => {} });
const session = state ? model.restore(Buffer.from(state, "base64")) : model.session();
if (learn) await session.learn(learn);
if (text) await session.feed(text);
const answer = {};
if (score) {
  const { logprobs, ...rest } = await session.score(score);
  answer.score = { ...rest, logprobs: [...logprobs] };
}
if (options || resume) {
  answer.text = "";
  const pieces = resume ? session.resume(resume) : session.stream(options);
  for await (const piece of pieces) {
    answer.text += piece;
    if (answer.text.length === save) break;
  }
}
if (save !== undefined) answer.state = Buffer.from(session.save()).toString("base64");
console.log(JSON.stringify(answer));
