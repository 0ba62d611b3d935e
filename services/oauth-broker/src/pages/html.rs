//! HTML into which text goes escaped or not at all.

use std::fmt::Write as _;

/// A piece of a page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Html(String);

impl Html {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Markup that stands in our source.
    pub(crate) fn raw(mut self, markup: &'static str) -> Self {
        self.0.push_str(markup);
        self
    }

    /// Text from anywhere, in an element or in a quoted attribute.
    pub(crate) fn text(mut self, text: &str) -> Self {
        for character in text.chars() {
            let _ = match character {
                '&' => write!(self.0, "&amp;"),
                '<' => write!(self.0, "&lt;"),
                '>' => write!(self.0, "&gt;"),
                '"' => write!(self.0, "&quot;"),
                '\'' => write!(self.0, "&#39;"),
                other => write!(self.0, "{other}"),
            };
        }
        self
    }

    /// Another piece.
    pub(crate) fn then(mut self, piece: &Self) -> Self {
        self.0.push_str(&piece.0);
        self
    }

    /// The markup.
    pub(crate) fn into_string(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_become_markup() {
        let html = Html::new()
            .raw("<p title=\"")
            .text("\" onclick='x'")
            .raw("\">")
            .text("<script>&")
            .raw("</p>");
        assert_eq!(
            html.into_string(),
            "<p title=\"&quot; onclick=&#39;x&#39;\">&lt;script&gt;&amp;</p>"
        );
    }
}
