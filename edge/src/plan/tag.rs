//! Entity tags and the lists of them that conditions carry (RFC 9110, sections 8.8.3 and 13.1).

use std::fmt;

use modunest_core::digest::Digest;

/// The strong validator of a representation: the SHA-256 of its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntityTag(Digest);

impl EntityTag {
    /// The tag of bytes with this digest.
    pub const fn new(digest: Digest) -> Self {
        EntityTag(digest)
    }

    /// The tag of these bytes.
    pub fn of(content: &[u8]) -> Self {
        EntityTag(Digest::of(content))
    }

    /// Whether a field of the form of `If-None-Match` names it. Weak comparison: a `W/`
    /// before a tag makes no difference (section 8.8.3.2).
    pub fn listed_weakly(&self, field: &str) -> bool {
        is_any(field) || Tags(field).any(|tag| tag.names(self))
    }

    /// Whether a field of the form of `If-Match` names it. Strong comparison: a weak tag
    /// matches nothing.
    pub fn listed_strongly(&self, field: &str) -> bool {
        is_any(field) || Tags(field).any(|tag| !tag.weak && tag.names(self))
    }

    /// Whether an `If-Range` field is this tag, by strong comparison (section 13.1.5). A date
    /// never is: without a modification date, no date is a strong validator.
    pub fn is_range_validator(&self, field: &str) -> bool {
        let mut tags = Tags(field);
        let first = tags.next();
        first.is_some_and(|tag| !tag.weak && tag.names(self)) && tags.0.trim().is_empty()
    }
}

/// The `ETag` field.
impl fmt::Display for EntityTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0)
    }
}

fn is_any(field: &str) -> bool {
    field.trim() == "*"
}

struct Tag<'a> {
    weak: bool,
    opaque: &'a str,
}

impl Tag<'_> {
    /// Digests have one spelling, so parsing compares the text without building it.
    fn names(&self, tag: &EntityTag) -> bool {
        self.opaque.parse() == Ok(tag.0)
    }
}

/// The tags of a list, up to the first thing that is not one. An opaque tag may hold commas.
struct Tags<'a>(&'a str);

impl<'a> Iterator for Tags<'a> {
    type Item = Tag<'a>;

    fn next(&mut self) -> Option<Tag<'a>> {
        let text = self.0.trim_start_matches([' ', '\t', ',']);
        let (weak, text) = match text.strip_prefix("W/") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let Some((opaque, rest)) = text.strip_prefix('"').and_then(|text| text.split_once('"'))
        else {
            self.0 = "";
            return None;
        };
        self.0 = rest;
        Some(Tag { weak, opaque })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_comparisons() {
        let tag = EntityTag::of(b"x");
        let strong = tag.to_string();
        let upper = strong.to_uppercase();
        let weak = format!("W/{strong}");
        // The field, whether it names the tag weakly, and whether strongly.
        let cases = [
            (strong.clone(), true, true),
            (weak.clone(), true, false),
            ("*".to_owned(), true, true),
            (" * ".to_owned(), true, true),
            (format!("\"a\", {strong}"), true, true),
            (format!("\"a,b\",{strong}"), true, true),
            (format!(", ,\t{weak} , "), true, false),
            (format!("{weak}, {strong}"), true, true),
            (format!("\"a\", \"{}\"", "0".repeat(64)), false, false),
            (upper, false, false),
            (strong.trim_matches('"').to_owned(), false, false),
            (format!("w/{strong}"), false, false),
            (format!("\"unclosed, {strong}"), false, false),
            (String::new(), false, false),
            ("\"\"".to_owned(), false, false),
        ];
        for (field, weakly, strongly) in cases {
            assert_eq!(tag.listed_weakly(&field), weakly, "{field}");
            assert_eq!(tag.listed_strongly(&field), strongly, "{field}");
        }
    }

    #[test]
    fn a_range_validator_is_one_strong_tag() {
        let tag = EntityTag::of(b"x");
        assert!(tag.is_range_validator(&tag.to_string()));
        for field in [
            format!("W/{tag}"),
            "*".to_owned(),
            "Sun, 06 Nov 1994 08:49:37 GMT".to_owned(),
            format!("{tag}, \"a\""),
            EntityTag::of(b"y").to_string(),
        ] {
            assert!(!tag.is_range_validator(&field), "{field}");
        }
    }
}
