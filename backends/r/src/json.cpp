#include "json.h"

#include <charconv>
#include <cstring>

namespace chips {

// RFC 3629, section 4.
static size_t sequence(const unsigned char *p, size_t left) {
  auto more = [&](size_t at, unsigned char low, unsigned char high) { return p[at] >= low && p[at] <= high; };
  if (p[0] >= 0xC2 && p[0] <= 0xDF) return left > 1 && more(1, 0x80, 0xBF) ? 2 : 0;
  if (p[0] >= 0xE0 && p[0] <= 0xEF) {
    const unsigned char low = p[0] == 0xE0 ? 0xA0 : 0x80, high = p[0] == 0xED ? 0x9F : 0xBF;
    return left > 2 && more(1, low, high) && more(2, 0x80, 0xBF) ? 3 : 0;
  }
  if (p[0] >= 0xF0 && p[0] <= 0xF4) {
    const unsigned char low = p[0] == 0xF0 ? 0x90 : 0x80, high = p[0] == 0xF4 ? 0x8F : 0xBF;
    return left > 3 && more(1, low, high) && more(2, 0x80, 0xBF) && more(3, 0x80, 0xBF) ? 4 : 0;
  }
  return 0;
}

bool is_utf8(const char *bytes, size_t size) {
  const auto *p = reinterpret_cast<const unsigned char *>(bytes), *end = p + size;
  while (p < end) {
    uint64_t eight;
    while (end - p >= 8 && (std::memcpy(&eight, p, 8), (eight & 0x8080808080808080u) == 0)) p += 8;
    if (p == end) break;
    if (*p < 0x80) {
      ++p;
      continue;
    }
    const size_t length = sequence(p, static_cast<size_t>(end - p));
    if (length == 0) return false;
    p += length;
  }
  return true;
}

bool Cursor::word(const char *text, size_t size) {
  if (static_cast<size_t>(end - at) < size || std::memcmp(at, text, size) != 0) return false;
  at += size;
  return true;
}

static bool digits(const char **at, const char *end) {
  const char *from = *at;
  while (*at < end && **at >= '0' && **at <= '9') ++*at;
  return *at > from;
}

// RFC 8259, section 6. A number beyond the largest double is refused, and left to the R code, as is one that is nearly 0.
bool Cursor::number(double *value, bool *integer) {
  skip_space();
  const char *from = at, *p = at;
  if (p < end && *p == '-') ++p;
  const char *first = p;
  if (!digits(&p, end) || (*first == '0' && p - first > 1)) return false;
  *integer = true;
  if (p < end && *p == '.') {
    ++p;
    *integer = false;
    if (!digits(&p, end)) return false;
  }
  if (p < end && (*p == 'e' || *p == 'E')) {
    ++p;
    *integer = false;
    if (p < end && (*p == '+' || *p == '-')) ++p;
    if (!digits(&p, end)) return false;
  }
  const auto read = std::from_chars(from, p, *value);
  if (read.ec != std::errc() || read.ptr != p) return false;
  if (*integer && *value == 0) *value = 0;  // an integer has no sign at zero
  at = p;
  return true;
}

bool Cursor::string(Text *text) {
  if (!take('"')) return false;
  const char *from = at;
  unsigned char seen = 0;
  for (; at < end; ++at) {
    const auto byte = static_cast<unsigned char>(*at);
    if (byte == '"') {
      *text = {from, static_cast<size_t>(at - from), seen < 0x80};
      ++at;
      return true;
    }
    if (byte == '\\') return unescape(from, text);
    if (byte < 0x20) return false;
    seen |= byte;
  }
  return false;
}

static bool hex(const char *at, const char *end, unsigned *value) {
  if (end - at < 4) return false;
  const auto read = std::from_chars(at, at + 4, *value, 16);
  return read.ec == std::errc() && read.ptr == at + 4;
}

static char *encode(unsigned code, char *out) {
  if (code < 0x80) {
    *out++ = static_cast<char>(code);
  } else if (code < 0x800) {
    *out++ = static_cast<char>(0xC0 | code >> 6);
    *out++ = static_cast<char>(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    *out++ = static_cast<char>(0xE0 | code >> 12);
    *out++ = static_cast<char>(0x80 | (code >> 6 & 0x3F));
    *out++ = static_cast<char>(0x80 | (code & 0x3F));
  } else {
    *out++ = static_cast<char>(0xF0 | code >> 18);
    *out++ = static_cast<char>(0x80 | (code >> 12 & 0x3F));
    *out++ = static_cast<char>(0x80 | (code >> 6 & 0x3F));
    *out++ = static_cast<char>(0x80 | (code & 0x3F));
  }
  return out;
}

// The character that follows `\u`: one or two units of UTF-16. Half of a pair, and U+0000, which R cannot hold, are refused.
static bool escaped_unit(const char **at, const char *end, unsigned *code) {
  if (!hex(*at, end, code) || *code == 0 || (*code >= 0xDC00 && *code <= 0xDFFF)) return false;
  *at += 4;
  if (*code < 0xD800 || *code > 0xDBFF) return true;
  unsigned low;
  if (end - *at < 6 || (*at)[0] != '\\' || (*at)[1] != 'u' || !hex(*at + 2, end, &low)) return false;
  if (low < 0xDC00 || low > 0xDFFF) return false;
  *code = 0x10000 + ((*code - 0xD800) << 10) + (low - 0xDC00);
  *at += 6;
  return true;
}

bool Cursor::unescape(const char *from, Text *text) {
  if (scratch == nullptr) scratch = R_alloc(room, 1);  // no string is longer than the body
  const size_t plain = static_cast<size_t>(at - from);
  std::memcpy(scratch, from, plain);
  char *out = scratch + plain;
  while (at < end) {
    const auto byte = static_cast<unsigned char>(*at++);
    if (byte == '"') {
      bool ascii = true;
      for (const char *p = scratch; p < out; ++p) ascii = ascii && static_cast<unsigned char>(*p) < 0x80;
      *text = {scratch, static_cast<size_t>(out - scratch), ascii};
      return true;
    }
    if (byte < 0x20) return false;
    if (byte != '\\') {
      *out++ = static_cast<char>(byte);
      continue;
    }
    if (at == end) return false;
    const char kind = *at++;
    if (kind == 'u') {
      unsigned code;
      if (!escaped_unit(&at, end, &code)) return false;
      out = encode(code, out);
      continue;
    }
    static const char named[] = "\"\\/bfnrt", meaning[] = "\"\\/\b\f\n\r\t";
    const char *found = static_cast<const char *>(std::memchr(named, kind, 8));
    if (found == nullptr) return false;
    *out++ = meaning[found - named];
  }
  return false;
}

// Of names only a few, and none with an escape, whose text would not outlive the next one's.
bool Cursor::is_fresh_name(Text *names, int *count) {
  Text name;
  if (!string(&name) || name.bytes == scratch || *count == most_names || !take(':')) return false;
  for (int each = 0; each < *count; ++each) {
    if (names[each].size == name.size && std::memcmp(names[each].bytes, name.bytes, name.size) == 0) return false;
  }
  names[(*count)++] = name;
  return true;
}

bool Cursor::skip_members(char close, bool named, int depth) {
  Text names[most_names];
  int count = 0;
  ++at;
  if (take(close)) return true;
  do {
    if ((named && !is_fresh_name(names, &count)) || !skip(depth + 1)) return false;
  } while (take(','));
  return take(close);
}

bool Cursor::skip(int depth) {
  if (depth > deepest) return false;
  Text text;
  double value;
  bool integer;
  switch (next()) {
    case '{': return skip_members('}', true, depth);
    case '[': return skip_members(']', false, depth);
    case '"': return string(&text);
    case 't': return word("true", 4);
    case 'f': return word("false", 5);
    case 'n': return word("null", 4);
    default: return number(&value, &integer);
  }
}

}  // namespace chips
