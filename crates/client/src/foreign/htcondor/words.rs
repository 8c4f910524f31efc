//! Values that have a syntax of their own: arguments, environments, sizes. Source: the manual page
//! condor_submit(1).

/// Arguments in either syntax: words between spaces, or all in double quotes with single ones
/// around what belongs together.
pub(super) fn arguments(text: &str) -> Result<Vec<String>, String> {
    match quoted(text)? {
        Some(inner) => words(&inner),
        None => {
            let plain = text.replace("\\\"", "\"");
            Ok(plain.split_whitespace().map(str::to_owned).collect())
        }
    }
}

/// Names and values of an environment, in either syntax.
pub(super) fn environment(text: &str) -> Result<Vec<(String, String)>, String> {
    let pairs = match quoted(text)? {
        Some(inner) => words(&inner)?,
        None => {
            let parts = text.split(';').map(|part| part.trim().to_owned());
            parts.filter(|part| !part.is_empty()).collect()
        }
    };
    let pair = |text: String| {
        let pair = text.split_once('=').filter(|(name, _)| !name.is_empty());
        let pair = pair.map(|(name, value)| (name.to_owned(), value.to_owned()));
        pair.ok_or_else(|| format!("`{text}` has no name; write NAME=VALUE"))
    };
    pairs.into_iter().map(pair).collect()
}

/// What stands in double quotes, where the whole does; two of them are one.
fn quoted(text: &str) -> Result<Option<String>, String> {
    let text = text.trim();
    let Some(rest) = text.strip_prefix('"') else {
        return Ok(None);
    };
    let inner = rest.strip_suffix('"');
    let inner = inner.ok_or("the double quotes are not closed; end with \"")?;
    if inner.replace("\"\"", "").contains('"') {
        return Err("write \"\" for a double quote between double quotes".to_owned());
    }
    Ok(Some(inner.replace("\"\"", "\"")))
}

/// Words between spaces; between single quotes spaces belong to the word, and two quotes are one.
fn words(text: &str) -> Result<Vec<String>, String> {
    let (mut all, mut word, mut inside) = (Vec::new(), None::<String>, false);
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\'' if inside && letters.peek() == Some(&'\'') => {
                letters.next();
                word.get_or_insert_default().push('\'');
            }
            '\'' => {
                inside = !inside;
                word.get_or_insert_default();
            }
            space if space.is_whitespace() && !inside => all.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    if inside {
        return Err("the single quotes are not closed; write '' for one quote".to_owned());
    }
    all.extend(word);
    Ok(all)
}

/// A word as the shell reads it.
pub(super) fn for_shell(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// A size as a job file has it; a bare number counts `bare` bytes.
pub(super) fn size(text: &str, bare: &str) -> Option<String> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    number.parse::<f64>().ok().filter(|number| *number > 0.0)?;
    let unit = match unit.trim().to_ascii_uppercase().as_str() {
        "" => bare,
        "K" | "KB" | "KIB" => "KiB",
        "M" | "MB" | "MIB" => "MiB",
        "G" | "GB" | "GIB" => "GiB",
        "T" | "TB" | "TIB" => "TiB",
        _ => return None,
    };
    Some(format!("{number}{unit}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read_in_both_syntaxes() {
        let cases = [
            ("-a 1  two", vec!["-a", "1", "two"]),
            ("say \\\"x\\\"", vec!["say", "\"x\""]),
            ("\"3 simple 'two words'\"", vec!["3", "simple", "two words"]),
            ("\"a 'it''s' ''\"", vec!["a", "it's", ""]),
            ("\"say \"\"x\"\"\"", vec!["say", "\"x\""]),
            ("", vec![]),
        ];
        for (text, expected) in cases {
            assert_eq!(arguments(text).unwrap(), expected, "{text}");
        }
        for text in ["\"open", "\"a 'b\"", "\"a\"b\""] {
            arguments(text).unwrap_err();
        }
    }

    #[test]
    fn environments_are_read_in_both_syntaxes() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let old = environment("A=1; B=x y").unwrap();
        assert_eq!(old, [pair("A", "1"), pair("B", "x y")]);
        let new = environment("\"A=1 B='x y=z'\"").unwrap();
        assert_eq!(new, [pair("A", "1"), pair("B", "x y=z")]);
        environment("=1").unwrap_err();
    }

    #[test]
    fn sizes_have_units_or_those_of_their_command() {
        for (text, bare, expected) in [
            ("853", "MiB", Some("853MiB")),
            ("2GB", "MiB", Some("2GiB")),
            ("1.5 G", "KiB", Some("1.5GiB")),
            ("10", "KiB", Some("10KiB")),
            ("0", "MiB", None),
            ("Memory * 2", "MiB", None),
        ] {
            assert_eq!(size(text, bare).as_deref(), expected, "{text}");
        }
    }
}
