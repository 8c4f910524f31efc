//! Texts with `{axis}` in them. `{{` gives `{`; a brace that names nothing known stays.

use alloc::borrow::ToOwned as _;
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// A text that stays as it is where placeholders are replaced.
#[must_use]
pub fn verbatim(text: &str) -> String {
    text.replace('{', "{{")
}

/// A piece of a template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Placeholder {
    /// Text as it is.
    Text(String),
    /// The value of this name.
    Name(String),
}

/// A text cut at its placeholders.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Template {
    pieces: Vec<Placeholder>,
}

/// A placeholder had no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no value for {{{0}}}")]
pub struct TemplateError(pub String);

impl Template {
    /// Cuts `text` at the placeholders for which `known` says yes.
    #[must_use]
    pub fn parse(text: &str, known: &dyn Fn(&str) -> bool) -> Self {
        let (mut pieces, mut plain, mut rest) = (Vec::new(), String::new(), text);
        while let Some(at) = rest.find('{') {
            plain.push_str(&rest[..at]);
            let tail = &rest[at..];
            if let Some(after) = tail.strip_prefix("{{") {
                plain.push('{');
                rest = after;
                continue;
            }
            let name = tail[1..].find('}').map(|end| &tail[1..=end]);
            match name.filter(|name| known(name)) {
                Some(name) => {
                    if !plain.is_empty() {
                        pieces.push(Placeholder::Text(core::mem::take(&mut plain)));
                    }
                    pieces.push(Placeholder::Name(name.to_owned()));
                    rest = &tail[name.len() + 2..];
                }
                None => {
                    plain.push_str(&tail[..1]);
                    rest = &tail[1..];
                }
            }
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            pieces.push(Placeholder::Text(plain));
        }
        Self { pieces }
    }

    /// The names it asks for, in order, repeated as written.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter_map(|piece| match piece {
            Placeholder::Name(name) => Some(name.as_str()),
            Placeholder::Text(_) => None,
        })
    }

    /// The text with every placeholder replaced.
    ///
    /// # Errors
    /// A placeholder for which `value` has nothing.
    pub fn fill<'v>(
        &self,
        value: &dyn Fn(&str) -> Option<alloc::borrow::Cow<'v, str>>,
    ) -> Result<String, TemplateError> {
        let mut text = String::new();
        for piece in &self.pieces {
            match piece {
                Placeholder::Text(plain) => text.push_str(plain),
                Placeholder::Name(name) => {
                    text.push_str(&value(name).ok_or_else(|| TemplateError(name.clone()))?);
                }
            }
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::borrow::Cow;
    use alloc::string::ToString;

    fn filled(text: &str) -> String {
        let template = Template::parse(text, &|name| name == "n" || name.is_empty());
        template.fill(&|_| Some(Cow::Borrowed("7"))).unwrap()
    }

    #[test]
    fn known_names_are_replaced_and_other_braces_stay() {
        for (text, expected) in [
            ("frame{n}.png", "frame7.png"),
            ("{n}{n}", "77"),
            ("{{n}}", "{n}}"),
            ("{{n}", "{n}"),
            ("{unknown}", "{unknown}"),
            ("awk '{print $1}'", "awk '{print $1}'"),
            ("{\"a\":{\"b\":1}}", "{\"a\":{\"b\":1}}"),
            ("in {}", "in 7"),
            ("{", "{"),
            ("}", "}"),
            ("{{", "{"),
            ("é{n}é", "é7é"),
            ("{{{n}", "{7"),
        ] {
            assert_eq!(filled(text), expected, "{text}");
        }
    }

    #[test]
    fn a_name_without_a_value_is_an_error_that_names_it() {
        let template = Template::parse("{n}", &|_| true);
        assert_eq!(
            template.fill(&|_| None).unwrap_err().to_string(),
            "no value for {n}"
        );
    }
}
