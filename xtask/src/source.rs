//! A Rust file, read just well enough to hold the house rules: comments and literals are blanked,
//! the rest is cut into tokens, and the parts that only tests compile are known.
//!
//! It is not a parser. It needs no more than brackets that match, which any file that compiles has.

/// One word or one punctuation character of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    pub(crate) text: &'a str,
    /// Counted from 1.
    pub(crate) line: usize,
    /// Byte offset in the file.
    pub(crate) at: usize,
}

/// Replaces the inside of every comment and literal by spaces. Lines and offsets stay as they were.
pub(crate) fn blank(text: &str) -> String {
    let mut blanker = Blanker { bytes: text.as_bytes(), out: text.as_bytes().to_vec(), at: 0 };
    while blanker.at < blanker.bytes.len() {
        blanker.step();
    }
    // Only whole literals and comments were overwritten, so no character was cut in half; a lossy
    // conversion says so without a panic for files that are not valid Rust.
    String::from_utf8_lossy(&blanker.out).into_owned()
}

struct Blanker<'a> {
    bytes: &'a [u8],
    out: Vec<u8>,
    at: usize,
}

impl Blanker<'_> {
    fn peek(&self, ahead: usize) -> u8 {
        self.bytes.get(self.at + ahead).copied().unwrap_or(0)
    }

    /// Overwrites everything from the current offset up to `end`, and goes on there.
    fn erase_to(&mut self, end: usize) {
        let end = end.min(self.bytes.len());
        for byte in &mut self.out[self.at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        self.at = end;
    }

    fn step(&mut self) {
        match (self.peek(0), self.peek(1)) {
            (b'/', b'/') => {
                let line = self.bytes[self.at..].iter().position(|b| *b == b'\n');
                self.erase_to(line.map_or(self.bytes.len(), |n| self.at + n));
            }
            (b'/', b'*') => self.erase_to(self.block_comment_end()),
            (b'"', _) => self.erase_to(self.string_end(self.at + 1)),
            (b'\'', _) => self.quote(),
            (first, _) if is_word(first) => self.word(),
            _ => self.at += 1,
        }
    }

    fn block_comment_end(&self) -> usize {
        let mut depth = 0_usize;
        let mut at = self.at;
        while at < self.bytes.len() {
            match self.bytes.get(at..at + 2) {
                Some(b"/*") => {
                    depth += 1;
                    at += 2;
                }
                Some(b"*/") => {
                    depth -= 1;
                    at += 2;
                    if depth == 0 {
                        return at;
                    }
                }
                _ => at += 1,
            }
        }
        at
    }

    /// `at` is just behind the opening quote.
    fn string_end(&self, mut at: usize) -> usize {
        while at < self.bytes.len() {
            match self.bytes[at] {
                b'\\' => at += 2,
                b'"' => return at + 1,
                _ => at += 1,
            }
        }
        at
    }

    /// A character literal (`'x'`, `'\n'`, `'é'`) or a lifetime (`'a`).
    fn quote(&mut self) {
        if self.peek(1) == b'\\' {
            let close = self.bytes[self.at + 3..].iter().position(|b| *b == b'\'');
            self.erase_to(close.map_or(self.bytes.len(), |n| self.at + 3 + n + 1));
            return;
        }
        let width = match self.peek(1) {
            0..=0x7f => 1,
            0x80..=0xdf => 2,
            0xe0..=0xef => 3,
            _ => 4,
        };
        if self.peek(1 + width) == b'\'' {
            self.erase_to(self.at + width + 2);
        } else {
            self.at += 1;
        }
    }

    /// A word, which may turn out to be the prefix of a literal: `b"…"`, `r#"…"#`, `br"…"`, `c"…"`.
    fn word(&mut self) {
        let start = self.at;
        while is_word(self.peek(0)) {
            self.at += 1;
        }
        match &self.bytes[start..self.at] {
            b"r" | b"br" | b"cr" => {
                let hashes = self.bytes[self.at..].iter().take_while(|b| **b == b'#').count();
                if self.peek(hashes) == b'"' {
                    let mut close = vec![b'"'];
                    close.resize(1 + hashes, b'#');
                    let body = self.at + hashes + 1;
                    let end = self.bytes[body..].windows(close.len()).position(|w| w == close);
                    self.erase_to(end.map_or(self.bytes.len(), |n| body + n + close.len()));
                }
            }
            b"b" | b"c" if self.peek(0) == b'"' => self.erase_to(self.string_end(self.at + 1)),
            b"b" if self.peek(0) == b'\'' => self.quote(),
            _ => {}
        }
    }
}

fn is_word(byte: u8) -> bool {
    byte == b'_' || byte.is_ascii_alphanumeric() || byte >= 0x80
}

/// Cuts blanked text into tokens.
pub(crate) fn tokens(blanked: &str) -> Vec<Token<'_>> {
    let bytes = blanked.as_bytes();
    let mut found = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < bytes.len() {
        let start = at;
        while at < bytes.len() && is_word(bytes[at]) {
            at += 1;
        }
        if at > start {
            found.push(Token { text: &blanked[start..at], line, at: start });
            continue;
        }
        if bytes[at] == b'\n' {
            line += 1;
        } else if !bytes[at].is_ascii_whitespace() {
            found.push(Token { text: &blanked[at..=at], line, at });
        }
        at += 1;
    }
    found
}

/// The index of the bracket that closes the one at `open` (or of the last token).
pub(crate) fn closing(tokens: &[Token<'_>], open: usize) -> usize {
    let mut depth = 0_usize;
    for (index, token) in tokens.iter().enumerate().skip(open) {
        match token.text {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return index;
                }
            }
            _ => {}
        }
    }
    tokens.len().saturating_sub(1)
}

/// The end of the item that starts at `start`: its closing brace, or its semicolon.
pub(crate) fn item_end(tokens: &[Token<'_>], start: usize) -> usize {
    let mut index = start;
    while index < tokens.len() {
        match tokens[index].text {
            ";" => return index,
            "{" => return closing(tokens, index),
            "(" | "[" => index = closing(tokens, index) + 1,
            _ => index += 1,
        }
    }
    tokens.len().saturating_sub(1)
}

/// Whether the tokens at `index` are `texts`, in a row.
pub(crate) fn matches(tokens: &[Token<'_>], index: usize, texts: &[&str]) -> bool {
    texts.iter().enumerate().all(|(n, text)| tokens.get(index + n).is_some_and(|t| t.text == *text))
}

const CFG_TEST: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];

/// Token ranges that only tests compile: what stands under `#[cfg(test)]` or `#[test]`.
pub(crate) fn test_spans(tokens: &[Token<'_>]) -> Vec<std::ops::RangeInclusive<usize>> {
    let mut spans = Vec::new();
    let mut index = 0;
    while index < tokens.len() {
        let cfg = matches(tokens, index, &CFG_TEST);
        if cfg || matches(tokens, index, &["#", "[", "test", "]"]) {
            let mut item = index + if cfg { CFG_TEST.len() } else { 4 };
            while matches(tokens, item, &["#", "["]) {
                item = closing(tokens, item + 1) + 1;
            }
            let end = item_end(tokens, item);
            spans.push(index..=end);
            index = end;
        }
        index += 1;
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        tokens(&blank(text)).iter().map(|t| t.text.to_owned()).collect()
    }

    #[test]
    fn comments_and_literals_are_blank() {
        assert_eq!(words("a // todo!()\nb"), ["a", "b"]);
        assert_eq!(words("a /* x /* y */ z */ b"), ["a", "b"]);
        assert_eq!(words(r#"a "todo!(\" { " b"#), ["a", "b"]);
        assert_eq!(words("a r#\"x \" {\"# b"), ["a", "r", "b"]);
        assert_eq!(words("a br\"{\" b\"}\" c"), ["a", "br", "b", "c"]);
    }

    #[test]
    fn characters_are_literals_and_lifetimes_are_not() {
        assert_eq!(words(r"a '{' '\'' '\u{7d}' b'}' 'é' b"), ["a", "b", "b"]);
        assert_eq!(
            words("fn f<'a>(x: &'a str) {}").join(" "),
            "fn f < ' a > ( x : & ' a str ) { }"
        );
    }

    #[test]
    fn lines_are_counted_through_literals() {
        let blanked = blank("a \"x\ny\" \n b");
        let found = tokens(&blanked);
        assert_eq!(found.last().map(|t| (t.text, t.line)), Some(("b", 3)));
    }

    #[test]
    fn test_spans_end_with_their_item() {
        let blanked = blank(
            "fn a() {}\n#[cfg(test)]\n#[rustfmt::skip]\nmod t { fn b() {} }\nfn c() {}\n#[cfg(test)]\nmod u;\nfn d() {}",
        );
        let found = tokens(&blanked);
        let spans = test_spans(&found);
        let outside: Vec<_> = (0..found.len())
            .filter(|n| !spans.iter().any(|s| s.contains(n)))
            .map(|n| found[n].text)
            .filter(|t| t.len() == 1 && t.chars().all(char::is_alphabetic))
            .collect();
        assert_eq!(outside, ["a", "c", "d"]);
    }
}
