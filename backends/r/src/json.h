// Strict JSON, read in one pass over the bytes of a request. Whatever is not plainly right ends the reading: the R code
// then reads the request once more, slowly, to say what is wrong and where. So nothing here writes an error message.
//
// Nothing in these files has a destructor: an error in R's own functions leaves C++ by longjmp.
#pragma once

#include <cstddef>
#include <cstdint>

#define R_NO_REMAP
#include <R.h>
#include <Rinternals.h>

namespace chips {

constexpr int most_names = 16;  // in an object that is only skipped; longer ones are the R code's to judge
constexpr int deepest = 64;  // of values that are only skipped; deeper ones are the R code's to judge

struct Text {
  const char *bytes;
  size_t size;
  bool ascii;
};

bool is_utf8(const char *bytes, size_t size);

// A place in the body. Each function moves it on, and answers whether what it is named after stood there.
struct Cursor {
  const char *at;
  const char *end;
  char *scratch;  // room for one unescaped string, once one needs it
  size_t room;

  void skip_space() {
    while (at < end && (*at == ' ' || *at == '\n' || *at == '\t' || *at == '\r')) ++at;
  }
  // The next byte that is no white space; 0 at the end.
  char next() {
    skip_space();
    return at < end ? *at : 0;
  }
  bool take(char wanted) {
    if (next() != wanted) return false;
    ++at;
    return true;
  }
  bool word(const char *text, size_t size);
  bool null() { return next() == 'n' && word("null", 4); }
  bool number(double *value, bool *integer);
  // Valid until the next call.
  bool string(Text *text);
  bool skip(int depth = 0);

 private:
  bool unescape(const char *from, Text *text);
  bool is_fresh_name(Text *names, int *count);
  bool skip_members(char close, bool named, int depth);
};

}  // namespace chips
