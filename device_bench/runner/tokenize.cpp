// Reads texts as JSON strings, one a line, and writes what a tokenizer makes of each:
//
//   tokenize TOKENIZER.json UNICODE.txt < texts.jsonl > ids.jsonl
//
// A line of results has `ids`, and `text`, which the ids give back where the tokenizer can.
#include <cstdio>
#include <exception>
#include <iostream>
#include <string>

#include "json.h"
#include "tokenizers.h"
#include "unicode.h"

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fputs("usage: tokenize TOKENIZER.json UNICODE.txt < texts.jsonl > ids.jsonl\n", stderr);
    return 2;
  }
  try {
    const atom::Unicode unicode(argv[2]);
    const auto tokenizer = atom::Tokenizer::read(argv[1], unicode);
    std::string line;
    while (std::getline(std::cin, line)) {
      const auto ids = tokenizer->encode(atom::Json::parse(line).string());
      atom::JsonLine result("text");
      result.add("ids", ids);
      if (tokenizer->writes()) {
        result.add("text", tokenizer->decode(ids));
      }
      std::cout << result.text();
    }
    return std::cout.flush() ? 0 : 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
}
