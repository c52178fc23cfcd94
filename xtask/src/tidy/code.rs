//! Rust source with the parts blanked that a rule is not about. Blanks keep every line where it
//! was. This is a lexer for comments, strings and test modules, no more: rules look for words.

/// What stays besides code.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Code alone.
    Code,
    /// Code and the contents of strings.
    Strings,
}

/// The source without comments and without items that only tests compile.
pub fn shipped(text: &str, keep: Keep) -> String {
    let mut code = blank(text, Keep::Code);
    let mut kept = if keep == Keep::Strings { blank(text, keep) } else { code.clone() };
    // Positions agree in both, because blanks are as long as what they replace.
    while let Some(start) = code.find("#[cfg(test)]") {
        let end = item_end(&code, start);
        for blanked in [&mut code, &mut kept] {
            let blanks: String = blanked[start..end].chars().map(blank_char).collect();
            blanked.replace_range(start..end, &blanks);
        }
    }
    kept
}

/// Where `word` occurs as a whole word or path, as byte offsets.
pub fn occurrences<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let is_part = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
    let bytes = text.as_bytes();
    text.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let end = at + word.len();
        let joins_before = at > 0 && is_part(bytes.get(at - 1)) && is_part(bytes.get(at));
        let joins_after = is_part(bytes.get(end)) && is_part(bytes.get(end - 1));
        !joins_before && !joins_after
    })
}

/// The line of a byte offset, from 1.
pub fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset].iter().filter(|&&byte| byte == b'\n').count() + 1
}

fn blank_char(c: char) -> char {
    if c == '\n' { '\n' } else { ' ' }
}

/// The end of the item whose attribute starts at `start`: its closing brace or its semicolon.
fn item_end(code: &str, start: usize) -> usize {
    let mut depth = 0_usize;
    for (at, c) in code.char_indices().skip_while(|&(at, _)| at < start) {
        match c {
            '{' => depth += 1,
            '}' if depth <= 1 => return at + 1,
            '}' => depth -= 1,
            ';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    code.len()
}

/// Replaces comments, and strings unless kept, by blanks of the same length in bytes.
pub fn blank(text: &str, keep: Keep) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let (end, is_kept) = token(bytes, at, keep);
        let token = &bytes[at..end];
        if is_kept {
            out.extend_from_slice(token);
        } else {
            out.extend(token.iter().map(|&byte| if byte == b'\n' { b'\n' } else { b' ' }));
        }
        at = end;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The end of the token at `at`, and whether it stays.
fn token(bytes: &[u8], at: usize, keep: Keep) -> (usize, bool) {
    let rest = &bytes[at..];
    let after_word = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
    if rest.starts_with(b"//") {
        let length = rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len());
        return (at + length, false);
    }
    if rest.starts_with(b"/*") {
        return (at + block_comment(rest), false);
    }
    if rest[0] == b'"' {
        return (at + quoted(rest, b'"'), keep == Keep::Strings);
    }
    if rest[0] == b'r' && (!after_word || bytes[at - 1] == b'b' || bytes[at - 1] == b'c') {
        let hashes = rest[1..].iter().take_while(|&&byte| byte == b'#').count();
        if rest.get(1 + hashes) == Some(&b'"') {
            return (at + raw_string(rest, hashes), keep == Keep::Strings);
        }
    }
    if rest[0] == b'\'' {
        return (at + character(rest), keep == Keep::Strings);
    }
    (at + 1, true)
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (1_usize, 2);
    while at < rest.len() && depth > 0 {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
        } else {
            at += 1;
        }
    }
    at
}

fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

fn raw_string(rest: &[u8], hashes: usize) -> usize {
    let mut end = vec![b'"'];
    end.extend(std::iter::repeat_n(b'#', hashes));
    let body = hashes + 2;
    rest[body..]
        .windows(end.len())
        .position(|window| window == end)
        .map_or(rest.len(), |found| body + found + end.len())
}

/// The length of a character literal, or 1 where the quote starts a lifetime.
fn character(rest: &[u8]) -> usize {
    if rest.get(1) == Some(&b'\\') {
        return quoted(rest, b'\'');
    }
    let width = match rest.get(1) {
        Some(byte) if *byte >= 0xF0 => 4,
        Some(byte) if *byte >= 0xE0 => 3,
        Some(byte) if *byte >= 0xC0 => 2,
        _ => 1,
    };
    if rest.get(1 + width) == Some(&b'\'') { width + 2 } else { 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_strings_go_and_lines_stay() {
        let text = "a(); // tokio\n/* tokio /* x */ tokio */ b(\"tokio \\\" tokio\", r#\"tokio\"#);\n'\"'; c";
        let code = blank(text, Keep::Code);
        assert!(!code.contains("tokio"), "{code}");
        assert!(code.contains("a();") && code.contains("b(") && code.ends_with("c"), "{code}");
        assert_eq!(code.lines().count(), text.lines().count());
        assert_eq!(code.len(), text.len());
    }

    #[test]
    fn strings_stay_where_wanted() {
        let code = blank("x(\"blob/é\"); // blob/y", Keep::Strings);
        assert_eq!(code.trim_end(), "x(\"blob/é\");");
    }

    #[test]
    fn lifetimes_are_not_characters() {
        assert_eq!(
            blank("fn f<'a>(x: &'a str) -> 'é'", Keep::Code).trim_end(),
            "fn f< a>(x: & a str) ->"
        );
    }

    #[test]
    fn test_items_go_and_what_follows_stays() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests { fn b() { tokio(); } }\n#[cfg(test)]\nuse tokio;\nfn c() {}";
        let code = shipped(text, Keep::Code);
        assert!(!code.contains("tokio"), "{code}");
        assert!(code.contains("fn a()") && code.contains("fn c()"), "{code}");
        assert_eq!(line_of(&code, code.find("fn c").unwrap_or(0)), 6);
    }

    #[test]
    fn words_are_whole() {
        assert_eq!(
            occurrences("hyper hyper_util xhyper hyper::x", "hyper").collect::<Vec<_>>(),
            [0, 24]
        );
        assert_eq!(occurrences("a.await b.awaited", ".await").collect::<Vec<_>>(), [1]);
    }
}
