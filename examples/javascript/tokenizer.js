// Reads the tokenizer.json of a bundle: characters, bytes, or byte pairs (BPE).
"use strict";

const fs = require("fs");

/** The words that byte pairs never span, as GPT-2 cuts them. */
const WORDS =
  /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu;

/** The character that stands for each byte in a vocabulary of bytes: GPT-2's table. */
function byteAlphabet() {
  const printable = (byte) =>
    (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
  let spare = 256;
  return Array.from({ length: 256 }, (_, byte) =>
    String.fromCharCode(printable(byte) ? byte : spare++)
  );
}

class Tokenizer {
  constructor(file) {
    const { model, pre_tokenizer: before, decoder } = JSON.parse(fs.readFileSync(file, "utf8"));
    if (model.type !== "BPE" || (before && before.type !== "ByteLevel")) {
      throw new Error(`${file} is not a tokenizer of characters, bytes or byte pairs`);
    }
    this.vocab = new Map(Object.entries(model.vocab));
    const merges = (model.merges || []).map((pair) => (Array.isArray(pair) ? pair.join(" ") : pair));
    this.ranks = new Map(merges.map((pair, rank) => [pair, rank]));
    this.words = before && before.use_regex !== false ? WORDS : null;
    this.alphabet = before ? byteAlphabet() : null;
    this.bytes = this.tokenBytes(decoder && decoder.type === "ByteLevel");
  }

  /** The bytes of each token. A token may end inside a character. */
  tokenBytes(byteLevel) {
    const byteOf = new Map(byteAlphabet().map((symbol, byte) => [symbol, byte]));
    const bytes = [];
    for (const [text, token] of this.vocab) {
      bytes[token] = byteLevel
        ? Buffer.from(Array.from(text, (symbol) => byteOf.get(symbol)))
        : Buffer.from(text, "utf8");
    }
    return bytes;
  }

  /** Returns tokens, and the characters that have none: these are left out. */
  encode(text) {
    const tokens = [];
    const unknown = new Set();
    for (const word of this.words ? text.match(this.words) || [] : [text]) {
      const symbols = this.alphabet
        ? Array.from(Buffer.from(word, "utf8"), (byte) => this.alphabet[byte])
        : Array.from(word);
      for (const symbol of this.merge(symbols)) {
        if (this.vocab.has(symbol)) tokens.push(this.vocab.get(symbol));
        else unknown.add(symbol);
      }
    }
    return { tokens, unknown: [...unknown] };
  }

  /** Joins neighbours, the pair that was learnt first before all others. */
  merge(symbols) {
    while (this.ranks.size) {
      let best = -1;
      let least = Infinity;
      for (let i = 0; i + 1 < symbols.length; i++) {
        const rank = this.ranks.get(symbols[i] + " " + symbols[i + 1]) ?? Infinity;
        if (rank < least) [best, least] = [i, rank];
      }
      if (best < 0) break;
      symbols.splice(best, 2, symbols[best] + symbols[best + 1]);
    }
    return symbols;
  }

  /** Returns a function from each token in turn to the text that it completes, which may be "". */
  decoder() {
    const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });
    return (token) => utf8.decode(this.bytes[token], { stream: true });
  }
}

module.exports = { Tokenizer };
