//! On systems that keep user namespaces from programs without an AppArmor profile: loads one for
//! what cargo builds, or says how.

use crate::Failure;
use crate::debian::{self, Rights};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// Reads 1 where the restriction is on (Ubuntu 23.10 and later).
const SWITCH: &str = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns";

/// Sees to it that what is built under `target` can make sandboxes as a plain user.
///
/// # Errors
/// [`Failure::Usage`] with the exact command where we may not load the profile.
pub(crate) fn ensure(target: &Path) -> Result<(), Failure> {
    let restricted = fs::read_to_string(SWITCH).is_ok_and(|text| text.trim() == "1");
    // Root is not restricted.
    if !restricted || debian::rights() == Rights::Root {
        return Ok(());
    }
    let file = target.join("gleaner-apparmor");
    let profile = profile(target);
    // The profile outlives us in the kernel until the next boot: load it once.
    if fs::read_to_string(&file).is_ok_and(|text| text == profile) && loaded() {
        return Ok(());
    }
    fs::create_dir_all(target)
        .and_then(|()| fs::write(&file, &profile))
        .map_err(|e| Failure::Failed(format!("{}: {e}", file.display())))?;
    println!("loading an AppArmor profile: sandboxes of a plain user need user namespaces");
    let status = Command::new("sudo")
        .args(["-n", "apparmor_parser", "-r"])
        .arg(&file)
        .stdin(Stdio::null())
        .status();
    if status.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    Err(Failure::Usage(format!(
        "please run: sudo apparmor_parser -r {}",
        file.display()
    )))
}

/// The same as `packaging/apparmor/gleaner`, for the binaries of the target directory.
fn profile(target: &Path) -> String {
    format!(
        "abi <abi/4.0>,\ninclude <tunables/global>\n\
         profile gleaner-built \"{}/{{debug,release}}/{{gleaner,deps/*}}\" flags=(unconfined) {{\n\
         \x20 userns,\n}}\n",
        target.display()
    )
}

/// Whether the profile is in the kernel; where that is not for us to know, it is not.
fn loaded() -> bool {
    fs::read_to_string("/sys/kernel/security/apparmor/profiles")
        .is_ok_and(|text| text.contains("gleaner-built"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_covers_what_cargo_builds() {
        let text = profile(Path::new("/src/target"));
        assert!(
            text.contains("\"/src/target/{debug,release}/{gleaner,deps/*}\""),
            "{text}"
        );
        assert!(text.contains("userns,"), "{text}");
    }
}
