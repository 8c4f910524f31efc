//! Whose program is at the other end of a connection over loopback. Sockets of the internet carry no
//! word of the kernel about that, but its table of them does (Linux, `proc_net_tcp.rst`).

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

/// The tables of this PC; a program may speak IPv4 through a socket of IPv6.
const TABLES: [(&str, &str); 2] = [("/proc/net/tcp", ""), ("/proc/net/tcp6", MAPPED)];

/// What stands before an address of IPv4 in the table of IPv6: three words as the processor has them.
#[cfg(target_endian = "little")]
const MAPPED: &str = "0000000000000000FFFF0000";
#[cfg(target_endian = "big")]
const MAPPED: &str = "00000000000000000000FFFF";

/// Most bytes of a table that are read: a hundred for each connection, of which there are 65,536 at
/// most between two addresses.
const TABLE_BYTES_MAX: u64 = 64 << 20;

/// The uid that holds the `theirs` end of a connection to `ours`; none where nobody does any more.
pub(super) fn uid(theirs: SocketAddr, ours: SocketAddr) -> Option<u32> {
    let ends = [end(theirs)?, end(ours)?];
    TABLES.iter().find_map(|(table, before)| {
        look(
            Path::new(table),
            &ends.each_ref().map(|e| format!("{before}{e}")),
        )
    })
}

/// An end as the tables name it: the address as the processor reads it, and the port.
fn end(address: SocketAddr) -> Option<String> {
    let SocketAddr::V4(address) = address else {
        return None;
    };
    let ip: &Ipv4Addr = address.ip();
    let word = u32::from_ne_bytes(ip.octets());
    Some(format!("{word:08X}:{:04X}", address.port()))
}

fn look(table: &Path, ends: &[String; 2]) -> Option<u32> {
    let table = BufReader::new(File::open(table).ok()?.take(TABLE_BYTES_MAX));
    table
        .lines()
        .map_while(Result::ok)
        .find_map(|row| owner(&row, ends))
}

/// The uid of a row, where it is the row of these ends. A socket that its program has closed has no
/// number any more, and its uid means nothing.
fn owner(row: &str, [local, remote]: &[String; 2]) -> Option<u32> {
    let fields: Vec<&str> = row.split_whitespace().collect();
    let [_, here, there, _, _, _, _, uid, _, inode, ..] = fields[..] else {
        return None;
    };
    (here == local && there == remote && inode != "0").then(|| uid.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn the_kernel_says_whose_a_connection_is() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let ours = listener.local_addr().unwrap();
        let stream = TcpStream::connect(ours).unwrap();
        let (_held, theirs) = listener.accept().unwrap();
        let own = rustix::process::geteuid().as_raw();
        assert_eq!(uid(theirs, ours), Some(own));
        // Through a socket of IPv6.
        let mapped = Ipv4Addr::LOCALHOST.to_ipv6_mapped();
        let second = TcpStream::connect((mapped, ours.port())).unwrap();
        let (_held, theirs_too) = listener.accept().unwrap();
        assert_eq!(uid(theirs_too, ours), Some(own));
        drop((stream, second));
        let nobody = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        assert_eq!(uid(nobody, ours), None);
    }

    #[test]
    fn a_row_is_believed_only_for_its_ends_and_while_somebody_has_it() {
        let ends = ["0100007F:C350".to_owned(), "0100007F:1F90".to_owned()];
        let row = |local, remote, uid, inode| {
            format!(
                "   3: {local} {remote} 01 00000000:00000000 00:00000000 00000000 {uid:>5}        0 \
                 {inode} 1 0000000000000000 20 4 30 10 -1"
            )
        };
        let [one, other] = &ends;
        assert_eq!(owner(&row(one, other, "1000", "777"), &ends), Some(1000));
        assert_eq!(
            owner(&row(other, one, "1000", "777"), &ends),
            None,
            "our own end"
        );
        assert_eq!(owner(&row(one, other, "0", "0"), &ends), None, "closed");
        assert_eq!(owner(&row(one, other, "x", "777"), &ends), None);
        assert_eq!(owner("  sl  local_address rem_address   st", &ends), None);
    }
}
