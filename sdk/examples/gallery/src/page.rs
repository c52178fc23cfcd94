//! The page. One file of HTML and CSS, without scripts and without anything from
//! elsewhere; links are relative to the page, so a host may serve it under any path.

use std::fmt::Write as _;

/// One entry on the page.
pub struct Card<'a> {
    /// Checked to hold nothing that HTML would have to escape.
    pub name: &'a str,
    /// Sanitised by `demo/markdown`.
    pub html: String,
}

const HEAD: &str = include_str!("page.html");

/// The whole page.
pub fn render(cards: &[Card<'_>]) -> String {
    let mut page = String::from(HEAD);
    for Card { name, html } in cards {
        // Writing to a string cannot fail.
        let _ = write!(
            page,
            r#"<article class="card">
<a class="picture" href="gallery/image/{name}"><img src="gallery/thumb/{name}" alt="{name}" loading="lazy" width="640" height="427"></a>
<div class="text">
{html}</div>
</article>
"#
        );
    }
    let _ = write!(
        page,
        "</main>\n<footer>{} pictures. Texts by <code>demo/markdown</code>, thumbnails by <code>demo/thumbnail</code>, this page by <code>demo/gallery</code>.</footer>\n</body>\n</html>\n",
        cards.len()
    );
    page
}
