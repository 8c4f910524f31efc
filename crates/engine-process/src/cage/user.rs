//! The user that a process of the cage becomes.

use super::Trouble;
use rustix::process::{Gid, Uid};

/// Takes a user id of the namespace, for good. Capabilities over the namespace stay.
pub(crate) fn become_user(id: u32) -> Result<(), Trouble> {
    let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
    rustix::thread::set_thread_groups(&[]).map_err(Trouble::at("leave all groups"))?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)
        .map_err(Trouble::at("take a group of the cage"))?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)
        .map_err(Trouble::at("take a user of the cage"))
}
