//! CommonMark to sanitised HTML, with bounds on what a hostile text can cost.
//!
//! `pulldown-cmark` parses, `ammonia` sanitises: scripts, event handlers and
//! styles go, links get `rel="noopener noreferrer"`. The sanitiser's parser looks
//! back along the open elements, so a text that nests without end would cost the
//! square of its length; hence the limits on depth and on raw tags.

use std::fmt;

use pulldown_cmark::{Event, HeadingLevel, Options, Parser, Tag, TagEnd, html};

/// Most bytes of a text: a long book chapter.
pub const MAX_MARKDOWN_BYTES: usize = 1024 * 1024;
/// Deepest nesting of quotes, lists and emphasis. Hand-written texts stay below 10.
pub const MAX_DEPTH: usize = 64;
/// Most tags of raw HTML in a text; each may open one more level for the sanitiser.
pub const MAX_RAW_TAGS: usize = 2_000;

/// What a text may use beyond CommonMark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extension {
    /// Tables with pipes.
    Tables,
    /// `~~struck through~~`.
    Strikethrough,
    /// Typographic quotes, dashes and ellipses.
    SmartPunctuation,
}

impl Extension {
    /// All extensions.
    pub const ALL: [Self; 3] = [Self::Tables, Self::Strikethrough, Self::SmartPunctuation];

    /// The name by which a caller asks for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tables => "tables",
            Self::Strikethrough => "strikethrough",
            Self::SmartPunctuation => "smart-punctuation",
        }
    }

    /// The extension with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|extension| extension.name() == name)
    }

    const fn option(self) -> Options {
        match self {
            Self::Tables => Options::ENABLE_TABLES,
            Self::Strikethrough => Options::ENABLE_STRIKETHROUGH,
            Self::SmartPunctuation => Options::ENABLE_SMART_PUNCTUATION,
        }
    }
}

/// A rendered text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// Sanitised HTML, without `html` and `body`.
    pub html: String,
    /// Plain text of the first heading of the highest level, if there is one.
    pub title: Option<String>,
}

/// Why a text is not rendered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenderError {
    /// More than [`MAX_MARKDOWN_BYTES`].
    TooLarge(usize),
    /// The bytes are not UTF-8 from this place on.
    NotUtf8(usize),
    /// Nested deeper than [`MAX_DEPTH`].
    TooDeep,
    /// More than [`MAX_RAW_TAGS`] tags of raw HTML.
    TooManyTags,
}

impl fmt::Display for RenderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge(bytes) => {
                write!(f, "a text of {bytes} bytes is above the limit of {MAX_MARKDOWN_BYTES}")
            }
            Self::NotUtf8(at) => write!(f, "the text is not UTF-8 from byte {at} on"),
            Self::TooDeep => write!(f, "the text nests deeper than {MAX_DEPTH} levels"),
            Self::TooManyTags => write!(f, "the text has more than {MAX_RAW_TAGS} tags of HTML"),
        }
    }
}

impl std::error::Error for RenderError {}

/// Renders a text.
///
/// # Errors
///
/// The limit that the text breaks, or where it is not UTF-8.
pub fn render(markdown: &[u8], extensions: &[Extension]) -> Result<Rendered, RenderError> {
    if markdown.len() > MAX_MARKDOWN_BYTES {
        return Err(RenderError::TooLarge(markdown.len()));
    }
    let markdown =
        std::str::from_utf8(markdown).map_err(|e| RenderError::NotUtf8(e.valid_up_to()))?;
    let options = extensions.iter().fold(Options::empty(), |all, one| all | one.option());

    let mut watch = Watch::default();
    let mut events = Vec::new();
    for event in Parser::new_ext(markdown, options) {
        watch.see(&event)?;
        events.push(event);
    }
    let mut unsafe_html = String::with_capacity(markdown.len() + markdown.len() / 2);
    html::push_html(&mut unsafe_html, events.into_iter());
    Ok(Rendered { html: ammonia::clean(&unsafe_html), title: watch.title() })
}

/// Watches the events go by: limits, and the title.
#[derive(Default)]
struct Watch {
    depth: usize,
    raw_tags: usize,
    heading: Option<(HeadingLevel, String)>,
    best: Option<(HeadingLevel, String)>,
}

impl Watch {
    fn see(&mut self, event: &Event<'_>) -> Result<(), RenderError> {
        match event {
            Event::Start(tag) => {
                self.depth += 1;
                if self.depth > MAX_DEPTH {
                    return Err(RenderError::TooDeep);
                }
                if let Tag::Heading { level, .. } = tag {
                    self.heading = Some((*level, String::new()));
                }
            }
            Event::End(tag) => {
                self.depth -= 1;
                if matches!(tag, TagEnd::Heading(_)) {
                    self.keep_if_higher();
                }
            }
            Event::Html(raw) | Event::InlineHtml(raw) => {
                self.raw_tags += raw.bytes().filter(|b| *b == b'<').count();
                if self.raw_tags > MAX_RAW_TAGS {
                    return Err(RenderError::TooManyTags);
                }
            }
            Event::Text(text) | Event::Code(text) => {
                if let Some((_, heading)) = &mut self.heading {
                    heading.push_str(text);
                }
            }
            Event::SoftBreak | Event::HardBreak => {
                if let Some((_, heading)) = &mut self.heading {
                    heading.push(' ');
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn keep_if_higher(&mut self) {
        if let Some((level, text)) = self.heading.take()
            && !text.trim().is_empty()
            && self.best.as_ref().is_none_or(|(best, _)| level < *best)
        {
            self.best = Some((level, text));
        }
    }

    fn title(self) -> Option<String> {
        self.best.map(|(_, text)| text.trim().to_owned())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn html(markdown: &str) -> String {
        render(markdown.as_bytes(), &[]).unwrap().html
    }

    #[test]
    fn commonmark_becomes_html() {
        assert_eq!(
            html("# Hi\n\n*a* **b** `c` [d](https://example.org/)\n\n- e\n"),
            "<h1>Hi</h1>\n<p><em>a</em> <strong>b</strong> <code>c</code> \
             <a href=\"https://example.org/\" rel=\"noopener noreferrer\">d</a></p>\n\
             <ul>\n<li>e</li>\n</ul>\n"
        );
    }

    #[test]
    fn what_can_run_is_removed() {
        for (markdown, bad) in [
            ("<script>alert(1)</script>", "alert"),
            ("<img src=x onerror=alert(1)>", "onerror"),
            ("[x](javascript:alert(1))", "javascript:"),
            ("<a href=\"java\tscript:alert(1)\">x</a>", "script:"),
            ("<iframe src=\"https://example.org\"></iframe>", "iframe"),
            ("<svg><style><img src=x onerror=alert(1)></style></svg>", "onerror"),
            ("<p style=\"position:fixed\">x</p>", "style"),
            ("![x](data:text/html,<script>1</script>)", "data:"),
        ] {
            let html = html(markdown);
            assert!(!html.contains(bad), "{markdown} gave {html}");
        }
    }

    #[test]
    fn extensions_are_off_until_asked_for() {
        let text = b"|a|\n|-|\n|b|\n\n~~c~~ \"d\"";
        let plain = render(text, &[]).unwrap().html;
        assert!(!plain.contains("<table>") && !plain.contains("<del>"));
        let all = render(text, &Extension::ALL).unwrap().html;
        assert!(all.contains("<table>") && all.contains("<del>c</del>") && all.contains('“'));
        for extension in Extension::ALL {
            assert_eq!(Extension::from_name(extension.name()), Some(extension));
        }
    }

    #[test]
    fn the_title_is_the_first_of_the_highest_headings() {
        let title = |text: &str| render(text.as_bytes(), &[]).unwrap().title;
        assert_eq!(title("## a\n# b *c*\n# d").as_deref(), Some("b c"));
        assert_eq!(title("no heading"), None);
        assert_eq!(title("#\n\n## x").as_deref(), Some("x"));
    }

    #[test]
    fn hostile_texts_are_refused_soon() {
        let large = vec![b'a'; MAX_MARKDOWN_BYTES + 1];
        assert_eq!(render(&large, &[]), Err(RenderError::TooLarge(MAX_MARKDOWN_BYTES + 1)));
        assert_eq!(render(b"ab\xff", &[]), Err(RenderError::NotUtf8(2)));
        assert_eq!(render(">".repeat(5_000).as_bytes(), &[]), Err(RenderError::TooDeep));
        let tags = "<div>".repeat(MAX_RAW_TAGS + 1);
        assert_eq!(render(tags.as_bytes(), &[]), Err(RenderError::TooManyTags));
        // At the limits it still works.
        assert!(render("<div>".repeat(MAX_RAW_TAGS).as_bytes(), &[]).is_ok());
        assert!(render(format!("{}x", ">".repeat(MAX_DEPTH - 1)).as_bytes(), &[]).is_ok());
    }
}
