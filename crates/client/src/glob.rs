//! Globs over local files, as a shell reads them: `*`, `?`, `[…]`, `{a,b}` within a name, `**`
//! across folders; names that start with a dot only where the pattern says so.

use globset::{GlobBuilder, GlobMatcher};
use std::path::{Component, Path, PathBuf};

/// Most directory entries that one pattern may look at. A pattern that needs more walks a whole
/// disk, which nobody means.
const ENTRIES_MAX: usize = 5_000_000;

/// Regular files that match `pattern`, relative to `base` unless the pattern is absolute, sorted by
/// their bytes.
pub(crate) fn files(base: &Path, pattern: &str) -> Result<Vec<PathBuf>, String> {
    let parts: Vec<Component<'_>> = Path::new(pattern).components().collect();
    let fixed = parts.iter().take_while(|part| !has_meta(part)).count();
    if fixed == parts.len() {
        let file = base.join(pattern);
        return Ok(if file.is_file() {
            vec![file]
        } else {
            Vec::new()
        });
    }
    let root: PathBuf = parts[..fixed].iter().collect();
    let matchers = parts[fixed..]
        .iter()
        .map(|part| Part::new(&part.as_os_str().to_string_lossy()))
        .collect::<Result<Vec<_>, _>>();
    // What a shell leaves of a pattern that matches nothing, or made of one: a name as it is.
    let itself = Some(base.join(pattern)).filter(|path| path.is_file());
    let matchers = match (matchers, &itself) {
        (Err(_), Some(file)) => return Ok(vec![file.clone()]),
        (matchers, _) => matchers?,
    };
    let mut walk = Walk {
        found: Vec::new(),
        seen: 0,
    };
    walk.descend(&base.join(root), &matchers)?;
    walk.found.sort();
    walk.found.dedup();
    match itself {
        Some(file) if walk.found.is_empty() => Ok(vec![file]),
        _ => Ok(walk.found),
    }
}

/// The folders in front of the first part that is a glob.
pub(crate) fn fixed_part(pattern: &str) -> PathBuf {
    let parts = Path::new(pattern).components();
    parts.take_while(|part| !has_meta(part)).collect()
}

fn has_meta(part: &Component<'_>) -> bool {
    part.as_os_str()
        .to_string_lossy()
        .contains(['*', '?', '[', '{'])
}

/// One name of the pattern.
enum Part {
    /// `**`
    Any,
    /// Everything else.
    Name { matcher: GlobMatcher, dotted: bool },
}

impl Part {
    fn new(text: &str) -> Result<Self, String> {
        if text == "**" {
            return Ok(Self::Any);
        }
        let glob = GlobBuilder::new(text)
            .literal_separator(true)
            .build()
            .map_err(|problem| format!("is not a glob: {}", problem.kind()))?;
        Ok(Self::Name {
            matcher: glob.compile_matcher(),
            dotted: text.starts_with('.'),
        })
    }
}

struct Walk {
    found: Vec<PathBuf>,
    seen: usize,
}

impl Walk {
    fn descend(&mut self, folder: &Path, parts: &[Part]) -> Result<(), String> {
        let Some((part, rest)) = parts.split_first() else {
            return Ok(());
        };
        if matches!(part, Part::Any) {
            // `**` is also no folder at all.
            self.descend(folder, rest)?;
        }
        // What cannot be listed has no files for us; zero matches are an error of the caller.
        let Ok(entries) = std::fs::read_dir(folder) else {
            return Ok(());
        };
        for entry in entries.flatten() {
            self.seen += 1;
            if self.seen > ENTRIES_MAX {
                return Err(format!(
                    "looks at more than {ENTRIES_MAX} files; name the folder more narrowly"
                ));
            }
            let name = entry.file_name();
            let hidden = name.as_encoded_bytes().starts_with(b".");
            let path = entry.path();
            match part {
                // Links are not followed here: a link to a parent would never end.
                Part::Any if !hidden && entry.file_type().is_ok_and(|kind| kind.is_dir()) => {
                    self.descend(&path, parts)?;
                }
                Part::Any if !hidden && rest.is_empty() && path.is_file() => self.found.push(path),
                Part::Any => {}
                Part::Name { matcher, dotted } => {
                    if (hidden && !dotted) || !matcher.is_match(Path::new(&name)) {
                        continue;
                    }
                    if !rest.is_empty() {
                        self.descend(&path, rest)?;
                    } else if path.is_file() {
                        self.found.push(path);
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(base: &Path, pattern: &str) -> Vec<String> {
        let cut = |path: &PathBuf| path.strip_prefix(base).unwrap().display().to_string();
        files(base, pattern).unwrap().iter().map(cut).collect()
    }

    #[test]
    fn patterns_match_as_in_a_shell() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path();
        for name in [
            "b.txt",
            "a.txt",
            "c.dat",
            ".hidden.txt",
            "d/e.txt",
            "d/f/g.txt",
            "d/.h/i.txt",
        ] {
            let path = base.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, name).unwrap();
        }
        std::os::unix::fs::symlink("..", base.join("d/up")).unwrap();
        std::os::unix::fs::symlink("a.txt", base.join("link.txt")).unwrap();
        for (pattern, expected) in [
            ("*.txt", vec!["a.txt", "b.txt", "link.txt"]),
            ("[ab].txt", vec!["a.txt", "b.txt"]),
            ("{a,c}.*", vec!["a.txt", "c.dat"]),
            ("?.dat", vec!["c.dat"]),
            ("*/*.txt", vec!["d/e.txt"]),
            ("d/**/*.txt", vec!["d/e.txt", "d/f/g.txt"]),
            ("d/**", vec!["d/e.txt", "d/f/g.txt"]),
            (".*.txt", vec![".hidden.txt"]),
            ("a.txt", vec!["a.txt"]),
            ("./d/../a.txt", vec!["d/../a.txt"]),
            ("none*", vec![]),
            ("none/*.txt", vec![]),
            ("d", vec![]),
        ] {
            assert_eq!(names(base, pattern), expected, "{pattern}");
        }
        let absolute = base.join("?.dat");
        assert_eq!(
            files(Path::new("/"), absolute.to_str().unwrap())
                .unwrap()
                .len(),
            1
        );
        assert!(files(base, "[").unwrap_err().contains("is not a glob"));
        for name in ["x[1].txt", "y[1"] {
            std::fs::write(base.join(name), name).unwrap();
            assert_eq!(names(base, name), [name]);
        }
    }
}
