//! Names of files inside a sandbox: relative, and never out of the scratch directory.

/// Longest path, in bytes: Linux's PATH_MAX.
const PATH_BYTES_MAX: usize = 4095;
/// Longest part of a path, in bytes: NAME_MAX of every usual file system.
const PART_BYTES_MAX: usize = 255;

/// What is wrong with `name` as a path in the sandbox, if anything.
pub(crate) fn problem(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        return Some("is empty; name a file");
    }
    if name.starts_with('/') {
        return Some("is an absolute path; write it relative to the task's own directory");
    }
    if name.contains('\0') {
        return Some("holds a NUL byte, which no file name may");
    }
    if name.len() > PATH_BYTES_MAX {
        return Some("is longer than 4095 bytes; choose a shorter one");
    }
    for part in name.split('/') {
        match part {
            ".." => return Some("leads out of the task's own directory; leave `..` out"),
            "" | "." => return Some("has an empty part or a `.`; write the plain path"),
            _ if part.len() > PART_BYTES_MAX => {
                return Some("has a part longer than 255 bytes; choose a shorter one");
            }
            _ => {}
        }
    }
    None
}

/// `name` without a leading `./`, as people write it for programs.
pub(crate) fn plain(name: &str) -> &str {
    let mut name = name;
    while let Some(rest) = name.strip_prefix("./") {
        name = rest.trim_start_matches('/');
    }
    name
}

/// Where a program that the user sent lies in the sandbox, and what to call it there.
///
/// `./tool` and `bin/tool` keep their place; `/home/me/tool` and `../tool` come to lie on top.
pub(crate) fn program(command: &str) -> (String, String) {
    let inside = plain(command);
    if problem(inside).is_none() {
        let called = match inside.contains('/') {
            true => inside.to_owned(),
            // Without a slash it would be looked for in PATH.
            false => format!("./{inside}"),
        };
        return (inside.to_owned(), called);
    }
    let base = command.rsplit('/').next().unwrap_or(command);
    (base.to_owned(), format!("./{base}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside() {
        for good in ["a", "a/b", "a b", ".hidden", "a\nb", "...", "é"] {
            assert_eq!(problem(good), None, "{good:?}");
        }
        let long = "x".repeat(256);
        for bad in [
            "", "/a", "..", "../a", "a/../b", "a//b", "./a", "a/", "a\0b", &long,
        ] {
            assert!(problem(bad).is_some(), "{bad:?}");
        }
    }

    #[test]
    fn a_program_of_the_users_is_found_where_its_command_looks() {
        for (command, name, called) in [
            ("./tool", "tool", "./tool"),
            ("bin/tool", "bin/tool", "bin/tool"),
            ("/home/me/tool", "tool", "./tool"),
            ("../tool", "tool", "./tool"),
            ("./bin/tool", "bin/tool", "bin/tool"),
        ] {
            assert_eq!(program(command), (name.to_owned(), called.to_owned()));
        }
    }
}
