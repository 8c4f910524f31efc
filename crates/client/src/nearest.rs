//! What was perhaps meant by a word that nobody knows.

/// The word that is nearest by edits, however far.
pub(crate) fn nearest<'w>(word: &str, known: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    known.min_by_key(|other| {
        // A word that starts alike is what people forget the end of.
        let distance = strsim::damerau_levenshtein(word, other);
        let starts = other.starts_with(word) || word.starts_with(other);
        if starts { distance.min(2) } else { distance }
    })
}
