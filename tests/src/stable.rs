//! What programs say, without what differs from run to run.

/// Replaces addresses, digests, trace identifiers, keys, epochs, sizes of what was compiled,
/// times, versions of the C library and this machine's target by their names. Everything else stays to the letter.
pub fn stable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut in_word = false;
    while let Some(first) = rest.chars().next() {
        let inside = in_word && first.is_ascii_alphanumeric();
        let found = if inside { None } else { PATTERNS.iter().find_map(|pattern| pattern(rest)) };
        let length = if let Some((length, name)) = found {
            out.push_str(name);
            length
        } else {
            out.push(first);
            first.len_utf8()
        };
        in_word = found.is_none() && first.is_ascii_alphanumeric();
        rest = &rest[length..];
    }
    out
}

/// How many bytes at the start of a text are replaced, and by what.
type Pattern = fn(&str) -> Option<(usize, &'static str)>;

const PATTERNS: [Pattern; 8] = [address, key, hexadecimal, epoch, size, libc, target, millis];

/// Length of the longest start whose characters all do.
fn run(text: &str, does: impl Fn(char) -> bool) -> usize {
    text.find(|c| !does(c)).unwrap_or(text.len())
}

fn digits(text: &str) -> usize {
    run(text, |c| c.is_ascii_digit())
}

fn address(text: &str) -> Option<(usize, &'static str)> {
    let host = "127.0.0.1:";
    let port = digits(text.strip_prefix(host)?);
    (port > 0).then_some((host.len() + port, "<address>"))
}

/// `+hash+base64`, as behind the name of a key (C2SP signed-note, "Verifier keys").
fn key(text: &str) -> Option<(usize, &'static str)> {
    let (hash, public) = text.strip_prefix('+')?.split_once('+')?;
    let is_hash = hash.len() == 8 && run(hash, |c| c.is_ascii_hexdigit()) == 8;
    let length = run(public, |c| c.is_ascii_alphanumeric() || "+/=".contains(c));
    (is_hash && length >= 40).then_some((10 + length, "+<hash>+<key>"))
}

fn hexadecimal(text: &str) -> Option<(usize, &'static str)> {
    match run(text, |c| c.is_ascii_alphanumeric()) {
        length @ (32 | 64) if run(text, |c| c.is_ascii_hexdigit()) == length => {
            Some((length, if length == 64 { "<digest>" } else { "<trace>" }))
        }
        _ => None,
    }
}

fn epoch(text: &str) -> Option<(usize, &'static str)> {
    if let Some(rest) = text.strip_prefix("epoch ") {
        let number = digits(rest);
        return (number > 0).then_some(("epoch ".len() + number, "epoch <n>"));
    }
    let rest = text.strip_prefix("from ")?;
    let first = digits(rest);
    let second = digits(rest[first..].strip_prefix(" to ")?);
    let is_range = first > 0 && second > 0;
    is_range.then_some(("from  to ".len() + first + second, "from <n> to <n>"))
}

fn size(text: &str) -> Option<(usize, &'static str)> {
    let number = run(text, |c| c.is_ascii_digit() || c == '.');
    let unit = [" KiB", " MiB"].iter().find(|unit| text[number..].starts_with(**unit))?;
    (number > 0).then_some((number + unit.len(), "<size>"))
}

fn libc(text: &str) -> Option<(usize, &'static str)> {
    let rest = text.strip_prefix("glibc ")?;
    let number = run(rest, |c| c.is_ascii_digit() || c == '.');
    (number > 0).then_some(("glibc ".len() + number, "glibc <floor>"))
}

/// Milliseconds since the epoch, from 2001 to 2286.
fn millis(text: &str) -> Option<(usize, &'static str)> {
    (digits(text) == 13).then_some((13, "<millis>"))
}

/// This machine's, as rustc names it.
fn target(text: &str) -> Option<(usize, &'static str)> {
    let system = "-unknown-linux-gnu";
    let rest = text.strip_prefix(std::env::consts::ARCH)?;
    rest.starts_with(system).then_some((text.len() - rest.len() + system.len(), "<target>"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_replaced() {
        let digest = "0a".repeat(32);
        let text = format!(
            "http://127.0.0.1:4711/blob/{digest} at epoch 12, 1.50 MiB (glibc 2.36), from 7 to 6\n\
             trace {}\nkey demo+0123abcd+{} in 127.0.0.1, 12 files, beef",
            &digest[..32],
            "A/b+".repeat(11)
        );
        assert_eq!(
            stable(&text),
            "http://<address>/blob/<digest> at epoch <n>, <size> (glibc <floor>), from <n> to <n>\n\
             trace <trace>\nkey demo+<hash>+<key> in 127.0.0.1, 12 files, beef"
        );
    }
}
