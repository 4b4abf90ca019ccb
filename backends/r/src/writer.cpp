// Answers as JSON: one array of a vector, or an array of arrays of a matrix's rows.
#include <charconv>
#include <cmath>
#include <cstring>

#include "entries.h"
#include "json.h"

namespace chips {

constexpr size_t longest_double = 32, longest_integer = 12;

static char *put(char *out, const char *text) {
  while (*text) *out++ = *text++;
  return out;
}

// The shortest text that reads back as the same double, laid out as R's sprintf("%.15g") would: 3.5, 1e+20, 1e-05.
static char *put_double(char *out, double value, bool whole) {
  if (!std::isfinite(value)) return put(out, "null");
  if (value == 0) return put(out, whole ? (std::signbit(value) ? "-0" : "0") : (std::signbit(value) ? "-0.0" : "0.0"));
  char text[32];
  char *end = std::to_chars(text, text + sizeof text - 1, value, std::chars_format::scientific).ptr;
  *end = 0;
  const char *p = text;
  if (*p == '-') *out++ = *p++;
  char digit[20];
  int count = 0;
  for (; *p != 'e'; ++p) {
    if (*p != '.') digit[count++] = *p;
  }
  int exponent = 0;
  std::from_chars(p + (p[1] == '+' ? 2 : 1), end, exponent);
  const int precision = count > 15 ? count : 15;
  if (exponent < -4 || exponent >= precision) {
    *out++ = digit[0];
    if (count > 1) *out++ = '.';
    for (int at = 1; at < count; ++at) *out++ = digit[at];
    return put(out, p);
  }
  if (exponent < 0) {
    out = put(out, "0.");
    for (int at = -1; at > exponent; --at) *out++ = '0';
  }
  for (int at = 0; at < count || at <= exponent; ++at) {
    if (at > 0 && at == exponent + 1) *out++ = '.';
    *out++ = at < count ? digit[at] : '0';
  }
  return count <= exponent + 1 && !whole ? put(out, ".0") : out;
}

static char *put_unit(char *out, unsigned unit) {
  static const char hex[] = "0123456789abcdef";
  out = put(out, "\\u");
  for (int shift = 12; shift >= 0; shift -= 4) *out++ = hex[unit >> shift & 15];
  return out;
}

// One character of valid UTF-8 that is not ASCII, as one or two escapes.
static char *put_escaped(char *out, const char **at) {
  const auto *p = reinterpret_cast<const unsigned char *>(*at);
  const int more = p[0] >= 0xF0 ? 3 : p[0] >= 0xE0 ? 2 : 1;
  unsigned code = p[0] & (0x3Fu >> more);
  for (int byte = 1; byte <= more; ++byte) code = code << 6 | (p[byte] & 0x3Fu);
  *at += more;
  if (code < 0x10000) return put_unit(out, code);
  return put_unit(put_unit(out, 0xD800 + ((code - 0x10000) >> 10)), 0xDC00 + ((code - 0x10000) & 0x3FF));
}

static char *put_string(char *out, SEXP text, bool ascii) {
  *out++ = '"';
  for (const char *p = CHAR(text); *p; ++p) {
    const auto byte = static_cast<unsigned char>(*p);
    if (byte < 0x20 || (ascii && byte == 0x7F)) {
      out = put_unit(out, byte);
    } else if (ascii && byte >= 0x80) {
      out = put_escaped(out, &p);
    } else {
      if (byte == '"' || byte == '\\') *out++ = '\\';
      *out++ = *p;
    }
  }
  *out++ = '"';
  return out;
}

static char *put_cell(char *out, SEXP values, R_xlen_t at, bool whole) {
  switch (TYPEOF(values)) {
    case REALSXP: return put_double(out, REAL(values)[at], whole);
    case LGLSXP: {
      const int value = LOGICAL(values)[at];
      return put(out, value == NA_LOGICAL ? "null" : value ? "true" : "false");
    }
    case INTSXP: {
      const int value = INTEGER(values)[at];
      return value == NA_INTEGER ? put(out, "null") : std::to_chars(out, out + longest_integer, value).ptr;
    }
    default: {
      SEXP text = STRING_ELT(values, at);
      return text == NA_STRING ? put(out, "null") : put_string(out, text, false);
    }
  }
}

static bool is_ascii(const char *bytes, size_t size) {
  for (size_t at = 0; at < size; ++at) {
    if (static_cast<unsigned char>(bytes[at]) >= 0x80) return false;
  }
  return true;
}

// Whether it can be written as it is: R's texts may be in other encodings, too.
static bool is_plain(SEXP text) {
  const auto length = static_cast<size_t>(LENGTH(text));
  if (is_ascii(CHAR(text), length)) return true;
  return Rf_getCharCE(text) == CE_UTF8 && is_utf8(CHAR(text), length);
}

// How many bytes the cells take at most; 0 where the R code is to write them.
static size_t most_bytes(SEXP values) {
  const auto count = static_cast<size_t>(Rf_xlength(values));
  switch (TYPEOF(values)) {
    case REALSXP: return 1 + count * longest_double;
    case LGLSXP:
    case INTSXP: return 1 + count * longest_integer;
    case STRSXP: break;
    default: return 0;
  }
  size_t size = 1;
  for (R_xlen_t at = 0; at < Rf_xlength(values); ++at) {
    SEXP text = STRING_ELT(values, at);
    if (!is_plain(text)) return 0;
    size += 6 * static_cast<size_t>(LENGTH(text)) + 8;
  }
  return size;
}

static SEXP write_array(SEXP values, bool whole) {
  SEXP dim = Rf_getAttrib(values, R_DimSymbol);
  const bool matrix = Rf_xlength(dim) == 2;
  const R_xlen_t rows = matrix ? INTEGER(dim)[0] : Rf_xlength(values), width = matrix ? INTEGER(dim)[1] : 1;
  size_t size = most_bytes(values);
  if (size == 0) return R_NilValue;
  size += static_cast<size_t>(rows) * 3 + static_cast<size_t>(Rf_xlength(values)) + 8;
  char *text = R_alloc(size, 1), *out = text;
  *out++ = '[';
  for (R_xlen_t row = 0; row < rows; ++row) {
    if (row > 0) *out++ = ',';
    if (matrix) *out++ = '[';
    for (R_xlen_t column = 0; column < width; ++column) {
      if (column > 0) *out++ = ',';
      out = put_cell(out, values, row + column * rows, whole);
    }
    if (matrix) *out++ = ']';
  }
  *out++ = ']';
  if (out - text > INT32_MAX) return R_NilValue;
  return Rf_ScalarString(Rf_mkCharLenCE(text, static_cast<int>(out - text), CE_UTF8));
}

// Each text by itself as a JSON string.
static SEXP quote(SEXP texts, bool ascii) {
  if (most_bytes(texts) == 0) return R_NilValue;
  const R_xlen_t count = Rf_xlength(texts);
  SEXP quoted = PROTECT(Rf_allocVector(STRSXP, count));
  for (R_xlen_t at = 0; at < count; ++at) {
    const void *before = vmaxget();
    SEXP text = STRING_ELT(texts, at);
    char *room = R_alloc(6 * static_cast<size_t>(LENGTH(text)) + 2, 1);
    const auto size = put_string(room, text, ascii) - room;
    if (size > INT32_MAX) Rf_error("a text is too long to be written as JSON");
    SET_STRING_ELT(quoted, at, Rf_mkCharLenCE(room, static_cast<int>(size), CE_UTF8));
    vmaxset(before);
  }
  UNPROTECT(1);
  return quoted;
}

}  // namespace chips

extern "C" SEXP chips_write_array(SEXP values, SEXP whole) { return chips::write_array(values, Rf_asLogical(whole) == TRUE); }
extern "C" SEXP chips_quote(SEXP texts, SEXP ascii) { return chips::quote(texts, Rf_asLogical(ascii) == TRUE); }
